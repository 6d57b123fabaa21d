"""Tenants: added, changed, suspended, found, for the admin API, the admin portal and the command line alike.

Plain SQL on asyncpg, not the advanced-alchemy repository: a change, its audit event, the notices and the end of
open codes and sessions are one transaction, and audit log and outbox are written on asyncpg; a second connection
could not be part of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final, cast

import asyncpg

from app.access import revoking
from app.audit.log import Actor, Client
from app.errors import AlreadyExists, EditConflict, FieldError, InvalidRequest, TenantNotFound
from app.settings import Settings
from app.storage.db import Database, repeatable
from app.tenants import search, test_message
from app.tenants.changes import Changes, contacts_changed, record_change
from app.tenants.history import HistoryPage, read_history
from app.tenants.model import COLUMNS, Tenant
from app.tenants.rules import CHANNELS, check_delivery, check_slug
from app.tenants.search import Filters, TenantPage
from app.tenants.test_message import TestMessage, TestOutcome

_REASON_LENGTH: Final = 500
_BY_SLUG: Final = f"SELECT {', '.join(COLUMNS)} FROM tenants WHERE slug = $1"


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
        self._changes = Changes(db, settings, wake_worker)

    @repeatable
    async def create(self, values: Mapping[str, object], *, actor: Actor, client: Client) -> Tenant:
        """Adds a tenant; `slug` and `name` are required.

        Raises `InvalidRequest` with every fault, `AlreadyExists`, and `ContactMissing` or `ChannelUnavailable` where
        codes could not go by the method asked for. Without any contact and any wish a tenant may begin.
        """
        now = self._clock()
        tenant = self._changes.draft(values, now)
        try:
            async with self._db.every_tenant() as connection:
                await self._changes.save(connection, now, None, tenant, actor, client)
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
        edit = partial(self._changes.edited, changes=changes)
        return await self._change(slug, edit, expected_version, actor, client)

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
        filters: Filters,
        *,
        sort: str = "name",
        cursor: str | None = None,
        limit: int = 50,
    ) -> TenantPage:
        """A page of tenants. `sort` is a key of `search.SORTS`, with a leading `-` the other way round.

        Raises `InvalidRequest`.
        """
        query = search.build(filters, sort=sort, cursor=cursor, limit=limit)
        async with self._db.every_tenant() as connection:
            return query.page(await connection.fetch(query.sql, *query.args))

    async def count(self, filters: Filters, *, at_most: int = 10_000) -> int:
        """How many tenants match; counting stops at `at_most`. Raises `InvalidRequest`."""
        sql, args = search.build_count(filters, at_most)
        async with self._db.every_tenant() as connection:
            return cast("int", await connection.fetchval(sql, *args))

    async def history(
        self, slug: str, *, sees_contacts: bool, cursor: str | None = None, limit: int = 50
    ) -> HistoryPage:
        """Who changed what about a tenant, newest first; colleagues by their address for those who may see contacts.

        Raises `InvalidRequest`, `TenantNotFound`.
        """
        check_slug(slug)
        async with self._db.every_tenant() as connection:
            tenant = await _fetch(connection, slug)
            return await read_history(connection, tenant.id, sees_contacts=sees_contacts, cursor=cursor, limit=limit)

    @repeatable
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
            await record_change(connection, now, tenant, "message.tested", actor, client, data)
        self._wake_worker()
        return message

    async def test_outcome(self, message: TestMessage) -> TestOutcome:
        """Where a test message stands now. Raises `NotFound` once it was cleared away, a day later."""
        async with self._db.tenant(message.tenant_id) as connection:
            return await test_message.outcome(connection, message)

    @repeatable
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
            await revoking.lock(connection, (await _fetch(connection, slug)).id)
            before = await _fetch(connection, slug, lock=True)
            if expected_version is not None and expected_version != before.version:
                raise EditConflict(before.version)
            after = await self._changes.save(connection, now, before, change(before), actor, client)
        await self._changes.settle(now, [after.id] if contacts_changed(before, after) else [])
        return after


def _check_reason(reason: str | None) -> str | None:
    said = " ".join((reason or "").split())
    if len(said) > _REASON_LENGTH or not said.isprintable():
        raise InvalidRequest(FieldError("/reason", f"A reason is plain text of at most {_REASON_LENGTH} characters."))
    return said or None


async def _fetch(connection: asyncpg.Connection, slug: str, *, lock: bool = False) -> Tenant:
    row = await connection.fetchrow(_BY_SLUG + (" FOR NO KEY UPDATE" if lock else ""), slug)
    if row is None:
        raise TenantNotFound(f"No tenant has the slug {slug}.")
    return Tenant.of(row)
