"""From series to the report: medians, ratios first, targets beside them."""

import platform
import statistics
from collections.abc import Callable
from datetime import datetime

import psutil

from bench.rounds import PARTS, Options, Series


def report(series: Series, options: Options, now: datetime, busy: float) -> str:
    """The whole report in Markdown. `busy` is the machine's load average from before the measurement."""
    values = series.values

    def median(what: str, at_once: int = 0) -> float:
        return statistics.median(values[what, at_once])

    def row(name: str, show: Callable[[int], str], target: str = "") -> str:
        return "| " + " | ".join([name, *map(show, options.levels), target]) + " |"

    def spread(what: str, form: str) -> Callable[[int], str]:
        return lambda at_once: (
            f"{median(what, at_once):{form}} ({min(values[what, at_once]):{form}}-{max(values[what, at_once]):{form}})"
        )

    def pair(call: str) -> Callable[[int], str]:
        return lambda at_once: f"{median(f'{call} p50', at_once):.1f} / {median(f'{call} p99', at_once):.1f}"

    def single(name: str, what: str, form: str, target: str = "") -> str:
        seen = values[what, 0]
        return f"| {name} | {median(what):{form}} | {min(seen):{form}}-{max(seen):{form}} | {target} |"

    how_much = (
        f"{options.rounds} times {options.seconds:g} s each" if options.rounds > 1 else f"{options.seconds:g} s each"
    )
    lines = [
        f"Measured on {now:%Y-%m-%d}: {_machine()}, {options.tenants} tenants, {how_much}, interleaved; medians.",
        f"Before it began, {busy:.1f} other processes were running or waiting for a core (load average).",
        "One web process, one worker, PostgreSQL, Valkey, mail server and load client share the cores; none is pinned.",
        "",
        "| at a time | " + " | ".join(map(str, options.levels)) + " | target |",
        "|---" * (len(options.levels) + 2) + "|",
        row("**logins / raw SQL floor**", spread("logins / raw SQL", ".2f"), "at least 0.50"),
        row("**logins / two calls of an empty handler**", spread("logins / empty calls", ".2f")),
        row("**CPU s per 1,000 logins, all**", spread("all CPU", ".2f"), "at most 1.5"),
        *(row(f"CPU s per 1,000: {part}", spread(f"{part} CPU", ".2f")) for part in PARTS),
        row("CPU s per 1,000: raw SQL floor, PostgreSQL and driver", spread("raw SQL CPU", ".2f")),
        row(
            "CPU s per 1,000: load client / mail server (not counted)",
            lambda at_once: f"{median('client CPU', at_once):.2f} / {median('sink CPU', at_once):.2f}",
        ),
        row("logins/s", spread("logins", ",.0f")),
        row("refused with 503, of all rounds", lambda at_once: f"{sum(values['refused', at_once]):.0f}"),
        row("raw SQL floor, logins/s", spread("raw SQL", ",.0f")),
        row("empty handler, pairs of calls/s", spread("empty calls", ",.0f")),
        *(row(f"{call}, p50 / p99 ms", pair(call)) for call in ("request", "verify", "login")),
        "",
        "| one figure | median | lowest-highest | target |",
        "|---|---|---|---|",
        single("**mails/s, connections kept open / one each**", "kept / one each", ".2f"),
        single(
            "mails/s of one worker, connections kept open", "mails, connections kept open", ",.0f", "at least 1,500"
        ),
        single("mails/s of one worker, one connection each", "mails, one connection each", ",.0f"),
        single(f"accepted to mail server at {options.rate:g}/s, p50 ms", "delivery p50", ".1f", "under 20"),
        single(f"accepted to mail server at {options.rate:g}/s, p99 ms", "delivery p99", ".1f", "under 200"),
        single("`gatehouse web` ready after s", "start", ".2f", "within 2"),
        single("memory of the web process, MB", "web memory", ".0f", "under 120"),
        single("memory of the worker, MB", "worker memory", ".0f", "under 100"),
        "",
    ]
    return "\n".join(lines)


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
