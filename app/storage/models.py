"""The tables as SQLAlchemy sees them, for the admin side and for the test that compares them with the migrations.

The migrations are the truth: constraints, policies, triggers and partitions stand there. Hot paths don't use these
classes at all but the functions in the `.sql` files.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from advanced_alchemy.base import CommonTableAttributes, create_registry
from sqlalchemy import (
    BigInteger,
    Computed,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET, JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(CommonTableAttributes, DeclarativeBase):
    """Plain columns: ids, times and versions are set by the services, which are handed `now`."""

    registry = create_registry(
        custom_annotation_map={
            str: Text,
            bytes: LargeBinary,
            datetime: TIMESTAMP(timezone=True),
            UUID: PG_UUID(as_uuid=True),
            list[str]: ARRAY(Text),
            dict[str, Any]: JSONB,
        }
    )


class Tenant(Base):
    """A customer organisation; also the reserved one under which admins sign in."""

    __tablename__ = "tenants"
    __table_args__ = (
        UniqueConstraint("slug", name="uq_tenants_slug"),
        Index("ix_tenants_name", "sort_name", "id"),
        Index("ix_tenants_updated", "updated_at", "id"),
        Index("ix_tenants_created", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str]
    name: Mapped[str]
    sort_name: Mapped[str] = mapped_column(Computed("lower(name)", persisted=True))
    status: Mapped[str] = mapped_column(server_default="active")
    status_reason: Mapped[str | None]
    email: Mapped[str | None]
    phone_number: Mapped[str | None]
    otp_delivery_method: Mapped[str] = mapped_column(server_default="email")
    fallback_methods: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    locale: Mapped[str] = mapped_column(server_default="en")
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    policy: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    version: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Admin(Base):
    """A person of the company's staff. `tenant_id` is always the system tenant."""

    __tablename__ = "admins"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email", name="uq_admins_email"),
        ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_admins_tenant"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    name: Mapped[str]
    role: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="active")
    version: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_sign_in_at: Mapped[datetime | None]


class ApiKey(Base):
    """A caller's key to the admin API; only a hash of its secret is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_api_keys_tenant"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(server_default=text("'{sign-in,introspect,admin}'"))
    secret_hash: Mapped[bytes]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Challenge(Base):
    """One asked-for code, from the request until it expires. Salt and digest are erased when it ends."""

    __tablename__ = "challenges"
    __table_args__ = (
        Index("ix_challenges_open", "tenant_id", "recipient_key", postgresql_where=text("ended_at IS NULL")),
        Index("ix_challenges_expires", "expires_at"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    recipient_key: Mapped[bytes]
    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]
    decoy: Mapped[bool]
    purpose: Mapped[str] = mapped_column(server_default="sign_in")
    channel: Mapped[str]
    asked_channel: Mapped[str | None]
    generation: Mapped[int] = mapped_column(Integer, server_default="1")
    code_length: Mapped[int] = mapped_column(SmallInteger)
    salt: Mapped[bytes | None]
    digest: Mapped[bytes | None]
    key_id: Mapped[str]
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    max_attempts: Mapped[int] = mapped_column(SmallInteger)
    ip: Mapped[str | None] = mapped_column(INET)
    user_agent: Mapped[str | None]
    locale: Mapped[str]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime]
    resend_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]
    lane: Mapped[str] = mapped_column(server_default="")
    device_id: Mapped[UUID | None]
    proven: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))


class Quota(Base):
    """When a recipient was last sent codes (the rolling hour, exactly), and the wrong guesses of the last day."""

    __tablename__ = "quota"
    __table_args__ = (Index("ix_quota_seen", "seen_at"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    recipient_key: Mapped[bytes] = mapped_column(primary_key=True)
    lane: Mapped[str] = mapped_column(primary_key=True, server_default="")
    sends: Mapped[list[datetime]] = mapped_column(ARRAY(TIMESTAMP(timezone=True)))
    seen_at: Mapped[datetime]
    wrong: Mapped[list[datetime]] = mapped_column(ARRAY(TIMESTAMP(timezone=True)), server_default=text("'{}'"))
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    strikes: Mapped[int] = mapped_column(Integer, server_default="0")
    locked_until: Mapped[datetime | None]
    password_tries: Mapped[list[datetime]] = mapped_column(ARRAY(TIMESTAMP(timezone=True)), server_default=text("'{}'"))


class Refusal(Base):
    """Evidence of refused requests without a flood: one counter per recipient, reason and minute."""

    __tablename__ = "refusals"
    __table_args__ = (Index("ix_refusals_minute", "minute"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    recipient_key: Mapped[bytes] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(Integer, server_default="1")


class Outbox(Base):
    """A message to be sent, or sent. Holds no code: the worker derives it."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_due", "available_at", postgresql_where=text("state = 'queued'")),
        Index("ix_outbox_leased", "lease_until", postgresql_where=text("state = 'sending'")),
        Index("ix_outbox_challenge", "tenant_id", "challenge_id"),
        Index("ix_outbox_created", "created_at"),
        Index(
            "ix_outbox_previous",
            "tenant_id",
            "previous_id",
            unique=True,
            postgresql_where=text("previous_id IS NOT NULL"),
        ),
        Index("ix_outbox_report", "report_key", postgresql_where=text("report_key IS NOT NULL")),
        Index("ix_outbox_fallback", "fallback_at", postgresql_where=text("fallback_at IS NOT NULL")),
        Index("ix_outbox_decoys", "created_at", postgresql_where=text("kind = 'decoy'")),
        Index("ix_outbox_sms", "created_at", postgresql_where=text("channel = 'sms'")),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    challenge_id: Mapped[UUID | None]
    generation: Mapped[int | None] = mapped_column(Integer)
    channel: Mapped[str]
    destination: Mapped[str | None]
    payload: Mapped[dict[str, Any] | None]
    state: Mapped[str] = mapped_column(server_default="queued")
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    available_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    error_class: Mapped[str | None]
    error_text: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    previous_id: Mapped[UUID | None]
    refused: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    report_key: Mapped[str | None]
    fallback_at: Mapped[datetime | None]
    counted: Mapped[bool] = mapped_column(server_default=text("false"))


class DeliveryEvent(Base):
    """One step in a message's life; never changed."""

    __tablename__ = "delivery_events"
    __table_args__ = (Index("ix_delivery_events_at", "at", "id"), {"postgresql_partition_by": "RANGE (at)"})

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, server_default=text("nextval('delivery_event_id')"))
    outbox_id: Mapped[UUID]
    challenge_id: Mapped[UUID | None]
    kind: Mapped[str]
    channel: Mapped[str]
    state: Mapped[str]
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    error_class: Mapped[str | None]
    error_text: Mapped[str | None]
    took_ms: Mapped[int | None] = mapped_column(Integer)


class Session(Base):
    """A sign-in that lasts, and its refresh-token family. The access token's `sid` is `id`."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_subject", "tenant_id", "subject_kind", "subject_id", "created_at"),
        Index("ix_sessions_expires", "expires_at"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]
    secret_hash: Mapped[bytes | None]
    refresh_n: Mapped[int | None] = mapped_column(Integer)
    refresh_hash: Mapped[bytes | None]
    refresh_prior_hash: Mapped[bytes | None]
    refresh_rotated_at: Mapped[datetime | None]
    methods: Mapped[list[str]]
    device_name: Mapped[str | None]
    ip: Mapped[str | None] = mapped_column(INET)
    user_agent: Mapped[str | None]
    authenticated_at: Mapped[datetime]
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]


class Activity(Base):
    """How busy a tenant was in ten minutes. The nil UUID's rows are the fleet's."""

    __tablename__ = "activity"
    __table_args__ = (Index("ix_activity_slot", "slot"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    slot: Mapped[datetime] = mapped_column(primary_key=True)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    requested: Mapped[int] = mapped_column(BigInteger, server_default="0")
    verified: Mapped[int] = mapped_column(BigInteger, server_default="0")
    wrong: Mapped[int] = mapped_column(BigInteger, server_default="0")


class AttackMode(Base):
    """A tenant under attack, or (nil UUID) the fleet: unknown clients get eight digits until then."""

    __tablename__ = "attack_modes"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    until: Mapped[datetime]


class Device(Base):
    """A client that has signed in before: it has a quota lane of its own."""

    __tablename__ = "devices"
    __table_args__ = (
        Index("ix_devices_subject", "tenant_id", "subject_kind", "subject_id"),
        Index("ix_devices_expires", "expires_at"),
        Index("ix_devices_revoked", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]
    name: Mapped[str | None]
    ip: Mapped[str | None] = mapped_column(INET)
    user_agent: Mapped[str | None]
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoke_reason: Mapped[str | None]
    remembered_at: Mapped[datetime | None]


class SignInLink(Base):
    """A one-time link that signs somebody in; only a hash of its secret is kept."""

    __tablename__ = "sign_in_links"
    __table_args__ = (Index("ix_sign_in_links_expires", "expires_at"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]
    secret_hash: Mapped[bytes]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class AuditEvent(Base):
    """Who did what to whom, when, from where. Append-only."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_subject", "tenant_id", "subject_id", "at"),
        Index("ix_audit_events_id", "id"),
        Index("ix_audit_events_at", "at", postgresql_using="brin"),
        {"postgresql_partition_by": "RANGE (at)"},
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, server_default=text("nextval('audit_event_id')"))
    action: Mapped[str]
    actor_kind: Mapped[str]
    actor_id: Mapped[UUID | None]
    subject_kind: Mapped[str | None]
    subject_id: Mapped[UUID | None]
    challenge_id: Mapped[UUID | None]
    source: Mapped[str]
    ip: Mapped[str | None] = mapped_column(INET)
    user_agent: Mapped[str | None]
    request_id: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class AuditSeal(Base):
    """One batch of events in the tamper-evident chain, or the record that old months were removed. Append-only."""

    __tablename__ = "audit_seals"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str]
    after_id: Mapped[int] = mapped_column(BigInteger)
    through_id: Mapped[int] = mapped_column(BigInteger)
    month: Mapped[int] = mapped_column(Integer)
    events: Mapped[int] = mapped_column(Integer)
    marks: Mapped[bytes | None]
    marks_digest: Mapped[bytes]
    previous: Mapped[bytes]
    hash: Mapped[bytes]
    mac: Mapped[bytes]
    key_id: Mapped[str]
    sealed_at: Mapped[datetime]


class AuditCheckpoint(Base):
    """A signed statement of what the chain was at one seal. Append-only; copies belong outside."""

    __tablename__ = "audit_checkpoints"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    checkpoint: Mapped[str]
    key_id: Mapped[str]
    made_at: Mapped[datetime]


class IdempotencyKey(Base):
    """The answer a repeated POST gets again, encrypted. `answer` is null while the first one is under way."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_begun", "begun_at"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    caller: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    begun_at: Mapped[datetime]
    key_id: Mapped[str | None]
    answer: Mapped[bytes | None]


class ChannelHour(Base):
    """How many codes went through in an hour, by channel. The nil UUID's rows are the fleet's."""

    __tablename__ = "channel_hours"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    requested: Mapped[int] = mapped_column(BigInteger, server_default="0")
    sent: Mapped[int] = mapped_column(BigInteger, server_default="0")
    delivered: Mapped[int] = mapped_column(BigInteger, server_default="0")
    failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    verified: Mapped[int] = mapped_column(BigInteger, server_default="0")


class TenantBranding(Base):
    """How a tenant's messages look and whom they come from; a tenant without a row has nothing of its own."""

    __tablename__ = "tenant_branding"
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tenant_branding_tenant"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    sender_name: Mapped[str | None]
    reply_to: Mapped[str | None]
    colour: Mapped[str | None]
    code_in_subject: Mapped[bool] = mapped_column(server_default=text("true"))
    email_intro: Mapped[str | None]
    sms_text: Mapped[str | None]
    logo: Mapped[bytes | None]
    logo_version: Mapped[str | None]
    logo_type: Mapped[str | None]
    logo_width: Mapped[int | None] = mapped_column(Integer)
    logo_height: Mapped[int | None] = mapped_column(Integer)
    version: Mapped[int] = mapped_column(Integer, server_default="0")
    updated_at: Mapped[datetime]


class Factor(Base):
    """An authenticator app of a tenant, member or admin; `secret` is encrypted."""

    __tablename__ = "factors"
    __table_args__ = (
        Index(
            "uq_factors_confirmed",
            "tenant_id",
            "subject_kind",
            "subject_id",
            "kind",
            unique=True,
            postgresql_where=text("confirmed_at IS NOT NULL"),
        ),
        Index(
            "uq_factors_pending",
            "tenant_id",
            "subject_kind",
            "subject_id",
            "kind",
            unique=True,
            postgresql_where=text("confirmed_at IS NULL"),
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(server_default="totp")
    secret: Mapped[bytes]
    key_id: Mapped[str]
    begun_by: Mapped[UUID]
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    guesses: Mapped[list[datetime]] = mapped_column(ARRAY(TIMESTAMP(timezone=True)), server_default=text("'{}'"))


class BackupCode(Base):
    """A code to keep on paper, gone when it was used; its hash is encrypted."""

    __tablename__ = "backup_codes"
    __table_args__ = (Index("ix_backup_codes_subject", "tenant_id", "subject_kind", "subject_id"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]
    code_hash: Mapped[bytes]
    key_id: Mapped[str]
    created_at: Mapped[datetime]


class HalfSignIn(Base):
    """A sign-in whose first factor is proven and whose second isn't: no session yet."""

    __tablename__ = "half_sign_ins"
    __table_args__ = (
        Index(
            "ix_half_sign_ins_subject",
            "tenant_id",
            "subject_kind",
            "subject_id",
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("ix_half_sign_ins_expires", "expires_at"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    secret_hash: Mapped[bytes]
    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]
    next: Mapped[str]
    kind: Mapped[str]
    methods: Mapped[list[str]]
    challenge_id: Mapped[UUID | None]
    device_id: Mapped[UUID | None]
    device_name: Mapped[str | None]
    remember_device: Mapped[bool] = mapped_column(server_default=text("false"))
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default="5")
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Member(Base):
    """A person inside a tenant."""

    __tablename__ = "members"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_members_tenant"),
        UniqueConstraint("tenant_id", "email", name="uq_members_email"),
        UniqueConstraint("tenant_id", "phone_number", name="uq_members_phone"),
        Index("ix_members_name", "tenant_id", "sort_name", "id"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str | None]
    phone_number: Mapped[str | None]
    preferred_method: Mapped[str | None]
    locale: Mapped[str] = mapped_column(server_default="en")
    status: Mapped[str] = mapped_column(server_default="active")
    codes_enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    password_hash: Mapped[str | None]
    email_verified_at: Mapped[datetime | None]
    phone_verified_at: Mapped[datetime | None]
    must_verify: Mapped[bool] = mapped_column(server_default=text("false"))
    version: Mapped[int] = mapped_column(Integer, server_default="1")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_sign_in_at: Mapped[datetime | None]
    sort_name: Mapped[str] = mapped_column(Computed("lower(name)", persisted=True))


class Consent(Base):
    """Which text a member agreed to, when and from where."""

    __tablename__ = "consents"
    __table_args__ = (Index("ix_consents_member", "tenant_id", "member_id"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID]
    document: Mapped[str]
    version: Mapped[str]
    given_at: Mapped[datetime]
    ip: Mapped[str | None] = mapped_column(INET)
    withdrawn_at: Mapped[datetime | None]


class Claim(Base):
    """An address somebody says is theirs, under the id of the challenge that is to prove it."""

    __tablename__ = "claims"
    __table_args__ = (
        Index("ix_claims_token", "tenant_id", "token_hash", postgresql_where=text("token_hash IS NOT NULL")),
        Index("ix_claims_expires", "expires_at"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID]
    name: Mapped[str | None]
    email: Mapped[str | None]
    phone_number: Mapped[str | None]
    password_hash: Mapped[str | None]
    locale: Mapped[str]
    document: Mapped[str | None]
    document_version: Mapped[str | None]
    token_hash: Mapped[bytes | None]
    proven_by: Mapped[str | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class ContactHealth(Base):
    """A contact that a provider said is no good, until something arrives there or it is changed."""

    __tablename__ = "contact_health"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    error_class: Mapped[str]
    error_text: Mapped[str | None]


class ProviderReport(Base):
    """A report on a message that isn't known as sent yet; kept for minutes."""

    __tablename__ = "provider_reports"
    __table_args__ = (Index("ix_provider_reports_received", "received_at"),)

    report_key: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    error_class: Mapped[str | None]
    error_text: Mapped[str | None]
    unhealthy: Mapped[bool]
    received_at: Mapped[datetime]


class SendCount(Base):
    """How many messages that cost money went out since the beginning of a minute, hour or day."""

    __tablename__ = "send_counts"
    __table_args__ = (Index("ix_send_counts_since", "since"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(Integer)


class DeliveryCount(Base):
    """Steps of deliveries since the installation began, for /metrics."""

    __tablename__ = "delivery_counts"

    shard: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    channel: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class Worker(Base):
    """A worker process and when it last said it lives."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


metadata = Base.metadata
