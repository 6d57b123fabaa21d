"""Tenants: added, changed, suspended, found, for the admin API, the admin portal and the command line alike.

Plain SQL on asyncpg, not the advanced-alchemy repository: a change, its audit event, the notices and the end of
open codes and sessions are one transaction, and audit log and outbox are written on asyncpg; a second connection
could not be part of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID, uuid4

import asyncpg

from app.audit.log import Actor, Client, record
from app.errors import AlreadyExists, EditConflict, FieldError, InvalidRequest, TenantNotFound
from app.settings import Settings
from app.storage.db import Database
from app.tenants import effects, search, test_message
from app.tenants.history import HistoryPage, read_history
from app.tenants.model import COLUMNS, Tenant, changed_fields, masked_changes
from app.tenants.rules import (
    CHANNELS,
    TenantFields,
    check_delivery,
    check_slug,
    check_tenant,
    effective_policy,
    merge_policy,
    operator_policy,
    region_of,
)
from app.tenants.search import Filters, TenantPage
from app.tenants.test_message import TestMessage, TestOutcome

_CONTACTS: Final = ("email", "phone_number")
_DELIVERY: Final = frozenset({*_CONTACTS, "otp_delivery_method", "fallback_methods"})
_REASON_LENGTH: Final = 500

_COLUMNS: Final = ", ".join(COLUMNS)
_PLACES: Final = ", ".join(f"${n}" for n in range(1, len(COLUMNS) + 1))
_INSERT: Final = f"INSERT INTO tenants ({_COLUMNS}) VALUES ({_PLACES})"
_UPDATE: Final = f"UPDATE tenants SET ({_COLUMNS}) = ({_PLACES}) WHERE id = $1"
_BY_SLUG: Final = f"SELECT {_COLUMNS} FROM tenants WHERE slug = $1"


class Tenants:
    """The tenants of this installation. Every call raises `Unavailable` when the database is away."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        clock: Callable[[], datetime],
        wake_worker: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._wake_worker = wake_worker
        self._channels = frozenset(settings.providers)
        self._ceiling = operator_policy(
            code_length=settings.otp_length,
            code_ttl_seconds=settings.otp_ttl_seconds,
            max_attempts=settings.otp_max_attempts,
            hourly_limit=settings.otp_hourly_limit,
            resend_cooldown_seconds=settings.otp_resend_cooldown_seconds,
        )

    async def create(self, values: Mapping[str, object], *, actor: Actor, client: Client) -> Tenant:
        """Adds a tenant; `slug` and `name` are required.

        Raises `InvalidRequest` with every fault, `AlreadyExists`, and `ContactMissing` or `ChannelUnavailable` where
        codes could not go by the method asked for. Without any contact and any wish a tenant may begin.
        """
        fields = _settable(check_tenant(values, create=True))
        now = self._clock()
        tenant = Tenant(id=uuid4(), created_at=now, updated_at=now, **fields)
        tenant = replace(tenant, policy=merge_policy({}, tenant.policy))
        self._check_delivery(tenant, method_chosen="otp_delivery_method" in fields)
        try:
            async with self._db.every_tenant() as connection:
                await connection.execute(_INSERT, *_row(tenant))
                data = {"changes": masked_changes(None, tenant), "version": tenant.version}
                await _record(connection, now, tenant, "tenant.created", actor, client, data)
        except asyncpg.UniqueViolationError:
            raise AlreadyExists(f"There is a tenant with the slug {tenant.slug} already.") from None
        return tenant

    async def get(self, slug: str) -> Tenant:
        """The tenant with this slug. Raises `InvalidRequest` for what is no slug, `TenantNotFound`."""
        check_slug(slug)
        async with self._db.every_tenant() as connection:
            return await _fetch(connection, slug)

    async def update(
        self,
        slug: str,
        changes: Mapping[str, object],
        *,
        expected_version: int | None = None,
        actor: Actor,
        client: Client,
    ) -> Tenant:
        """Changes the fields that are named; None clears a contact or a policy key. What changes nothing is no change.

        One transaction: the tenant, its audit event with masked differences and, when a contact changed, the end of
        open codes and sessions and notices to the old and the new address.
        Raises what `create` does, `TenantNotFound`, and `EditConflict` if `expected_version` is not the stored one.
        """

        def change(before: Tenant) -> Tenant:
            region = region_of(before.locale, before.timezone)
            fields = _settable(check_tenant(changes, create=False, region=region))
            if fields.pop("slug", before.slug) != before.slug:
                raise InvalidRequest(FieldError("/slug", "A slug can't be changed."))
            if "policy" in fields:
                fields["policy"] = merge_policy(before.policy, fields["policy"])
            if fields.get("status", before.status) != before.status:
                fields["status_reason"] = None
            return replace(before, **fields)

        return await self._change(slug, change, expected_version, actor, client)

    async def suspend(self, slug: str, reason: str | None = None, *, actor: Actor, client: Client) -> Tenant:
        """Nobody of this tenant signs in any more: open codes are void and all sessions end, in one transaction.

        Raises `InvalidRequest`, `TenantNotFound`. Suspending it again changes the reason only.
        """
        said = _check_reason(reason)
        return await self._change(
            slug, lambda before: replace(before, status="suspended", status_reason=said), None, actor, client
        )

    async def resume(self, slug: str, *, actor: Actor, client: Client) -> Tenant:
        """Sign-in works again. Raises `InvalidRequest`, `TenantNotFound`."""
        return await self._change(
            slug, lambda before: replace(before, status="active", status_reason=None), None, actor, client
        )

    async def list(
        self,
        filters: Filters | None = None,
        *,
        sort: str = "name",
        cursor: str | None = None,
        limit: int = 50,
    ) -> TenantPage:
        """A page of tenants. `sort` is a key of `search.SORTS`, with a leading `-` the other way round.

        Raises `InvalidRequest`.
        """
        query = search.build(filters or Filters(), sort=sort, cursor=cursor, limit=limit)
        async with self._db.every_tenant() as connection:
            return query.page(await connection.fetch(query.sql, *query.args))

    async def count(self, filters: Filters | None = None, *, at_most: int = 10_000) -> int:
        """How many tenants match; counting stops at `at_most`. Raises `InvalidRequest`."""
        sql, args = search.build_count(filters or Filters(), at_most)
        async with self._db.every_tenant() as connection:
            return cast("int", await connection.fetchval(sql, *args))

    async def history(self, slug: str, *, cursor: str | None = None, limit: int = 50) -> HistoryPage:
        """Who changed what about a tenant, newest first. Raises `InvalidRequest`, `TenantNotFound`."""
        check_slug(slug)
        async with self._db.every_tenant() as connection:
            tenant = await _fetch(connection, slug)
            return await read_history(connection, tenant.id, cursor=cursor, limit=limit)

    async def send_test(self, slug: str, *, channel: str | None = None, actor: Actor, client: Client) -> TestMessage:
        """Queues a test message by `channel`, or by the preferred method. Its words hold no code.

        Raises `InvalidRequest`, `TenantNotFound`, `ContactMissing`, `ChannelUnavailable`.
        """
        check_slug(slug)
        if channel is not None and channel not in CHANNELS:
            raise InvalidRequest(FieldError("/channel", f"This must be one of {', '.join(CHANNELS)}."))
        now = self._clock()
        async with self._db.every_tenant() as connection:
            tenant = await _fetch(connection, slug)
            way = channel or tenant.otp_delivery_method
            check_delivery(way, (), tenant.email, tenant.phone_number, self._channels)
            message = await test_message.queue(connection, now, tenant.id, way)
            data: dict[str, Any] = {"channel": message.channel, "message": str(message.id)}
            await _record(connection, now, tenant, "message.tested", actor, client, data)
        self._wake_worker()
        return message

    async def test_outcome(self, message: TestMessage) -> TestOutcome:
        """Where a test message stands now. Raises `NotFound` once it was cleared away, a day later."""
        async with self._db.tenant(message.tenant_id) as connection:
            return await test_message.outcome(connection, message)

    async def _change(
        self,
        slug: str,
        change: Callable[[Tenant], Tenant],
        expected_version: int | None,
        actor: Actor,
        client: Client,
    ) -> Tenant:
        check_slug(slug)
        now = self._clock()
        async with self._db.every_tenant() as connection:
            before = await _fetch(connection, slug, lock=True)
            if expected_version is not None and expected_version != before.version:
                raise EditConflict(before.version)
            after = change(before)
            changed = changed_fields(before, after)
            if not changed:
                return before
            if changed & _DELIVERY:
                self._check_delivery(after, method_chosen="otp_delivery_method" in changed)
            after = replace(after, version=before.version + 1, updated_at=max(now, before.updated_at))
            await connection.execute(_UPDATE, *_row(after))
            data = {"changes": masked_changes(before, after), "version": after.version}
            contacts = [name for name in _CONTACTS if name in changed]
            suspended = "status" in changed and after.status == "suspended"
            if contacts or suspended:
                data["codes_voided"] = await effects.void_codes(connection, now, after.id, everybody=suspended)
                if suspended or effective_policy(self._ceiling, before.policy).end_sessions_on_contact_change:
                    data["sessions_ended"] = await effects.end_sessions(connection, now, after.id, everybody=suspended)
            for contact in contacts:
                await effects.notify(connection, now, before, after, contact, self._channels)
            if after.status_reason:
                data["reason"] = after.status_reason
            action = "tenant.changed"
            if "status" in changed:
                action = "tenant.suspended" if suspended else "tenant.resumed"
            await _record(connection, now, after, action, actor, client, data)
        if contacts:
            # A request that still read the old contact may have committed while we were at it, and the worker sent
            # its code there. What commits from here on goes to the new one.
            async with self._db.tenant(after.id) as connection:
                await effects.void_codes(connection, now, after.id, everybody=False)
            self._wake_worker()
        return after

    def _check_delivery(self, tenant: Tenant, *, method_chosen: bool) -> None:
        """Raises `ContactMissing` or `ChannelUnavailable` where no code could go by the preferred method.

        A tenant without any contact is a state of its own, which lists and pages point out: it is refused only to
        whoever names a method with it.
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


def _settable(fields: TenantFields) -> dict[str, Any]:
    values: dict[str, Any] = dict(fields)
    if "fallback_methods" in values:
        values["fallback_methods"] = tuple(values["fallback_methods"])
    return values


def _check_reason(reason: str | None) -> str | None:
    said = " ".join((reason or "").split())
    if len(said) > _REASON_LENGTH or not said.isprintable():
        raise InvalidRequest(FieldError("/reason", f"A reason is plain text of at most {_REASON_LENGTH} characters."))
    return said or None


def _row(tenant: Tenant) -> list[object]:
    return [getattr(tenant, name) for name in COLUMNS]


async def _fetch(connection: asyncpg.Connection, slug: str, *, lock: bool = False) -> Tenant:
    row = await connection.fetchrow(_BY_SLUG + (" FOR UPDATE" if lock else ""), slug)
    if row is None:
        raise TenantNotFound(f"No tenant has the slug {slug}.")
    return Tenant.of(row)


async def _record(
    connection: asyncpg.Connection,
    now: datetime,
    tenant: Tenant,
    action: str,
    actor: Actor,
    client: Client,
    data: dict[str, Any],
) -> None:
    subject: tuple[str, UUID] = ("tenant", tenant.id)
    await record(connection, now, tenant.id, action, actor, client, subject=subject, data=data)
