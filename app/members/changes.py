"""A change of a member: checked first, then written with all that it brings about, in one transaction."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from app.audit.log import Actor, Client, record
from app.errors import AlreadyExists
from app.members import effects
from app.members.model import CONTACTS, DECIDED, SELECTED, Member, changed_fields, masked_changes
from app.members.rules import check_member, check_whole

_WRITTEN: Final = (*DECIDED, "email_verified_at", "phone_verified_at", "version", "created_at", "updated_at")
_INSERT: Final = (
    f"INSERT INTO members (tenant_id, id, {', '.join(_WRITTEN)}) "
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(_WRITTEN) + 3))})"
)
_UPDATE: Final = (
    f"UPDATE members SET ({', '.join(_WRITTEN)}) = ({', '.join(f'${n}' for n in range(3, len(_WRITTEN) + 3))}) "
    "WHERE tenant_id = $1 AND id = $2"
)
_LOCK: Final = f"SELECT {SELECTED} FROM members WHERE tenant_id = $1 AND id = $2 FOR UPDATE"
_TAKE: Final = "SELECT fn.take_address($1, $2, $3, $4)"


async def locked(connection: asyncpg.Connection, tenant_id: UUID, member_id: UUID) -> Member | None:
    """The member, held until the transaction ends; no sign-in of theirs is completed meanwhile."""
    await effects.lock(connection, member_id)
    row = await connection.fetchrow(_LOCK, tenant_id, member_id)
    return Member.of(row) if row else None


def drafted(tenant_id: UUID, values: Mapping[str, object], now: datetime, region: str | None) -> Member:
    """A new member that isn't written yet. Raises `InvalidRequest`."""
    fields = check_member(values, create=True, region=region)
    member = Member(tenant_id=tenant_id, id=uuid4(), created_at=now, updated_at=now, **fields)
    check_whole(member.email, member.phone_number, member.preferred_method)
    return member


def edited(before: Member, values: Mapping[str, object], region: str | None) -> Member:
    """A member with the named fields changed, not written yet. Raises `InvalidRequest`."""
    after = replace(before, **check_member(values, create=False, region=region))
    # Another address is yet to be proven.
    after = replace(
        after,
        email_verified_at=before.email_verified_at if after.email == before.email else None,
        phone_verified_at=before.phone_verified_at if after.phone_number == before.phone_number else None,
    )
    check_whole(after.email, after.phone_number, after.preferred_method)
    return after


async def save(
    connection: asyncpg.Connection,
    now: datetime,
    before: Member | None,
    after: Member,
    actor: Actor,
    client: Client,
    channels: Collection[str],
    *,
    keep: UUID | None = None,
) -> Member:
    """Writes a member and all that the change brings about, in the caller's transaction of the tenant.

    The caller holds the row of `before`. `keep` is the session that does it and goes on. Raises `AlreadyExists` for an
    address that another member has.
    """
    changed = list(DECIDED) if before is None else changed_fields(before, after)
    if not changed:
        return after
    if before is not None:
        after = replace(after, version=before.version + 1, updated_at=max(now, before.updated_at))
    taken = [getattr(after, name) if name in changed else None for name in CONTACTS]
    if not await connection.fetchval(_TAKE, after.tenant_id, after.id, *taken):
        raise _taken()
    try:
        await connection.execute(
            _INSERT if before is None else _UPDATE,
            after.tenant_id,
            after.id,
            *(getattr(after, name) for name in _WRITTEN),
        )
    except asyncpg.UniqueViolationError:
        raise _taken() from None
    data: dict[str, Any] = {"changes": masked_changes(before, after), "version": after.version}
    if before is not None:
        for contact in CONTACTS:
            if contact in changed:
                data |= await effects.after_contact_change(
                    connection, now, before, after, contact, channels, keep, actor=actor, client=client
                )
        if "status" in changed and after.status != "active":
            data["codes_voided"] = await effects.void_codes(connection, now, after.tenant_id, after.id)
            data["sessions_ended"] = await effects.end_sessions(
                connection, now, after.tenant_id, after.id, "member-suspended", actor=actor, client=client
            )
    await log(connection, now, after, _action(before, after), actor, client, data)
    return after


async def log(
    connection: asyncpg.Connection,
    now: datetime,
    member: Member,
    action: str,
    actor: Actor,
    client: Client,
    data: dict[str, Any] | None = None,
) -> None:
    """Writes what was done to a member into the audit log."""
    await record(
        connection, now, member.tenant_id, action, actor, client, subject=("member", member.id), data=data or {}
    )


def _action(before: Member | None, after: Member) -> str:
    if before is None:
        return "member.created"
    if before.status != after.status:
        return {"suspended": "member.suspended", "active": "member.resumed"}.get(after.status, "member.changed")
    return "member.changed"


def _taken() -> AlreadyExists:
    return AlreadyExists("Another member has this email address or phone number.")
