"""Many tenants at once: read from a file, all or nothing, and written to one.

An import is planned first, without a lock: every row is checked by the rules that hold for a single change. Only a
plan without a fault is carried out, in one transaction, and only on the very versions it was made for.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

import asyncpg

from app.audit.log import Actor, Client, record
from app.errors import (
    AlreadyExists,
    ChannelUnavailable,
    ContactMissing,
    EditConflict,
    FieldError,
    InvalidRequest,
    PayloadTooLarge,
)
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database, repeatable
from app.tenants import search
from app.tenants.changes import Changes
from app.tenants.model import COLUMNS, Tenant, changed_fields
from app.tenants.search import MAX_LIMIT, Filters
from app.tenants.table import MOST_ROWS, FileRow, RowFault, as_csv, as_json_lines, csv_head, row_faults

Outcome: TypeAlias = Literal["new", "changed", "unchanged", "faulty"]
Format: TypeAlias = Literal["csv", "jsonl"]

_BY_SLUGS: Final = f"SELECT {', '.join(COLUMNS)} FROM tenants WHERE slug = ANY ($1) AND id <> $2"
# In the order of their ids, so that two imports wait for one another instead of both waiting.
_LOCK: Final = "SELECT id, version FROM tenants WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE"
# What an empty cell puts back; a name has no such thing, and whether somebody may sign in is not left to an empty cell.
_CLEARED: Final[dict[str, object]] = {
    "name": "",
    "email": None,
    "phone_number": None,
    "otp_delivery_method": "email",
    "fallback_methods": [],
    "locale": "en",
    "timezone": "UTC",
    "policy": {},
}
_MASK: Final = "***"
# Checking a row takes a fraction of a millisecond: so many, and others get their turn.
_ROWS_IN_A_ROW: Final = 20


@dataclass(frozen=True, slots=True)
class RowReport:
    """What a row does: `fields` are those it changes or, of a new tenant, fills in."""

    number: int
    slug: str | None
    outcome: Outcome
    fields: Sequence[str] = ()
    faults: Sequence[RowFault] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What an import did, or (`applied` false) would do."""

    rows: Sequence[RowReport]
    applied: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """How many rows there are of each kind."""
        found = Counter(row.outcome for row in self.rows)
        return {outcome: found[outcome] for outcome in get_args(Outcome)}

    @property
    def faults(self) -> Sequence[RowFault]:
        """Everything that is wrong, row by row."""
        return [fault for row in self.rows for fault in row.faults]


@dataclass(frozen=True, slots=True)
class _Planned:
    report: RowReport
    before: Tenant | None = None
    after: Tenant | None = None


class TenantFiles:
    """Imports and exports. Every call raises `Unavailable` when the database is away."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        clock: Callable[[], datetime],
        wake_worker: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._changes = Changes(db, settings, wake_worker)

    async def check(self, rows: Iterable[FileRow]) -> Report:
        """What an import of these rows would do. Raises what reading them raises, and `PayloadTooLarge`."""
        return Report([planned.report for planned in await self._plan(rows, self._clock())])

    async def load(self, rows: Iterable[FileRow], *, actor: Actor, client: Client) -> Report:
        """Imports the rows: all of them, or nothing at all.

        Each tenant gets its own audit event, notices and end of codes and sessions, as if it were changed alone.
        Raises what `check` does, `InvalidRequest` with every fault (`/<row>/<field>`), `EditConflict` where a tenant
        changed meanwhile and `AlreadyExists` where one was added meanwhile.
        """
        now = self._clock()
        plan = await self._plan(rows, now)
        report = Report([planned.report for planned in plan], applied=True)
        if report.faults:
            _refuse(report)
        try:
            written = await self._write(now, plan, report, actor, client)
        except asyncpg.UniqueViolationError:
            raise AlreadyExists("Somebody has just added one of these tenants. Nothing was imported.") from None
        await self._changes.settle(now, written)
        return report

    async def export(self, filters: Filters, format_: Format, *, actor: Actor, client: Client) -> AsyncIterator[bytes]:
        """The tenants that match, by slug, as a file of any length, masked as `filters` say.

        Raises `InvalidRequest` before the first chunk.

        That somebody took it is in the audit log. A page is one short transaction: a slow reader holds no connection.
        """
        pages = self._pages(filters)
        page = await anext(pages)
        async with self._db.tenant(SYSTEM_TENANT) as connection:
            data = {"format": format_, "contacts": "shown" if filters.contacts else "masked"}
            await record(connection, self._clock(), SYSTEM_TENANT, "tenants.exported", actor, client, data=data)
        return _encoded(page, pages, format_)

    async def _pages(self, filters: Filters) -> AsyncIterator[Sequence[Tenant]]:
        cursor: str | None = None
        while True:
            query = search.build(filters, sort="slug", cursor=cursor, limit=MAX_LIMIT)
            async with self._db.every_tenant() as connection:
                page = query.page(await connection.fetch(query.sql, *query.args))
            yield page.tenants
            cursor = page.next
            if cursor is None:
                return

    async def _plan(self, rows: Iterable[FileRow], now: datetime) -> list[_Planned]:
        read: list[FileRow] = []
        for row in rows:
            if len(read) == MOST_ROWS:
                raise PayloadTooLarge(f"A file has at most {MOST_ROWS} tenants. Import it in parts.")
            read.append(row)
            if len(read) % _ROWS_IN_A_ROW == 0:
                await asyncio.sleep(0)
        slugs = {slug for row in read if isinstance(slug := row.values.get("slug"), str) and "\0" not in slug}
        async with self._db.every_tenant() as connection:
            found = await connection.fetch(_BY_SLUGS, list(slugs), SYSTEM_TENANT)
        stored = {row["slug"]: Tenant.of(row) for row in found}
        plan: list[_Planned] = []
        first_row: dict[object, int] = {}
        for row in read:
            slug = row.values.get("slug")
            told = first_row.setdefault(slug, row.number) if isinstance(slug, str) else row.number
            plan.append(self._plan_row(row, stored, now, told))
            if len(plan) % _ROWS_IN_A_ROW == 0:
                await asyncio.sleep(0)
        return plan

    def _plan_row(self, row: FileRow, stored: dict[str, Tenant], now: datetime, told: int) -> _Planned:
        slug = row.values.get("slug")
        shown = slug if isinstance(slug, str) else None
        before = stored.get(shown or "")
        faults = list(row.faults)
        if told != row.number:
            faults.append(RowFault(row.number, "slug", f"This tenant is in row {told} already."))
        faults += [
            RowFault(row.number, name, "This contact is masked, as viewers see it: it is no contact.")
            for name in ("email", "phone_number")
            if _MASK in str(row.values.get(name))
        ]
        after = None
        try:
            after = self._changes.draft(row.values, now) if before is None else self._edited(before, row)
        except InvalidRequest as error:
            faults += row_faults(row.number, error)
        except (ContactMissing, ChannelUnavailable) as error:
            faults.append(RowFault(row.number, str(error.extra["pointer"]).strip("/"), error.detail))
        fields = sorted(changed_fields(before, after)) if after else []
        if before and fields and row.version not in (None, before.version):
            detail = f"Somebody changed this tenant since the file was made: it is at version {before.version}."
            faults.append(RowFault(row.number, "version", detail))
        if faults or after is None:
            return _Planned(RowReport(row.number, shown, "faulty", faults=faults))
        outcome: Outcome = "new" if before is None else "changed" if fields else "unchanged"
        return _Planned(RowReport(row.number, shown, outcome, fields), before, after)

    def _edited(self, before: Tenant, row: FileRow) -> Tenant:
        values: dict[str, Any] = {name: _CLEARED[name] for name in row.cleared if name in _CLEARED} | dict(row.values)
        if isinstance(policy := values.get("policy"), dict):
            # The row has the whole policy: what it doesn't name is no override any more.
            values["policy"] = dict.fromkeys(before.policy) | policy
        return self._changes.edited(before, values)

    @repeatable
    async def _write(
        self, now: datetime, plan: Sequence[_Planned], report: Report, actor: Actor, client: Client
    ) -> list[tuple[Tenant, Tenant]]:
        todo = [planned for planned in plan if planned.report.outcome in {"new", "changed"}]
        versions = {planned.before.id: planned.before.version for planned in todo if planned.before}
        written: list[tuple[Tenant, Tenant]] = []
        async with self._db.every_tenant() as connection:
            locked: dict[UUID, int] = dict(await connection.fetch(_LOCK, list(versions)))
            for tenant_id, version in versions.items():
                if locked.get(tenant_id) != version:
                    raise EditConflict(locked.get(tenant_id, 0))
            for planned in todo:
                assert planned.after is not None  # noqa: S101 - a row without a fault has one
                after = await self._changes.save(connection, now, planned.before, planned.after, actor, client)
                if planned.before:
                    written.append((planned.before, after))
            if todo:
                await record(connection, now, SYSTEM_TENANT, "tenants.imported", actor, client, data=report.counts)
        return written


async def _encoded(
    first: Sequence[Tenant], more: AsyncIterator[Sequence[Tenant]], format_: Format
) -> AsyncIterator[bytes]:
    encode = as_csv if format_ == "csv" else as_json_lines
    yield (csv_head() if format_ == "csv" else b"") + encode(first)
    async for page in more:
        yield encode(page)


def _refuse(report: Report) -> None:
    faulty = report.counts["faulty"]
    errors = [
        FieldError("/".join(("", str(fault.row), *filter(None, fault.field.split(".")))), fault.detail)
        for fault in report.faults
    ]
    rows = "1 row has a fault" if faulty == 1 else f"{faulty} rows have faults"
    raise InvalidRequest(*errors, detail=f"{rows}: nothing was imported.")
