"""Retention: whole months of the audit log are removed, and the chain says so itself.

The seals stay for good. A record in the chain, made with the key, tells that the events before a month were removed
on purpose; the lists of their marks are erased with them, and the checkpoints of that time. Needs the owner of the
tables.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from app.audit.chain import BEFORE_ALL_IDS, month_name, seal_removal
from app.audit.log import Actor, Client, record
from app.audit.sealing import CHAIN_SCOPE, SEALING_LOCK, add_seal, newest_seal
from app.errors import FieldError, InvalidRequest
from app.keys import KeyRing
from app.storage import SYSTEM_TENANT
from app.storage.db import Database

MONTHS_KEPT: Final = 13

# Removing a partition stops all sign-ins until it is done; rather give up than wait behind a long reader.
_LOCK_TIMEOUT: Final = "SELECT set_config('lock_timeout', '2s', true)"
# Statements that touch every row of a month.
_TIMEOUT: Final = 600.0
# As fn.ensure_partitions names them.
_PARTITION: Final = re.compile(r"audit_events_p(\d{4})(\d{2})")
_PARTITIONS: Final = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'public.audit_events'::regclass ORDER BY c.relname
"""
_OLD: Final = "SELECT count(*) AS events, coalesce(max(id) > $2, false) AS unsealed FROM audit_events WHERE at < $1"
# The triggers keep hands off that have no business here; this one has.
_ERASE: Final = """
ALTER TABLE audit_seals DISABLE TRIGGER audit_seals_append_only;
UPDATE audit_seals SET marks = NULL WHERE kind = 'events' AND month < {month} AND marks IS NOT NULL;
ALTER TABLE audit_seals ENABLE TRIGGER audit_seals_append_only;
ALTER TABLE audit_checkpoints DISABLE TRIGGER audit_checkpoints_append_only;
DELETE FROM audit_checkpoints WHERE made_at < '{start}';
ALTER TABLE audit_checkpoints ENABLE TRIGGER audit_checkpoints_append_only;
ALTER TABLE audit_events_default DISABLE TRIGGER audit_events_append_only;
DELETE FROM audit_events_default WHERE at < '{start}';
ALTER TABLE audit_events_default ENABLE TRIGGER audit_events_append_only;
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed: so many events, and these partitions."""

    events: int
    partitions: Sequence[str]


def default_month(now: datetime) -> int:
    """The month before which events are removed unless said otherwise, counted from year 0."""
    return now.year * 12 + now.month - 1 - MONTHS_KEPT


async def prune(owner: Database, ring: KeyRing, now: datetime, before: int) -> Pruned:
    """Removes all events of the months before `before` (counted from year 0), in one transaction.

    `owner` connects as the tables' owner. Raises `InvalidRequest` for a month that isn't over, or whose events are
    not sealed yet; asyncpg's `LockNotAvailableError` when somebody reads for long; `Unavailable`.
    """
    if before > now.year * 12 + now.month - 1:
        raise InvalidRequest(FieldError("/before", "Only months that are over can be removed."))
    start = datetime(before // 12, before % 12 + 1, 1, tzinfo=UTC)
    async with owner.connection() as connection, connection.transaction():
        await connection.execute(CHAIN_SCOPE)
        await connection.execute(_LOCK_TIMEOUT)
        await connection.execute("SELECT pg_advisory_xact_lock($1)", SEALING_LOCK, timeout=_TIMEOUT)
        head = await newest_seal(connection)
        sealed = head.through_id if head else BEFORE_ALL_IDS
        old = await connection.fetchrow(_OLD, start, sealed, timeout=_TIMEOUT)
        names = [row["relname"] for row in await connection.fetch(_PARTITIONS)]
        partitions = [name for name in names if _is_before(name, before)]
        if not (old["events"] or partitions):
            return Pruned(0, [])
        if old["unsealed"]:
            raise InvalidRequest(
                FieldError("/before", "Some of these events are not sealed yet: let a worker run for ten seconds.")
            )
        await add_seal(connection, seal_removal(ring.current, head, before, now), None)
        details = {"before": month_name(before), "events": old["events"]}
        await record(connection, now, SYSTEM_TENANT, "audit.pruned", Actor("operator"), Client("cli"), data=details)
        await connection.execute(_ERASE.format(month=before, start=start.isoformat()), timeout=_TIMEOUT)
        # Last, because nobody signs in from here to the commit.
        for partition in partitions:
            await connection.execute(f"DROP TABLE {partition}", timeout=_TIMEOUT)
    return Pruned(old["events"], partitions)


def _is_before(partition: str, month: int) -> bool:
    named = _PARTITION.fullmatch(partition)
    return named is not None and int(named[1]) * 12 + int(named[2]) - 1 < month
