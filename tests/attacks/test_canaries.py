"""No secret and no full contact where it doesn't belong, looked for with real ones after real sign-ins.

Web and worker are processes of their own and log all they can into files. Afterwards the logs, the metrics, every
table, every key of Valkey and all that was published there are searched for everything that had to stay secret.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from app.settings import Settings
from app.storage.db import Database
from app.storage.migrate import upgrade
from tests.mailserver import MailServer, mail_server
from tests.pages import BROWSER, Visitor
from tests.people import add_tenant
from tests.processes import WORKER, environment, running, web_process
from tests.stores import StoresOfTests

# Where a full contact belongs; everything else in the database is searched for it too.
CONTACT_COLUMNS: Final = {("tenants", "email"), ("tenants", "phone_number"), ("admins", "email")}
# A code is a word of digits. Fractions of seconds are words of digits that mean nothing.
_DIGITS: Final = re.compile(r"(?<![\w.])[0-9]{6,10}(?!\w)")
_FRACTION: Final = re.compile(r"(?<=:[0-9]{2})\.[0-9]+")
_AT_ONCE: Final = 8
_PAGE_EVERY: Final = 4
# More wrong codes, or codes that nobody enters, in an hour would be an attack, which voids what is under way.
_CLUMSY: Final = 60


@dataclass(slots=True)
class Canaries:
    """What must not be found, by kind."""

    codes: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    contacts: set[str] = field(default_factory=set)

    def found_in(self, text: str) -> set[str]:
        """Which of them a text gives away, plainly or in the encodings our stores use."""
        found = self.codes & set(_DIGITS.findall(_FRACTION.sub("", text)))
        found |= {contact for contact in self.contacts if contact in text}
        return found | {token for token in self.tokens if any(form in text for form in _forms(token))}


def _forms(token: str) -> Iterable[str]:
    """The token as it is, and as bytea shows its text or the last 32 bytes that it stands for, in hex."""
    yield token
    yield token.encode().hex()
    body = token.removeprefix("ghr_").removeprefix("ghd_")
    if re.fullmatch(r"[\w-]{43,}", body):
        yield base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))[-32:].hex()


@dataclass(frozen=True, slots=True)
class Installation:
    """Web and worker at work, and everything that they leave behind."""

    url: str
    settings: Settings
    db: Database
    owner_url: str
    mail: MailServer
    logs: Path
    published: list[str]

    async def traces(self) -> dict[str, str]:
        """All of it as text, by place."""
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"{self.url}/metrics")).text
        logs = {path.name: path.read_text() for path in self.logs.glob("*.log")}
        return {"metrics": metrics, "published": "\n".join(self.published), **logs} | {
            **await dump_of_tables(self.owner_url),
            "valkey": await dump_of_valkey(str(self.settings.redis_url)),
        }


async def dump_of_tables(owner_url: str) -> dict[str, str]:
    """COPY TO of every table of every schema, without the contact columns."""
    connection = await asyncpg.connect(owner_url)
    dump: dict[str, str] = {}
    try:
        async with connection.transaction():
            await connection.execute("SELECT set_config('app.scope', 'all', true)")
            columns = await connection.fetch(
                "SELECT c.relname AS table, array_agg(a.attname::text ORDER BY a.attnum) AS columns "
                "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
                "JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition "
                "AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg_%' GROUP BY 1"
            )
            for row in columns:
                names = [name for name in row["columns"] if (row["table"], name) not in CONTACT_COLUMNS]
                pieces: list[bytes] = []

                async def keep(piece: bytes, pieces: list[bytes] = pieces) -> None:
                    pieces.append(piece)

                selected = ", ".join(f'"{name}"' for name in names)
                await connection.copy_from_query(f'SELECT {selected} FROM "{row["table"]}"', output=keep)
                dump[f"table {row['table']}"] = b"".join(pieces).decode()
    finally:
        await connection.close()
    return dump


async def dump_of_valkey(url: str) -> str:
    """Every key with its value, whatever its type."""
    client = Redis.from_url(url)
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    lines = []
    async for key in client.scan_iter(count=1000):
        kind = await client.type(key)
        lines.append(f"{key!r} {await readers[kind](key)!r}" if kind in readers else f"{key!r}")
    await client.aclose()
    return "\n".join(lines)


@asynccontextmanager
async def listening_to(url: str) -> AsyncIterator[list[str]]:
    """What is published in Valkey meanwhile."""
    client = Redis.from_url(url)
    subscription = client.pubsub()
    await subscription.psubscribe("*")
    heard: list[str] = []

    async def hear() -> None:
        async for message in subscription.listen():
            heard.append(repr(message))  # noqa: PERF401 - one by one, because it never ends

    ears = asyncio.create_task(hear())
    try:
        yield heard
    finally:
        ears.cancel()
        await asyncio.gather(ears, return_exceptions=True)
        await subscription.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves this one untyped
        await client.aclose()


@pytest.fixture
async def installation(settings: Settings, stores: StoresOfTests, tmp_path: Path) -> AsyncIterator[Installation]:
    """With a database of its own, so that every table can be read to its end."""
    name = f"gatehouse_canaries_{uuid4().hex[:8]}"
    await stores.create_database(name)
    await upgrade(stores.owner_url_for(name), datetime.now(UTC))
    app_url = stores.app_url_for(name)
    db = Database(app_url, application="tests")
    await db.open()
    async with mail_server() as mail, listening_to(stores.redis_url) as published:
        talkative = {
            "DATABASE_URL": app_url,
            "SMTP_PORT": str(mail.port),
            "LOG_LEVEL": "DEBUG",
            "LOG_FORMAT": "json",
        }
        async with (
            running(WORKER, tmp_path / "worker.log", environment(settings, **talkative)),
            web_process(settings, tmp_path / "web.log", **talkative) as url,
        ):
            yield Installation(url, settings, db, stores.owner_url_for(name), mail, tmp_path, published)
    await db.close()
    await stores.drop_database(name)


class Post:
    """Hands each mail to whoever waits for it."""

    def __init__(self, mail: MailServer) -> None:
        self._mail = mail
        self._waiting: dict[str, asyncio.Queue[str]] = {}
        self._round = asyncio.create_task(self._deliver())

    async def code_for(self, address: str) -> str:
        async with asyncio.timeout(60):
            return await self._box(address).get()

    async def close(self) -> None:
        self._round.cancel()
        await asyncio.gather(self._round, return_exceptions=True)

    def _box(self, address: str) -> asyncio.Queue[str]:
        return self._waiting.setdefault(address, asyncio.Queue())

    async def _deliver(self) -> None:
        while True:
            mail = await self._mail._arrivals.get()
            code = re.search(r"\b[0-9]{6,8}\b", str(mail.read["Subject"]))
            assert code, mail.read["Subject"]
            self._box(mail.recipients[0]).put_nowait(code[0])


async def sign_in_by_api(
    place: Installation, post: Post, slug: str, contact: str, canaries: Canaries, *, clumsy: bool
) -> None:
    """Ask, guess wrong, sign in, look around, renew, use an old token, sign out; and be clumsy on the way."""
    async with httpx.AsyncClient(base_url=place.url, timeout=30) as client:
        otp = f"/api/v1/tenants/{slug}/otp"
        challenge = (await client.post(f"{otp}/request", json={"identifier": contact})).json()["challenge_id"]
        code = await post.code_for(contact)
        canaries.codes.add(code)
        typed = {"challenge_id": challenge, "code": code}
        # A code in the wrong place, in a field nobody reads, in a query and in a path: none of it is written down.
        if clumsy:
            await client.post(f"{otp}/verify", json=typed | {"code": "000000"})
        await client.post(f"{otp}/verify", json=typed | {"x": code})
        await client.post(f"{otp}/verify?code={code}", content=f'{{"code": "{code}", broken')
        await client.get(f"/api/v1/{code}/{contact}?code={code}")
        tokens = (await client.post(f"{otp}/verify", json=typed)).json()
        access = {"Authorization": f"Bearer {tokens['access_token']}", "X-Device-Token": tokens["device_token"]}
        for path in ("me", "sessions", "events", f"sessions/{tokens['refresh_token']}"):
            await client.get(f"/api/v1/auth/{path}", headers=access, params={"access_token": tokens["access_token"]})
        again = (await client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})).json()
        for kept in (tokens, again):
            canaries.tokens |= {
                kept[name] for name in ("access_token", "refresh_token", "device_token") if name in kept
            }
        if clumsy:
            await client.post(f"{otp}/request", json={}, headers=access)
            canaries.codes.add(await post.code_for(contact))
        await client.post("/api/v1/auth/refresh", json={"refresh_token": again["refresh_token"] + "x"})
        await client.post("/api/v1/auth/logout", headers=access)


async def sign_in_by_page(
    place: Installation, post: Post, slug: str, contact: str, canaries: Canaries, *, clumsy: bool
) -> None:
    """The same in a browser, which keeps what it is given in cookies."""
    async with httpx.AsyncClient(base_url=place.url, headers=BROWSER, timeout=30) as client:
        person = Visitor(client, "127.0.0.1")

        def keep_cookies() -> None:
            canaries.tokens |= {value for value in person.cookies.values() if len(value) > 20}

        await person.open(f"/t/{slug}/login")
        keep_cookies()
        await person.submit(f"/t/{slug}/login", {"identifier": contact, "channel": "email"})
        keep_cookies()
        code = await post.code_for(contact)
        canaries.codes.add(code)
        if clumsy:
            await person.submit(f"/t/{slug}/verify", {"code": "000000"})
        await person.submit(f"/t/{slug}/verify", {"code": code})
        assert str(person.page.url).endswith(f"/t/{slug}/"), person.text
        keep_cookies()
        await person.submit(f"/t/{slug}/logout")


@pytest.mark.parametrize(
    "logins",
    [
        pytest.param(60, id="short"),
        pytest.param(1000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
async def test_no_canary_is_seen(installation: Installation, logins: int) -> None:
    """Codes, tokens, cookies and contacts of many sign-ins are in no log, metric, table, key or published message."""
    canaries, at_once = Canaries(), asyncio.Semaphore(_AT_ONCE)
    post = Post(installation.mail)

    async def one(number: int) -> None:
        name = f"canary-{uuid4().hex[:10]}"
        contact, phone = f"{name}@mail.example", f"+4478{uuid4().int % 10**8:08}"
        async with at_once:
            tenant = await add_tenant(installation.db, datetime.now(UTC), email=contact, phone_number=phone)
            canaries.contacts |= {contact, phone}
            by = sign_in_by_page if number % _PAGE_EVERY == 0 else sign_in_by_api
            await by(installation, post, tenant.slug, contact, canaries, clumsy=number < _CLUMSY)

    try:
        await asyncio.gather(*(one(number) for number in range(logins)))
    finally:
        await post.close()
    traces = await installation.traces()

    assert len(canaries.codes) >= logins
    assert len(canaries.tokens) >= 3 * logins
    sessions = traces["table sessions"].count("\n")
    assert sessions >= logins, "there was nothing to search"
    for place in ("web.log", "worker.log", "metrics", "valkey", "published", "table audit_events", "table outbox"):
        assert traces[place], place
    assert {place: hits for place, text in traces.items() if (hits := canaries.found_in(text))} == {}
    found_everywhere(canaries, traces)


def found_everywhere(canaries: Canaries, traces: dict[str, str]) -> None:
    """The search itself is put to the test: planted anywhere, each kind of canary is found, in each of its forms."""
    code, contact = min(canaries.codes), min(canaries.contacts)
    refresh = next(token for token in canaries.tokens if token.startswith("ghr_"))
    secret = base64.urlsafe_b64decode(refresh[4:] + "=" * (-len(refresh[4:]) % 4))[-32:]
    for text in traces.values():
        middle = text.rfind("\n", 0, len(text) // 2) + 1
        for planted, canary in (
            (f'{{"code":"{code}"}}', code),
            (f"your code: {code}.", code),
            (f"to={contact} ", contact),
            (f"Bearer {refresh}", refresh),
            (f"\\\\x{refresh.encode().hex()}", refresh),
            (f"\\\\x{secret.hex()}", refresh),
        ):
            assert canary in canaries.found_in(f"{text[:middle]}{planted}\n{text[middle:][:2000]}")


async def test_tables_are_dumped_to_the_last(urls: tuple[str, str], db: Database) -> None:
    """Only named columns are left out, so a table or a contact column that is added later is searched by itself."""
    await add_tenant(db, datetime.now(UTC), email="left-out@mail.example", name="searched@mail.example")
    dump = await dump_of_tables(urls[0])
    assert {"table tenants", "table sessions", "table challenges", "table quota", "table alembic_version"} <= set(dump)
    assert "searched@mail.example" in dump["table tenants"]
    assert not any("left-out@mail.example" in text for text in dump.values())
