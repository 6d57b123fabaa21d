"""Members as a file: read all or nothing, added or changed where their email or phone number is here, and written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

from app import sheets
from app.audit.export import csv_cell
from app.errors import FieldError, GatehouseError, InvalidRequest
from app.members.model import Member
from app.members.rules import SETTABLE
from app.tenants.table import MOST_TOLD, RowFault, doubts

Outcome: TypeAlias = Literal["new", "changed", "unchanged", "faulty"]

MOST_ROWS: Final = 10_000
_SWITCHES: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_MASK: Final = "***"


@dataclass(frozen=True, slots=True)
class RowReport:
    """What a row does to whom: `fields` are those it changes or, of a new member, fills in."""

    number: int
    name: str
    outcome: Outcome
    fields: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A row as it was read: what it says, and what is wrong with it already."""

    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[RowFault] = ()


@dataclass(slots=True)
class Report:
    """What an import did, or (`applied` false) would do; with faults it did nothing.

    `rows` and `faults` are the first ones; `counts` tells how many rows there are of each outcome.
    """

    rows: list[RowReport] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)
    applied: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(get_args(Outcome), 0))

    def add(self, row: RowReport, faults: Sequence[RowFault]) -> None:
        """Tells of one more row."""
        self.counts[row.outcome] += 1
        if len(self.rows) < MOST_TOLD:
            self.rows.append(row)
        self.faults += faults[: MOST_TOLD - len(self.faults)]


def read_csv(body: bytes, *, as_is: bool = False) -> Iterator[MemberRow]:
    """The rows of a CSV, as spreadsheets write it (see `sheets.read`), whose header has members' field names. An empty
    cell clears, or says nothing of a switch. Text that looks wrongly decoded is a fault, unless taken `as_is`.

    Raises `PayloadTooLarge`, and `InvalidRequest` for what is no such file.
    """
    sheet = sheets.read(body)
    if set(sheet.names) - set(SETTABLE) or "name" not in sheet.names or len(set(sheet.names)) < len(sheet.names):
        raise _fault(f"The first row has the names of the fields: {', '.join(SETTABLE)}; name is needed.")
    for row, (number, cells) in enumerate(sheet.rows):
        if row == MOST_ROWS:
            raise _fault(f"A file has at most {MOST_ROWS} rows.")
        yield _row(number, sheet.names, cells, as_is=as_is)


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
    return sheets.write([SETTABLE])


def as_csv(members: Sequence[Member]) -> bytes:
    """Rows of an export, without the header; they can be imported again."""
    return sheets.write([[csv_cell(_cell(getattr(member, name))) for name in SETTABLE] for member in members])


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _row(number: int, names: Sequence[str], cells: Sequence[str], *, as_is: bool) -> MemberRow:
    if len(cells) != len(names):
        detail = f"This row has {len(cells)} cells, and the header {len(names)}."
        return MemberRow(number, faults=[RowFault(number, "", detail)])
    values: dict[str, Any] = {}
    for name, text in zip(names, cells, strict=True):
        cell = sheets.unguarded(text.strip()).strip()
        if name in {"codes_enabled", "must_verify"}:
            if cell:
                values[name] = _SWITCHES.get(cell.lower(), cell)
        elif cell or name in {"email", "phone_number", "preferred_method"}:
            values[name] = cell
    return MemberRow(number, values, doubts(number, values, as_is=as_is))


def _fault(detail: str) -> InvalidRequest:
    return InvalidRequest(FieldError("", detail))
