"""What a change of a tenant brings about beside itself, in the transaction of the change."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from app.tenants.model import Tenant, masked_contact

NOTICE_LIFE: Final = timedelta(hours=24)

# Erased as every ended challenge is. `$3`: of everybody, not only of the tenant's own contact.
_VOID_CHALLENGES: Final = """
UPDATE challenges SET ended_at = $1, end_reason = 'void', salt = NULL, digest = NULL
WHERE tenant_id = $2 AND ended_at IS NULL AND ($3 OR subject_kind = 'tenant')
"""
_END_SESSIONS: Final = """
UPDATE sessions SET ended_at = $1, end_reason = $4
WHERE tenant_id = $2 AND ended_at IS NULL AND expires_at > $1 AND ($3 OR subject_kind = 'tenant')
"""
# Who held the old contact may hold a link, or a device that codes are sent to in a lane of its own.
_VOID_LINKS: Final = """
UPDATE sign_in_links SET used_at = $1
WHERE tenant_id = $2 AND used_at IS NULL AND ($3 OR subject_kind = 'tenant')
"""
# A proven code that still waits for a second factor, or for one to be set up.
_VOID_HALF_SIGN_INS: Final = """
UPDATE half_sign_ins SET ended_at = $1
WHERE tenant_id = $2 AND ended_at IS NULL AND ($3 OR subject_kind = 'tenant')
"""
_REVOKE_DEVICES: Final = """
UPDATE devices SET revoked_at = $1, revoke_reason = $4
WHERE tenant_id = $2 AND revoked_at IS NULL AND ($3 OR subject_kind = 'tenant')
"""
# Known they stay where sessions do, but none stands for a code any more.
_FORGET_DEVICES: Final = """
UPDATE devices SET remembered_at = NULL
WHERE tenant_id = $1 AND remembered_at IS NOT NULL AND ($2 OR subject_kind = 'tenant')
"""
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
    # A sign-in that is just being completed holds its link or challenge; what it leads to is looked for after it.
    await connection.execute(_VOID_LINKS, now, tenant_id, everybody)
    voided = _affected(await connection.execute(_VOID_CHALLENGES, now, tenant_id, everybody))
    await connection.execute(_VOID_HALF_SIGN_INS, now, tenant_id, everybody)
    await connection.execute(_FORGET_DEVICES, tenant_id, everybody)
    return voided


async def end_sessions(connection: asyncpg.Connection, now: datetime, tenant_id: UUID, *, everybody: bool) -> int:
    """Ends sessions of whoever signed in by the tenant's contact, or of everybody in it, and forgets their devices.

    Answers how many sessions. To be called after `void_codes`: a sign-in that is just being completed holds its
    challenge's row, so that one has waited for it and its session is there to be ended.
    """
    reason = "tenant-suspended" if everybody else "contact-changed"
    await connection.execute(_REVOKE_DEVICES, now, tenant_id, everybody, reason)
    return _affected(await connection.execute(_END_SESSIONS, now, tenant_id, everybody, reason))


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


def _affected(tag: str) -> int:
    """The number of rows in a command tag such as `UPDATE 3`."""
    return int(tag.rpartition(" ")[2])
