"""The benchmark still measures what there is."""

import subprocess
import sys
from pathlib import Path

TIMEOUT_SECONDS = 60


def test_the_benchmark_runs_from_start_to_report(root: Path, tmp_path: Path) -> None:
    """A few real logins, both floors, mails and a start come out as a full report: `make bench` hasn't rotted."""
    report = tmp_path / "report.md"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke", "--output", str(report)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = report.read_text(encoding="utf-8")
    assert done.stdout.strip() == text.strip()
    rows = dict(line.strip("| ").replace("**", "").split(" | ", 1) for line in text.splitlines() if " | " in line)
    measured = {name: float(rest.split()[0].replace(",", "")) for name, rest in rows.items() if rest[0].isdigit()}
    for name in ("logins / raw SQL floor", "logins/s", "mails/s of one worker, one connection each"):
        assert measured[name] > 0, text
