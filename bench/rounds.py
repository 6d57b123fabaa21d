"""One round: everything is measured once, one after the other, so that a change of the machine's mood hits all."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from bench.plan import Plan, Result, SqlPlan, argument
from bench.processes import Child, cpu_seconds, memory_mb
from bench.stack import Stack

# Asynchronous work of a login that outlives it: outcomes are written down, the log is flushed.
_SETTLE_SECONDS: Final = 0.2
PARTS: Final = ("web", "worker", "PostgreSQL", "Valkey")

Key: TypeAlias = tuple[str, int]
"""What was measured, and with how many at a time; 0 where that makes no sense."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    rounds: int
    seconds: float
    tenants: int
    levels: Sequence[int]
    rate: float
    unsafe_for_tests: bool = False


@dataclass(slots=True)
class Series:
    """One value a round for everything that is measured."""

    values: defaultdict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, value: float, at_once: int = 0) -> None:
        self.values[what, at_once].append(value)


def warm_up(stack: Stack, options: Options) -> None:
    """Connections are opened, plans and templates cached. Not measured."""
    at_once = options.levels[-1]
    _finish(stack.run("bench.load", _logins(stack, options, at_once)))
    _finish(stack.run("bench.load", _calls(stack, options, at_once)))


def measure(stack: Stack, options: Options, series: Series) -> None:
    """One round; adds a value to every series."""
    for at_once in options.levels:
        _levels(stack, options, series, at_once)
    _delivery(stack, options, series)
    series.add("start", stack.start_seconds())
    series.add("web memory", memory_mb(stack.web.pid))
    series.add("worker memory", memory_mb(stack.worker.pid))
    asyncio.run(stack.let_an_hour_pass())


def _levels(stack: Stack, options: Options, series: Series, at_once: int) -> None:
    before = _spent(stack)
    logins = _finish(stack.run("bench.load", _logins(stack, options, at_once)))
    time.sleep(_SETTLE_SECONDS)
    spent = {who: (seconds - before[who]) * 1000 / logins.count for who, seconds in _spent(stack).items()}
    for who, seconds in spent.items():
        series.add(f"{who} CPU", seconds, at_once)
    series.add("all CPU", sum(spent[part] for part in PARTS), at_once)
    series.add("client CPU", logins.cpu_seconds * 1000 / logins.count, at_once)
    series.add("logins", logins.rate, at_once)
    series.add("refused", logins.refused, at_once)
    for call in ("request", "verify", "login"):
        series.add(f"{call} p50", logins.p50[call], at_once)
        series.add(f"{call} p99", logins.p99[call], at_once)

    calls = _finish(stack.run("bench.load", _calls(stack, options, at_once)))
    series.add("empty calls", calls.rate, at_once)
    series.add("logins / empty calls", logins.rate / calls.rate, at_once)

    plan = SqlPlan(settings=stack.settings, tenants=options.tenants, at_once=at_once, seconds=options.seconds)
    with stack.worker.paused():
        postgres = cpu_seconds(stack.postgres)
        sql = _finish(stack.run("bench.floor_sql", argument(plan)))
        postgres = cpu_seconds(stack.postgres) - postgres
    series.add("raw SQL", sql.rate, at_once)
    series.add("raw SQL CPU", (postgres + sql.cpu_seconds) * 1000 / sql.count, at_once)
    series.add("logins / raw SQL", logins.rate / sql.rate, at_once)


def _delivery(stack: Stack, options: Options, series: Series) -> None:
    paced = _finish(
        stack.run(
            "bench.load",
            argument(
                Plan(
                    work="paced",
                    tenants=options.tenants,
                    port=stack.web_port,
                    mailbox=stack.mailbox_port,
                    seconds=options.seconds,
                    rate=options.rate,
                )
            ),
        )
    )
    series.add("delivery p50", paced.p50["delivery"])
    series.add("delivery p99", paced.p99["delivery"])
    kept, single = (_drain(stack, options, one_mail=one_mail) for one_mail in (False, True))
    series.add("mails, connections kept open", kept)
    series.add("mails, one connection each", single)
    series.add("kept / one each", kept / single)


def _drain(stack: Stack, options: Options, *, one_mail: bool) -> float:
    """Mails a second of one worker that has a mail for every tenant to send and nothing else to do."""
    plan = Plan(
        work="backlog",
        tenants=options.tenants,
        port=stack.web_port,
        mailbox=stack.mailbox_port,
        one_mail=one_mail,
    )
    with stack.worker.paused():
        client = stack.run("bench.load", argument(plan))
        client.read()
    return _finish(client).rate


def _logins(stack: Stack, options: Options, at_once: int) -> str:
    return argument(
        Plan(
            work="logins",
            tenants=options.tenants,
            port=stack.web_port,
            mailbox=stack.mailbox_port,
            at_once=at_once,
            seconds=options.seconds,
        )
    )


def _calls(stack: Stack, options: Options, at_once: int) -> str:
    plan = Plan(work="calls", tenants=options.tenants, port=stack.floor_port, at_once=at_once, seconds=options.seconds)
    return argument(plan)


def _finish(client: Child) -> Result:
    """The result of a load client. Raises `ProcessFailed`, and its traceback is on stderr."""
    result = msgspec.convert(client.read(), Result)
    client.process.wait()
    return result


def _spent(stack: Stack) -> Mapping[str, float]:
    pids = (stack.web.pid, stack.worker.pid, stack.postgres, stack.valkey)
    return dict(zip(PARTS, map(cpu_seconds, pids), strict=True)) | {"sink": cpu_seconds(stack.sink.pid)}
