"""What a load process is told to do, and what it answers: JSON on its command line and its stdout."""

import sys
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

SLUGS: Final = "bench-{:04d}"
DOMAIN: Final = "bench.example"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`logins` and `calls` go on for `seconds`, `at_once` of them at a time, each as soon as the one before ended.
    `paced` begins `rate` logins a second, however long they take. `backlog` asks for one code a tenant, waits for all
    the mails, and then signs in; `one_mail` has the mail server hang up after each.
    """

    work: Literal["logins", "calls", "paced", "backlog"]
    tenants: int
    port: int = 0
    mailbox: int = 0
    at_once: int = 1
    seconds: float = 1.0
    rate: float = 0.0
    one_mail: bool = False


class SqlPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Logins as in `Plan`, but only their SQL; `settings` is the environment of the web process."""

    settings: Mapping[str, str]
    tenants: int
    at_once: int
    seconds: float


class Result(msgspec.Struct, frozen=True):
    """`count` logins (or pairs of calls, or mails) in `seconds`, besides those that were `refused`; what the client
    spent; percentiles in milliseconds.
    """

    count: int
    refused: int
    seconds: float
    cpu_seconds: float
    p50: dict[str, float]
    p99: dict[str, float]

    @property
    def rate(self) -> float:
        return self.count / self.seconds


def argument(plan: Plan | SqlPlan) -> str:
    """A plan as a command line argument."""
    return msgspec.json.encode(plan).decode()


def report(
    count: int, refused: int, seconds: float, cpu_seconds: float, samples: Mapping[str, Sequence[float]]
) -> None:
    """Prints the result; `samples` are in seconds."""
    p50 = {name: percentile(values, 0.50) for name, values in samples.items()}
    p99 = {name: percentile(values, 0.99) for name, values in samples.items()}
    sys.stdout.write(msgspec.json.encode(Result(count, refused, seconds, cpu_seconds, p50, p99)).decode() + "\n")
    sys.stdout.flush()


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank, in milliseconds for values in seconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000
