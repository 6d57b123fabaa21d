"""The error tables of docs/delivery-providers.md and docs/delivery.md are those of the code."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.delivery.faults import Fault
from app.delivery.message import UNANSWERED
from app.delivery.providers import gupshup, meta, msg91, sns, twilio, vonage

TABLES: dict[str, Mapping[int, Fault] | Mapping[str, Fault]] = {
    "twilio": twilio.FAULTS,
    "vonage": vonage.FAULTS,
    "sns": sns.FAULTS,
    "msg91": msg91.FAULTS,
    "gupshup": gupshup.FAULTS,
    "meta": meta.FAULTS,
}


# What the tables say besides codes of the vendor: HTTP statuses, and a range.
NO_CODES = re.compile(r"HTTP [0-9]{3}(?: and [0-9]{3})?|[0-9]+ to [0-9]+")


@pytest.mark.parametrize("vendor", TABLES)
def test_every_code_is_documented_with_its_class(root: Path, vendor: str) -> None:
    """An operator who looks up a code finds the class our code gives it, and no code that has none."""
    page = (root / "docs" / "delivery-providers.md").read_text(encoding="utf-8")
    section = next(part for part in page.split("\n## ") if part.startswith(f"{vendor} "))
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section, re.MULTILINE)
    words = {(word, row) for row, codes in rows for word in re.findall(r"\w+", NO_CODES.sub("", codes))}
    faults = {(str(code), fault.value) for code, fault in TABLES[vendor].items()}
    assert faults <= words
    assert {word for word, _ in words if word.isdecimal()} <= {code for code, _ in faults}


def raised(root: Path, *files: str) -> set[str]:
    """The error classes that stand in these files, as the first argument of a failure or under their own name."""
    found = {UNANSWERED}
    for node in (each for file in files for each in ast.walk(ast.parse((root / file).read_text(encoding="utf-8")))):
        match node:
            case ast.Call(func=ast.Name(id="TransientFailure" | "PermanentFailure" | "Deferral" | "Fault"), args=args):
                said: list[ast.expr] = args[:1]
            case ast.Assign(targets=[ast.Name(id="error_class")], value=value):
                said = [value]
            case _:
                continue
        constants = [each for one in said for each in ast.walk(one) if isinstance(each, ast.Constant)]
        found |= {each.value for each in constants if isinstance(each.value, str)}
    return found


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("delivery.md", ("app/delivery/providers/smtp.py", "app/delivery/mime.py")),
        ("delivery-providers.md", ("app/delivery/providers/rest.py",)),
    ],
)
def test_every_class_of_errors_can_be_looked_up(root: Path, page: str, files: tuple[str, ...]) -> None:
    """What the timeline and the log call a failure has a row that says what to do."""
    rows = re.findall(r"^\| (`.*?) \|", (root / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert raised(root, *files) <= {word for row in rows for word in re.findall(r"`([a-z-]+)`", row)}
