"""Signing in: codes and links, second factors, the sessions and devices that come of it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Index, LargeBinary, SmallInteger, false, text, true
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column

from app.storage.models.base import EMPTY, Base, Expiring, FromClient, OfSubject, OfTenant, TenantRow


class Challenge(TenantRow, OfSubject, FromClient, Expiring, Base):
    """One asked-for code, from the request until it expires. Salt and digest are erased when it ends."""

    __tablename__ = "challenges"
    __table_args__ = (
        Index("ix_challenges_open", "tenant_id", "recipient_key", postgresql_where=text("ended_at IS NULL")),
        Index("ix_challenges_expires", "expires_at"),
    )

    recipient_key: Mapped[bytes]
    decoy: Mapped[bool]
    purpose: Mapped[str] = mapped_column(server_default="sign_in")
    channel: Mapped[str]
    asked_channel: Mapped[str | None]
    generation: Mapped[int] = mapped_column(server_default="1")
    code_length: Mapped[int] = mapped_column(SmallInteger)
    salt: Mapped[bytes | None]
    digest: Mapped[bytes | None]
    key_id: Mapped[str]
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    max_attempts: Mapped[int] = mapped_column(SmallInteger)
    locale: Mapped[str]
    sent_at: Mapped[datetime]
    resend_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]
    lane: Mapped[str] = mapped_column(server_default="")
    device_id: Mapped[UUID | None]
    proven: Mapped[list[str]] = mapped_column(server_default=EMPTY)
    door_key: Mapped[bytes | None]
    earlier_salts: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary), server_default=EMPTY)
    earlier_digests: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary), server_default=EMPTY)
    earlier_keys: Mapped[list[str]] = mapped_column(server_default=EMPTY)


class Quota(OfTenant, Base):
    """When a recipient was last sent codes (the rolling hour, exactly), and the wrong guesses of the last day."""

    __tablename__ = "quota"
    __table_args__ = (Index("ix_quota_seen", "seen_at"),)

    recipient_key: Mapped[bytes] = mapped_column(primary_key=True)
    lane: Mapped[str] = mapped_column(primary_key=True, server_default="")
    sends: Mapped[list[datetime]]
    seen_at: Mapped[datetime]
    wrong: Mapped[list[datetime]] = mapped_column(server_default=EMPTY)
    failures: Mapped[int] = mapped_column(server_default="0")
    strikes: Mapped[int] = mapped_column(server_default="0")
    locked_until: Mapped[datetime | None]
    password_tries: Mapped[list[datetime]] = mapped_column(server_default=EMPTY)
    person_key: Mapped[bytes | None]
    admitted: Mapped[bool] = mapped_column(server_default=true())
    short_wrong: Mapped[list[datetime]] = mapped_column(server_default=EMPTY)


class Refusal(OfTenant, Base):
    """Evidence of refused requests without a flood: one counter per recipient, reason and minute."""

    __tablename__ = "refusals"
    __table_args__ = (Index("ix_refusals_minute", "minute"),)

    recipient_key: Mapped[bytes] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(server_default="1")
    first_at: Mapped[datetime | None]
    last_at: Mapped[datetime | None]


class DoorRefusal(OfTenant, Base):
    """What was refused before anybody was known: one counter per tenant or name, network, reason and hour."""

    __tablename__ = "door_refusals"
    __table_args__ = (Index("ix_door_refusals_hour", "hour", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, server_default=text("nextval('door_refusal_id')"))
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    network: Mapped[str] = mapped_column(INET, primary_key=True)
    slug: Mapped[str] = mapped_column(primary_key=True, server_default="")
    count: Mapped[int] = mapped_column(server_default="1")
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class SignInLink(TenantRow, OfSubject, Expiring, Base):
    """A one-time link that signs somebody in; only a hash of its secret is kept."""

    __tablename__ = "sign_in_links"
    __table_args__ = (Index("ix_sign_in_links_expires", "expires_at"),)

    secret_hash: Mapped[bytes]
    used_at: Mapped[datetime | None]


class Factor(TenantRow, OfSubject, Base):
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

    kind: Mapped[str] = mapped_column(server_default="totp")
    secret: Mapped[bytes]
    key_id: Mapped[str]
    begun_by: Mapped[UUID]
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    guesses: Mapped[list[datetime]] = mapped_column(server_default=EMPTY)
    told_steps: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default=EMPTY)


class BackupCode(TenantRow, OfSubject, Base):
    """A code to keep on paper, gone when it was used; its hash is encrypted."""

    __tablename__ = "backup_codes"
    __table_args__ = (Index("ix_backup_codes_subject", "tenant_id", "subject_kind", "subject_id"),)

    code_hash: Mapped[bytes]
    key_id: Mapped[str]
    created_at: Mapped[datetime]


class HalfSignIn(TenantRow, OfSubject, Expiring, Base):
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

    secret_hash: Mapped[bytes]
    next: Mapped[str]
    kind: Mapped[str]
    methods: Mapped[list[str]]
    challenge_id: Mapped[UUID | None]
    device_id: Mapped[UUID | None]
    device_name: Mapped[str | None]
    remember_device: Mapped[bool] = mapped_column(server_default=false())
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default="5")
    ended_at: Mapped[datetime | None]


class Session(TenantRow, OfSubject, FromClient, Expiring, Base):
    """A sign-in that lasts, and its refresh-token family. The access token's `sid` is `id`."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_subject", "tenant_id", "subject_kind", "subject_id", "created_at"),
        Index("ix_sessions_expires", "expires_at"),
    )

    kind: Mapped[str]
    secret_hash: Mapped[bytes | None]
    refresh_n: Mapped[int | None]
    refresh_hash: Mapped[bytes | None]
    refresh_prior_hash: Mapped[bytes | None]
    refresh_rotated_at: Mapped[datetime | None]
    refresh_paced_at: Mapped[datetime | None]
    methods: Mapped[list[str]]
    device_name: Mapped[str | None]
    authenticated_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]


class Device(TenantRow, OfSubject, FromClient, Expiring, Base):
    """A client that has signed in before: it has a quota lane of its own."""

    __tablename__ = "devices"
    __table_args__ = (
        Index("ix_devices_subject", "tenant_id", "subject_kind", "subject_id"),
        Index("ix_devices_expires", "expires_at"),
        Index("ix_devices_revoked", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
    )

    name: Mapped[str | None]
    seen_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoke_reason: Mapped[str | None]
    remembered_at: Mapped[datetime | None]
