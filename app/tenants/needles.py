"""What somebody types into a search, in the forms in which it may be stored. Pure."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app import cleaning
from app.errors import InvalidRequest
from app.tenants.contacts import normalise_email, normalise_phone

_LONGEST: Final = 254
# Fewer digits are in nearly every number.
_LEAST_DIGITS: Final = 3
_PUNCTUATION: Final = re.compile(r"[ +().\/-]")
_ZERO: Final = re.compile(r"\( *0 *\)")
_WRAPPING: Final = re.compile(r"^(?:mailto|tel|sms):(?://)?|^<|>$")
_ANY_DOMAIN: Final = ".test"


@dataclass(frozen=True, slots=True)
class Needles:
    """Parts to look for: of a name (and a slug), of an email address, of a phone number. Names are in lower case."""

    name: str
    emails: Sequence[str]
    phones: Sequence[str]

    @classmethod
    def of(cls, search: str) -> "Needles | None":
        """None where there is nothing to look for."""
        text = "".join(c for c in search[:_LONGEST] if unicodedata.category(c) not in {"Cc", "Cs"})
        name, contact = cleaning.name(text).lower(), cleaning.plain(text).strip().lower()
        if not name:
            return None
        contact = _WRAPPING.sub("", contact).strip()
        return cls(name, _emails(contact), _phones(contact))


def like(part: str) -> str:
    """A pattern of LIKE for all that has this part in it."""
    literal = part.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{literal}%"


def _emails(text: str) -> list[str]:
    """As it is, and with whole labels of a domain as they are stored (IDNA)."""
    if not text:
        return []
    local, at, domain = text.rpartition("@")
    try:
        stored = normalise_email(f"x@{domain.strip('.')}{_ANY_DOMAIN}")[2 : -len(_ANY_DOMAIN)]
    except InvalidRequest:
        return [text]
    return [text] if stored in text else [text, f"{local}{at}{stored}"]


def _phones(text: str) -> list[str]:
    """The whole number as it is stored, or the digits of a part. Leading zeros (`0770…`, `0044…`) are not in E.164."""
    digits = _PUNCTUATION.sub("", _ZERO.sub("", text))
    if not (digits.isascii() and digits.isdigit() and len(digits) >= _LEAST_DIGITS):
        return []
    try:
        return [normalise_phone(text)]
    except InvalidRequest:
        return [digits.lstrip("0") or digits]
