"""What the outbox promises when PostgreSQL or Valkey goes down hard. In full when marked long."""

import asyncio
import itertools
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from app import embedded
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.limits import AddressLimiter
from app.auth.sessions import Sessions
from app.embedded import Stores
from app.errors import RateLimited, Unavailable
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.migrate import upgrade
from app.storage.redis import Accelerator
from tests.conftest import Clock
from tests.deliveries import (
    CLIENT,
    Works,
    ask,
    assert_copies_are_equal,
    states,
    until_all_have_arrived,
)
from tests.mailserver import MailServer
from tests.people import add_tenant


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
            async with asyncio.timeout(10):
                while True:
                    await asyncio.to_thread(fragile.tend)
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
