"""What goes over the wire of the admin API, to the letter of the contract. Unknown fields are refused."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from app.auth.admins import ROLES, Admin
from app.auth.api_keys import SCOPES, Scope
from app.masking import mask_email
from app.tenants.model import Tenant
from app.tenants.rules import CHANNELS, STATUSES

Role: TypeAlias = Literal["owner", "manager", "viewer"]


# Words from a list are plain strings here: the rules refuse others with a sentence of their own, and with all faults at
# once.
Slug = Annotated[str, Meta(description="A DNS label in lower case.", examples=["acme"])]
Name = Annotated[str, Meta(description="1 to 120 characters.", examples=["Acme Water"])]
StatusWord = Annotated[str, Meta(description=" or ".join(STATUSES), examples=["active"])]
Method = Annotated[str, Meta(description=", ".join(CHANNELS), examples=["email"])]
RoleWord = Annotated[str, Meta(description=", ".join(ROLES), examples=["viewer"])]
Email = Annotated[str, Meta(examples=["owner@acme.example"])]
Phone = Annotated[
    str, Meta(description="With its country code, or as in the tenant's country.", examples=["+447700900123"])
]
Overrides = Annotated[
    dict[str, Any], Meta(description="Overrides; null takes one back.", examples=[{"max_attempts": 3}])
]
Next = Annotated[str | None, Meta(description="The `cursor` of the next page; null on the last.")]

MOST_SHOWN: Final = 1000


class TenantCreateRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A new tenant. Without any contact it can't be sent a code yet."""

    slug: Slug
    name: Name
    status: StatusWord | UnsetType = UNSET
    email: Email | UnsetType | None = UNSET
    phone_number: Phone | UnsetType | None = UNSET
    otp_delivery_method: Method | UnsetType = UNSET
    fallback_methods: list[Method] | UnsetType = UNSET
    locale: str | UnsetType = UNSET
    timezone: str | UnsetType = UNSET
    policy: Overrides | UnsetType = UNSET


class TenantChangeRequest(Struct, forbid_unknown_fields=True, frozen=True):
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


class TestMessageRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """How the message should go; otherwise by the preferred method."""

    channel: Method | None = None


class TestMessageBody(Struct, frozen=True):
    """Where a test message stands."""

    id: UUID
    channel: Method
    state: Annotated[str, Meta(description="queued, sending, sent, delivered, failed, expired or void.")]
    provider: str | None = None


class UnlockBody(Struct, frozen=True):
    """Whether there was anything to forget."""

    unlocked: bool


class LinkBody(Struct, frozen=True):
    """Signs the tenant in, once. Shown this once."""

    url: str
    expires_in: Annotated[int, Meta(description="Whole seconds.", examples=[600])]


class TimelineEntry(Struct, frozen=True):
    """One line of the story. `look` names the kind of line."""

    at: datetime
    look: Annotated[str, Meta(examples=["sent"])]
    text: Annotated[str, Meta(examples=["Accepted by the mail server"])]
    notes: list[str]
    ip: str | None
    user_agent: str | None


class TimelineBody(Struct, frozen=True):
    """What happened to the tenant's codes, newest first."""

    entries: list[TimelineEntry]
    next: Next


class RowFaultBody(Struct, frozen=True):
    """One fault in a file. The header of a CSV is row 1."""

    row: int
    field: str
    detail: str


class RowBody(Struct, frozen=True):
    """What a row does, and to which fields."""

    row: int
    slug: str | None
    outcome: Literal["new", "changed", "unchanged", "faulty"]
    fields: list[str]


class ImportBody(Struct, frozen=True):
    """What an import did, or would do. Of rows and errors the first 1,000 are shown."""

    applied: bool
    new: int
    changed: int
    unchanged: int
    faulty: int
    rows: list[RowBody]
    errors: list[RowFaultBody]


class DeliveryBody(Struct, frozen=True):
    """One step of a message. `message` is the same for all steps of one."""

    id: int
    at: datetime
    message: UUID
    tenant: Annotated[str | None, Meta(description="Its slug; null where it was removed.")]
    kind: Annotated[str, Meta(description="code, test or notice.")]
    channel: Method
    state: str
    provider: str | None
    provider_message_id: str | None
    error_class: str | None
    error_text: str | None
    took_ms: int | None
    challenge_id: UUID | None


class DeliveryPageBody(Struct, frozen=True):
    """Newest first."""

    deliveries: list[DeliveryBody]
    next: Next


class EventBody(Struct, frozen=True):
    """One entry of the audit log. Contacts in it are masked."""

    id: int
    at: datetime
    tenant: str | None
    action: Annotated[str, Meta(examples=["tenant.changed"])]
    actor_kind: str
    actor_id: UUID | None
    actor: Annotated[str | None, Meta(description="An admin's address or an API key's name.")]
    subject_kind: str | None
    subject_id: UUID | None
    challenge_id: UUID | None
    source: str
    ip: str | None
    user_agent: str | None
    request_id: str | None
    data: dict[str, Any]


class EventPageBody(Struct, frozen=True):
    """Newest first."""

    events: list[EventBody]
    next: Next


class ChannelCountsBody(Struct, frozen=True):
    """One channel. `sent` is what a provider took, `delivered` what it said has arrived."""

    channel: str
    requested: int
    sent: int
    delivered: int
    failed: int
    verified: int


class SpanBody(Struct, frozen=True):
    """From `since`, a full hour, until now."""

    name: Literal["24h", "7d", "30d"]
    since: datetime
    channels: list[ChannelCountsBody]


class StatsBody(Struct, frozen=True):
    """Codes of the whole installation."""

    spans: list[SpanBody]


class AdminCreateRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A new admin, who can sign in at once."""

    email: Email
    role: RoleWord = "viewer"
    name: Name | None = None


class AdminChangeRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """What is to be changed. Who is suspended is signed out at once."""

    name: Name | None = None
    role: RoleWord | None = None
    status: StatusWord | None = None


class AdminBody(Struct, frozen=True):
    """An admin. Viewers see addresses masked."""

    id: UUID
    email: Email
    name: Name
    role: Role
    status: StatusWord
    version: int
    created_at: datetime
    updated_at: datetime
    last_sign_in_at: datetime | None

    @classmethod
    def of(cls, admin: Admin, *, masked: bool = False) -> "AdminBody":
        """This admin, for somebody who may (not) see contacts."""
        body = msgspec.convert(admin.as_json(), cls)
        if not masked:
            return body
        # Without a name of their own people are shown by their address.
        name = mask_email(body.name) if "@" in body.name else body.name
        return msgspec.structs.replace(body, email=mask_email(body.email), name=name)


class AdminListBody(Struct, frozen=True):
    """All admins by address, suspended ones too."""

    admins: list[AdminBody]


class ApiKeyCreateRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A new key."""

    name: Name
    role: RoleWord = "viewer"
    scopes: list[Scope] = msgspec.field(default_factory=lambda: list(SCOPES))


class ApiKeyBody(Struct, frozen=True):
    """A key without its secret."""

    id: UUID
    name: Name
    role: Role
    scopes: list[Scope]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewApiKeyBody(ApiKeyBody, frozen=True):
    """A new key. `key` is shown this once."""

    key: Annotated[str, Meta(examples=["ghk_…"])]


class ApiKeyListBody(Struct, frozen=True):
    """All keys, revoked ones too, oldest first."""

    api_keys: list[ApiKeyBody]
