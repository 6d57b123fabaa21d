"""Access tokens (JWT, RFC 9068) and refresh tokens. Pure functions of values, keys and `now`."""

import hashlib
import secrets
import struct
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import jwt

from app.errors import InvalidToken
from app.keys import KeyRing, Keys, base64url, keyed_hash

_TYPE: Final = "at+jwt"
_ALGORITHM: Final = "EdDSA"
_CLAIMS: Final = ("iss", "aud", "sub", "tid", "slug", "sid", "iat", "nbf", "exp", "jti")
# RFC 8725 and RFC 7519 allow some leeway for clocks; ours is at most this.
_LEEWAY_SECONDS: Final = 30
_LONGEST: Final = 4096
# A number that the database can count on from. A session has at most some 60,000: see fn.refresh_session.
_MOST_REFRESHES: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says, once it has been proven to be ours and in force."""

    tenant_id: UUID
    session_id: UUID
    subject_id: UUID
    slug: str
    token_id: str
    issued_at: int
    expires_at: int


def sign_access(
    keys: Keys,
    now: datetime,
    *,
    issuer: str,
    audience: str,
    ttl: int,
    tenant_id: UUID,
    slug: str,
    subject_id: UUID,
    session_id: UUID,
) -> str:
    """A signed access token, valid for `ttl` seconds from `now`."""
    issued = int(now.timestamp())
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": str(subject_id),
        "tid": str(tenant_id),
        "slug": slug,
        "sid": str(session_id),
        "iat": issued,
        "nbf": issued,
        "exp": issued + ttl,
        "jti": uuid4().hex,
    }
    return jwt.encode(claims, keys.signing, _ALGORITHM, headers={"typ": _TYPE, "kid": keys.thumbprint})


def read_access(ring: KeyRing, token: str, now: datetime, *, issuer: str, audience: str) -> AccessClaims:
    """The claims of a token of ours that is in force at `now`.

    One algorithm; `kid` is a dictionary look-up, never an address; every claim is required (RFC 8725, sections 3.1,
    3.5, 3.9, 3.10). Raises `InvalidToken` for anything else, whatever it looks like.
    """
    # Padding is no part of a token (RFC 7515, section 2); the library would skip it, and one token had several texts.
    if len(token) > _LONGEST or "=" in token:
        raise InvalidToken
    try:
        header = jwt.get_unverified_header(token)
        keys = ring.by_thumbprint.get(str(header.get("kid")))
        if keys is None or header.get("typ") != _TYPE:
            raise InvalidToken
        claims: dict[str, Any] = jwt.decode(
            token,
            keys.public,
            algorithms=[_ALGORITHM],
            audience=audience,
            issuer=issuer,
            # Times are checked below, against the injected clock.
            options={"require": list(_CLAIMS), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        moment = now.timestamp()
        starts, ends = max(int(claims["nbf"]), int(claims["iat"])), int(claims["exp"])
        if starts > moment + _LEEWAY_SECONDS or ends <= moment:
            raise InvalidToken
        return AccessClaims(
            tenant_id=UUID(claims["tid"]),
            session_id=UUID(claims["sid"]),
            subject_id=UUID(claims["sub"]),
            slug=str(claims["slug"]),
            token_id=str(claims["jti"]),
            issued_at=int(claims["iat"]),
            expires_at=ends,
        )
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidToken from error


def token_hash(token: str) -> bytes:
    """What is stored of a bearer secret of 256 random bits: SHA-256 is enough for those (ASVS 5.0 11.4)."""
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token taken apart: its family (a session), its number in it, and 256 secret bits."""

    tenant_id: UUID
    session_id: UUID
    key_id: str
    n: int
    secret: bytes = field(repr=False)

    _LAYOUT = struct.Struct(">16s16s6sI32s")
    _LENGTH = len(base64url(bytes(_LAYOUT.size)))
    # Lets secret scanners recognise one that leaked.
    _PREFIX = "ghr_"

    @classmethod
    def first(cls, keys: Keys, tenant_id: UUID, session_id: UUID) -> "RefreshToken":
        """The first token of a family."""
        return cls.nth(keys, tenant_id, session_id, 1)

    @classmethod
    def nth(cls, keys: Keys, tenant_id: UUID, session_id: UUID, n: int) -> "RefreshToken":
        """The n-th of a family: computed, so a retry gets the same one and any is known for ours; hashes are stored."""
        secret = keyed_hash(keys.refresh, "refresh-token", tenant_id.bytes, session_id.bytes, n.to_bytes(4, "big"))
        return cls(tenant_id, session_id, keys.id, n, secret)

    @classmethod
    def parse(cls, token: str) -> "RefreshToken":
        """Raises `InvalidToken` unless it has the shape of one of ours."""
        try:
            body = token.removeprefix(cls._PREFIX)
            if body == token or len(body) != cls._LENGTH or not body.isascii():
                raise InvalidToken
            packed = urlsafe_b64decode(body + "=" * (-len(body) % 4))
            tenant, session, key_id, n, secret = cls._LAYOUT.unpack(packed)
            parsed = cls(UUID(bytes=tenant), UUID(bytes=session), key_id.hex(), n, secret)
        except (Base64Error, struct.error, ValueError) as error:
            raise InvalidToken from error
        if not 0 < n < _MOST_REFRESHES:
            raise InvalidToken
        # Base64 has more than one spelling of the same bytes; only ours is a token.
        if parsed.text() != token:
            raise InvalidToken
        return parsed

    def text(self) -> str:
        """What the client keeps."""
        packed = self._LAYOUT.pack(
            self.tenant_id.bytes, self.session_id.bytes, bytes.fromhex(self.key_id), self.n, self.secret
        )
        return self._PREFIX + base64url(packed)

    def hash(self) -> bytes:
        """What the store keeps."""
        return token_hash(self.text())

    def successor(self, keys: Keys) -> "RefreshToken":
        """The next token of the family."""
        return self.nth(keys, self.tenant_id, self.session_id, self.n + 1)

    def is_ours(self, keys: Keys) -> bool:
        """Whether it was ever in this family. One step, however old it is; nobody makes one up without the key."""
        own = self.nth(keys, self.tenant_id, self.session_id, self.n)
        return secrets.compare_digest(own.secret, self.secret)
