"""What several parts of the admin API send and take, to the letter of the contract. Unknown fields are refused."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from app.tenants.model import Tenant
from app.tenants.rules import CHANNELS, STATUSES

# Words from a list are plain strings here: the rules refuse others with a sentence of their own, and with all faults at
# once.
Slug = Annotated[str, Meta(description="A DNS label in lower case.", examples=["acme"])]
Name = Annotated[str, Meta(description="1 to 120 characters.", examples=["Acme Water"])]
StatusWord = Annotated[str, Meta(description=" or ".join(STATUSES), examples=["active"])]
Method = Annotated[str, Meta(description=", ".join(CHANNELS), examples=["email"])]
Email = Annotated[str, Meta(examples=["owner@acme.example"])]
Phone = Annotated[
    str, Meta(description="With its country code, or as in the tenant's country.", examples=["+447700900123"])
]
Overrides = Annotated[
    dict[str, Any], Meta(description="Overrides; null takes one back.", examples=[{"max_attempts": 3}])
]
Next = Annotated[str | None, Meta(description="The `cursor` of the next page; null on the last.")]

MOST_SHOWN: Final = 1000


class TenantChangeRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What is to be changed; null clears a contact. What isn't named stays."""

    name: Name | UnsetType = UNSET
    status: StatusWord | UnsetType = UNSET
    email: Email | UnsetType | None = UNSET
    phone_number: Phone | UnsetType | None = UNSET
    otp_delivery_method: Method | UnsetType = UNSET
    fallback_methods: list[Method] | UnsetType = UNSET
    locale: str | UnsetType = UNSET
    timezone: str | UnsetType = UNSET
    policy: Overrides | UnsetType = UNSET


class TenantCreateRequest(TenantChangeRequest, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A new tenant. Without any contact it can't be sent a code yet."""

    slug: Slug
    name: Name


def given(body: Struct) -> dict[str, Any]:
    """The members that were sent."""
    values: dict[str, Any] = msgspec.to_builtins(body)
    return values


class TenantBody(Struct, frozen=True):
    """A tenant. Viewers see contacts masked."""

    slug: Slug
    name: Name
    status: StatusWord
    email: Email | None
    phone_number: Phone | None
    otp_delivery_method: Method
    fallback_methods: list[str]
    locale: Annotated[str, Meta(examples=["en"])]
    timezone: Annotated[str, Meta(examples=["Europe/Zurich"])]
    policy: Overrides
    version: Annotated[int, Meta(description="Also the ETag.", examples=[1])]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, tenant: Tenant) -> "TenantBody":
        """This tenant."""
        return msgspec.convert(tenant.as_json(), cls)


class TenantPageBody(Struct, frozen=True):
    """Some tenants in order, with the cursors of the pages after and before."""

    tenants: list[TenantBody]
    next: Next
    previous: Annotated[str | None, Meta(description="The `cursor` of the page before; null on the first.")]


class UnlockBody(Struct, frozen=True):
    """Whether there was anything to forget."""

    unlocked: bool


class ClearedBody(Struct, frozen=True):
    """The channels by which the contact had been marked as no good."""

    cleared: list[Method]


class RowFaultBody(Struct, frozen=True):
    """One fault in a file. The header of a CSV is row 1."""

    row: int
    field: str
    detail: str
