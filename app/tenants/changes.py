"""A change of a tenant: checked first, then written with all that it brings about.

Shared by the service, which changes one tenant at a time, and the import, which changes many in one transaction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from app.audit.log import Actor, Client, record, record_many
from app.errors import FieldError, InvalidRequest
from app.settings import Settings
from app.storage.db import Database, repeatable
from app.tenants import effects
from app.tenants.model import COLUMNS, Tenant, changed_fields, masked_changes
from app.tenants.rules import (
    TenantFields,
    check_delivery,
    check_tenant,
    contact_for,
    effective_policy,
    merge_policy,
    operator_policy,
    region_of,
)

_CONTACTS: Final = ("email", "phone_number")
_DELIVERY: Final = frozenset({*_CONTACTS, "otp_delivery_method", "fallback_methods"})

_COLUMNS: Final = ", ".join(COLUMNS)
_PLACES: Final = ", ".join(f"${n}" for n in range(1, len(COLUMNS) + 1))
_INSERT: Final = f"INSERT INTO tenants ({_COLUMNS}) VALUES ({_PLACES})"
_UPDATE: Final = f"UPDATE tenants SET ({_COLUMNS}) = ({_PLACES}) WHERE id = $1"


class Changes:
    """Checks and writes changes by the rules of this installation."""

    def __init__(self, db: Database, settings: Settings, wake_worker: Callable[[], None]) -> None:
        self._db = db
        self._wake_worker = wake_worker
        self._channels = frozenset(settings.providers)
        self._ceiling = operator_policy(
            code_length=settings.otp_length,
            code_ttl_seconds=settings.otp_ttl_seconds,
            max_attempts=settings.otp_max_attempts,
            hourly_limit=settings.otp_hourly_limit,
            resend_cooldown_seconds=settings.otp_resend_cooldown_seconds,
        )

    def draft(self, values: Mapping[str, object], now: datetime) -> Tenant:
        """A new tenant that isn't written yet. Raises what `create` does, `AlreadyExists` excepted."""
        fields = _settable(check_tenant(values, create=True))
        tenant = Tenant(id=uuid4(), created_at=now, updated_at=now, **fields)
        tenant = replace(tenant, policy=merge_policy({}, tenant.policy))
        self._check_delivery(tenant, method_chosen="otp_delivery_method" in fields)
        return tenant

    def edited(self, before: Tenant, changes: Mapping[str, object]) -> Tenant:
        """A tenant with the named fields changed, not written yet. Raises what `update` does for its input."""
        region = region_of(before.locale, before.timezone)
        fields = _settable(check_tenant(changes, create=False, region=region))
        if fields.pop("slug", before.slug) != before.slug:
            raise InvalidRequest(FieldError("/slug", "A slug can't be changed."))
        if "policy" in fields:
            fields["policy"] = merge_policy(before.policy, fields["policy"])
        if fields.get("status", before.status) != before.status:
            fields["status_reason"] = None
        after = replace(before, **fields)
        changed = changed_fields(before, after)
        if changed & _DELIVERY:
            lost = _reached_by(before, after.otp_delivery_method) and not _reached_by(after, after.otp_delivery_method)
            self._check_delivery(after, method_chosen="otp_delivery_method" in changed or lost)
        return after

    async def add(
        self,
        connection: asyncpg.Connection,
        now: datetime,
        tenants: Sequence[Tenant],
        actor: Actor,
        client: Client,
    ) -> None:
        """Writes new tenants, in the caller's all-tenants transaction."""
        if tenants:
            await connection.executemany(_INSERT, [_row(tenant) for tenant in tenants])
            await record_many(
                connection,
                now,
                [
                    (tenant.id, {"changes": masked_changes(None, tenant), "version": tenant.version})
                    for tenant in tenants
                ],
                "tenant.created",
                actor,
                client,
            )

    async def save(
        self,
        connection: asyncpg.Connection,
        now: datetime,
        before: Tenant | None,
        after: Tenant,
        actor: Actor,
        client: Client,
    ) -> Tenant:
        """Writes a tenant and all that its change brings about, in the caller's all-tenants transaction.

        The caller holds the row of `before`, and calls `settle` when the transaction is committed. Answers with what
        is stored; what changes nothing is no change.
        """
        if before is None:
            await self.add(connection, now, [after], actor, client)
            return after
        changed = changed_fields(before, after)
        if not changed:
            return before
        after = replace(after, version=before.version + 1, updated_at=max(now, before.updated_at))
        await connection.execute(_UPDATE, *_row(after))
        data = {"changes": masked_changes(before, after), "version": after.version}
        contacts = contacts_changed(before, after)
        suspended = "status" in changed and after.status == "suspended"
        if contacts or suspended:
            data["codes_voided"] = await effects.void_codes(connection, now, after.id, everybody=suspended)
            if suspended or effective_policy(self._ceiling, before.policy).end_sessions_on_contact_change:
                data["sessions_ended"] = await effects.end_sessions(
                    connection, now, after.id, everybody=suspended, actor=actor, client=client
                )
        for contact in contacts:
            await effects.notify(connection, now, before, after, contact, self._channels)
        if after.status_reason:
            data["reason"] = after.status_reason
        action = "tenant.changed"
        if "status" in changed:
            action = "tenant.suspended" if suspended else "tenant.resumed"
        await record_change(connection, now, after, action, actor, client, data)
        return after

    @repeatable
    async def settle(self, now: datetime, moved: Sequence[UUID]) -> None:
        """What is left to do for tenants with new contacts once that is committed.

        A request that still read an old contact may have committed while we were at it, and the worker sent its code
        there. What commits from here on goes to the new one.
        """
        for tenant_id in moved:
            async with self._db.tenant(tenant_id) as connection:
                await effects.void_codes(connection, now, tenant_id, everybody=False)
        if moved:
            self._wake_worker()

    def _check_delivery(self, tenant: Tenant, *, method_chosen: bool) -> None:
        """Raises `ContactMissing` or `ChannelUnavailable` where no code could go by the preferred method.

        A tenant without any contact is a state of its own, which lists and pages point out: it is refused only to
        whoever names a method with it, or takes away the contact of the one that is preferred.
        """
        if tenant.email is None and tenant.phone_number is None and not method_chosen:
            return
        check_delivery(
            tenant.otp_delivery_method,
            tenant.fallback_methods,
            tenant.email,
            tenant.phone_number,
            self._channels,
        )


def _reached_by(tenant: Tenant, method: str) -> bool:
    return contact_for(method, tenant.email, tenant.phone_number) is not None


def contacts_changed(before: Tenant, after: Tenant) -> list[str]:
    """The names of the contacts that differ."""
    return [name for name in _CONTACTS if getattr(before, name) != getattr(after, name)]


def _settable(fields: TenantFields) -> dict[str, Any]:
    values: dict[str, Any] = dict(fields)
    if "fallback_methods" in values:
        values["fallback_methods"] = tuple(values["fallback_methods"])
    return values


def _row(tenant: Tenant) -> list[object]:
    return [getattr(tenant, name) for name in COLUMNS]


async def record_change(
    connection: asyncpg.Connection,
    now: datetime,
    tenant: Tenant,
    action: str,
    actor: Actor,
    client: Client,
    data: dict[str, Any],
) -> None:
    """Writes what was done to a tenant into the audit log, in the caller's transaction."""
    subject: tuple[str, UUID] = ("tenant", tenant.id)
    await record(connection, now, tenant.id, action, actor, client, subject=subject, data=data)
