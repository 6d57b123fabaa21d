"""The services a command works with, on whichever stores there are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

import asyncpg

from app import embedded, logs
from app.audit.log import Actor, Client
from app.auth.admins import Admins
from app.auth.api_keys import ApiKeys
from app.auth.factors.service import Factors
from app.auth.sessions import Sessions
from app.auth.unlocking import Unlocking
from app.cli.stores import open_stores
from app.delivery.marks import Marks
from app.delivery.outbox import WAKE_CHANNEL
from app.errors import GatehouseError, Unavailable
from app.keys import KeyRing
from app.members.service import Members
from app.settings import Settings, load
from app.storage import trouble
from app.storage.db import Database
from app.storage.redis import Accelerator, AcceleratorDown
from app.tenants.contacts import accept_internal_domains
from app.tenants.import_export import TenantFiles
from app.tenants.service import Tenants

T = TypeVar("T")

# Whoever can run commands on the server is not asked for a name.
OPERATOR: Final = Actor("operator")
SHELL: Final = Client("cli")

# No table, column, function or schema of that name.
_NO_SCHEMA: Final = frozenset({"42P01", "42703", "42883", "3F000"})


class SchemaMissing(GatehouseError):
    """The database is empty, or of another version."""

    code = "schema-missing"
    default_detail = "The database has no tables of this version yet: run `gatehouse migrate`."


class DatabaseRefused(GatehouseError):
    """The database answers, but not as it should; the detail says what it said."""

    code = "database-refused"


@dataclass(frozen=True, slots=True)
class Services:
    """What the commands call, as the portals do."""

    settings: Settings
    db: Database
    tenants: Tenants
    members: Members
    files: TenantFiles
    unlocking: Unlocking
    marks: Marks
    admins: Admins
    api_keys: ApiKeys
    factors: Factors


def now() -> datetime:
    """The clock of the command line."""
    return datetime.now(UTC)


def with_services(work: Callable[[Services], Awaitable[T]]) -> T:
    """Does one piece of work; the stores are up and migrated for as long as it takes.

    Raises what the work raises, `ConfigurationError`, what `open_stores` raises, `SchemaMissing`, `DatabaseRefused`.
    """
    settings = load()
    logs.configure(settings)
    ours = settings.database_url is None
    started_here = ours and embedded.holder(settings.data_dir) is None
    with open_stores(settings) as filled:
        return asyncio.run(_work(work, filled, migrate=ours, anyway=started_here))


async def _work(work: Callable[[Services], Awaitable[T]], settings: Settings, *, migrate: bool, anyway: bool) -> T:
    try:
        if migrate:
            await _migrate_embedded(settings, anyway=anyway)
        async with services(settings) as opened:
            return await work(opened)
    except (Unavailable, asyncpg.PostgresError) as error:
        state = trouble.sqlstate(error)
        if state in _NO_SCHEMA:
            raise SchemaMissing from error
        if state is None:
            raise
        raise DatabaseRefused(f"The database refuses: {error.__cause__ or error}") from error


@asynccontextmanager
async def services(settings: Settings) -> AsyncIterator[Services]:
    """The services on open stores; a woken worker has been told when the context ends."""
    accept_internal_domains(settings.email_internal_domains)
    assert settings.database_url is not None  # noqa: S101 - open_stores has filled it in
    assert settings.redis_url is not None  # noqa: S101
    db = Database(settings.database_url, size=2, application="gatehouse-cli", logs=False)
    accelerator = Accelerator(settings.redis_url)
    ring = KeyRing(settings.secret_keys)
    wakes: list[asyncio.Task[None]] = []

    async def wake() -> None:
        # The worker also looks by itself, only later.
        with suppress(AcceleratorDown):
            await accelerator.publish(WAKE_CHANNEL)

    def wake_worker() -> None:
        wakes.append(asyncio.create_task(wake()))

    await db.open()
    try:
        yield Services(
            settings,
            db,
            Tenants(db, settings, now, wake_worker),
            Members(db, settings, now, wake_worker),
            TenantFiles(db, settings, now, wake_worker),
            Unlocking(db, ring, now),
            Marks(db, now),
            Admins(db, now),
            ApiKeys(db, now),
            Factors(db, ring, settings, Sessions(db, ring, settings, now), now, wake_worker),
        )
        await asyncio.gather(*wakes)
    finally:
        await accelerator.close()
        await db.close()


async def _migrate_embedded(settings: Settings, *, anyway: bool) -> None:
    """Embedded servers are ours to keep in order; `gatehouse run` does it when it starts them."""
    if not anyway:
        connection = await asyncpg.connect(settings.database_url)
        try:
            if await connection.fetchval("SELECT to_regnamespace('fn') IS NOT NULL"):
                return
        finally:
            await connection.close()
    # Only here: the commands on running servers don't wait for SQLAlchemy to be imported.
    from app.storage.migrate import upgrade  # noqa: PLC0415

    assert settings.database_owner_url is not None  # noqa: S101 - as above
    await upgrade(settings.database_owner_url, now())
