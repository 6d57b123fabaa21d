"""What a change of a member brings about beside itself, in the transaction of the change."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from app.members.model import Member, masked

_NOTICE_LIFE: Final = timedelta(hours=24)

# Sign-ins that are just being completed wait for the change, or the change for them.
_LOCK: Final = "SELECT fn.lock_subject($1, true)"
_VOID_CODES: Final = """
UPDATE challenges SET ended_at = $1, end_reason = 'void', salt = NULL, digest = NULL
WHERE tenant_id = $2 AND subject_kind = 'member' AND subject_id = $3 AND ended_at IS NULL
"""
_VOID_LINKS: Final = """
UPDATE sign_in_links SET used_at = $1
WHERE tenant_id = $2 AND subject_kind = 'member' AND subject_id = $3 AND used_at IS NULL
"""
_VOID_HALVES: Final = """
UPDATE half_sign_ins SET ended_at = $1
WHERE tenant_id = $2 AND subject_kind = 'member' AND subject_id = $3 AND ended_at IS NULL
"""
_REVOKE_DEVICES: Final = """
UPDATE devices SET revoked_at = $1, revoke_reason = $4
WHERE tenant_id = $2 AND subject_kind = 'member' AND subject_id = $3 AND revoked_at IS NULL
"""
_END_SESSIONS: Final = """
UPDATE sessions SET ended_at = $1, end_reason = $4
WHERE tenant_id = $2 AND subject_kind = 'member' AND subject_id = $3 AND ended_at IS NULL AND expires_at > $1
  AND id IS DISTINCT FROM $5
"""
_ENDS_SESSIONS: Final = """
SELECT coalesce((policy ->> 'end_sessions_on_contact_change')::boolean, true) FROM tenants WHERE id = $1
"""
_NOTICE: Final = """
INSERT INTO outbox (tenant_id, id, kind, channel, destination, payload, available_at, expires_at, created_at,
                    updated_at)
VALUES ($1, $2, 'notice', $3, $4, $5, $6, $7, $6, $6)
"""
# The first that is switched on carries the notice.
_CHANNELS: Final = {"email": ("email",), "phone_number": ("sms", "whatsapp")}


async def lock(connection: asyncpg.Connection, member_id: UUID) -> None:
    """Keeps sign-ins of the member out until the transaction ends. To be called first."""
    await connection.execute(_LOCK, member_id)


async def void_codes(connection: asyncpg.Connection, now: datetime, tenant_id: UUID, member_id: UUID) -> int:
    """Ends the member's open challenges, sign-in links and half sign-ins; how many challenges."""
    await connection.execute(_VOID_LINKS, now, tenant_id, member_id)
    await connection.execute(_VOID_HALVES, now, tenant_id, member_id)
    return _affected(await connection.execute(_VOID_CODES, now, tenant_id, member_id))


async def end_sessions(
    connection: asyncpg.Connection,
    now: datetime,
    tenant_id: UUID,
    member_id: UUID,
    reason: str,
    keep: UUID | None = None,
) -> int:
    """Ends all sessions but `keep`, and forgets the devices. To be called after `void_codes`; how many sessions."""
    await connection.execute(_REVOKE_DEVICES, now, tenant_id, member_id, reason)
    return _affected(await connection.execute(_END_SESSIONS, now, tenant_id, member_id, reason, keep))


async def after_contact_change(
    connection: asyncpg.Connection,
    now: datetime,
    before: Member,
    after: Member,
    contact: str,
    channels: Collection[str],
    keep: UUID | None = None,
) -> dict[str, Any]:
    """Voids codes, forgets devices, ends sessions by policy, tells both addresses; answers what the log keeps."""
    data: dict[str, Any] = {"codes_voided": await void_codes(connection, now, after.tenant_id, after.id)}
    await connection.execute(_REVOKE_DEVICES, now, after.tenant_id, after.id, "contact-changed")
    if await connection.fetchval(_ENDS_SESSIONS, after.tenant_id):
        data["sessions_ended"] = await end_sessions(connection, now, after.tenant_id, after.id, "contact-changed", keep)
    payload = {
        "template": "own_contact_changed",
        "about": str(after.id),
        "contact": contact,
        "before": masked(before, contact),
        "after": masked(after, contact),
    }
    told = [getattr(before, contact), getattr(after, contact)]
    # Whoever had no address of that kind is told at the other.
    if told[0] is None:
        await notify(connection, now, before, payload, channels)
    await _send(connection, now, after.tenant_id, contact, told, payload, channels)
    return data


async def notify(
    connection: asyncpg.Connection, now: datetime, member: Member, payload: dict[str, Any], channels: Collection[str]
) -> None:
    """Tells every contact of the member."""
    about = payload | {"about": str(member.id)}
    for contact in _CHANNELS:
        await _send(connection, now, member.tenant_id, contact, [getattr(member, contact)], about, channels)


async def tell(
    connection: asyncpg.Connection, now: datetime, member: Member, payload: dict[str, Any], channels: Collection[str]
) -> str | None:
    """Tells the member once, by what they prefer where that is possible. By which channel; None: there is no way."""
    about = payload | {"about": str(member.id)}
    by_phone = member.preferred_method in _CHANNELS["phone_number"]
    for contact in sorted(_CHANNELS, reverse=by_phone):
        channel = await _send(connection, now, member.tenant_id, contact, [getattr(member, contact)], about, channels)
        if channel is not None:
            return channel
    return None


async def _send(
    connection: asyncpg.Connection,
    now: datetime,
    tenant_id: UUID,
    contact: str,
    destinations: Collection[str | None],
    payload: dict[str, Any],
    channels: Collection[str],
) -> str | None:
    """By which channel it goes; None: nobody is there, or no such channel is switched on."""
    channel = next((name for name in _CHANNELS[contact] if name in channels), None)
    there = [destination for destination in destinations if destination]
    if channel is None or not there:
        return None
    for destination in there:
        await connection.execute(_NOTICE, tenant_id, uuid4(), channel, destination, payload, now, now + _NOTICE_LIFE)
    return channel


def _affected(tag: str) -> int:
    """The number of rows in a command tag such as `UPDATE 3`."""
    return int(tag.rpartition(" ")[2])
