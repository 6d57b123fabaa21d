"""Invitations: whoever is added as `pending` is told where to register. The message has a link and nothing secret."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final

import asyncpg

from app.audit.log import Actor, Client
from app.errors import AlreadyExists, ChannelUnavailable, Forbidden, RateLimited, TenantSuspended
from app.members import changes, effects
from app.members.model import Member

_INVITED: Final = "member.invited"
# A second click is no second mail.
_COOLDOWN: Final = timedelta(minutes=1)
_DOOR: Final = "SELECT status, policy ->> 'registration' AS registration FROM tenants WHERE id = $1"
_LAST: Final = """
SELECT max(at) FROM audit_events WHERE tenant_id = $1 AND subject_id = $2 AND at > $3 AND action = 'member.invited'
"""


@dataclass(frozen=True, slots=True)
class Invitation:
    """Sent to `member` by `channel`."""

    member: Member
    channel: str


def may_register(tenant_status: str, registration: str | None) -> bool:
    """Whether somebody invited can become a member: the tenant is active, its policy `registration` not closed."""
    return tenant_status == "active" and registration in {"invite", "open"}


async def welcome(
    connection: asyncpg.Connection,
    now: datetime,
    member: Member,
    actor: Actor,
    client: Client,
    channels: Collection[str],
) -> bool:
    """Invites a member who was just added, in the same transaction; whether there was anything to send.

    Not somebody who needs no invitation or could do nothing with one: the tenant is suspended, registration is closed.
    """
    if member.status != "pending" or await _shut(connection, member) is not None:
        return False
    return await _send(connection, now, member, actor, client, channels) is not None


async def again(
    connection: asyncpg.Connection,
    now: datetime,
    member: Member,
    actor: Actor,
    client: Client,
    channels: Collection[str],
) -> Invitation:
    """Invites once more, in the caller's transaction, which holds the member's row.

    Raises `AlreadyExists` for somebody who has registered, `Forbidden` where registration is closed, `TenantSuspended`,
    `RateLimited` within a minute of the last one, `ChannelUnavailable` without a way to send it.
    """
    if member.status != "pending":
        raise AlreadyExists("This member needs no invitation: only who is pending has yet to register.")
    if (refusal := await _shut(connection, member)) is not None:
        raise refusal
    last = await connection.fetchval(_LAST, member.tenant_id, member.id, now - _COOLDOWN)
    if last is not None:
        wait = ceil((last + _COOLDOWN - now).total_seconds())
        raise RateLimited(wait, policy="cooldown", detail="An invitation has just been sent. Wait a minute.")
    channel = await _send(connection, now, member, actor, client, channels)
    if channel is None:
        raise ChannelUnavailable("No channel that is switched on reaches this member.")
    return Invitation(member, channel)


async def _shut(connection: asyncpg.Connection, member: Member) -> TenantSuspended | Forbidden | None:
    """Why nobody can register here at present."""
    door = await connection.fetchrow(_DOOR, member.tenant_id)
    if door["status"] != "active":
        return TenantSuspended()
    if not may_register(door["status"], door["registration"]):
        return Forbidden("Registration is closed here. Set the tenant's policy `registration` to invite or open first.")
    return None


async def _send(
    connection: asyncpg.Connection,
    now: datetime,
    member: Member,
    actor: Actor,
    client: Client,
    channels: Collection[str],
) -> str | None:
    channel = await effects.tell(connection, now, member, {"template": "invited", "locale": member.locale}, channels)
    if channel is not None:
        await changes.log(connection, now, member, _INVITED, actor, client, {"channel": channel})
    return channel
