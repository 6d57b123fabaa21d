"""A store is away, shut or silent: what is promised without it, and how soon the caller learns the rest."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import add_tenant, count, current_code, wrong

# architecture.md, "Two stores, one rule".
_ANSWERS_WITHIN: Final = 2.0
# Nobody listens on this port.
NO_VALKEY: Final = "redis://127.0.0.1:1/0"


class Door:
    """A way to PostgreSQL that can be shut (connections end, none is taken) or go silent (nothing comes back)."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._host = query.get("host", [parts.hostname or "127.0.0.1"])[0]
        self._port = int(query.get("port", [str(parts.port or 5432)])[0])
        # Short, because the path of a socket must be.
        self._directory = Path(tempfile.mkdtemp(prefix="door-"))
        self._path = self._directory / ".s.PGSQL.5432"
        self.url = f"postgresql://{parts.netloc.rpartition('@')[0]}@{parts.path}?host={self._directory}&port=5432"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._speaks = asyncio.Event()

    async def open(self) -> None:
        self._speaks.set()
        self._server = await asyncio.start_unix_server(self._pass, self._path)

    def fall_silent(self) -> None:
        self._speaks.clear()

    def shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        self._speaks.set()

    def remove(self) -> None:
        self.shut()
        shutil.rmtree(self._directory)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._host.startswith("/"):
            there, back = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        else:
            there, back = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        self._writers -= {writer, back}

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._speaks.wait()
                target.write(data)
        target.close()


@pytest.fixture
async def door(settings: Settings) -> AsyncIterator[Door]:
    assert settings.database_url
    door = Door(settings.database_url)
    await door.open()
    yield door
    door.remove()


async def ready(http: Http) -> tuple[int, str]:
    answer = await http.get("/health/ready")
    return answer.status_code, answer.json()["status"]


async def test_without_valkey_people_sign_in_within_every_cap(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """5 guesses, 3 codes an hour, one session a code, and an address's limit: none depends on it; ready says so."""
    tenant, guessed = await add_tenant(db, clock()), await add_tenant(db, clock())
    async with serve(settings, clock, redis_url=NO_VALKEY, client_address="192.0.2.77", otp_ip_hourly_limit=12) as http:
        assert await ready(http) == (200, "degraded")
        challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        typed = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
        entered = await asyncio.gather(*(http.otp(tenant.slug, "verify", typed) for _ in range(50)))
        (tokens,) = [answer.json() for answer in entered if answer.status_code == 200]
        assert (await http.auth("GET", "me", tokens["access_token"])).status_code == 200

        challenge = (await http.otp(guessed.slug, "request")).json()["challenge_id"]
        code = await current_code(db, ring, challenge)
        bad = {"challenge_id": challenge, "code": wrong(code)}
        answers = await asyncio.gather(*(http.otp(guessed.slug, "verify", bad) for _ in range(200)))
        assert sorted(a.json()["attempts_left"] for a in answers if a.status_code == 401) == [1, 2, 3, 4]
        assert (await http.otp(guessed.slug, "verify", bad | {"code": code})).status_code == 429

        asked = await asyncio.gather(*(http.otp(tenant.slug, "request") for _ in range(5)))
        assert sorted(answer.status_code for answer in asked) == [202, 202, 429, 429, 429]
        # Seven of this address's twelve are spent.
        others = await asyncio.gather(*(http.otp(f"nobody-{n}-{tenant.slug[:40]}", "request") for n in range(20)))
        assert sum(answer.status_code == 202 for answer in others) == 5
        assert (await http.auth("POST", "logout", tokens["access_token"])).status_code == 204


@pytest.mark.parametrize("how", ["shut", "silent"])
async def test_without_postgresql_the_answer_is_503_within_2_seconds(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing, door: Door, how: str
) -> None:
    """Whatever was asked: 503 with Retry-After, nothing half done, and everything as before once it is back."""
    tenant = await add_tenant(db, clock())
    async with serve(settings, clock, database_url=door.url) as http:
        challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        typed = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
        tokens = (await http.otp(tenant.slug, "verify", typed)).json()
        second = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        before = await rows_of(db, tenant.slug)

        if how == "shut":
            door.shut()
        else:
            door.fall_silent()
        # Nothing is to be remembered of the session either.
        clock.forward(seconds=4)
        asked = {"challenge_id": second}
        calls = {
            "request": http.otp(tenant.slug, "request"),
            "resend": http.otp(tenant.slug, "resend", asked),
            "verify": http.otp(tenant.slug, "verify", asked | {"code": "000000"}),
            "status": http.otp(tenant.slug, "status", asked),
            "me": http.auth("GET", "me", tokens["access_token"]),
            "refresh": http.auth("POST", "refresh", json={"refresh_token": tokens["refresh_token"]}),
        }
        for name, (answer, took) in zip(calls, await asyncio.gather(*map(timed, calls.values())), strict=True):
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), name
            assert int(answer.headers["retry-after"]) >= 1
            assert took < _ANSWERS_WITHIN, (name, took)
        assert await ready(http) == (503, "unavailable")
        assert (await http.get("/health/live")).status_code == 200
        assert await rows_of(db, tenant.slug) == before

        door.shut()
        await door.open()
        typed = {"challenge_id": second, "code": await current_code(db, ring, second)}
        assert (await http.otp(tenant.slug, "verify", typed)).status_code == 200
        again = await http.auth("POST", "refresh", json={"refresh_token": tokens["refresh_token"]})
        assert again.status_code == 200


async def timed(call: Awaitable[httpx.Response]) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    answer = await call
    return answer, time.monotonic() - began


async def rows_of(db: Database, slug: str) -> list[int]:
    """How many rows of a tenant a sign-in touches there are, and how many attempts were counted."""
    mine = "WHERE tenant_id = (SELECT id FROM tenants WHERE slug = $1)"
    tables = ("challenges", "outbox", "sessions", "audit_events", "refusals")
    numbers = [await count(db, f"SELECT count(*) FROM {table} {mine}", slug) for table in tables]
    return [*numbers, await count(db, f"SELECT coalesce(sum(attempts), 0) FROM challenges {mine}", slug)]
