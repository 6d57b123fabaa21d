"""Deliveries and audit events of all tenants, newest first, a page at a time or as a file."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from app import sheets
from app.audit.export import EventFilters, csv_cell, veiled
from app.cursors import Moment, Number, read_cursor, show_cursor
from app.storage import SYSTEM_TENANT
from app.storage.db import Database, Row

MAX_LIMIT: Final = 200
DELIVERY_FIELDS: Final = (
    "id",
    "at",
    "message",
    "tenant",
    "kind",
    "channel",
    "state",
    "provider",
    "provider_message_id",
    "error_class",
    "error_text",
    "took_ms",
    "challenge_id",
)

_EVENTS: Final = """
SELECT e.id, e.at, t.slug AS tenant, e.action, e.actor_kind, e.actor_id, coalesce(a.email, k.name) AS actor,
       e.subject_kind, e.subject_id, e.challenge_id, e.source, host(e.ip) AS ip, e.user_agent, e.request_id, e.data
FROM audit_events e
LEFT JOIN tenants t ON t.id = e.tenant_id
LEFT JOIN admins a ON e.actor_kind = 'admin' AND a.tenant_id = $1 AND a.id = e.actor_id
LEFT JOIN api_keys k ON e.actor_kind = 'api-key' AND k.tenant_id = $1 AND k.id = e.actor_id
"""
_DELIVERIES: Final = """
SELECT e.id, e.at, e.outbox_id AS message, t.slug AS tenant, e.kind, e.channel, e.state, e.provider,
       e.provider_message_id, e.error_class, e.error_text, e.took_ms, e.challenge_id
FROM delivery_events e
LEFT JOIN tenants t ON t.id = e.tenant_id
"""


@dataclass(frozen=True, slots=True)
class DeliveryFilters:
    """Which steps of deliveries: of one tenant; in one state; by one channel or provider; from `start` to `end`."""

    tenant_id: UUID | None = None
    state: str | None = None
    channel: str | None = None
    provider: str | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, newest first, and the cursor of older ones; None where there are none."""

    rows: Sequence[Row]
    next: str | None


class Listing:
    """Reads across all tenants. Every call raises `Unavailable` when the database is away."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def events(self, filters: EventFilters, *, sees_contacts: bool, cursor: str | None, limit: int) -> Page:
        """A page of the audit log, for somebody who may (not) see contacts.

        Raises `InvalidRequest` for a foreign cursor.
        """
        action = filters.action
        family = action[:-1] if action and action.endswith("*") else None
        where = {
            "e.tenant_id = {}": filters.tenant_id,
            "e.at >= {}": filters.start,
            "e.at < {}": filters.end,
            "e.action = {}": action if family is None else None,
            "starts_with(e.action, {})": family,
        }
        # Without a tenant the index that sealing uses gives the order.
        along_ids = not (filters.tenant_id or filters.start or filters.end)
        page = await self._page(_EVENTS, [SYSTEM_TENANT], where, cursor, limit, along_ids=along_ids)
        return page if sees_contacts else Page([veiled(row) for row in page.rows], page.next)

    async def deliveries(self, filters: DeliveryFilters, *, cursor: str | None, limit: int) -> Page:
        """A page of what happened to messages. Raises `InvalidRequest` for a foreign cursor."""
        where = {
            "e.tenant_id = {}": filters.tenant_id,
            "e.state = {}": filters.state,
            "e.channel = {}": filters.channel,
            "e.provider = {}": filters.provider,
            "e.at >= {}": filters.start,
            "e.at < {}": filters.end,
        }
        return await self._page(_DELIVERIES, [], where, cursor, limit, along_ids=False)

    async def all_deliveries(self, filters: DeliveryFilters) -> AsyncIterator[Sequence[Row]]:
        """All pages, newest first. Between two of them no connection is held."""
        cursor: str | None = None
        while True:
            page = await self.deliveries(filters, cursor=cursor, limit=MAX_LIMIT)
            yield page.rows
            cursor = page.next
            if cursor is None:
                return

    async def _page(
        self,
        select: str,
        first: Sequence[object],
        where: Mapping[str, object],
        cursor: str | None,
        limit: int,
        *,
        along_ids: bool,
    ) -> Page:
        args: list[Any] = list(first)
        conditions = []
        for condition, value in where.items():
            if value is not None:
                args.append(value)
                conditions.append(condition.format(f"${len(args)}"))
        key = "e.id" if along_ids else "e.at, e.id"
        if cursor is not None:
            at, number = read_cursor(cursor, tuple[Moment, Number])
            place = [number] if along_ids else [at, number]
            places = ", ".join(f"${len(args) + n}" for n in range(1, len(place) + 1))
            conditions.append(f"({key}) < ({places})")
            args += place
        order = ", ".join(f"{column} DESC" for column in key.split(", "))
        filtered = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        async with self._db.every_tenant() as connection:
            rows = await connection.fetch(f"{select} {filtered} ORDER BY {order} LIMIT {limit + 1:d}", *args)
        last = rows[limit - 1] if len(rows) > limit else None
        return Page(rows[:limit], show_cursor((last["at"], last["id"])) if last else None)


async def deliveries_as_json_lines(pages: AsyncIterator[Sequence[Row]]) -> AsyncIterator[bytes]:
    """One JSON object a line."""
    encoder = msgspec.json.Encoder()
    async for rows in pages:
        yield encoder.encode_lines([dict(row) for row in rows])


async def deliveries_as_csv(pages: AsyncIterator[Sequence[Row]]) -> AsyncIterator[bytes]:
    """CSV (RFC 4180, UTF-8) with a header."""
    head = sheets.write([DELIVERY_FIELDS])
    async for rows in pages:
        yield head + sheets.write([[csv_cell(_plain(row[name])) for name in DELIVERY_FIELDS] for row in rows])
        head = b""


def _plain(value: object) -> object:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
