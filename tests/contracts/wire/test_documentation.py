"""The error tables of docs/delivery-providers.md are those of the code."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.delivery.providers import gupshup, meta, msg91, sns, twilio, vonage
from app.delivery.providers.rest import Fault

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
    faults = {(str(code), fault.error_class) for code, fault in TABLES[vendor].items()}
    assert faults <= words
    assert {word for word, _ in words if word.isdecimal()} <= {code for code, _ in faults}
