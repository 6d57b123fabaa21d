"""Tenants as a file: CSV for spreadsheets, JSON Lines for programs. Pure: bytes in, rows out, and the other way round.

A row says what a tenant shall be in the fields it has; a column that isn't there says nothing, an empty cell clears.
What was exported can be imported again: `version` then tells who changed a tenant meanwhile, and the times are ignored.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from app.errors import FieldError, InvalidRequest, PayloadTooLarge
from app.tenants.model import Tenant
from app.tenants.rules import parse_policy_assignments

SIZE_LIMIT: Final = 10 * 1024 * 1024
# One transaction writes them all, in a few seconds.
MOST_ROWS: Final = 10_000

_SETTABLE: Final = (
    "slug",
    "name",
    "status",
    "email",
    "phone_number",
    "otp_delivery_method",
    "fallback_methods",
    "locale",
    "timezone",
    "policy",
)
_TIMES: Final = ("created_at", "updated_at")
FIELDS: Final = (*_SETTABLE, "version", *_TIMES)

_HEADER_ROW: Final = 1
# What a spreadsheet takes for a formula (OWASP, "CSV injection"). Quoted even where it was quoted before: so a name
# that begins with a quote comes back as it was.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_BETWEEN_WORDS: Final = re.compile(r"[\s,;]+")
_LONGEST_QUOTE: Final = 40


@dataclass(frozen=True, slots=True)
class RowFault:
    """One fault. Rows are numbered as a spreadsheet does: the header of a CSV is row 1. `field` may be empty."""

    row: int
    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row as it was read: what it says, which cells are empty, and what is wrong with it already."""

    number: int
    values: Mapping[str, object] = field(default_factory=dict)
    cleared: frozenset[str] = frozenset()
    version: int | None = None
    faults: Sequence[RowFault] = ()


def read_csv(body: bytes) -> Iterator[FileRow]:
    """The rows of a CSV file in UTF-8, its cells between commas, semicolons or tabs.

    Raises `PayloadTooLarge`, and `InvalidRequest` for what is no such file or has a header we don't know.
    """
    text = _text(body)
    head, _, _ = text.partition("\n")
    delimiter = max(",;\t", key=head.count)
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = _HEADER_ROW
    try:
        names = [name.strip() for name in next(records, [])]
        _check_header(names)
        for number, cells in enumerate(records, _HEADER_ROW + 1):
            if any(cells):
                yield _from_cells(number, names, cells)
    except csv.Error as error:
        raise InvalidRequest(FieldError(f"/{number + 1}", f"This is not CSV: {error}.")) from None


def read_json_lines(body: bytes) -> Iterator[FileRow]:
    """The rows of a JSON Lines file: an object a line, with the members of a tenant.

    Raises `PayloadTooLarge`, and `InvalidRequest` for what isn't UTF-8.
    """
    for number, line in enumerate(_text(body).split("\n"), 1):
        if line.strip():
            yield _from_json(number, line)


def csv_head() -> bytes:
    """The header of an export."""
    return _csv([FIELDS])


def as_csv(tenants: Sequence[Tenant]) -> bytes:
    """Rows of an export, without the header."""
    return _csv([[_guarded(_cell(member)) for member in _members(tenant)] for tenant in tenants])


def as_json_lines(tenants: Sequence[Tenant]) -> bytes:
    """Lines of an export."""
    return msgspec.json.Encoder().encode_lines([tenant.as_json() for tenant in tenants])


def _text(body: bytes) -> str:
    if len(body) > SIZE_LIMIT:
        raise PayloadTooLarge(f"A file of tenants has at most {SIZE_LIMIT // 2**20} MiB.")
    try:
        # Spreadsheets put a byte order mark in front.
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(FieldError("", "The file is not in UTF-8. Save it as “CSV UTF-8”.")) from None


def _check_header(names: Sequence[str]) -> None:
    faults = [
        FieldError(
            f"/{_HEADER_ROW}/{name[:_LONGEST_QUOTE]}", f"There is no such column; known are {', '.join(FIELDS)}."
        )
        for name in names
        if name not in FIELDS
    ]
    faults += [
        FieldError(f"/{_HEADER_ROW}/{name}", "This column is there twice.") for name in FIELDS if names.count(name) > 1
    ]
    if "slug" not in names:
        faults.insert(0, FieldError(f"/{_HEADER_ROW}", "The first row names the columns, and slug is one of them."))
    if faults:
        raise InvalidRequest(*faults)


def _from_cells(number: int, names: Sequence[str], cells: Sequence[str]) -> FileRow:
    if len(cells) != len(names):
        detail = f"This row has {len(cells)} cells, and the header {len(names)}."
        return FileRow(number, faults=[RowFault(number, "", detail)])
    given = {name: _unguarded(cell).strip() for name, cell in zip(names, cells, strict=True) if name not in _TIMES}
    values: dict[str, Any] = {}
    faults: list[RowFault] = []
    for name, text in given.items():
        if not text:
            continue
        try:
            values[name] = _READERS.get(name, str)(text)
        except InvalidRequest as error:
            faults += row_faults(number, error)
    version = values.pop("version", None)
    cleared = frozenset(name for name, text in given.items() if not text)
    return FileRow(number, values, cleared, version, faults)


def _from_json(number: int, line: str) -> FileRow:
    try:
        values = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return FileRow(number, faults=[RowFault(number, "", "This line is not a JSON object.")])
    for name in _TIMES:
        values.pop(name, None)
    version = values.pop("version", None)
    if version is not None and type(version) is not int:
        return FileRow(number, values, faults=[RowFault(number, "version", "This must be a whole number.")])
    return FileRow(number, values, version=version)


def row_faults(number: int, error: InvalidRequest) -> list[RowFault]:
    """The faults that the rules found in a row."""
    return [RowFault(number, fault.pointer.strip("/").replace("/", "."), fault.detail) for fault in error.errors]


def _words(text: str) -> list[str]:
    return [word for word in _BETWEEN_WORDS.split(text) if word]


def _read_version(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InvalidRequest(FieldError("/version", "This must be a whole number."))
    return int(text)


_READERS: Final[Mapping[str, Callable[[str], object]]] = {
    "fallback_methods": _words,
    "policy": lambda text: parse_policy_assignments(_words(text)),
    "version": _read_version,
}


def _members(tenant: Tenant) -> list[object]:
    members = tenant.as_json()
    return [members[name] for name in FIELDS]


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case dict():
            return " ".join(f"{key}={str(item).lower()}" for key, item in value.items())
        case list() | tuple():
            return " ".join(map(str, value))
    return str(value)


def _guarded(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def _unguarded(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
