"""Tenants as a file: CSV for spreadsheets, JSON Lines for programs. Pure: bytes in, rows out, and the other way round.

A row says what a tenant shall be in the fields it has; a column that isn't there says nothing, an empty cell clears.
What was exported can be imported again: `version` then tells who changed a tenant meanwhile, and the times are ignored.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from app import sheets
from app.errors import FieldError, InvalidRequest
from app.sheets import guarded, unguarded
from app.tenants.model import Tenant
from app.tenants.rules import parse_policy_assignments

# One transaction writes them all.
MOST_ROWS: Final = 100_000
# So many rows and faults of a file are told; all are counted.
MOST_TOLD: Final = 1000

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

_BETWEEN_WORDS: Final = re.compile(r"[\s,;]+")
# What may be done about text that looks wrongly decoded.
DOUBT: Final = "Correct it in the file, or import the file as it is."
_LONGEST_QUOTE: Final = 40
_LONGEST_PLACE: Final = 120
# One that a tenant doesn't have is told by name, thousands are not.
_MOST_MEMBERS: Final = 50


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


def read_csv(body: bytes, *, as_is: bool = False) -> Iterator[FileRow]:
    """The rows of a CSV file as spreadsheets write it (see `sheets.read`). Text that looks wrongly decoded is a fault
    of its row, unless it is to be taken `as_is`.

    Raises `PayloadTooLarge`, and `InvalidRequest` for what is no such file or has a header we don't know.
    """
    sheet = sheets.read(body)
    _check_header(sheet.number, sheet.names)
    for number, cells in sheet.rows:
        yield _from_cells(number, sheet.names, cells, as_is=as_is)


def read_json_lines(body: bytes, *, as_is: bool = False) -> Iterator[FileRow]:
    """The rows of a JSON Lines file: an object a line, with the members of a tenant.

    Raises `PayloadTooLarge`, and `InvalidRequest` for what isn't UTF-8.
    """
    for number, line in sheets.lines(body):
        if line is None:
            yield FileRow(number, faults=[RowFault(number, "", "This line is too long for a tenant.")])
        else:
            yield _from_json(number, line, as_is=as_is)


def csv_head() -> bytes:
    """The header of an export."""
    return sheets.write([FIELDS])


def as_csv(tenants: Sequence[Tenant]) -> bytes:
    """Rows of an export, without the header."""
    return sheets.write([[guarded(_cell(member)) for member in _members(tenant)] for tenant in tenants])


def as_json_lines(tenants: Sequence[Tenant]) -> bytes:
    """Lines of an export."""
    return msgspec.json.Encoder().encode_lines([tenant.as_json() for tenant in tenants])


def _check_header(number: int, names: Sequence[str]) -> None:
    faults = [
        FieldError(f"/{number}/{name[:_LONGEST_QUOTE]}", f"There is no such column; known are {', '.join(FIELDS)}.")
        for name in names[: len(FIELDS) + 1]
        if name not in FIELDS
    ]
    faults += [
        FieldError(f"/{number}/{name}", "This column is there twice.") for name in FIELDS if names.count(name) > 1
    ]
    if "slug" not in names:
        faults.insert(0, FieldError(f"/{number}", "The first row names the columns, and slug is one of them."))
    if faults:
        raise InvalidRequest(*faults)


def _from_cells(number: int, names: Sequence[str], cells: Sequence[str], *, as_is: bool) -> FileRow:
    if len(cells) != len(names):
        detail = f"This row has {len(cells)} cells, and the header {len(names)}."
        return FileRow(number, faults=[RowFault(number, "", detail)])
    given = {
        name: unguarded(cell.strip()).strip() for name, cell in zip(names, cells, strict=True) if name not in _TIMES
    }
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
    faults += doubts(number, values, as_is=as_is)
    cleared = frozenset(name for name, text in given.items() if not text)
    return FileRow(number, values, cleared, version, faults)


def _from_json(number: int, line: str, *, as_is: bool) -> FileRow:
    try:
        values = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return FileRow(number, faults=[RowFault(number, "", "This line is not a JSON object.")])
    if len(values) > _MOST_MEMBERS:
        return FileRow(number, faults=[RowFault(number, "", "This line has more members than a tenant.")])
    for name in _TIMES:
        values.pop(name, None)
    version = values.pop("version", None)
    if version is not None and type(version) is not int:
        return FileRow(number, values, faults=[RowFault(number, "version", "This must be a whole number.")])
    return FileRow(number, values, version=version, faults=doubts(number, values, as_is=as_is))


def doubts(number: int, values: Mapping[str, object], *, as_is: bool) -> list[RowFault]:
    """Text that looks as if it had been decoded wrongly: whoever knows better says so (`as_is`)."""
    return [
        RowFault(number, name, f"{doubt} {DOUBT}")
        for name, text in values.items()
        if not as_is and isinstance(text, str) and (doubt := sheets.doubt(text))
    ]


def row_faults(number: int, error: InvalidRequest) -> list[RowFault]:
    """The faults that the rules found in a row."""
    return [
        RowFault(number, fault.pointer.strip("/").replace("/", ".")[:_LONGEST_PLACE], fault.detail)
        for fault in error.errors
    ]


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
