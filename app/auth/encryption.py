"""What must be kept but not be readable in a database dump: AES-256-GCM under the key ring.

A stored value stands beside the id of the key that it needs, so secrets can be rotated.
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import GatehouseError
from app.keys import KeyRing

# 96 random bits (NIST SP 800-38D, section 8.2.2): safe for 2^32 values under one key.
_NONCE_BYTES: Final = 12


class Tampered(GatehouseError):
    """The stored value is not what was encrypted, or not for this place: a fault of ours, or somebody changed it."""


def encrypt(ring: KeyRing, context: bytes, plain: bytes) -> tuple[str, bytes]:
    """The id of the newest key, and the value encrypted under it.

    `context` names the place it is for; elsewhere it can't be decrypted.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return ring.current.id, nonce + AESGCM(ring.current.encryption).encrypt(nonce, plain, context)


def decrypt(ring: KeyRing, key_id: str, context: bytes, stored: bytes) -> bytes:
    """What was encrypted. Raises `KeyMissing` where the key's secret was taken out of the ring, and `Tampered`."""
    try:
        return AESGCM(ring.get(key_id).encryption).decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], context)
    except InvalidTag:
        raise Tampered from None
