"""Backup codes: ten to keep on paper, each good once. Pure functions.

Each has 50 random bits, and five may be tried at one sign-in, so nobody guesses one. Less than 112 bits could be
searched through in a stolen database (ASVS 5.0, 6.5.2), so their hashes are kept encrypted under the key ring: without
the key there is nothing to search, and rotating the key carries them over.
"""

import hashlib
import hmac
import secrets
from typing import Final

from app.cleaning import plain
from app.errors import FieldError, InvalidRequest

COUNT: Final = 10
_LENGTH: Final = 10
_GROUP: Final = 5
# Crockford's Base32: no letter that looks like a digit, and those that people type instead are taken for them.
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_MISREAD: Final = str.maketrans("oil", "011", " -")
_LONGEST: Final = 64


def new_codes() -> list[str]:
    """A sheet of them, as they are shown: `4kq9z-0m7rt`."""
    return [_show("".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))) for _ in range(COUNT)]


def read_code(typed: str, pointer: str) -> str:
    """A code without what is only for the eye. Raises `InvalidRequest`; no attempt is spent on those."""
    code = plain(typed).strip().lower().translate(_MISREAD) if len(typed) <= _LONGEST else ""
    if len(code) != _LENGTH or not set(code) <= set(_ALPHABET):
        raise InvalidRequest(
            FieldError(pointer, f"A backup code has {_LENGTH} letters and digits, such as {_show('4kq9z0m7rt')}.")
        )
    return code


def digest(code: str) -> bytes:
    """What is kept of a code that `read_code` answered, encrypted."""
    return hashlib.sha256(b"backup-code:" + code.encode()).digest()


def matches(code: str, stored: bytes) -> bool:
    """Whether it is that one; in constant time."""
    return hmac.compare_digest(digest(code), stored)


def _show(code: str) -> str:
    return f"{code[:_GROUP]}-{code[_GROUP:]}"
