"""A database of its own whose audit log a test may write, seal, check, and tamper with as the owner of the tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from app.audit.checkpoints import Checkpoint
from app.audit.log import Actor, Client, record
from app.audit.sealing import seal_once
from app.audit.verdict import Verdict
from app.audit.verification import verify
from app.keys import KeyRing
from app.storage.db import Database
from tests.stores import StoresOfTests

NOW: Final = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
TENANT: Final = UUID("00000000-0000-0000-0000-00000000aaaa")
SECRET: Final = b"the secret in force, at least 32 bytes."
OLD_SECRET: Final = b"an older secret of at least 32 bytes .."
RING: Final = KeyRing([SECRET, OLD_SECRET])
FOREIGN: Final = KeyRing([b"the attacker's own, also of 32 bytes .."])
CLIENT: Final = Client("api", "198.51.100.66", "Mozilla/5.0", "r-1")


class Desk:
    """The application's and the owner's view of one database."""

    def __init__(self, name: str, db: Database, owner: asyncpg.Connection) -> None:
        self.name, self.db, self.owner = name, db, owner

    async def write(self, events: int, now: datetime = NOW, action: str = "code.wrong") -> None:
        """Events as the application writes them."""
        async with self.db.every_tenant() as connection:
            for n in range(events):
                await record(connection, now, TENANT, action, Actor("tenant", TENANT), CLIENT, data={"n": n})

    async def seal(self, now: datetime = NOW, ring: KeyRing = RING) -> int:
        """What the worker does every few seconds."""
        return await seal_once(self.db, ring, now)

    async def close(self) -> None:
        """Lets go of the database."""
        await self.owner.close()
        await self.db.close()

    async def tamper(self, *statements: str) -> None:
        """As the owner of the tables, who can switch the triggers off."""
        tables = ("audit_events", "audit_seals", "audit_checkpoints")
        async with self.owner.transaction():
            await self.owner.execute("SELECT set_config('app.scope', 'all', true)")
            for table in tables:
                await self.owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            for statement in statements:
                assert not (await self.owner.execute(statement)).endswith(" 0"), "the attack found its target"
            for table in tables:
                await self.owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")

    async def value(self, sql: str) -> Any:
        async with self.db.every_tenant() as connection:
            return await connection.fetchval(sql)

    async def verify(self, *checkpoints: Checkpoint) -> Verdict:
        return await verify(self.db, RING, checkpoints=checkpoints)

    async def faults(self, *checkpoints: Checkpoint) -> list[tuple[str, int | None, int | None]]:
        """Every fault with its event and its batch."""
        verdict = await self.verify(*checkpoints)
        assert verdict.faults == len(verdict.findings)
        return [(finding.fault, finding.event_id, finding.batch) for finding in verdict.findings]


async def open_desk(stores: StoresOfTests, name: str) -> Desk:
    db = Database(stores.app_url_for(name), size=12, application="tests")
    await db.open()
    return Desk(name, db, await asyncpg.connect(stores.owner_url_for(name)))


@asynccontextmanager
async def copy_of(stores: StoresOfTests, template: str) -> AsyncIterator[Desk]:
    """A desk at a copy of a database that nobody is connected to; the copy is removed again."""
    name = f"{template}_{uuid4().hex[:8]}"
    await stores.create_database(name, template=template)
    desk = await open_desk(stores, name)
    yield desk
    await desk.close()
    await drop(stores, name)


async def drop(stores: StoresOfTests, name: str) -> None:
    """Removes a database that we left. Not by force, which an autovacuum that is there would refuse."""
    connection = await asyncpg.connect(stores.admin_url)
    try:
        await connection.execute(f'DROP DATABASE "{name}"')
    finally:
        await connection.close()
