"""Finding members of a tenant: a search and keyset pages by name as SQL statements. Builds, doesn't run."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final
from uuid import UUID

from app.cursors import Text, read_cursor, show_cursor
from app.errors import FieldError, InvalidRequest
from app.members.model import SELECTED, Member
from app.members.rules import STATUSES
from app.storage.db import Row
from app.tenants.needles import Needles
from app.tenants.search import any_like

MAX_LIMIT: Final = 200


@dataclass(frozen=True, slots=True)
class Filters:
    """Which members: part of a name, email or phone number; a status; codes on or off.

    `contacts` says whether whoever asks may see them, and has no default. Without, names alone are searched, since a
    contact could otherwise be spelled out, and members come masked.
    """

    search: str = ""
    status: str | None = None
    _: KW_ONLY
    contacts: bool
    codes_enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Some members by name, and the cursors of the pages beside it; None where there is none."""

    members: Sequence[Member]
    next: str | None
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class _Cursor:
    """The member a page begins after or, `backwards`, ends before."""

    name: Text
    id: UUID
    backwards: bool


@dataclass(frozen=True, slots=True)
class Query:
    """One page's statement; its rows are up to one more than the page holds."""

    sql: str
    args: Sequence[object]
    limit: int
    cursor: _Cursor | None
    masked: bool

    def page(self, rows: Sequence[Row]) -> MemberPage:
        """The page that these rows make."""
        backwards = self.cursor is not None and self.cursor.backwards
        more = len(rows) > self.limit
        kept = rows[: self.limit]
        if backwards:
            kept = kept[::-1]
        after = more if not backwards else True
        before = more if backwards else self.cursor is not None
        return MemberPage(
            [Member.of(row).masked() if self.masked else Member.of(row) for row in kept],
            _show_cursor(kept[-1], backwards=False) if kept and after else None,
            _show_cursor(kept[0], backwards=True) if kept and before else None,
        )


def matching(tenant_id: UUID, filters: Filters) -> tuple[str, list[Any]]:
    """The condition that the members found fulfil, and its arguments. Raises InvalidRequest for an unknown status."""
    args: list[Any] = [tenant_id]
    where = ["tenant_id = $1"]
    if filters.status is not None:
        if filters.status not in STATUSES:
            raise InvalidRequest(FieldError("/status", f"This must be one of {', '.join(STATUSES)}."))
        args.append(filters.status)
        where.append(f"status = ${len(args)}")
    if filters.codes_enabled is not None:
        args.append(filters.codes_enabled)
        where.append(f"codes_enabled = ${len(args)}")
    if needles := Needles.of(filters.search):
        looked_in: list[tuple[str, Sequence[str]]] = [("sort_name", [needles.name])]
        if filters.contacts:
            looked_in += [("email", needles.emails), ("phone_number", needles.phones)]
        where.append(any_like(looked_in, args))
    return " AND ".join(where), args


def build(tenant_id: UUID, filters: Filters, cursor: str | None, limit: int) -> Query:
    """The statement of a page. Raises InvalidRequest for an unknown status or cursor."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(FieldError("/limit", f"A page has 1 to {MAX_LIMIT} entries."))
    where, args = matching(tenant_id, filters)
    place = read_cursor(cursor, _Cursor) if cursor is not None else None
    order = "sort_name, id"
    if place is not None:
        args += [place.name, place.id]
        where += f" AND (sort_name, id) {'<' if place.backwards else '>'} (${len(args) - 1}, ${len(args)})"
        order = "sort_name DESC, id DESC" if place.backwards else order
    args.append(limit + 1)
    # Who is found is read off the index alone, and the rest only of those on the page.
    found = f"SELECT id FROM members WHERE {where} ORDER BY {order} LIMIT ${len(args)}"
    sql = f"SELECT {SELECTED}, sort_name FROM members WHERE tenant_id = $1 AND id IN ({found}) ORDER BY {order}"
    return Query(sql, args, limit, place, masked=not filters.contacts)


def _show_cursor(row: Row, *, backwards: bool) -> str:
    return show_cursor(_Cursor(row["sort_name"], row["id"], backwards))
