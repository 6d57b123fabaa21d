"""What the commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

_NOTHING: Final = "-"


def print_json(value: object) -> None:
    """Indented JSON; times in UTC as RFC 3339."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Left-aligned columns under a head; a dash stands for what there is none of."""
    lines = [[name.upper() for name in head], *([_shown(value) for value in row] for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Mapping[str, object]) -> None:
    """One line a field."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        print(f"{name.ljust(width)}  {_shown(value)}")


def print_cleared(whose: str, channels: Sequence[str], as_json: bool) -> None:
    """What `clear-failing` did."""
    if as_json:
        print_json({"cleared": list(channels)})
    elif channels:
        print(f"The contact of {whose} counts as working again: {', '.join(channels)}.")
    else:
        print(f"The contact of {whose} was not marked as failing.")


def warn(sentence: str) -> None:
    """Says something that is no result."""
    print(f"gatehouse: {one_line(sentence)}", file=sys.stderr)


def one_line(text: str) -> str:
    """Text that can neither break a line nor speak to the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def moment(value: datetime | None) -> str | None:
    """A time to the second, in UTC (RFC 3339)."""
    return value.isoformat(timespec="seconds").replace("+00:00", "Z") if value else None


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case UUID():
            return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _shown(value: object) -> str:
    match value:
        case None | "" | () | []:
            return _NOTHING
        case datetime():
            return moment(value) or _NOTHING
        case list() | tuple():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{key}={str(item).lower()}" for key, item in value.items()) or _NOTHING
    return one_line(str(value)) or _NOTHING
