"""`make bench`, or `python -m bench`: measures, prints the report, writes it to bench/results/latest.md."""

import argparse
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.processes import ProcessFailed
from bench.rounds import Options, Series, measure, warm_up
from bench.stack import stack
from bench.table import report

_LATEST: Final = Path(__file__).with_name("results") / "latest.md"
_LEVELS: Final = (1, 16, 64)
_RATE: Final = 200.0


def main() -> int:
    """0, or 1 when something other than a slow answer happened."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often all is measured (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measurement takes (default 3)")
    parser.add_argument("--tenants", type=int, default=1000, help="how many sign in (default 1000)")
    parser.add_argument("--quick", action="store_true", help="one round of one second: a first look")
    parser.add_argument("--smoke", action="store_true", help="a few logins, stores unsafe: only whether it works")
    parser.add_argument("--output", type=Path, default=_LATEST, help="where the report goes (default %(default)s)")
    asked = parser.parse_args()
    options = Options(asked.rounds, asked.seconds, max(asked.tenants, _LEVELS[-1]), _LEVELS, _RATE)
    if asked.quick:
        options = Options(1, 1.0, options.tenants, _LEVELS, _RATE)
    if asked.smoke:
        options = Options(1, 0.1, 4, (2,), 50.0, unsafe_for_tests=True)
    series, (busy, _, _) = Series(), os.getloadavg()
    # Whoever ends us ends what we have started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with stack(tenants=options.tenants, unsafe_for_tests=options.unsafe_for_tests) as running:
            warm_up(running, options)
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
                measure(running, options, series)
    except ProcessFailed as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    text = report(series, options, datetime.now(UTC), busy)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
