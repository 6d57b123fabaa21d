"""The key ring: from each secret one key per purpose, by HKDF. No key is in any store.

The first secret signs and derives; all of them verify. A row that depends on a key names it by `key_id`.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.errors import GatehouseError

# Changing a label changes every key: they are part of the stored format.
_SALT: Final = b"gatehouse/v1"


class KeyMissing(GatehouseError):
    """A row names a key whose secret is not in the ring any more."""

    code = "unavailable"
    default_detail = "A secret that is still in use was removed from SECRET_KEYS. Add it back as the last one."


def keyed_hash(key: bytes, purpose: str, *parts: bytes) -> bytes:
    """HMAC-SHA-256 over the purpose and the parts, each length-prefixed, so no two inputs read the same."""
    message = b"".join(len(part).to_bytes(4, "big") + part for part in (purpose.encode(), *parts))
    return hmac.digest(key, message, hashlib.sha256)


def base64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515, appendix C)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Keys:
    """What is derived from one secret: 32 bytes a purpose, and the signing pair of access tokens."""

    id: str
    thumbprint: str
    code: bytes = field(repr=False)
    verify: bytes = field(repr=False)
    recipient: bytes = field(repr=False)
    refresh: bytes = field(repr=False)
    cookie: bytes = field(repr=False)
    encryption: bytes = field(repr=False)
    audit: bytes = field(repr=False)
    signing: Ed25519PrivateKey = field(repr=False)
    public: Ed25519PublicKey = field(repr=False)

    @classmethod
    def derive(cls, secret: bytes) -> "Keys":
        """All keys of one secret. The same secret gives the same keys on every process."""

        def key(purpose: str) -> bytes:
            return HKDF(SHA256(), 32, _SALT, purpose.encode()).derive(secret)

        signing = Ed25519PrivateKey.from_private_bytes(key("access-token"))
        public = signing.public_key()
        return cls(
            id=key("key-id")[:6].hex(),
            thumbprint=_thumbprint(public),
            code=key("code"),
            verify=key("verify"),
            recipient=key("recipient"),
            refresh=key("refresh"),
            cookie=key("cookie"),
            encryption=key("encryption"),
            audit=key("audit"),
            signing=signing,
            public=public,
        )

    def jwk(self) -> dict[str, str]:
        """The public key as a JWK (RFC 8037)."""
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": _public_x(self.public),
            "use": "sig",
            "alg": "EdDSA",
            "kid": self.thumbprint,
        }


def _public_x(public: Ed25519PublicKey) -> str:
    return base64url(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _thumbprint(public: Ed25519PublicKey) -> str:
    """RFC 7638: SHA-256 over the required members in lexical order, without white space."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _public_x(public)}
    return base64url(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


class KeyRing:
    """The keys of all secrets in force; `current` is what new things are made with."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        derived = [Keys.derive(secret) for secret in secrets]
        self.current = derived[0]
        self._by_id = {keys.id: keys for keys in derived}
        self.by_thumbprint = {keys.thumbprint: keys for keys in derived}

    def get(self, key_id: str) -> Keys:
        """The keys a row names. Raises `KeyMissing`."""
        try:
            return self._by_id[key_id]
        except KeyError:
            raise KeyMissing from None

    def find(self, key_id: str) -> Keys | None:
        """The keys somebody outside names, or None: an unknown name is no fault of ours."""
        return self._by_id.get(key_id)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """One public key a secret (RFC 7517)."""
        return {"keys": [keys.jwk() for keys in self._by_id.values()]}
