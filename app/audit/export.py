"""The audit log for other programs: CSV for spreadsheets, JSON Lines for everything else. Streams of any length."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from app import sheets
from app.audit.chain import COLUMNS
from app.audit.sealing import CHAIN_SCOPE
from app.audit.story import shown_actor
from app.masking import mask_ip
from app.storage.db import Database, Row

# An event's own columns, the three that name it first, and the tenant's slug beside its id.
FIELDS: Final = ("id", "at", "tenant_id", "tenant", *COLUMNS[3:])
# A page is one short transaction: a slow reader holds no connection.
_PAGE: Final = 500
_TIMEOUT: Final = 60.0
_SELECT: Final = """
SELECT e.id, e.at AS position, e.at::text AS at, e.tenant_id::text,
       (SELECT t.slug FROM tenants t WHERE t.id = e.tenant_id) AS tenant, e.action, e.actor_kind, e.actor_id::text,
       e.subject_kind, e.subject_id::text, e.challenge_id::text, e.source, host(e.ip) AS ip, e.user_agent,
       e.request_id, e.data::text
FROM audit_events e
"""

Pages: TypeAlias = AsyncIterator[Sequence[Row]]


@dataclass(frozen=True, slots=True)
class EventFilters:
    """Which events: of one tenant; from `start` (inclusive) to `end` (exclusive); of one action.

    An action ending in `*` stands for all that begin like it: `code.*`.
    """

    tenant_id: UUID | None = None
    start: datetime | None = None
    end: datetime | None = None
    action: str | None = None


async def event_pages(db: Database, filters: EventFilters, *, sees_contacts: bool) -> Pages:
    """The events, oldest first, some hundreds at a time, for somebody who may (not) see contacts.

    Raises `Unavailable`.
    """
    where, values = _conditions(filters)
    # With a tenant the table's key gives the order, without one the index that sealing uses.
    key = "(e.at, e.id)" if filters.tenant_id else "e.id"
    order = f"ORDER BY {key.strip('()')} LIMIT {_PAGE}"
    last: Row | None = None
    while True:
        conditions, arguments = list(where), list(values)
        if last is not None:
            after = [last["position"], last["id"]] if filters.tenant_id else [last["id"]]
            places = ", ".join(f"${len(arguments) + n}" for n in range(1, len(after) + 1))
            conditions.append(f"{key} > ({places})")
            arguments += after
        sql = " ".join([_SELECT, "WHERE" if conditions else "", " AND ".join(conditions), order])
        async with db.connection() as connection, connection.transaction():
            await connection.execute(CHAIN_SCOPE)
            page: Sequence[Row] = await connection.fetch(sql, *arguments, timeout=_TIMEOUT)
        if page:
            yield page if sees_contacts else [veiled(row) for row in page]
            last = page[-1]
        if len(page) < _PAGE:
            return


def veiled(row: Row) -> dict[str, Any]:
    """An event for those who may not see contacts: networks instead of addresses, and colleagues' addresses masked."""
    seen = dict(row)
    if seen["ip"]:
        seen["ip"] = mask_ip(seen["ip"])
    if "actor" in seen:
        seen["actor"] = shown_actor(seen["actor"], sees_contacts=False)
    return seen


def _conditions(filters: EventFilters) -> tuple[list[str], list[Any]]:
    family = filters.action[:-1] if filters.action and filters.action.endswith("*") else None
    wanted = {
        "e.tenant_id = {}": filters.tenant_id,
        "e.at >= {}": filters.start,
        "e.at < {}": filters.end,
        "e.action = {}": filters.action if family is None else None,
        "starts_with(e.action, {})": family,
    }
    given = [(condition, value) for condition, value in wanted.items() if value is not None]
    return [condition.format(f"${n}") for n, (condition, _) in enumerate(given, 1)], [value for _, value in given]


async def as_json_lines(pages: Pages) -> AsyncIterator[bytes]:
    """One JSON object a line, with every field."""
    encoder = msgspec.json.Encoder()
    async for page in pages:
        yield encoder.encode_lines([_object(row) for row in page])


async def as_csv(pages: Pages) -> AsyncIterator[bytes]:
    """CSV (RFC 4180, UTF-8) with a header. `data` is JSON text."""
    yield sheets.write([FIELDS])
    async for page in pages:
        yield sheets.write([[csv_cell(value) for value in _values(row)] for row in page])


def csv_cell(value: object) -> str:
    """A cell's text that no spreadsheet takes for a formula; nothing for None."""
    return "" if value is None else sheets.guarded(str(value))


def _values(row: Row) -> list[Any]:
    """In the order of `FIELDS`; the time as RFC 3339 has it."""
    return [row["at"].replace(" ", "T").replace("+00", "Z") if name == "at" else row[name] for name in FIELDS]


def _object(row: Row) -> dict[str, Any]:
    return {**dict(zip(FIELDS, _values(row), strict=True)), "data": msgspec.Raw(row["data"].encode())}
