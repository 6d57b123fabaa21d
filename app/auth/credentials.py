"""What a client keeps of a sign-in: the cookie of a browser, or the token of a sign-in that is only half done. Pure.

Both say where their row is and carry 256 secret bits; of those a hash is stored.
"""

import secrets
import struct
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias
from uuid import UUID

from app.auth.tokens import token_hash
from app.errors import CodeExpired
from app.keys import base64url

SessionKind: TypeAlias = Literal["api", "browser"]


def new_cookie(tenant_id: UUID, session_id: UUID) -> str:
    """Where the session is, and what proves it."""
    return base64url(tenant_id.bytes + session_id.bytes + secrets.token_bytes(32))


def unpack_cookie(cookie: str) -> tuple[UUID, UUID] | None:
    """Tenant and session of a cookie; None for what is none of ours."""
    if len(cookie) != len(base64url(bytes(64))) or not cookie.isascii():
        return None
    try:
        packed = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        return UUID(bytes=packed[:16]), UUID(bytes=packed[16:32])
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class MfaToken:
    """Proves the first half of a sign-in, and nothing else: it opens only the second half of the same one."""

    tenant_id: UUID
    half_id: UUID
    secret: bytes = field(repr=False)

    _LAYOUT = struct.Struct(">16s16s32s")
    # Lets secret scanners recognise one that leaked.
    _PREFIX = "ghm_"

    @classmethod
    def new(cls, tenant_id: UUID, half_id: UUID) -> Self:
        """One for a half sign-in that is about to be written."""
        return cls(tenant_id, half_id, secrets.token_bytes(32))

    @classmethod
    def parse(cls, token: str) -> Self:
        """Raises `CodeExpired`, as for one that is over: whoever makes tokens up learns nothing of them."""
        body = token.removeprefix(cls._PREFIX)
        try:
            tenant, half, secret = cls._LAYOUT.unpack(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            parsed = cls(UUID(bytes=tenant), UUID(bytes=half), secret)
        except (ValueError, struct.error):
            raise sign_in_over() from None
        # Base64 has more than one spelling of the same bytes; only ours is a token.
        if parsed.text() != token:
            raise sign_in_over()
        return parsed

    def text(self) -> str:
        """What the client keeps."""
        return self._PREFIX + base64url(self._LAYOUT.pack(self.tenant_id.bytes, self.half_id.bytes, self.secret))

    def hash(self) -> bytes:
        """What the store keeps."""
        return token_hash(self.text())


def sign_in_over() -> CodeExpired:
    """Expired, finished, void, unknown or foreign: deliberately one answer."""
    return CodeExpired("This sign-in has expired. Start again.")
