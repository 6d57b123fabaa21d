"""A tenant as it is stored, and what a change of one looks like in the audit log."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app.masking import mask_email, mask_phone
from app.storage.db import Row
from app.tenants.rules import contact_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A customer organisation. `version` grows by one with every change; `policy` holds its own overrides only."""

    id: UUID
    slug: str
    name: str
    status: str = "active"
    status_reason: str | None = None
    email: str | None = field(default=None, repr=False)
    phone_number: str | None = field(default=None, repr=False)
    otp_delivery_method: str = "email"
    fallback_methods: Sequence[str] = ()
    locale: str = "en"
    timezone: str = "UTC"
    policy: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Row) -> "Tenant":
        """From a row with at least `COLUMNS`."""
        values = {name: row[name] for name in COLUMNS}
        return cls(**{**values, "fallback_methods": tuple(row["fallback_methods"])})

    @property
    def contact_missing(self) -> bool:
        """Whether the preferred method has nowhere to send a code."""
        method = self.otp_delivery_method
        return method != "push" and contact_for(method, self.email, self.phone_number) is None

    def as_json(self) -> dict[str, object]:
        """The public members, as in the HTTP contract. Contacts are not masked."""
        return {name: getattr(self, name) for name in _PUBLIC}

    def masked(self) -> "Tenant":
        """The same for somebody who may not see contacts."""
        return replace(self, email=masked_contact(self, "email"), phone_number=masked_contact(self, "phone_number"))


COLUMNS: Final = tuple(f.name for f in fields(Tenant))
_PUBLIC: Final = tuple(name for name in COLUMNS if name not in {"id", "status_reason"})
# What a person decides, and so what a history shows.
_DECIDED: Final = tuple(name for name in COLUMNS if name not in {"id", "version", "created_at", "updated_at"})


def changed_fields(before: Tenant | None, after: Tenant) -> set[str]:
    """The names of the fields that differ; of a new tenant, those that aren't empty."""
    return {
        name
        for name in _DECIDED
        if (getattr(after, name) not in (None, (), {}) if before is None else _differs(name, before, after))
    }


def _differs(name: str, before: Tenant, after: Tenant) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


def masked_changes(before: Tenant | None, after: Tenant) -> list[dict[str, object]]:
    """The differences as the audit log keeps them: `field`, `before`, `after`, contacts masked, one entry a policy."""
    changed = changed_fields(before, after)
    changes = [
        {"field": name, "before": _shown(before, name), "after": _shown(after, name)}
        for name in _DECIDED
        if name in changed and name != "policy"
    ]
    old = before.policy if before else {}
    return changes + [
        {"field": f"policy.{key}", "before": old.get(key), "after": after.policy.get(key)}
        for key in sorted(old.keys() | after.policy.keys())
        if old.get(key) != after.policy.get(key)
    ]


def masked_contact(tenant: Tenant | None, name: str) -> str | None:
    """A tenant's `email` or `phone_number`, masked; None where it has none."""
    value = getattr(tenant, name) if tenant else None
    if value is None:
        return None
    return mask_email(value) if name == "email" else mask_phone(value)


def _shown(tenant: Tenant | None, name: str) -> object:
    if name in {"email", "phone_number"}:
        return masked_contact(tenant, name)
    value = getattr(tenant, name) if tenant else None
    return list(value) if isinstance(value, tuple) else value
