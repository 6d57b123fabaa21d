"""Members as a file: read all or nothing, added or changed where their email or phone number is here, and written."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from app.audit.export import csv_cell
from app.errors import FieldError, GatehouseError, InvalidRequest
from app.members.model import Member
from app.members.rules import SETTABLE

Outcome: TypeAlias = Literal["new", "changed", "unchanged", "faulty"]

SIZE_LIMIT: Final = 10 * 1024 * 1024
MOST_ROWS: Final = 10_000
_SWITCHES: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_MASK: Final = "***"


@dataclass(frozen=True, slots=True)
class RowFault:
    """One fault in a file. The header is row 1."""

    row: int
    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class RowReport:
    """What a row does to whom: `fields` are those it changes or, of a new member, fills in."""

    number: int
    name: str
    outcome: Outcome
    fields: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What an import did, or (`applied` false) would do; with faults it did nothing."""

    rows: Sequence[RowReport]
    faults: Sequence[RowFault]
    applied: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """How many rows there are of each outcome."""
        found = Counter(row.outcome for row in self.rows)
        return {outcome: found[outcome] for outcome in get_args(Outcome)}


def read_csv(body: bytes) -> Sequence[Mapping[str, Any]]:
    """The rows of a CSV in UTF-8 whose header has members' field names. An empty cell clears, or says nothing of a
    switch. Raises `InvalidRequest`.
    """
    if len(body) > SIZE_LIMIT:
        raise _fault("The file is larger than 10 MiB.")
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        header = reader.fieldnames or []
        unknown = [name for name in header if name not in SETTABLE]
        if unknown or "name" not in header:
            raise _fault(f"The first row has the names of the fields: {', '.join(SETTABLE)}; name is needed.")
        rows = [_row(cells, number) for number, cells in enumerate(reader, start=2)]
    except (UnicodeDecodeError, csv.Error):
        raise _fault("This is not a CSV file in UTF-8.") from None
    if len(rows) > MOST_ROWS:
        raise _fault(f"A file has at most {MOST_ROWS} rows.")
    return rows


def faults_of(row: int, refusal: GatehouseError) -> list[RowFault]:
    """What is wrong with a row, field by field."""
    if isinstance(refusal, InvalidRequest) and refusal.errors:
        return [RowFault(row, error.pointer.lstrip("/"), error.detail) for error in refusal.errors]
    return [RowFault(row, str(refusal.extra.get("pointer", "")).lstrip("/"), refusal.detail)]


def masked_faults(row: int, values: Mapping[str, Any]) -> list[RowFault]:
    """Contacts as viewers' exports have them: they look like addresses, and are none."""
    return [
        RowFault(row, name, "This contact is masked, as viewers see it: it is no contact.")
        for name in ("email", "phone_number")
        if _MASK in str(values.get(name))
    ]


def csv_head() -> bytes:
    """The header of an export."""
    return _csv([SETTABLE])


def as_csv(members: Sequence[Member]) -> bytes:
    """Rows of an export, without the header; they can be imported again."""
    return _csv([[csv_cell(_cell(getattr(member, name))) for name in SETTABLE] for member in members])


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _row(cells: Mapping[str | None, Any], number: int) -> dict[str, Any]:
    if None in cells or None in cells.values():
        raise _fault(f"Row {number} has more or fewer cells than the header.")
    values: dict[str, Any] = {}
    for name, text in cells.items():
        # Spreadsheets write such a quote before what they might take for a formula, and our exports do.
        cell = text[1:] if text[:1] == "'" and text[1:2] in "=+-@" else text
        if name in {"codes_enabled", "must_verify"}:
            if cell.strip():
                values[name] = _SWITCHES.get(cell.strip().lower(), cell)
        elif cell.strip() or name in {"email", "phone_number", "preferred_method"}:
            values[str(name)] = cell.strip()
    return values


def _fault(detail: str) -> InvalidRequest:
    return InvalidRequest(FieldError("", detail))
