"""The address behind "it wasn't me": names one challenge, proves that we wrote it, and tells its reader nothing.

A challenge's id is for whoever asked for the code; the mailbox has the code. Whoever gets hold of a mail must not get
both, so the address is encrypted: AES-SIV (RFC 5297), which is deterministic, so that every copy of a mail is the same.
It holds no code, and all it can do is end that one challenge.
"""

from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from functools import lru_cache
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from app.keys import KeyRing, base64url, keyed_hash

PATH: Final = "/not-me"
_PURPOSE: Final = "not-me"
_ID_BYTES: Final = 16


def token_for(ring: KeyRing, tenant_id: UUID, challenge_id: UUID) -> str:
    """64 URL-safe characters."""
    return base64url(_cipher(ring.current.encryption).encrypt(tenant_id.bytes + challenge_id.bytes, None))


def read_token(ring: KeyRing, token: str) -> tuple[UUID, UUID] | None:
    """The tenant's and the challenge's id; None for anything that no key in force has made."""
    try:
        sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (NotBase64, ValueError):
        return None
    for keys in ring.by_thumbprint.values():
        try:
            ids = _cipher(keys.encryption).decrypt(sealed, None)
        except (InvalidTag, ValueError):
            continue
        if len(ids) == 2 * _ID_BYTES:
            return UUID(bytes=ids[:_ID_BYTES]), UUID(bytes=ids[_ID_BYTES:])
    return None


@lru_cache(maxsize=8)
def _cipher(key: bytes) -> AESSIV:
    return AESSIV(keyed_hash(key, _PURPOSE))
