"""What it takes to tell whether two kinds of question take equally long, over real processes.

Questions of all kinds are asked in random order within each round and at random moments, so whatever else the machine
is doing falls on all of them alike. AUC is the chance that an answer of one kind takes longer than one of another: 0.5
when nobody can tell. Under equality its standard error is sqrt((2n + 1) / 12n^2) for n answers a kind.
"""

import asyncio
import json
import math
import random
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from app.settings import Settings
from app.storage.db import Database
from tests.processes import WORKER, environment, free_port, running, web_process

Times: TypeAlias = dict[str, list[float]]
Statuses: TypeAlias = dict[str, Counter[int]]

_ACCEPTED: Final = 202
# Far enough from 0.5 to allow for what no attacker could use (security.md asks for 0.47 to 0.53).
_ALLOWED: Final = 0.03
# Slugs that are answered one millisecond later: what a test must be able to see.
LATE: Final = "late"
# `{more}` is the place for what else a test changes.
_LATE_WEB: Final = """
import time
from app.cli import web
from app.settings import load

{more}
make = web.create_app

def create_app(settings):
    app = make(settings)
    inner = app.asgi_handler

    async def late(scope, receive, send):
        if scope["type"] == "http" and "/tenants/late-" in scope["path"]:
            until = time.perf_counter() + 0.001
            while time.perf_counter() < until:
                pass
        await inner(scope, receive, send)

    app.asgi_handler = late
    return app

web.create_app = create_app
web.serve(load(dotenv=None))
"""
_SINK: Final = """
import os, sys
from aiosmtpd.main import main
main(["-n", "-l", "127.0.0.1:" + os.environ["SMTP_PORT"], "-c", "aiosmtpd.handlers.Sink"])
"""


@dataclass(frozen=True, slots=True)
class Arm:
    """Slugs of one kind, one for each question, and what is asked of them.

    Slugs and bodies of arms that are compared are equally long. `tenant`, `member` and `branding` are columns, in SQL,
    of who is there, where `s` is the slug; None for nobody. `{slug}` and `{challenge}` in the `path`, a value of the
    `body` or the `headers` are the slug and the challenge of a code that was just asked for there, unmeasured.
    A `path` that doesn't begin with a slash stands below the API's address of the slug. The `body` of a `form` is sent
    as browsers do. Without a `status` any will do, for the test to compare.
    """

    prefix: str
    tenant: Mapping[str, str] | None = None
    member: Mapping[str, str] | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    path: str = "otp/request"
    status: int | None = 202
    branding: Mapping[str, str] | None = None
    method: str = "POST"
    headers: Mapping[str, Callable[[str], str] | str] = field(default_factory=dict)
    form: bool = False
    asks_first: bool = False

    def slug(self, run: str, number: int) -> str:
        return f"{self.prefix}-{run}-{number:05}"

    def request(self, slug: str, challenge: str = "") -> bytes:
        """The question about one slug, as it goes over the line."""

        def filled(value: object) -> Any:
            if not isinstance(value, str):
                return value
            return value.replace("{slug}", slug).replace("{challenge}", challenge)

        path = self.path if self.path.startswith("/") else f"/api/v1/tenants/{{slug}}/{self.path}"
        body = {name: filled(value) for name, value in self.body.items()}
        content = (urlencode(body) if self.form else json.dumps(body)).encode() if self.method != "GET" else b""
        kind = "application/x-www-form-urlencoded" if self.form else "application/json"
        head = [f"{self.method} {filled(path)} HTTP/1.1", "Host: x"]
        head += [f"{name}: {filled(told(slug) if callable(told) else told)}" for name, told in self.headers.items()]
        if content or self.method != "GET":
            head += [f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
        return "\r\n".join([*head, "", ""]).encode() + content

    def people(self, run: str, rounds: int) -> list[str]:
        """The statements that make everybody there is; $1 is the time."""
        names = (
            f"SELECT '{self.slug(run, 0)[:-5]}' || lpad(n::text, 5, '0') AS s FROM generate_series(0, {rounds - 1}) n"
        )
        made = []
        if self.tenant is not None:
            columns = {"id": "gen_random_uuid()", "slug": "s", "name": "'Acme'", **self.tenant}
            made.append(_insert("tenants", columns, f"({names}) AS slugs"))
        if self.member is not None:
            columns = {"tenant_id": "t.id", "id": "gen_random_uuid()", "name": "'Ana'", **self.member}
            made.append(_insert("members", columns, f"({names}) AS slugs JOIN tenants t ON t.slug = s"))
        if self.branding is not None:
            columns = {"tenant_id": "t.id", "updated_at": "$1", **self.branding}
            source = f"({names}) AS slugs JOIN tenants t ON t.slug = s"
            listed, values = ", ".join(columns), ", ".join(columns.values())
            made.append(f"INSERT INTO tenant_branding ({listed}) SELECT {values} FROM {source}")
        return made


def _insert(table: str, columns: Mapping[str, str], source: str) -> str:
    names, values = ", ".join(columns), ", ".join(columns.values())
    return f"INSERT INTO {table} ({names}, created_at, updated_at) SELECT {values}, $1, $1 FROM {source}"


def auc(one: list[float], other: list[float]) -> float:
    """The chance that a value of `other` is larger than one of `one`, ties half (Mann and Whitney's U over n*m)."""
    merged = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks, index = 0.0, 0
    while index < len(merged):
        end = index
        while end < len(merged) and merged[end][0] == merged[index][0]:
            end += 1
        ranks += sum(kind for _, kind in merged[index:end]) * (index + end + 1) / 2
        index = end
    return (ranks - len(other) * (len(other) + 1) / 2) / (len(one) * len(other))


def standard_error(count: int) -> float:
    """Of the AUC of two arms that don't differ, `count` values each."""
    return math.sqrt((2 * count + 1) / (12 * count**2))


def lengths(short: int) -> list[Any]:
    """Rounds, and how far from 0.5 the AUC of equal arms may be: in short, and in full.

    Few answers estimate the AUC less well: three standard errors more. Equal arms stay inside (at 400, 4.5 standard
    errors from 0.5: less than one run in 50,000 would not), and one millisecond is far outside.
    """
    return [
        pytest.param(short, _ALLOWED + 3 * standard_error(short), id="short"),
        pytest.param(5000, _ALLOWED, id="long", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ]


class Line:
    """One connection, kept open; plain calls that block, because a client's own work would blur what it measures."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, call: bytes) -> tuple[float, int, bytes]:
        """Seconds until the answer was there, its status and its body."""
        began = time.perf_counter()
        self._socket.sendall(call)
        answer = self._socket.recv(65536)
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        while len(body) < (int(length[1]) if length else 0):
            body += self._socket.recv(65536)
        return time.perf_counter() - began, int(head.split(b" ", 2)[1]), body

    def question(self, arm: Arm, slug: str) -> bytes:
        """An arm's call; the code that it needs first is asked for on the way."""
        if not arm.asks_first:
            return arm.request(slug)
        _, status, body = self.ask(Arm(arm.prefix).request(slug))
        assert status == _ACCEPTED, body
        return arm.request(slug, json.loads(body)["challenge_id"])

    def close(self) -> None:
        self._socket.close()


def _measure(port: int, arms: Mapping[str, Arm], run: str, rounds: int) -> tuple[Times, Statuses]:
    """Seconds each arm took, asked once in every round, and what it was answered."""
    times: Times = {name: [] for name in arms}
    statuses: Statuses = {name: Counter() for name in arms}
    order = list(arms.items())
    line = Line(port)
    # The first answers pay for connections and for what is compiled at first use.
    for number in range(max(100, 2 * len(order))):
        arm = order[number % len(order)][1]
        line.ask(line.question(arm, f"warm-{uuid4().hex}"))
    for number in range(rounds):
        random.shuffle(order)
        for name, arm in order:
            call = line.question(arm, arm.slug(run, number))
            # The worker settles the last question meanwhile, of whatever arm that was.
            time.sleep(random.uniform(0, 0.003))
            took, status, body = line.ask(call)
            assert arm.status in {None, status}, body
            times[name].append(took)
            statuses[name][status] += 1
    line.close()
    return times, statuses


@asynccontextmanager
async def _undisturbed(db: Database) -> AsyncIterator[None]:
    """So many codes nobody enters are an attack to the worker, which lives in real time; other tests shan't notice."""
    try:
        yield
    finally:
        async with db.every_tenant() as connection:
            await connection.execute("DELETE FROM activity")
            await connection.execute("DELETE FROM attack_modes")


async def measured(
    arms: Mapping[str, Arm],
    rounds: int,
    settings: Settings,
    db: Database,
    clock: Callable[[], Any],
    directory: Path,
    *,
    more: str = "",
) -> tuple[Times, Statuses]:
    """Makes everybody there is and asks, over a web process, a worker and a mail server. `more` is run by the first."""
    run = uuid4().hex[:8]
    async with db.every_tenant() as connection:
        for arm in arms.values():
            for statement in arm.people(run, rounds):
                await connection.execute(statement, clock())
    env = environment(settings, SMTP_PORT=str(free_port()))
    program = _LATE_WEB.replace("{more}", more)
    async with (
        _undisturbed(db),
        running(_SINK, directory / "sink.log", env),
        running(WORKER, directory / "worker.log", env),
        web_process(settings, directory / "web.log", program=program, LOG_LEVEL="WARNING") as url,
    ):
        return await asyncio.to_thread(_measure, int(url.rpartition(":")[2]), arms, run, rounds)


def assert_alike(
    times: Mapping[str, list[float]], pairs: Mapping[str, str], allowed: float, *, control: tuple[str, str]
) -> None:
    """Each arm takes as long as the one it is paired with; `control`, which is late, is seen to be."""
    found = {name: auc(times[against], times[name]) for name, against in pairs.items()}
    late = auc(times[control[1]], times[control[0]])
    print({name: round(value, 3) for name, value in found.items()}, f"late: {late:.3f}, allowed: 0.5 ± {allowed:.3f}")
    assert late > 0.5 + allowed, f"one millisecond more was not seen: {late:.3f}"
    assert {name: value for name, value in found.items() if abs(value - 0.5) > allowed} == {}
