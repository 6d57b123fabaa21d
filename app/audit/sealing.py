"""Sealing: the worker chains what was written since the last time. Never on the way of a sign-in.

Which events are there to be sealed? Ids come from a sequence, but transactions commit in any order: below an id
that is visible there may be one that isn't yet. A writer holds its lock on the table (RowExclusiveLock) before it
draws an id and until its rows are visible. So, in this order: read the sequence, list the lock's holders, wait
until each of them is gone. From then on no event with an id up to that number can appear any more. Writers are not
held up and write nothing more than their event; a transaction that stays open only delays the sealing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import structlog

from app.audit.chain import BEFORE_ALL_IDS, COLUMNS, Seal, seal_events
from app.audit.checkpoints import Checkpoint
from app.keys import KeyRing
from app.storage.db import Database

# One process seals at a time. Removing old months takes the same lock.
SEALING_LOCK: Final = 7342010
# Small enough not to hold up the worker's event loop (about 10 ms).
_BATCH: Final = 1000
_LOOK_AGAIN_SECONDS: Final = 0.02
_CHECKPOINT_EVERY: Final = timedelta(minutes=1)

# The encoding of an event is made of PostgreSQL's texts; these settings make them the same everywhere. Events are
# read in the order of an index, bit by bit: a plan that sorts would read all of them before the first.
CHAIN_SCOPE: Final = """
SELECT set_config('app.scope', 'all', true), set_config('datestyle', 'ISO, YMD', true),
       set_config('timezone', 'UTC', true), set_config('enable_sort', 'off', true)
"""
EVENT_TEXTS: Final = ", ".join(f"{column}::text" for column in COLUMNS)
_SEAL_FIELDS: Final = tuple(field.name for field in fields(Seal))
# A time that Python has no value for can only be forged; as another one it doesn't fit the hash either.
SEAL_COLUMNS: Final = ", ".join(_SEAL_FIELDS).replace(
    "sealed_at", "least(greatest(sealed_at, '1970-01-01Z'), '9999-01-01Z') AS sealed_at"
)

_DRAWN: Final = "SELECT last_value FROM pg_sequences WHERE schemaname = 'public' AND sequencename = 'audit_event_id'"
_WRITERS: Final = """
SELECT DISTINCT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = 'public.audit_events'::regclass
"""
_HEAD: Final = f"SELECT {SEAL_COLUMNS} FROM audit_seals ORDER BY number DESC LIMIT 1"
_NEXT: Final = f"""
SELECT {EVENT_TEXTS} FROM audit_events e WHERE e.id > $1 AND e.id <= $2 ORDER BY e.id LIMIT {_BATCH}
"""
_INSERT: Final = f"""
INSERT INTO audit_seals ({", ".join(_SEAL_FIELDS)}, marks)
VALUES ({", ".join(f"${n}" for n in range(1, len(_SEAL_FIELDS) + 2))})
"""
_KEYS_NEEDED: Final = """
WITH removal AS (SELECT month, key_id FROM audit_seals WHERE kind = 'removal' ORDER BY number DESC LIMIT 1)
SELECT key_id FROM audit_seals WHERE kind = 'events' AND month >= coalesce((SELECT month FROM removal), 0)
UNION SELECT key_id FROM removal UNION SELECT key_id FROM audit_checkpoints
"""
_CHECKPOINT_DUE: Final = """
SELECT NOT EXISTS (SELECT FROM audit_checkpoints WHERE number >= $1 OR made_at > $2)
"""
_INSERT_CHECKPOINT: Final = (
    "INSERT INTO audit_checkpoints (number, checkpoint, key_id, made_at) VALUES ($1, $2, $3, $4)"
)


async def seal_once(db: Database, ring: KeyRing, now: datetime, *, patience: float = 2.0) -> int:
    """Seals every event that is committed and can't be overtaken any more; answers how many.

    At most once a minute it makes a checkpoint, keeps it and writes it to the log. Waits up to `patience` seconds for
    transactions under way; where one takes longer, or another process is sealing, it leaves the rest for the next time.
    Raises `Unavailable`.
    """
    through = await _settled(db, patience)
    if through is None:
        return 0
    sealed, full = 0, True
    checkpoint: Checkpoint | None = None
    while full:
        async with _sealing(db) as connection:
            if connection is None:
                break
            head = await newest_seal(connection)
            events = await connection.fetch(_NEXT, head.through_id if head else BEFORE_ALL_IDS, through)
            full = len(events) == _BATCH
            if events:
                last = int(events[-1]["id"]) if full else through
                head, marks = seal_events(ring.current, head, last, map(tuple, events), now)
                await add_seal(connection, head, marks)
            if head and not full:
                checkpoint = await _make_checkpoint(connection, ring, head, now)
        sealed += len(events)
    if checkpoint:
        # After the commit: what the log has seen must be in the chain. And whoever owns the database can't reach it.
        structlog.get_logger().info("Audit checkpoint", checkpoint=checkpoint.text())
    return sealed


async def newest_seal(connection: asyncpg.Connection) -> Seal | None:
    """The head of the chain; None where nothing was ever sealed."""
    row = await connection.fetchrow(_HEAD)
    return Seal(*row) if row else None


async def add_seal(connection: asyncpg.Connection, seal: Seal, marks: bytes | None) -> None:
    """Appends to the chain; the caller holds `SEALING_LOCK`."""
    await connection.execute(_INSERT, *(getattr(seal, name) for name in _SEAL_FIELDS), marks)


async def keys_needed(connection: asyncpg.Connection) -> set[str]:
    """The ids of the keys without which the chain can't be checked; in the all-tenants scope.

    A key is needed until retention has taken everything that was sealed or signed with it: from then on later seals
    vouch for its own.
    """
    return {row["key_id"] for row in await connection.fetch(_KEYS_NEEDED)}


async def _settled(db: Database, patience: float) -> int | None:
    """An id up to which every event there will ever be is visible; None when that can't be told yet."""
    drawn = await db.row(_DRAWN)
    if drawn is None or drawn["last_value"] is None:
        return None
    under_way = await _writers(db)
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    while under_way:
        if loop.time() > give_up:
            return None
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        under_way &= await _writers(db)
    return int(drawn["last_value"])


async def _writers(db: Database) -> set[str]:
    return {row["virtualtransaction"] for row in await db.rows(_WRITERS)}


@asynccontextmanager
async def _sealing(db: Database) -> AsyncIterator[asyncpg.Connection | None]:
    """A transaction in which nobody else seals; None when somebody else is at it."""
    async with db.connection() as connection, connection.transaction():
        await connection.execute(CHAIN_SCOPE)
        ours = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", SEALING_LOCK)
        yield connection if ours else None


async def _make_checkpoint(
    connection: asyncpg.Connection, ring: KeyRing, head: Seal, now: datetime
) -> Checkpoint | None:
    if not await connection.fetchval(_CHECKPOINT_DUE, head.number, now - _CHECKPOINT_EVERY):
        return None
    checkpoint = Checkpoint.of(ring.current, head, now)
    await connection.execute(_INSERT_CHECKPOINT, checkpoint.number, checkpoint.text(), checkpoint.key_id, now)
    return checkpoint
