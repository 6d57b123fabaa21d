"""Checkpoints: signed statements of what the audit chain was at one moment. Pure.

A copy outside the database (the log, a ticket, a sheet of paper) proves later that the newest seals were removed or
made anew. Signed with Ed25519: whoever has our public keys (`/.well-known/jwks.json`) can check one without a secret.
"""

import struct
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature

from app.audit.chain import Seal
from app.errors import FieldError, InvalidRequest
from app.keys import KeyRing, Keys, base64url

# Tells checkpoints from whatever else the key signs: no JWT begins like this.
_PURPOSE: Final = b"gatehouse audit checkpoint\x00"
_PREFIX: Final = "ghc_"
# The seal's number and hash, microseconds since 1970, the key's id.
_STATEMENT: Final = struct.Struct(">q32sq6s")
_SIGNATURE_BYTES: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """That seal `number` had this `hash` when it was the newest, `made_at`."""

    number: int
    hash: bytes
    made_at: datetime
    key_id: str
    signature: bytes

    @classmethod
    def of(cls, keys: Keys, head: Seal, now: datetime) -> "Checkpoint":
        """Signs the newest seal."""
        signature = keys.signing.sign(_PURPOSE + _statement(head.number, head.hash, now, keys.id))
        return cls(head.number, head.hash, now, keys.id, signature)

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Reads what `text` gives. Raises `InvalidRequest` for anything else; says nothing about the signature."""
        try:
            body = text.strip().removeprefix(_PREFIX)
            packed = urlsafe_b64decode(body + "=" * (-len(body) % 4))
            number, hash_, made_at, key_id = _STATEMENT.unpack(packed[: _STATEMENT.size])
            parsed = cls(
                number,
                hash_,
                _EPOCH + timedelta(microseconds=made_at),
                key_id.hex(),
                packed[_STATEMENT.size :],
            )
        except (ValueError, struct.error, OverflowError):
            parsed = None
        if parsed is None or parsed.text() != text.strip() or len(parsed.signature) != _SIGNATURE_BYTES:
            raise InvalidRequest(FieldError("/checkpoint", "This is not a checkpoint: they begin with ghc_."))
        return parsed

    def text(self) -> str:
        """One word, fit for a log line."""
        statement = _statement(self.number, self.hash, self.made_at, self.key_id)
        return _PREFIX + base64url(statement + self.signature)

    def is_genuine(self, ring: KeyRing) -> bool:
        """Whether one of our keys signed it."""
        keys = ring.find(self.key_id)
        if keys is None:
            return False
        try:
            keys.public.verify(self.signature, _PURPOSE + _statement(self.number, self.hash, self.made_at, self.key_id))
        except InvalidSignature:
            return False
        return True


def _statement(number: int, hash_: bytes, made_at: datetime, key_id: str) -> bytes:
    return _STATEMENT.pack(number, hash_, (made_at - _EPOCH) // timedelta(microseconds=1), bytes.fromhex(key_id))
