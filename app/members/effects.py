"""What a change of a member brings about beside itself, in the transaction of the change."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from app.access import revoking
from app.audit.log import Actor, Client
from app.members.model import Member, masked

_NOTICE_LIFE: Final = timedelta(hours=24)

_REASON: Final = "contact-changed"
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
    await revoking.lock(connection, member_id)


async def void_codes(connection: asyncpg.Connection, now: datetime, tenant_id: UUID, member_id: UUID) -> int:
    """Ends the member's open challenges, sign-in links and half sign-ins; how many challenges."""
    return await revoking.void_codes(connection, now, tenant_id, ("member", member_id))


async def end_sessions(
    connection: asyncpg.Connection,
    now: datetime,
    tenant_id: UUID,
    member_id: UUID,
    reason: str,
    keep: UUID | None = None,
    *,
    actor: Actor,
    client: Client,
) -> int:
    """Ends all sessions but `keep`, and forgets the devices. To be called after `void_codes`; how many sessions."""
    whose = ("member", member_id)
    return await revoking.end_sessions(connection, now, tenant_id, whose, reason, actor=actor, client=client, keep=keep)


async def after_contact_change(
    connection: asyncpg.Connection,
    now: datetime,
    before: Member,
    after: Member,
    contact: str,
    channels: Collection[str],
    keep: UUID | None = None,
    *,
    actor: Actor,
    client: Client,
) -> dict[str, Any]:
    """Voids codes, forgets devices, ends sessions by policy, tells both addresses; answers what the log keeps."""
    data: dict[str, Any] = {"codes_voided": await void_codes(connection, now, after.tenant_id, after.id)}
    await revoking.forget_devices(connection, now, after.tenant_id, ("member", after.id), _REASON)
    if await connection.fetchval(_ENDS_SESSIONS, after.tenant_id):
        data["sessions_ended"] = await end_sessions(
            connection, now, after.tenant_id, after.id, _REASON, keep, actor=actor, client=client
        )
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
