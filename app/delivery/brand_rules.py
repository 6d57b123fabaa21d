"""What a tenant's branding may be. Pure: values in, normalised values out, or InvalidRequest pointing at the field."""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final

from email_validator import EmailNotValidError, validate_email

from app.delivery import colour, logo, wording
from app.errors import FieldError, InvalidRequest

INTRO_NAMES: Final = ("tenant", "lifetime")
SMS_NAMES: Final = ("code", "tenant", "lifetime")
_NAME_LENGTH: Final = 64
_INTRO_LENGTH: Final = 300
# Two segments of the GSM alphabet; more is a letter, and each segment is paid for.
_SMS_LENGTH: Final = 250
# Of what is typed, before blanks are cut off and letters put together with their accents.
_LONGEST: Final = 2000
# Control, format (which has the directional marks that make a name read as something else, UTR 36), surrogate,
# line and paragraph separator.
_FORBIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Format characters without which some scripts and emoji can't be written: zero-width joiner and non-joiner.
_JOINERS: Final = frozenset("\u200c\u200d")


def check_branding(values: Mapping[str, object]) -> dict[str, Any]:
    """The values in their normal form, by the names of `RULES`; None or an empty text clears one.

    Raises InvalidRequest with every fault there is, unknown names included.
    """
    known: dict[str, Any] = {}
    faults: list[FieldError] = []
    for name, value in values.items():
        rule = RULES.get(name)
        if rule is None:
            faults.append(FieldError(f"/{name[:80]}", "There is no such field."))
            continue
        try:
            known[name] = rule(value)
        except ValueError as error:
            faults.append(FieldError(f"/{name}", str(error)))
    if faults:
        raise InvalidRequest(*faults)
    return known


def _text(rule: Callable[[str], str], length: int) -> Callable[[object], str | None]:
    """One line of at most `length` characters that passes `rule`; None or nothing but blanks is None."""

    def check(value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise ValueError("This must be text.")  # noqa: TRY004 - a fault in the input, like its neighbours
        # Before anything looks at each character: putting thousands of accents in order takes seconds.
        if len(value) > _LONGEST:
            raise ValueError(f"This must have at most {length} characters.")
        if any(unicodedata.category(c) in _FORBIDDEN and c not in _JOINERS for c in value):
            raise ValueError("Line breaks and control characters are not allowed here.")
        text = unicodedata.normalize("NFC", value).strip()
        if len(text) > length:
            raise ValueError(f"This must have at most {length} characters.")
        return rule(text) if text else None

    return check


def _sender_name(text: str) -> str:
    # Mail programs show the name alone: one that looks like an address passes for another sender.
    if "@" in text:
        raise ValueError("A sender's name has no @ in it.")
    return text


def _reply_to(text: str) -> str:
    try:
        address = validate_email(text, check_deliverability=False).ascii_email
    except EmailNotValidError:
        address = None
    if address is None:
        raise ValueError("This must be one email address such as help@example.com.")
    return address


def _intro(text: str) -> str:
    wording.check(text, names=INTRO_NAMES)
    return text


def _sms_text(text: str) -> str:
    wording.check(text, names=SMS_NAMES, needed="code")
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("This must be true or false.")  # noqa: TRY004
    return value


def _logo(value: object) -> bytes | None:
    if value is None or value == b"":
        return None
    if not isinstance(value, bytes):
        raise ValueError("This must be a file.")  # noqa: TRY004
    logo.inspect(value)
    return value


RULES: Final[Mapping[str, Callable[[object], Any]]] = {
    "sender_name": _text(_sender_name, _NAME_LENGTH),
    "reply_to": _text(_reply_to, 254),
    "colour": _text(colour.parse, 7),
    "logo": _logo,
    "code_in_subject": _flag,
    "email_intro": _text(_intro, _INTRO_LENGTH),
    "sms_text": _text(_sms_text, _SMS_LENGTH),
}
