"""Finding members of a tenant: a search and keyset pages by name as one SQL statement. Builds, doesn't run."""

from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec

from app.errors import FieldError, InvalidRequest
from app.keys import base64url
from app.members.model import SELECTED, Member
from app.members.rules import STATUSES
from app.storage.db import Row

MAX_LIMIT: Final = 200
_SEARCH_LENGTH: Final = 254


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Some members by name, and the cursor of the next page; None on the last."""

    members: Sequence[Member]
    next: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """One page's statement; its rows are up to one more than the page holds."""

    sql: str
    args: Sequence[object]
    limit: int

    def page(self, rows: Sequence[Row]) -> MemberPage:
        """The page that these rows make."""
        kept = rows[: self.limit]
        more = len(rows) > self.limit
        last = (kept[-1]["sort_name"], kept[-1]["id"]) if more else None
        return MemberPage([Member.of(row) for row in kept], base64url(msgspec.json.encode(last)) if last else None)


def build(tenant_id: UUID, search: str, status: str | None, cursor: str | None, limit: int) -> Query:
    """The statement of a page. Raises InvalidRequest for an unknown status or cursor."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(FieldError("/limit", f"A page has 1 to {MAX_LIMIT} entries."))
    args: list[Any] = [tenant_id]
    where = ["tenant_id = $1"]
    if status is not None:
        if status not in STATUSES:
            raise InvalidRequest(FieldError("/status", f"This must be one of {', '.join(STATUSES)}."))
        args.append(status)
        where.append(f"status = ${len(args)}")
    needle = "".join(c for c in search if c.isprintable()).strip().lower()[:_SEARCH_LENGTH]
    if needle:
        args.append("%" + needle.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%")
        where.append(f"(sort_name LIKE ${len(args)} OR email LIKE ${len(args)} OR phone_number LIKE ${len(args)})")
    if cursor is not None:
        args += _read_cursor(cursor)
        where.append(f"(sort_name, id) > (${len(args) - 1}, ${len(args)})")
    args.append(limit + 1)
    sql = (
        f"SELECT {SELECTED}, sort_name FROM members WHERE {' AND '.join(where)} "
        f"ORDER BY sort_name, id LIMIT ${len(args)}"
    )
    return Query(sql, args, limit)


def _read_cursor(text: str) -> tuple[str, UUID]:
    try:
        packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        name, member_id = msgspec.json.decode(packed, type=tuple[str, UUID])
        if "\0" in name:
            raise ValueError(text)
    except ValueError:
        raise InvalidRequest(FieldError("/cursor", "This is not a cursor of this list.")) from None
    return name, member_id
