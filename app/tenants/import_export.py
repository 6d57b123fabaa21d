"""Many tenants at once: read from a file, all or nothing, and written to one.

An import is planned first, without a lock: every row is checked by the rules that hold for a single change. Only a
plan without a fault is carried out, in one transaction, and only on the very versions it was made for. Rows are read
and checked off the event loop, and the plan waits on disk: memory doesn't grow with the file.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

import asyncpg
import msgspec

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
from app.tenants.batches import batches
from app.tenants.changes import Changes, contacts_changed
from app.tenants.model import COLUMNS, Tenant, changed_fields
from app.tenants.rules import SLUG
from app.tenants.search import MAX_LIMIT, Filters
from app.tenants.table import MOST_ROWS, MOST_TOLD, FileRow, RowFault, as_csv, as_json_lines, csv_head, row_faults

Outcome: TypeAlias = Literal["new", "changed", "unchanged", "faulty"]
Format: TypeAlias = Literal["csv", "jsonl"]

_BY_SLUGS: Final = f"SELECT {', '.join(COLUMNS)} FROM tenants WHERE slug = ANY ($1) AND id <> $2"
# One import after the other: two that lock the same tenants in another order would wait for each other.
_IN_TURN: Final = "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse tenants import', 0))"
# Whoever signs in meanwhile refers to the tenant, and doesn't wait.
_LOCK: Final = f"SELECT {', '.join(COLUMNS)} FROM tenants WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE"
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
_SLUG_SHOWN: Final = 63
_FAULTS_SHOWN: Final = 20
_ROWS_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class RowReport:
    """What a row does: `fields` are those it changes or, of a new tenant, fills in."""

    number: int
    slug: str | None
    outcome: Outcome
    fields: Sequence[str] = ()
    faults: Sequence[RowFault] = ()


@dataclass(slots=True)
class Report:
    """What an import did, or (`applied` false) would do.

    `rows` and `faults` are the first ones; `counts` tells how many rows there are of each kind.
    """

    rows: list[RowReport] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)
    applied: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(get_args(Outcome), 0))

    def add(self, row: RowReport) -> None:
        """Tells of one more row."""
        self.counts[row.outcome] += 1
        if len(self.rows) < MOST_TOLD:
            self.rows.append(row)
        self.faults += row.faults[: MOST_TOLD - len(self.faults)]


class _Planned(msgspec.Struct, array_like=True):
    """A tenant as it shall be, and the version that it has until then; None where it is new."""

    version: int | None
    after: Tenant


@dataclass(slots=True)
class _Plan:
    """What the rows would do; what there is to do waits in a file. `rows_of` tells which row a slug was in."""

    report: Report = field(default_factory=Report)
    todo: IO[bytes] = field(default_factory=TemporaryFile)
    rows_of: dict[object, int] = field(default_factory=dict)

    def put(self, planned: _Planned) -> None:
        packed = msgspec.msgpack.encode(planned)
        self.todo.write(len(packed).to_bytes(4, "big") + packed)

    def read(self) -> Iterator[_Planned]:
        self.todo.seek(0)
        while size := self.todo.read(4):
            planned = msgspec.msgpack.decode(self.todo.read(int.from_bytes(size, "big")), type=_Planned)
            planned.after = replace(planned.after, fallback_methods=tuple(planned.after.fallback_methods))
            yield planned


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
        plan = await self._plan(rows, self._clock())
        plan.todo.close()
        return plan.report

    async def load(self, rows: Iterable[FileRow], *, actor: Actor, client: Client) -> Report:
        """Imports the rows: all of them, or nothing at all.

        Each tenant gets its own audit event, notices and end of codes and sessions, as if it were changed alone.
        Raises what `check` does, `InvalidRequest` with every fault (`/<row>/<field>`), `EditConflict` where a tenant
        changed meanwhile and `AlreadyExists` where one was added meanwhile.
        """
        now = self._clock()
        plan = await self._plan(rows, now)
        with plan.todo:
            if plan.report.faults:
                _refuse(plan.report)
            try:
                moved = await self._write(now, plan, actor, client)
            except asyncpg.UniqueViolationError:
                raise AlreadyExists("Somebody has just added one of these tenants. Nothing was imported.") from None
        await self._changes.settle(now, moved)
        plan.report.applied = True
        return plan.report

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

    async def _plan(self, rows: Iterable[FileRow], now: datetime) -> _Plan:
        with ExitStack() as on_failure:
            plan = _Plan()
            on_failure.enter_context(plan.todo)
            async for batch in batches(rows):
                slugs = [
                    slug for row in batch if isinstance(slug := row.values.get("slug"), str) and SLUG.fullmatch(slug)
                ]
                async with self._db.every_tenant() as connection:
                    found = await connection.fetch(_BY_SLUGS, slugs, SYSTEM_TENANT)
                stored = {row["slug"]: Tenant.of(row) for row in found}
                await asyncio.to_thread(self._plan_batch, plan, batch, stored, now)
            on_failure.pop_all()
        return plan

    def _plan_batch(self, plan: _Plan, batch: Iterable[FileRow], stored: dict[str, Tenant], now: datetime) -> None:
        for row in batch:
            if sum(plan.report.counts.values()) == MOST_ROWS:
                raise PayloadTooLarge(f"A file has at most {MOST_ROWS:,} tenants. Import it in parts.")
            slug = row.values.get("slug")
            known = isinstance(slug, str) and SLUG.fullmatch(slug)
            told = plan.rows_of.setdefault(slug, row.number) if known else row.number
            planned, after = self._plan_row(row, stored, now, told)
            plan.report.add(planned)
            if after is not None and planned.outcome in {"new", "changed"} and not plan.report.faults:
                before = stored.get(after.slug)
                plan.put(_Planned(before.version if before else None, after))

    def _plan_row(
        self, row: FileRow, stored: dict[str, Tenant], now: datetime, told: int
    ) -> tuple[RowReport, Tenant | None]:
        slug = row.values.get("slug")
        shown = slug[:_SLUG_SHOWN] if isinstance(slug, str) else None
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
            return RowReport(row.number, shown, "faulty", faults=faults[:_FAULTS_SHOWN]), None
        outcome: Outcome = "new" if before is None else "changed" if fields else "unchanged"
        return RowReport(row.number, shown, outcome, fields), after

    def _edited(self, before: Tenant, row: FileRow) -> Tenant:
        values: dict[str, Any] = {name: _CLEARED[name] for name in row.cleared if name in _CLEARED} | dict(row.values)
        if isinstance(policy := values.get("policy"), dict):
            # The row has the whole policy: what it doesn't name is no override any more.
            values["policy"] = dict.fromkeys(before.policy) | policy
        return self._changes.edited(before, values)

    @repeatable
    async def _write(self, now: datetime, plan: _Plan, actor: Actor, client: Client) -> Sequence[UUID]:
        """Answers with those whose contacts are others now."""
        moved: list[UUID] = []
        planned = plan.read()
        async with self._db.every_tenant() as connection:
            await connection.execute(_IN_TURN)
            while batch := await asyncio.to_thread(lambda: list(islice(planned, _ROWS_AT_ONCE))):
                versions = {one.after.id: one.version for one in batch if one.version is not None}
                locked = {row["id"]: Tenant.of(row) for row in await connection.fetch(_LOCK, list(versions))}
                for tenant_id, version in versions.items():
                    held = locked.get(tenant_id)
                    if held is None or held.version != version:
                        raise EditConflict(held.version if held else 0)
                await self._changes.add(connection, now, [p.after for p in batch if p.version is None], actor, client)
                for one in batch:
                    if before := locked.get(one.after.id):
                        after = await self._changes.save(connection, now, before, one.after, actor, client)
                        moved += [after.id] if contacts_changed(before, after) else []
            if plan.report.counts["new"] or plan.report.counts["changed"]:
                await record(connection, now, SYSTEM_TENANT, "tenants.imported", actor, client, data=plan.report.counts)
        return moved


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
