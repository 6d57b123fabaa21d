"""Taking access away from a person or everybody of a tenant, in the caller's transaction. See `sql/revoking.sql`."""

from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from app.audit.log import Actor, Client

_LOCK: Final = "SELECT fn.lock_subject($1, true)"
_REVOKE: Final = "SELECT * FROM fn.revoke_access($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"

# What is under way, or could begin without anything new being proven; it leaves no event of its own.
_UNDER_WAY: Final = ["codes", "halves", "remembered"]
_SIGNED_IN: Final = ["devices", "sessions"]
_DEVICES: Final = ["devices"]

# A person by kind and id; None: everybody of the tenant.
Whose: TypeAlias = tuple[str, UUID] | None


async def lock(connection: asyncpg.Connection, subject_id: UUID) -> None:
    """Keeps sign-ins of a person, or of everybody of a tenant, out until the transaction ends.

    To be called first, before any row is held: two who wait for each other would break off.
    """
    await connection.execute(_LOCK, subject_id)


async def void_codes(connection: asyncpg.Connection, now: datetime, tenant_id: UUID, whose: Whose) -> int:
    """Ends open challenges, sign-in links and half sign-ins, and no device is remembered; how many challenges."""
    row = await connection.fetchrow(
        _REVOKE, now, tenant_id, *(whose or (None, None)), _UNDER_WAY, None, None, None, None, {}
    )
    codes: int = row["codes"]
    return codes


async def end_sessions(
    connection: asyncpg.Connection,
    now: datetime,
    tenant_id: UUID,
    whose: Whose,
    reason: str,
    *,
    actor: Actor,
    client: Client,
    keep: UUID | None = None,
) -> int:
    """Ends all sessions but `keep`, each with an event, and forgets the devices; how many sessions.

    To be called after `void_codes`: whoever is just being signed in has been waited for, and the session is there.
    """
    args = (*(whose or (None, None)), _SIGNED_IN, reason, keep, actor.kind, actor.id, client.as_json())
    row = await connection.fetchrow(_REVOKE, now, tenant_id, *args)
    sessions: int = row["sessions"]
    return sessions


async def forget_devices(
    connection: asyncpg.Connection, now: datetime, tenant_id: UUID, whose: Whose, reason: str
) -> None:
    """Makes every known device a stranger again; sessions go on."""
    await connection.execute(_REVOKE, now, tenant_id, *(whose or (None, None)), _DEVICES, reason, None, None, None, {})
