"""Finding tenants: filters, order and keyset pages as one SQL statement. Builds, doesn't run."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from app.cursors import Text, read_cursor, show_cursor
from app.errors import FieldError, InvalidRequest
from app.storage import SYSTEM_TENANT
from app.storage.db import Row
from app.tenants.model import COLUMNS, Tenant
from app.tenants.needles import Needles, like
from app.tenants.rules import CHANNELS, STATUSES

MAX_LIMIT: Final = 200


@dataclass(frozen=True, slots=True)
class _Key:
    """What a list is ordered by: an SQL expression, its type, and how its value comes back out of a cursor."""

    sql: str
    type: str
    read: Callable[[str], object]


def _moment(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.utcoffset() != timedelta(0):
        raise ValueError(text)
    return value


# People expect "apple" before "Zebra", so names are ordered in lower case. Each key leads an index, and the id follows.
_KEYS: Final = {
    "name": _Key("sort_name", "text", str),
    "slug": _Key("slug", "text", str),
    "updated_at": _Key("updated_at", "timestamptz", _moment),
    "created_at": _Key("created_at", "timestamptz", _moment),
}
SORTS: Final = tuple(_KEYS)

_FAILING: Final = "EXISTS (SELECT FROM contact_health h WHERE h.tenant_id = tenants.id AND h.subject_id = tenants.id)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which tenants. `search` is looked for in name, slug, email and, if it is made of digits, the phone number, as
    people write them (see `needles`).

    `contacts` says whether whoever asks may see them, and has no default. Without, a search is in name and slug only,
    since a contact could otherwise be spelled out piece by piece, and tenants come masked. `failing`: a provider said
    of the tenant's own contact that nothing can arrive there.
    """

    contacts: bool
    search: str = ""
    status: str | None = None
    method: str | None = None
    contact_missing: bool | None = None
    failing: bool | None = None


@dataclass(frozen=True, slots=True)
class TenantPage:
    """Some tenants in order, and the cursors of the pages after and before; None where there is none.

    `failing` are the ids of those whose contact a provider called bad.
    """

    tenants: Sequence[Tenant]
    next: str | None
    previous: str | None
    failing: Collection[UUID] = ()


class _Cursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A place in an ordered list: after (or, backwards, before) the row with this key."""

    sort: str
    backwards: bool
    value: Text
    id: UUID


@dataclass(frozen=True, slots=True)
class Query:
    """One page's statement. Its rows are `COLUMNS`, `key` and `failing`, up to one more than the page holds."""

    sql: str
    args: Sequence[object]
    sort: str
    limit: int
    cursor: _Cursor | None
    masked: bool

    def page(self, rows: Sequence[Row]) -> TenantPage:
        """The page that these rows make."""
        backwards = self.cursor is not None and self.cursor.backwards
        more = len(rows) > self.limit
        kept = list(rows[: self.limit])
        if backwards:
            kept.reverse()
        if not kept:
            return TenantPage([], None, None)
        after = more if not backwards else True
        before = more if backwards else self.cursor is not None
        return TenantPage(
            [Tenant.of(row).masked() if self.masked else Tenant.of(row) for row in kept],
            self._place(kept[-1], backwards=False) if after else None,
            self._place(kept[0], backwards=True) if before else None,
            {row["id"] for row in kept if row["failing"]},
        )

    def _place(self, row: Row, *, backwards: bool) -> str:
        value = row["key"]
        text = value.isoformat() if isinstance(value, datetime) else value
        return show_cursor(_Cursor(self.sort, backwards, text, row["id"]))


def build(filters: Filters, *, sort: str, cursor: str | None, limit: int) -> Query:
    """The statement of a page. Raises InvalidRequest for an unknown sort, filter value or cursor."""
    if sort.removeprefix("-") not in _KEYS:
        raise _fault("/sort", f"Lists are sorted by {', '.join(_KEYS)}, with a leading - the other way round.")
    if not 1 <= limit <= MAX_LIMIT:
        raise _fault("/limit", f"A page has 1 to {MAX_LIMIT} entries.")
    key = _KEYS[sort.removeprefix("-")]
    where, args = _conditions(filters)
    place = _read_cursor(cursor, sort) if cursor else None
    falling = sort.startswith("-") != (place is not None and place.backwards)
    if place is not None:
        where.append(
            f"({key.sql}, id) {'<' if falling else '>'} (${len(args) + 1}::{key.type}, ${len(args) + 2}::uuid)"
        )
        args += [_key_value(key, place), place.id]
    direction = "DESC" if falling else "ASC"
    args.append(limit + 1)
    sql = (
        f"SELECT {', '.join(COLUMNS)}, {key.sql} AS key, {_FAILING} AS failing FROM tenants "
        f"WHERE {' AND '.join(where)} ORDER BY {key.sql} {direction}, id {direction} LIMIT ${len(args)}"
    )
    return Query(sql, args, sort, limit, place, masked=not filters.contacts)


def build_count(filters: Filters, at_most: int) -> tuple[str, Sequence[object]]:
    """A statement that counts matches, but stops at `at_most`: nobody reads further, and counting all of them costs."""
    where, args = _conditions(filters)
    args.append(at_most)
    sql = f"SELECT count(*) FROM (SELECT FROM tenants WHERE {' AND '.join(where)} LIMIT ${len(args)}) AS found"
    return sql, args


def _conditions(filters: Filters) -> tuple[list[str], list[Any]]:
    if filters.status is not None and filters.status not in STATUSES:
        raise _fault("/status", f"This must be one of {', '.join(STATUSES)}.")
    if filters.method is not None and filters.method not in CHANNELS:
        raise _fault("/method", f"This must be one of {', '.join(CHANNELS)}.")
    args: list[Any] = [SYSTEM_TENANT]
    where = ["id <> $1"]
    if filters.status is not None:
        args.append(filters.status)
        where.append(f"status = ${len(args)}")
    if filters.method is not None:
        args.append(filters.method)
        where.append(f"otp_delivery_method = ${len(args)}")
    if filters.contact_missing is not None:
        where.append(
            "(CASE otp_delivery_method WHEN 'email' THEN email WHEN 'push' THEN '' ELSE phone_number END IS NULL) "
            f"= {str(filters.contact_missing).lower()}"
        )
    if filters.failing is not None:
        where.append(_FAILING if filters.failing else f"NOT {_FAILING}")
    if needles := Needles.of(filters.search):
        looked_in: list[tuple[str, Sequence[str]]] = [("sort_name", [needles.name]), ("slug", [needles.name])]
        if filters.contacts:
            looked_in += [("email", needles.emails), ("phone_number", needles.phones)]
        where.append(any_like(looked_in, args))
    return where, args


def any_like(looked_in: Iterable[tuple[str, Iterable[str]]], args: list[Any]) -> str:
    """A condition for rows in which one of these columns has one of its parts; the parts are added to `args`."""
    found = []
    for column, parts in looked_in:
        for part in parts:
            args.append(like(part))
            found.append(f"{column} LIKE ${len(args)}")
    return f"({' OR '.join(found)})"


def _read_cursor(text: str, sort: str) -> _Cursor:
    place = read_cursor(text, _Cursor)
    if place.sort != sort:
        raise _fault("/cursor", "This cursor belongs to another order of the list.")
    return place


def _key_value(key: _Key, place: _Cursor) -> object:
    try:
        return key.read(place.value)
    except ValueError:
        raise _fault("/cursor", "This is not a cursor of this list.") from None


def _fault(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(FieldError(pointer, detail))
