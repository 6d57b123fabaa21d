"""What a change of a tenant brings about beside itself, in the transaction of the change."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from app.access import revoking
from app.access.revoking import Whose
from app.audit.log import Actor, Client
from app.tenants.model import Tenant, masked_contact

NOTICE_LIFE: Final = timedelta(hours=24)

_NOTICE: Final = """
INSERT INTO outbox (tenant_id, id, kind, channel, destination, payload, available_at, expires_at, created_at,
                    updated_at)
VALUES ($1, $2, 'notice', $3, $4, $5, $6, $7, $6, $6)
"""
# The first that is switched on carries the notice.
_CHANNELS: Final = {"email": ("email",), "phone_number": ("sms", "whatsapp")}


async def void_codes(connection: asyncpg.Connection, now: datetime, tenant_id: UUID, *, everybody: bool) -> int:
    """Ends what the tenant's contact, or everybody in it, could sign in with: links, half sign-ins, open challenges.

    No device of theirs is remembered any more. Answers how many challenges.
    """
    return await revoking.void_codes(connection, now, tenant_id, _whose(tenant_id, everybody=everybody))


async def end_sessions(
    connection: asyncpg.Connection, now: datetime, tenant_id: UUID, *, everybody: bool, actor: Actor, client: Client
) -> int:
    """Ends sessions of whoever signed in by the tenant's contact, or of everybody in it, and forgets their devices.

    Answers how many sessions. To be called after `void_codes`.
    """
    reason = "tenant-suspended" if everybody else "contact-changed"
    whose = _whose(tenant_id, everybody=everybody)
    return await revoking.end_sessions(connection, now, tenant_id, whose, reason, actor=actor, client=client)


async def notify(
    connection: asyncpg.Connection,
    now: datetime,
    before: Tenant,
    after: Tenant,
    contact: str,
    channels: Collection[str],
) -> int:
    """Tells the old and the new address, so that whoever lost control of one learns of it at the other.

    `contact` is `email` or `phone_number`. Answers how many notices were queued; none without a channel for it.
    """
    channel = next((name for name in _CHANNELS[contact] if name in channels), None)
    destinations = [getattr(tenant, contact) for tenant in (before, after)]
    reachable = [destination for destination in destinations if destination and channel]
    payload = {
        "template": "contact_changed",
        "contact": contact,
        "before": masked_contact(before, contact),
        "after": masked_contact(after, contact),
    }
    for destination in reachable:
        await connection.execute(_NOTICE, after.id, uuid4(), channel, destination, payload, now, now + NOTICE_LIFE)
    return len(reachable)


def _whose(tenant_id: UUID, *, everybody: bool) -> Whose:
    return None if everybody else ("tenant", tenant_id)
