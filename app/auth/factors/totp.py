"""Codes of authenticator apps: TOTP (RFC 6238) over HOTP (RFC 4226). Pure functions of a secret and `now`.

SHA-1, 6 digits, 30 seconds: what every app can do. HMAC doesn't rest on SHA-1's resistance to collisions.
"""

import hmac
import secrets
from base64 import b32encode
from datetime import datetime
from io import BytesIO
from typing import Final
from urllib.parse import quote, urlencode

import segno

from app.auth.codes import clean
from app.errors import FieldError, InvalidRequest

SECONDS: Final = 30
DIGITS: Final = 6
# 160 bits (RFC 4226, section 4, R6).
SECRET_BYTES: Final = 20
# Steps before and after the present one whose code is taken, for clocks that differ (RFC 6238, section 5.2).
_DRIFT: Final = 1
# Steps either way whose code isn't taken but recognised: a clock that is wrong by ten minutes at most.
_RECOGNISED: Final = 20
# Between an issuer and an account stands a colon, so neither may have one.
_NO_COLON: Final = str.maketrans(":", " ")


def new_secret() -> bytes:
    """A fresh secret for one app."""
    return secrets.token_bytes(SECRET_BYTES)


def step_at(now: datetime) -> int:
    """The time step that `now` is in, counted from 1970."""
    return int(now.timestamp()) // SECONDS


def code_at(secret: bytes, step: int, digits: int = DIGITS, algorithm: str = "sha1") -> str:
    """The code of a time step, leading zeros kept."""
    mac = hmac.digest(secret, step.to_bytes(8, "big"), algorithm)
    # RFC 4226, section 5.3: the last nibble says where 31 bits are taken from.
    at = mac[-1] & 0xF
    number = int.from_bytes(mac[at : at + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**digits).zfill(digits)


def matching_step(secret: bytes, code: str, now: datetime, *, after: int | None = None) -> int | None:
    """The time step that `code` belongs to, or None. All that count are compared, each in constant time.

    Steps up to `after`, the newest that was accepted, don't count: a code works once (RFC 6238, section 5.2).
    """
    here = step_at(now)
    found = None
    for step in range(here - _DRIFT, here + _DRIFT + 1):
        if hmac.compare_digest(code_at(secret, step), code) and (after is None or step > after):
            found = step
    return found


def wrong_clock(secret: bytes, code: str, now: datetime, *, after: int | None = None) -> int | None:
    """By how many steps the clock is wrong of an app that shows this code, which isn't taken; negative when it is slow.

    None for a code that the app shows within ten minutes neither way, and for one used already (`after`). All are
    compared, so the time says nothing.
    """
    here = step_at(now)
    found = None
    for offset in range(-_RECOGNISED, _RECOGNISED + 1):
        step = here + offset
        same = hmac.compare_digest(code_at(secret, step), code) and (after is None or step > after)
        if same and abs(offset) > _DRIFT and (found is None or abs(offset) < abs(found)):
            found = offset
    return found


def clock_hint(steps: int) -> str:
    """What to do about such a clock, in words for whoever holds the phone."""
    minutes = max(1, round(abs(steps) * SECONDS / 60))
    about = f"about {minutes} minute{'' if minutes == 1 else 's'}"
    if steps > 0:
        return f"The clock of your phone is {about} fast. Let it set the time by itself, then type the code it shows."
    return (
        f"This code was right {about} ago. Type the one that the app shows now. If this is it, the clock of your phone "
        "is slow: let it set the time by itself."
    )


def read_code(typed: str, pointer: str) -> str:
    """The digits of what a person typed. Raises `InvalidRequest` unless there are 6; no attempt is spent on those."""
    try:
        code = clean(typed, pointer)
    except InvalidRequest:
        code = ""
    if len(code) != DIGITS:
        raise InvalidRequest(FieldError(pointer, f"The code of your app has {DIGITS} digits."))
    return code


def show_secret(secret: bytes) -> str:
    """The secret as apps take it by hand: Base32."""
    return b32encode(secret).decode()


def uri(secret: bytes, issuer: str, account: str) -> str:
    """The `otpauth:` address that a QR code carries (the Key URI Format that the apps share)."""
    issuer, account = (text.translate(_NO_COLON).strip() for text in (issuer, account))
    query = {"secret": show_secret(secret), "issuer": issuer, "algorithm": "SHA1", "digits": DIGITS, "period": SECONDS}
    return f"otpauth://totp/{quote(issuer)}:{quote(account)}?{urlencode(query, quote_via=quote)}"


def qr_svg(address: str) -> str:
    """The address as a QR code: an SVG document, dark on light whatever is around it."""
    buffer = BytesIO()
    segno.make_qr(address, error="m").save(
        buffer, kind="svg", scale=4, light="#fff", xmldecl=False, svgclass=None, lineclass=None
    )
    return buffer.getvalue().decode().strip()
