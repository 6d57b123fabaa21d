"""What the tests of the outbox's promises share (docs/delivery.md): a mail server, and workers on two clocks."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from app.auth.challenges import Challenges
from app.auth.limits import AddressLimiter
from app.auth.sessions import Sessions
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.deliveries import Works
from tests.mailserver import MailServer, mail_server

# As many sends a worker has under way.
CONCURRENCY = 64


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
