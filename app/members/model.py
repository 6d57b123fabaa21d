"""A member as it is stored, and what a change of one looks like in the audit log."""

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from app.masking import mask_email, mask_phone
from app.storage.db import Row

CONTACTS: Final = ("email", "phone_number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person inside a tenant. `version` grows by one with every change an admin makes.

    `pending`: invited, and yet to register. `codes_enabled` False lets the password alone sign in, where the tenant
    asks for one. With `must_verify` an address counts once it is proven, the first one excepted: signing in proves it.
    """

    tenant_id: UUID = field(repr=False)
    id: UUID
    name: str
    email: str | None = field(default=None, repr=False)
    phone_number: str | None = field(default=None, repr=False)
    preferred_method: str | None = None
    locale: str = "en"
    status: str = "active"
    codes_enabled: bool = True
    must_verify: bool = False
    has_password: bool = False
    email_verified_at: datetime | None = None
    phone_verified_at: datetime | None = None
    version: int = 1
    created_at: datetime
    updated_at: datetime
    last_sign_in_at: datetime | None = None

    @classmethod
    def of(cls, row: Row) -> "Member":
        """From a row of `SELECTED`."""
        return cls(**{name: row[name] for name in _NAMES})

    def as_json(self) -> dict[str, object]:
        """The public members. Contacts are not masked."""
        return {name: getattr(self, name) for name in _PUBLIC}

    def masked(self) -> "Member":
        """The same for somebody who may not see contacts."""
        return replace(self, email=masked(self, "email"), phone_number=masked(self, "phone_number"))


_NAMES: Final = tuple(f.name for f in fields(Member))
_PUBLIC: Final = tuple(name for name in _NAMES if name != "tenant_id")
# The hash itself is read by nobody but sign-in.
SELECTED: Final = ", ".join(
    "password_hash IS NOT NULL AS has_password" if name == "has_password" else name for name in _NAMES
)
# What a person decides, and so what a history shows.
DECIDED: Final = (
    "name",
    "email",
    "phone_number",
    "preferred_method",
    "locale",
    "status",
    "codes_enabled",
    "must_verify",
)


def masked(member: Member | None, name: str) -> str | None:
    """A member's `email` or `phone_number`, masked; None where there is none."""
    value = getattr(member, name) if member else None
    if value is None:
        return None
    return mask_email(value) if name == "email" else mask_phone(value)


def changed_fields(before: Member, after: Member) -> list[str]:
    """The names of the fields that differ."""
    return [name for name in DECIDED if getattr(before, name) != getattr(after, name)]


def masked_changes(before: Member | None, after: Member) -> list[dict[str, object]]:
    """The differences as the audit log keeps them: `field`, `before`, `after`, names and contacts masked."""
    return [
        {"field": name, "before": _shown(before, name), "after": _shown(after, name)}
        for name in DECIDED
        if before is None or getattr(before, name) != getattr(after, name)
    ]


def _shown(member: Member | None, name: str) -> object:
    if member is None:
        return None
    if name in CONTACTS:
        return masked(member, name)
    # The log outlives the person's data: it tells that the name changed, not what it was.
    return "***" if name == "name" else getattr(member, name)
