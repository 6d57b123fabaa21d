"""How often a call really goes to the database, counted on the wire between the application and PostgreSQL."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import serve
from tests.pages import sign_in, visitor
from tests.people import add_member, add_tenant, current_code, wrong

# Frontend messages after which a client waits for the server: Sync, simple Query, Flush.
_WAITS = frozenset(b"SQH")
_STARTUP_CODE = 3 << 16


@dataclass(slots=True)
class Wire:
    """A proxy in front of PostgreSQL that counts how often the client waits for an answer."""

    host: str | None
    port: int
    round_trips: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.host is None or self.host.startswith("/"):
            server = await asyncio.open_unix_connection(f"{self.host}/.s.PGSQL.{self.port}")
        else:
            server = await asyncio.open_connection(self.host, self.port)
        self.writers += [writer, server[1]]
        with suppress(OSError, asyncio.IncompleteReadError):
            await asyncio.gather(self.count(reader, server[1]), pass_on(server[0], writer))

    async def count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes the client's messages on, one by one (PostgreSQL's protocol 3.0, section 55.2)."""
        code = 0
        while code != _STARTUP_CODE:  # before it come only untyped messages
            head = await reader.readexactly(8)
            length, code = struct.unpack(">II", head)
            writer.write(head + await reader.readexactly(length - 8))
        while True:
            head = await reader.readexactly(5)
            self.round_trips += head[0] in _WAITS
            writer.write(head + await reader.readexactly(struct.unpack(">I", head[1:])[0] - 4))


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def wire_to(database_url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A proxy to that database, and the URL that leads through it."""
    parts = urlsplit(database_url)
    query = parse_qs(parts.query)
    host = parts.hostname or query.get("host", [None])[0]
    wire = Wire(host, parts.port or int(query.get("port", ["5432"])[0]))
    server = await asyncio.start_server(wire.connect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    login = parts.netloc.rpartition("@")[0]
    try:
        yield wire, urlunsplit((parts.scheme, f"{login}@127.0.0.1:{port}", parts.path, "sslmode=disable", ""))
    finally:
        server.close()
        for writer in wire.writers:
            writer.close()


async def test_round_trips(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """Request 1, verify 2, refresh 1, me 1 and then 0, a wrong code 2, an unknown tenant as many as a known one.

    No transaction around a lone statement, no reset when a connection is given back.
    """
    assert settings.database_url
    spent: dict[str, int] = {}
    async with (
        wire_to(settings.database_url) as (wire, url),
        serve(settings, clock, database_url=url) as http,
    ):

        async def measured(name: str, call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
            before = wire.round_trips
            answer = await call()
            spent[name] = wire.round_trips - before
            return answer

        async def whole_way(slug: str) -> None:
            asked = await measured("request", lambda: http.otp(slug, "request"))
            challenge = asked.json()["challenge_id"]
            code = await current_code(db, ring, challenge)
            await measured("status", lambda: http.otp(slug, "status", {"challenge_id": challenge}))
            guess = {"challenge_id": challenge, "code": wrong(code)}
            await measured("wrong code", lambda: http.otp(slug, "verify", guess))
            right = {"challenge_id": challenge, "code": code}
            tokens = (await measured("verify", lambda: http.otp(slug, "verify", right))).json()
            await measured("me", lambda: http.auth("GET", "me", tokens["access_token"]))
            await measured("me again", lambda: http.auth("GET", "me", tokens["access_token"]))
            body = {"refresh_token": tokens["refresh_token"]}
            await measured("refresh", lambda: http.auth("POST", "refresh", json=body))
            await measured("unknown tenant", lambda: http.otp("no-" + slug, "request"))
            await measured("malformed", lambda: http.otp(slug, "verify", right | {"code": "x"}))

        # The first time each statement is also prepared: once a connection, not once a call.
        await whole_way((await add_tenant(db, clock())).slug)
        await whole_way((await add_tenant(db, clock())).slug)

    assert spent == {
        "request": 1,
        "status": 1,
        "wrong code": 2,
        "verify": 2,
        "me": 1,
        "me again": 0,
        "refresh": 1,
        "unknown tenant": 1,
        "malformed": 0,
    }


async def test_the_dashboard_asks_for_each_thing_once(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """The member, their sessions, their devices and their history; once more for the session if it isn't cached."""
    assert settings.database_url
    tenant = await add_tenant(db, clock())
    await add_member(db, clock(), tenant, email="ana@home.example")
    spent: list[int] = []
    async with (
        wire_to(settings.database_url) as (wire, url),
        serve(settings, clock, database_url=url) as http,
        visitor(http) as person,
    ):
        await sign_in(person, db, ring, tenant.slug, "ana@home.example")
        for seconds in (0, 4):
            clock.forward(seconds=seconds)
            before = wire.round_trips
            await person.open(f"/t/{tenant.slug}/")
            assert "You are signed in" in person.text
            spent.append(wire.round_trips - before)
    assert spent == [4, 5]
