"""Email addresses and phone numbers as people write them, in the one form in which they are kept. Pure.

Two ways to write one address or number are one person: what is stored, counted and looked up is this form. Nothing is
guessed and no part is dropped to get there: it is refused then, with the reason.
"""

import re
from typing import Final
from urllib.parse import unquote

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult

from app.cleaning import plain
from app.errors import FieldError, InvalidRequest

_EMAIL_LENGTH: Final = 254
# More is no contact with a few marks around it, and isn't looked at.
_MOST_PASTED: Final = 1000
# RFC 6762 (appendix G), RFC 8375, ICANN's `internal`, and what routers and Windows domains are called.
_INTERNAL: Final = re.compile(r".*[.@](?:local|localdomain|lan|internal|intranet|corp|home|private|home\.arpa)")
_accepted: Final = {"internal": True}
_LINE: Final = re.compile(r"[\r\n\0]")

_URI: Final = re.compile(r"(?:tel|sms|callto|whatsapp):(?://)?", re.IGNORECASE)
_SHORTENED: Final = re.compile(r"\+?[0-9]+(?:[.,][0-9]+)?E\+?[0-9]+", re.IGNORECASE)
_QUANTITY: Final = re.compile(r"\+?[0-9]{6,}[.,]0+|\+?[0-9]{1,3}(?:,[0-9]{3}){2,}(?:\.[0-9]+)?")
_EXTENSION: Final = re.compile(
    r"[0-9)]\s*(?:[;,]?\s*(?:ext(?:n|ension)?|xt?|app|anexo|durchwahl|dw|int|poste|ramal|доб)[.:=]?\s*[0-9]|#)",
    re.IGNORECASE,
)
_BETWEEN: Final = re.compile(
    r"[,|&\r\n]|;(?![a-z-]+=)|(?<=[0-9 )])(?:or|and|oder|und|bzw\.?|ou|et|o|y|e|oppure|lub)(?=[ +(0-9])", re.IGNORECASE
)
# A plus that has a whole number in front of it.
_SECOND: Final = re.compile(r"(?:[0-9][^0-9+]*){7}\+")
_WRITTEN: Final = re.compile(r"\+?[0-9 ()./+-]{3,60}")
_INTERNATIONAL: Final = re.compile(r"[( ]*(\+|0 ?0)[( ]*(?=[0-9])")
_ZERO: Final = re.compile(r"\( *0 *\)")
_MOST_DIGITS_OF_AREA: Final = 5

# Written two ways, one telephone: (1) Mexico's mobiles lost their 1 in 2019, (2) Argentina's need a 9 from abroad and
# codes go to mobiles alone, (3) Brazil's were given a ninth digit by 2016 (but for trunked radio), the numbers of
# (4) Côte d'Ivoire two digits in 2021, by operator, and those of (5) Benin in 2024.
_RENUMBERED: Final = tuple(
    (re.compile(old), new)
    for old, new in (
        (r"\+52(?:1|01|04[45])([2-9]\d{9})", r"+52\1"),
        (r"\+54([123]\d{9})", r"+549\1"),
        (r"\+55([1-9][1-9])((?:[689]\d|7[1-6])\d{6})", r"+55\g<1>9\2"),
        (r"\+225([04-9][0-3]\d{6})", r"+22501\1"),
        (r"\+225([04-9][4-6]\d{6})", r"+22505\1"),
        (r"\+225([04-9][7-9]\d{6})", r"+22507\1"),
        (r"\+229([2-9]\d{7})", r"+22901\1"),
    )
)
# Argentina's 15 stands where the 9 of the international form says the same.
_BOTH_9_AND_15: Final = re.compile(r"\+549(\d{12})")

_NO_NUMBER: Final = "This is not a phone number."
_TWICE: Final = "The country code is there twice. Write it once, for example +447700900123."
_REASONS: Final = {
    ValidationResult.TOO_SHORT: "This phone number is too short.",
    ValidationResult.IS_POSSIBLE_LOCAL_ONLY: "This phone number is too short: its area code is missing.",
    ValidationResult.TOO_LONG: "This phone number is too long.",
    ValidationResult.INVALID_COUNTRY_CODE: "No country has this country code.",
}


def normalise_email(value: str, pointer: str = "/email") -> str:
    """One address, lower-cased whole, its domain in ASCII (IDNA), 254 characters at most.

    RFC 5321 lets a host tell `Bob@` from `bob@`; none in use does, and people type both. Were they two
    identities here, each would have a quota of its own and a lookup would miss half of the time. Non-ASCII
    local parts are refused, since delivery would hang on SMTPUTF8 at every hop. `.test` (RFC 6761) is allowed.
    """
    try:
        return _email(value)
    except ValueError as refusal:
        raise InvalidRequest(FieldError(pointer, str(refusal))) from None


def normalise_phone(value: str, pointer: str = "/phone_number", region: str | None = None) -> str:
    """The number in E.164. National notation is understood where the region (ISO 3166-1) is known.

    A number passes if its length is possible in its country ("is possible"), not only if its range is in use
    ("is valid"): libphonenumber's tables trail the regulators, which would lock real people out, and exclude
    the ranges reserved for examples (+1 555 555 0100, +44 7700 900123), which every first try uses. A number
    nobody has is found out by its provider and shown to the admin.
    """
    try:
        return _phone(value, region)
    except ValueError as refusal:
        raise InvalidRequest(FieldError(pointer, str(refusal))) from None


def accept_internal_domains(yes: bool) -> None:
    """Says, once for the process, whether `bob@printer.local` is an address (`EMAIL_INTERNAL_DOMAINS`)."""
    _accepted["internal"] = yes


def _email(value: str) -> str:
    wrong = ValueError("This is not an email address.")
    # A line break could add a header, a comma a second recipient; the library refuses them too, but this must not
    # depend on its options.
    text = _unwrapped(value) if len(value) <= _MOST_PASTED and not _LINE.search(value) else ""
    if text.count("@") > 1:
        raise ValueError("These are two email addresses. Enter one.")
    if "<" in text or ">" in text:
        raise ValueError("Enter the address alone, without the name beside it.")
    if len(text) > _EMAIL_LENGTH or _LINE.search(text) or "," in text:
        raise wrong
    try:
        checked = validate_email(text, check_deliverability=False, allow_smtputf8=False, test_environment=True)
    except EmailNotValidError:
        raise wrong from None
    address = (checked.ascii_email or checked.normalized).lower()
    if address.endswith(".arpa") and not address.endswith((".home.arpa", "@home.arpa")):
        raise wrong
    if not _accepted["internal"] and _INTERNAL.fullmatch(address):
        raise ValueError("Addresses of internal domains such as .local are not accepted here.")
    return address


def _unwrapped(value: str) -> str:
    """Without what stood around the address: a link, brackets, the end of the sentence or list it was in."""
    text = plain(value).strip()
    if text[:7].lower() == "mailto:":
        # What people who write links by hand put after every colon.
        text = plain(unquote(text[7:])).strip().removeprefix("//")
        if "?" in text:
            raise ValueError("Enter the address alone, without what follows the question mark.")
    if re.fullmatch(r"<[^<>]*>", text):
        text = text[1:-1].strip()
    return re.sub(r"(?<=[^.,;\s])[.,;]$", "", text)


def _phone(value: str, region: str | None) -> str:
    if len(value) > _MOST_PASTED:
        raise ValueError("This phone number is too long.")
    text = plain(value).strip()
    if uri := _URI.match(text):
        text = plain(unquote(text[uri.end() :])).strip()
    # Spreadsheets keep a cell's text as it is by a quote before it.
    text = re.sub(r"(?<=[0-9])[.,;]$", "", text.removeprefix("'").strip())
    _check_written(text)
    if international := _INTERNATIONAL.match(text):
        number = _international(text, international, region)
    elif region is None:
        raise ValueError("Write the phone number with its country code, for example +447700900123.")
    else:
        number = _national(text, region)
    # What reads differently a second time (a zero taken for a trunk prefix) could never be found again.
    if _e164(number, None) != number:
        raise ValueError(_NO_NUMBER)
    return number


def _check_written(text: str) -> None:
    """Raises `ValueError` for what isn't one number of digits and the punctuation people write between them."""
    if _SHORTENED.fullmatch(text):
        raise ValueError("A spreadsheet shortened this number, so its last digits are lost. Enter it again, as text.")
    if _QUANTITY.fullmatch(text):
        raise ValueError("A spreadsheet took this number for a quantity. Enter it again, as text.")
    if _EXTENSION.search(text):
        raise ValueError("Codes can't be sent to an extension. Enter a number without one.")
    if _BETWEEN.search(text) or _SECOND.search(text):
        raise ValueError("These are two phone numbers. Enter one.")
    if any(c.isalpha() for c in text):
        raise ValueError("A phone number has no letters. Write it in digits.")
    if _slash_between(text):
        raise ValueError("These are two phone numbers. Enter one.")
    if not _WRITTEN.fullmatch(text):
        raise ValueError(_NO_NUMBER)
    if "+" in text.lstrip("( +") or text.count("+") > 1:
        raise ValueError(_TWICE)


def _slash_between(text: str) -> bool:
    """Whether a slash stands between two numbers, or might: not only after an area code."""
    *before, last = text.split("/")
    if not before:
        return False
    start = _INTERNATIONAL.match(text)
    groups = re.findall(r"[0-9]+", _ZERO.sub("", "/".join(before)[start.end() if start else 0 :]))
    if start and groups and len(groups) > 1:
        groups = groups[1:]
    if len(groups) != 1 or len(before) > (2 if start else 1):
        return True
    area, rest = groups[0], re.sub("[^0-9]", "", last)
    most = _MOST_DIGITS_OF_AREA + (3 if start else 1 if area[0] == "0" else 0)
    return len(area) > most or len(rest) < _MOST_DIGITS_OF_AREA - 1 or (area[0] != "0" and len(area) == len(rest))


def _international(text: str, start: re.Match[str], region: str | None) -> str:
    rest = text[start.end() :]
    digits = re.sub("[^0-9]", "", rest)
    if digits[0] == "0":
        raise ValueError(_TWICE if digits[:2] == "00" else _REASONS[ValidationResult.INVALID_COUNTRY_CODE])
    # Some countries dial abroad with another prefix, which may begin with 00 as well.
    other = _possible(text, region) if region and start[1] != "+" else None
    number = _possible(f"+{rest}", None)
    if _ZERO.search(rest):
        # The zero in brackets is dialled inside the country only; in Italy it is part of the number.
        without = _possible(f"+{_ZERO.sub('', rest)}", None)
        number = next((n for n in (number, without) if n and _is_valid(n)), without or number)
    if other and number and other != number:
        raise ValueError("This number can be read in two ways. Write it with + and its country code.")
    number = number or other
    _check_code_once(rest, digits, number)
    if number is None:
        raise ValueError(_reason(f"+{rest}", None))
    return number


def _check_code_once(rest: str, digits: str, number: str | None) -> None:
    """Raises `ValueError` where the country code follows itself, with 00 or without."""
    code = next((digits[:n] for n in (1, 2, 3) if int(digits[:n]) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE), "")
    after = digits[len(code) :]
    if code and after.startswith("00"):
        raise ValueError(_TWICE)
    # As if the second one were an area code: +91 091 98765 43210.
    after = after.removeprefix("0")
    if not (code and after.startswith(code)):
        return
    once = _possible(f"+{after}", None)
    if once and (number is None or (_is_valid(once) and (not _is_valid(number) or _apart(rest, code)))):
        raise ValueError(_TWICE)


def _apart(rest: str, code: str) -> bool:
    if re.match(rf"{code}[^0-9]*0", rest):
        return re.match(rf"{code}[^0-9]*0[^0-9]*{code}(?![0-9])", rest) is not None
    groups = re.findall(r"[0-9]+", rest)
    return groups[0] in {code, code * 2} or groups[:2] == [code, code]


def _national(text: str, region: str) -> str:
    number = _possible(text, region)
    if number is None:
        raise ValueError(_reason(text, region))
    digits = re.sub("[^0-9]", "", text)
    code = str(phonenumbers.country_code_for_region(region))
    if digits.startswith(code) and number != f"+{digits}" and _is_valid(f"+{digits}"):
        raise ValueError("This number can be read in two ways. Write it with + and its country code.")
    return number


def _possible(text: str, region: str | None) -> str | None:
    number = _e164(text, region)
    return number if number and _possibility(number) == ValidationResult.IS_POSSIBLE else None


def _e164(text: str, region: str | None) -> str | None:
    """The number in the form that it has now, whether or not there can be one."""
    try:
        number = phonenumbers.format_number(phonenumbers.parse(text, region), PhoneNumberFormat.E164)
        if both := _BOTH_9_AND_15.fullmatch(number):
            number = phonenumbers.format_number(phonenumbers.parse(f"+54{both[1]}", None), PhoneNumberFormat.E164)
    except NumberParseException:
        return None
    for old, new in _RENUMBERED:
        if found := old.fullmatch(number):
            return found.expand(new)
    return number


def _possibility(number: str) -> int:
    return phonenumbers.is_possible_number_with_reason(phonenumbers.parse(number, None))


def _is_valid(number: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, None))
    except NumberParseException:
        return False


def _reason(text: str, region: str | None) -> str:
    try:
        number = phonenumbers.parse(text, region)
    except NumberParseException as error:
        unknown = error.error_type == NumberParseException.INVALID_COUNTRY_CODE
        return _REASONS[ValidationResult.INVALID_COUNTRY_CODE] if unknown else _NO_NUMBER
    return _REASONS.get(phonenumbers.is_possible_number_with_reason(number), _NO_NUMBER)
