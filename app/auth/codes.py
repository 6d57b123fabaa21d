"""One-time codes: derived, never stored, never carried around. Pure functions.

A code is a function of its challenge's id, generation and salt and of a key that is in no store. The worker derives
it to send it, the verifier only compares a keyed digest. A dump of the database therefore holds no code, and guessing
one offline needs the key (ASVS 5.0 6.6.2, 11.4.1; NIST SP 800-63B-4 section 3.1.3.3).
"""

import hmac
import secrets
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from app.cleaning import plain
from app.errors import FieldError, InvalidRequest
from app.keys import Keys, base64url, keyed_hash

LENGTHS: Final = (6, 8)
SALT_BYTES: Final = 16
_MIN_DIGITS, _MAX_DIGITS = 6, 10
_SEPARATORS: Final = str.maketrans("", "", " -")
# A code with all the marks that may surround it.
_MAX_TYPED: Final = 64


def _inputs(challenge_id: UUID, generation: int, salt: bytes) -> tuple[bytes, bytes, bytes]:
    return challenge_id.bytes, generation.to_bytes(4, "big"), salt


def derive(keys: Keys, challenge_id: UUID, generation: int, salt: bytes, length: int) -> str:
    """The code of one generation of a challenge: `length` digits, leading zeros kept."""
    mac = keyed_hash(keys.code, "code", *_inputs(challenge_id, generation, salt), bytes([length]))
    # 256 bits modulo 10^8 at most: the bias is below 2^-229.
    return str(int.from_bytes(mac, "big") % 10**length).zfill(length)


def digest(keys: Keys, challenge_id: UUID, generation: int, salt: bytes, code: str) -> bytes:
    """What is stored to check a code: 32 bytes, worthless without the key."""
    return keyed_hash(keys.verify, "verify", *_inputs(challenge_id, generation, salt), code.encode())


def matches(keys: Keys, challenge_id: UUID, generation: int, salt: bytes, code: str, stored: bytes) -> bool:
    """Whether `code` is the one; in constant time."""
    return hmac.compare_digest(digest(keys, challenge_id, generation, salt, code), stored)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Digests for every length a code may have; the statement that knows the tenant's state picks one."""

    salt: bytes = field(repr=False)
    key_id: str
    digest_6: bytes = field(repr=False)
    digest_8: bytes = field(repr=False)
    # Nobody has a code for this one: 32 random bytes.
    digest_decoy: bytes = field(repr=False)


def candidates(keys: Keys, challenge_id: UUID, generation: int) -> Candidates:
    """Fresh salt, and the digests of the codes that follow from it."""
    salt = secrets.token_bytes(SALT_BYTES)
    six, eight = (
        digest(keys, challenge_id, generation, salt, derive(keys, challenge_id, generation, salt, length))
        for length in LENGTHS
    )
    return Candidates(salt, keys.id, six, eight, secrets.token_bytes(32))


def clean(typed: str, pointer: str = "/code") -> str:
    """The digits of what a person typed or pasted; spaces and dashes around and between them don't count.

    Raises `InvalidRequest` unless 6 to 10 decimal digits, of any script, are left. No attempt is spent on those.
    """
    code = plain(typed).strip().translate(_SEPARATORS) if len(typed) <= _MAX_TYPED else ""
    if not (_MIN_DIGITS <= len(code) <= _MAX_DIGITS and code.isascii() and code.isdigit()):
        raise InvalidRequest(FieldError(pointer, "The code is 6 to 10 digits."))
    return code


def new_challenge_id() -> UUID:
    """128 random bits; it binds a code to whoever asked for it. Shown by `show_challenge_id`."""
    return UUID(bytes=secrets.token_bytes(16))


def show_challenge_id(challenge_id: UUID) -> str:
    """The public form: 22 characters of base64url."""
    return base64url(challenge_id.bytes)


def read_challenge_id(shown: str) -> UUID:
    """The reverse. Raises `ValueError` for any other text."""
    if len(shown) != len(base64url(bytes(16))) or not shown.isascii():
        raise ValueError(shown)
    challenge_id = UUID(bytes=urlsafe_b64decode(shown + "=="))
    if show_challenge_id(challenge_id) != shown:
        raise ValueError(shown)
    return challenge_id
