"""Real parts for every test: PostgreSQL and Valkey from the wheels, a clock that only tests move."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from app.auth.challenges import Challenges
from app.auth.limits import AddressLimiter
from app.auth.sessions import Sessions
from app.keys import KeyRing
from app.settings import Settings, load
from app.storage.db import Database
from app.storage.migrate import upgrade
from app.storage.redis import Accelerator
from tests.http import Http, serve
from tests.pages import Visitor, visitor
from tests.stores import StoresOfTests, start_test_stores


class Clock:
    """The time, as the test says. Starts at a fixed moment that is no edge of hour, day or month."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        """Moves time on: `clock.forward(minutes=10)`."""
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
async def stores() -> AsyncIterator[StoresOfTests]:
    """One PostgreSQL and one Valkey for the whole run, shared by its processes."""
    servers = await start_test_stores()
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
async def urls(stores: StoresOfTests, worker_id: str) -> tuple[str, str]:
    """A fresh, migrated database of this process: the owner's URL and the application's."""
    name = f"gatehouse_{worker_id}_{uuid4().hex[:8]}"
    await stores.create_database(name)
    await upgrade(stores.owner_url_for(name), datetime.now(UTC))
    return stores.owner_url_for(name), stores.app_url_for(name)


@pytest.fixture(scope="session")
def settings(urls: tuple[str, str], stores: StoresOfTests, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a test installation on those stores."""
    owner_url, app_url = urls
    return load(
        {
            "ENVIRONMENT": "test",
            "DATA_DIR": str(tmp_path_factory.mktemp("data")),
            "DATABASE_URL": app_url,
            "DATABASE_OWNER_URL": owner_url,
            "REDIS_URL": stores.redis_url,
            # Tests call from one address; those about this limit set their own.
            "OTP_IP_HOURLY_LIMIT": "1000000",
            "SMTP_ENABLED": "true",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_USE_TLS": "false",
            "SMTP_FROM_EMAIL": "codes@gatehouse.example",
        },
        dotenv=None,
    )


@pytest.fixture(scope="session")
async def db(settings: Settings) -> AsyncIterator[Database]:
    assert settings.database_url
    database = Database(settings.database_url, application="tests")
    await database.open()
    yield database
    await database.close()


@pytest.fixture(scope="session")
def ring(settings: Settings) -> KeyRing:
    return KeyRing(settings.secret_keys)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).parent.parent


@pytest.fixture
def sessions(db: Database, ring: KeyRing, settings: Settings, clock: Clock) -> Sessions:
    return Sessions(db, ring, settings, clock)


@pytest.fixture
async def limiter(settings: Settings) -> AsyncIterator[AddressLimiter]:
    assert settings.redis_url
    accelerator = Accelerator(settings.redis_url)
    yield AddressLimiter(accelerator, limit=settings.otp_ip_hourly_limit, processes=1)
    await accelerator.close()


@pytest.fixture
def challenges(
    db: Database, ring: KeyRing, settings: Settings, sessions: Sessions, limiter: AddressLimiter, clock: Clock
) -> Challenges:
    return Challenges(db, ring, settings, sessions, limiter, clock, wake_worker=lambda: None)


@pytest.fixture
async def http(settings: Settings, clock: Clock) -> AsyncIterator[Http]:
    """A client of the application; a module that wants other settings has a fixture of this name itself."""
    async with serve(settings, clock) as served:
        yield served


@pytest.fixture
async def person(http: Http) -> AsyncIterator[Visitor]:
    """A fresh browser in front of it."""
    async with visitor(http) as somebody:
        yield somebody
