"""What the outbox promises, fault by fault (docs/delivery.md). Each in a short form, and in full when marked long."""

import asyncio
import itertools
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest

from app import embedded
from app.auth import codes
from app.auth.challenges import Challenges, Realm
from app.auth.limits import AddressLimiter
from app.auth.sessions import Sessions
from app.delivery.outbox import Claimed
from app.delivery.routing import MAX_TRIES
from app.embedded import Stores
from app.errors import RateLimited, Unavailable
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.migrate import upgrade
from app.storage.redis import Accelerator
from app.worker import derive
from tests.conftest import Clock
from tests.deliveries import CLIENT, Works, ask, states, worker_process
from tests.mailserver import SILENCE, Mail, MailServer, mail_server
from tests.people import add_tenant, count

# As many sends a worker has under way.
CONCURRENCY = 64
WEB = "from app.settings import load; from app.cli.web import serve; serve(load())"


@pytest.fixture(autouse=True)
async def _empty(db: Database) -> AsyncIterator[None]:
    """Only this test's messages are due, and many codes that nobody enters are no attack here: it is always so."""
    tables = ("outbox", "workers", "challenges", "quota", "activity", "attack_modes")
    clear = "; ".join(f"DELETE FROM {table}" for table in tables)
    async with db.every_tenant() as connection:
        await connection.execute(clear)
        await connection.execute(
            "INSERT INTO activity (tenant_id, slot, shard, requested) VALUES ($1, $2, 0, 1000000000)",
            UUID(int=0),
            now() - timedelta(days=1),
        )
    yield
    async with db.every_tenant() as connection:
        await connection.execute(clear)


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


@pytest.fixture
def works(settings: Settings, ring: KeyRing, clock: Clock, mail: MailServer) -> Works:
    return Works(settings, ring, clock, mail)


def now() -> datetime:
    """The real time, which processes of their own go by."""
    return datetime.now(UTC)


@pytest.fixture
def today(db: Database, ring: KeyRing, settings: Settings, sessions: Sessions, limiter: AddressLimiter) -> Challenges:
    """Asks for codes of today, for those processes."""
    return Challenges(db, ring, settings, sessions, limiter, now, wake_worker=lambda: None)


@pytest.fixture
def works_today(settings: Settings, ring: KeyRing, mail: MailServer) -> Works:
    """Sends them."""
    return Works(settings, ring, now, mail)


@pytest.fixture(scope="module")
def fragile() -> Iterator[Stores]:
    """A PostgreSQL and a Valkey that may be killed, with nothing of the data's safety traded away."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o711)
    with embedded.start(directory / "data") as stores:
        yield stores
    shutil.rmtree(directory)


def kill(stores: Stores, name: str, number: signal.Signals) -> None:
    """Ends one of the servers hard, and waits until it is gone."""
    (server,) = [server for server in stores._servers if server.name == name]
    assert server.pid is not None
    process = psutil.Process(server.pid)
    process.send_signal(number)
    process.wait(30)


def ids(mails: Sequence[Mail]) -> Counter[str]:
    """How many copies of each message there are."""
    return Counter(str(copy.read["Message-ID"]) for copy in mails)


def assert_copies_are_equal(mails: Sequence[Mail]) -> None:
    """Every copy of a message has its code, whoever sent it."""
    subjects = defaultdict(set)
    for copy in mails:
        subjects[str(copy.read["Message-ID"])].add(str(copy.read["Subject"]))
    assert [found for found in subjects.values() if len(found) > 1] == []


async def until_all_have_arrived(mail: MailServer, messages: int) -> None:
    """Waits for mails until there is at least one copy of so many messages."""
    seen: set[str] = set()
    looked_at = 0
    while True:
        seen.update(ids(mail.mails[looked_at:]))
        looked_at = len(mail.mails)
        if len(seen) >= messages:
            return
        await mail.next()


@pytest.mark.parametrize(
    ("messages", "every"), [(200, 50), pytest.param(10_000, 500, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
)
async def test_kill_9_of_the_worker(
    db: Database,
    today: Challenges,
    settings: Settings,
    works_today: Works,
    mail: MailServer,
    messages: int,
    every: int,
) -> None:
    """None lost; copies at most kills x concurrency, each with the same code and Message-ID."""
    kills = 0
    for _ in range(messages // every):
        async with worker_process(settings, mail) as process:
            before = len(mail.mails)
            for _ in range(every):
                await ask(db, today, now)
            while len(mail.mails) < before + every // 2:
                await mail.next()
            process.kill()
            kills += await process.wait() == -signal.SIGKILL
    async with db.every_tenant() as connection:
        # Time travel instead of waiting for the leases of the dead.
        await connection.execute("UPDATE outbox SET lease_until = now() - interval '1 second' WHERE state = 'sending'")
    async with works_today.running():
        await until_all_have_arrived(mail, messages)

    assert kills == messages // every
    assert await states(db) == {"sent": messages}
    assert len(mail.mails) - messages <= kills * CONCURRENCY
    assert_copies_are_equal(mail.mails)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def web_process(settings: Settings, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """`gatehouse web` as a process of its own, answering."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WEB,
        env={
            "PATH": os.environ["PATH"],
            "ENVIRONMENT": "test",
            "DATA_DIR": str(settings.data_dir),
            "DATABASE_URL": settings.database_url or "",
            "REDIS_URL": settings.redis_url or "",
            "PORT": str(port),
            "SMTP_ENABLED": "true",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_FROM_EMAIL": "codes@gatehouse.example",
            "OTP_IP_HOURLY_LIMIT": "1000000",
        },
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while True:
                with suppress(httpx.TransportError):
                    await client.get(f"http://127.0.0.1:{port}/health")
                    break
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_kill_9_of_the_web_process(
    db: Database, settings: Settings, works_today: Works, mail: MailServer, kills: int
) -> None:
    """Every 202 is delivered; of a challenge there is everything or nothing."""
    accepted: list[str] = []
    progress = asyncio.Condition()
    dice = random.Random(2)

    async def ask_on(client: httpx.AsyncClient, url: str, slugs: Iterator[str]) -> None:
        with suppress(httpx.TransportError):
            for slug in slugs:
                answer = await client.post(f"{url}/api/v1/tenants/{slug}/otp/request", json={})
                if answer.status_code == 202:
                    accepted.append(answer.json()["challenge_id"])
                    async with progress:
                        progress.notify_all()

    for _ in range(kills):
        slugs = iter([(await add_tenant(db, now())).slug for _ in range(300)])
        port = free_port()
        async with web_process(settings, port) as process, httpx.AsyncClient(timeout=30) as client:
            callers = [asyncio.create_task(ask_on(client, f"http://127.0.0.1:{port}", slugs)) for _ in range(16)]
            enough = len(accepted) + dice.randrange(20, 150)
            async with progress:
                await progress.wait_for(lambda: len(accepted) >= enough)  # noqa: B023 - awaited within the round
            process.kill()
            await asyncio.gather(*callers)

    orphans = "SELECT count(*) FROM challenges c LEFT JOIN {} WHERE o.tenant_id IS NULL"
    assert await count(db, orphans.format("outbox o ON o.tenant_id = c.tenant_id AND o.challenge_id = c.id")) == 0
    assert await count(db, orphans.format("audit_events o ON o.tenant_id = c.tenant_id AND o.challenge_id = c.id")) == 0
    assert await count(db, orphans.format("quota o ON o.tenant_id = c.tenant_id")) == 0
    messages = await count(db, "SELECT count(*) FROM challenges")
    assert await count(db, "SELECT count(*) FROM outbox WHERE kind = 'code'") == messages
    written = await count(
        db, "SELECT count(*) FROM challenges WHERE id = ANY ($1)", [codes.read_challenge_id(name) for name in accepted]
    )
    assert written == len(accepted) > 0
    async with works_today.running():
        await until_all_have_arrived(mail, messages)
    assert await states(db) == {"sent": messages}


@pytest.mark.parametrize("messages", [60, pytest.param(2_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_smtp_half_of_the_answers_4xx(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, messages: int
) -> None:
    """Each recipient is refused for now and then taken, as greylisting has it: all are delivered before expiry."""
    tenants = [(await ask(db, challenges, clock))[0] for _ in range(messages)]
    mail.greylisting = True
    async with works.running():
        await until_all_have_arrived(mail, messages)

    assert mail.count("RCPT") == 2 * messages
    assert await states(db) == {"sent": messages}
    assert {copy.recipients[0] for copy in mail.mails} == {tenant.email for tenant in tenants}
    assert await count(db, "SELECT count(*) FROM outbox WHERE updated_at >= expires_at") == 0


@pytest.mark.parametrize("messages", [60, pytest.param(2_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_smtp_a_random_half_of_the_answers_4xx(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, messages: int
) -> None:
    """Three tries of four fail, by the dice, for a recipient or a text: all are delivered before expiry, once each.

    Time goes on by two seconds whenever all is quiet, so the ten minutes of a code take seconds.
    """
    dice = random.Random(451)
    for command, later in (("RCPT", "450 4.2.1 Later"), ("DATA", "451 4.3.0 Later")):
        mail.answers[command].extend(later if dice.random() < 0.5 else "250 2.0.0 Ok" for _ in range(40 * messages))
    for _ in range(messages):
        await ask(db, challenges, clock)
    busy = "SELECT count(*) FROM outbox WHERE state = 'sending' OR state = 'queued' AND available_at <= $1"
    async with works.running(chance=dice.random, monotonic=lambda: clock().timestamp()) as dispatcher:
        while (await states(db)).get("sent", 0) < messages:
            # Nothing says that all is quiet, so it is asked for.
            await asyncio.sleep(0.01)
            if await count(db, busy, clock()) == 0:
                clock.forward(seconds=2)
                dispatcher.wake()

    assert await states(db) == {"sent": messages}
    assert max(ids(mail.mails).values()) == 1
    assert_copies_are_equal(mail.given)
    assert await count(db, "SELECT count(*) FROM outbox WHERE updated_at >= expires_at") == 0
    # Some needed more tries than poison gets.
    steps = "SELECT max(n) FROM (SELECT count(*) AS n FROM delivery_events WHERE at >= $1 GROUP BY outbox_id) AS story"
    assert await count(db, steps, clock() - timedelta(minutes=10)) > MAX_TRIES


async def test_smtp_5xx_is_not_retried_and_visible(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Told in the log, in the story, to a disclosed caller, and in the numbers; and never tried again."""
    counted = "SELECT coalesce(sum(count), 0)::bigint FROM delivery_counts WHERE provider = 'smtp' AND state = 'failed'"
    before = await count(db, counted)
    refused = [await ask(db, challenges, clock) for _ in range(20)]
    mail.answers["RCPT"].extend(["550 5.1.1 No such user"] * 20)
    async with works.running():
        await mail.asked("RCPT", 20)
        clock.forward(minutes=2)
        await ask(db, challenges, clock)
        await mail.next()

    assert mail.count("RCPT") == 21
    assert await states(db) == {"failed": 20, "sent": 1}
    assert [log["log_level"] for log in works.logs if log["event"] == "Delivery failed"] == ["error"] * 20
    for tenant, challenge_id in refused:
        told = await challenges.status(Realm.of(tenant.slug), challenge_id, disclose=True)
        assert (told.state, told.error) == ("failed", "550 5.1.1 No such user")
    assert await count(db, counted) - before == 20


async def test_smtp_silence_after_the_final_dot(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Each silence may have taken the mail: at most two copies, with one Message-ID, and then somebody is told."""
    for _ in range(2):
        await ask(db, challenges, clock)
    mail.answers["DATA"].extend([SILENCE] * 10)
    # Two messages, so that no breaker opens: what it keeps from being tried is no copy either.
    async with works.running(smtp_timeout=0.1):
        await mail.asked("DATA", 4)

    assert await states(db) == {"failed": 2}
    assert list(ids(mail.given).values()) == [2, 2]
    assert_copies_are_equal(mail.given)


async def test_smtp_tarpit_leaves_the_api_as_fast_as_ever(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Nobody who asks for a code waits for the mail server: it is not on their way."""
    tenants = [await add_tenant(db, clock()) for _ in range(3 * CONCURRENCY)]

    async def seconds(some: Sequence[Any]) -> float:
        """The median time of a request."""
        times = []
        for tenant in some:
            began = time.perf_counter()
            await challenges.request(Realm.of(tenant.slug), CLIENT)
            times.append(time.perf_counter() - began)
        return median(times)

    usual = await seconds(tenants[:CONCURRENCY])
    mail.answers["MAIL"].extend([SILENCE] * 3 * CONCURRENCY)
    async with works.running(drain_seconds=0.1):
        await mail.asked("MAIL", 8)
        stuck = await seconds(tenants[CONCURRENCY:])
        assert mail.mails == []
    # The same order of magnitude, however busy the machine is just now; the tarpit itself would be 5 seconds.
    assert stuck < 10 * usual + 0.05
    assert (await states(db)).keys() == {"queued"}


@pytest.mark.parametrize("stops", [2, pytest.param(10, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_postgresql_stopped_hard(
    fragile: Stores, settings: Settings, ring: KeyRing, limiter: AddressLimiter, mail: MailServer, stops: int
) -> None:
    """No acknowledged request is lost, and sign-in is back within ten seconds of the server."""
    here = replace(settings, database_url=fragile.database_url, database_owner_url=fragile.owner_url)
    assert fragile.owner_url
    await upgrade(fragile.owner_url, datetime.now(UTC))
    clock = Clock()
    database = Database(fragile.database_url or "", size=4)
    await database.open()
    challenges = Challenges(
        database, ring, here, Sessions(database, ring, here, clock), limiter, clock, wake_worker=lambda: None
    )
    works = Works(here, ring, clock, mail)
    accepted = 0
    async with works.running():
        for _ in range(stops):
            for number in itertools.count():
                try:
                    await ask(database, challenges, clock)
                except Unavailable:
                    break
                accepted += 1
                if number == 20:
                    # Immediate shutdown: no checkpoint, no goodbye to anybody.
                    kill(fragile, "PostgreSQL", signal.SIGQUIT)
            await asyncio.to_thread(fragile.tend)
            async with asyncio.timeout(10):
                while True:
                    with suppress(Unavailable):
                        await ask(database, challenges, clock)
                        break
                    await asyncio.sleep(0.05)
            accepted += 1
            # Longer than a lease: what was under way may be claimed again.
            clock.forward(seconds=16)
        await until_all_have_arrived(mail, accepted)
    found = await states(database)
    await database.close()

    assert found == {"sent": accepted}
    assert_copies_are_equal(mail.mails)


@pytest.mark.parametrize("away", [0, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
async def test_valkey_flushed_restarted_and_away(
    db: Database,
    fragile: Stores,
    settings: Settings,
    ring: KeyRing,
    sessions: Sessions,
    clock: Clock,
    mail: MailServer,
    away: int,
) -> None:
    """Nothing is lost, no cap is exceeded, and polling takes the place of the wake-up, for seconds or a minute."""
    url = fragile.redis_url or ""
    here = replace(settings, redis_url=url)
    accelerator = Accelerator(url)
    limiter = AddressLimiter(accelerator, limit=1_000, processes=1)
    challenges = Challenges(db, ring, here, sessions, limiter, clock, wake_worker=lambda: None)
    tenant = await add_tenant(db, clock())
    admitted = 0

    async def ask_twice() -> None:
        nonlocal admitted
        for _ in range(2):
            with suppress(RateLimited):
                await challenges.request(Realm.of(tenant.slug), CLIENT)
                admitted += 1
        await ask(db, challenges, clock)

    async with Works(here, ring, clock, mail).running():
        await ask_twice()
        await until_all_have_arrived(mail, 3)
        await accelerator._client.flushall()
        await ask_twice()
        await until_all_have_arrived(mail, 5)
        kill(fragile, "Valkey", signal.SIGKILL)
        back = time.monotonic() + away
        arrived = 5
        while arrived == 5 or time.monotonic() < back:
            await ask_twice()
            arrived += 1
            await until_all_have_arrived(mail, arrived)
        await asyncio.to_thread(fragile.tend)
        await ask_twice()
        await until_all_have_arrived(mail, arrived + 1)
    await accelerator.close()

    # Two codes were asked for each time; the hour's three stand in PostgreSQL.
    assert admitted == 3
    assert await states(db) == {"sent": arrived + 1}


async def test_three_poison_messages(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, ring: KeyRing
) -> None:
    """Set aside after five tries; forty others are unaffected, and nobody waits."""
    poison = {(await ask(db, challenges, clock))[0].id for _ in range(3)}
    stumbles: Counter[Any] = Counter()
    enough = asyncio.Event()

    def stumbling(claimed: Claimed) -> str:
        if claimed.tenant_id in poison:
            stumbles[claimed.tenant_id] += 1
            if stumbles.total() == 15:
                enough.set()
            raise ZeroDivisionError
        return derive(ring, claimed)

    async with works.running(derive=stumbling):
        for _ in range(40):
            await ask(db, challenges, clock)
        await until_all_have_arrived(mail, 40)
        await asyncio.wait_for(enough.wait(), 30)

    assert list(stumbles.values()) == [5, 5, 5]
    assert await states(db) == {"sent": 40, "failed": 3}
    assert await count(db, "SELECT count(*) FROM outbox WHERE error_class = 'poison'") == 3


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_sigterm_under_load(
    db: Database,
    today: Challenges,
    settings: Settings,
    works_today: Works,
    mail: MailServer,
    times: int,
) -> None:
    """Drained within 25 seconds or handed back: nothing lost, nothing sent twice, nothing left leased."""
    asked = 0
    for _ in range(times):
        async with worker_process(settings, mail) as process:
            before = len(mail.mails)
            for _ in range(60):
                await ask(db, today, now)
                asked += 1
            while len(mail.mails) < before + 10:
                await mail.next()
            process.terminate()
            async with asyncio.timeout(25):
                assert await process.wait() == 0
        assert (await states(db)).keys() <= {"sent", "queued"}
        assert await count(db, "SELECT count(*) FROM outbox WHERE lease_owner IS NOT NULL") == 0
    async with works_today.running():
        await until_all_have_arrived(mail, asked)

    assert await states(db) == {"sent": asked}
    assert len(mail.mails) == asked
