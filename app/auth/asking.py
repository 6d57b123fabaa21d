"""Who asks for a code, which one, and what they are told. Pure; asking is `challenges`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from app.cleaning import plain
from app.keys import KeyRing, keyed_hash
from app.storage import SYSTEM_SLUG
from app.tenants.rules import check_slug, normalise_email, normalise_phone

# No address is longer; reading more of what is pasted would cost time.
_LOOKED_AT: Final = 400


@dataclass(frozen=True, slots=True)
class Realm:
    """Whose door it is. Only a slug that passes the pattern opens a tenant's; admins have one of their own."""

    slug: str

    @classmethod
    def of(cls, slug: str) -> "Realm":
        """A tenant's. Raises `InvalidRequest`; in particular for the reserved slug, which no caller can name."""
        return cls(check_slug(slug))

    @classmethod
    def admins(cls) -> "Realm":
        """The reserved tenant under which admins sign in."""
        return cls(SYSTEM_SLUG)


@dataclass(frozen=True, slots=True)
class Issued:
    """A code is on its way, or looks as if it were. Durations in whole seconds."""

    challenge_id: str
    code_length: int
    expires_in: int
    resend_in: int


@dataclass(frozen=True, slots=True)
class Wish:
    """Which code is to go to whom, and what for. One of `email` and `phone` names the recipient, or neither.

    `proven` is the stored hash that the recipient's password matched; `claim` what a newcomer tells of themself, or
    which member wants to have the address. With `or_none` no code is sent where none is needed.
    """

    email: str | None = None
    phone: str | None = None
    channel: str | None = None
    locale: str = "en"
    disclose: bool = False
    purpose: Literal["sign_in", "reset", "register", "contact"] = "sign_in"
    proven: str | None = field(default=None, repr=False)
    claim: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    or_none: bool = False


def door_key(ring: KeyRing, slug: str, address: str) -> bytes:
    """Names what counts for an address, whoever has it, without keeping it; the empty one is the slug's alone."""
    return keyed_hash(ring.current.recipient, "door", slug.encode(), address.encode())


def read_identifier(identifier: str | None) -> tuple[str | None, str | None]:
    """Email and phone, one of them None. Raises `InvalidRequest` pointing at `/identifier`."""
    if identifier is None:
        return None, None
    if "@" in plain(identifier[:_LOOKED_AT]):
        return normalise_email(identifier, "/identifier"), None
    return None, normalise_phone(identifier, "/identifier", None)
