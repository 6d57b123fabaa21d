"""Tenants: what they are, how their messages look, how busy they are."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Computed, ForeignKeyConstraint, Index, SmallInteger, UniqueConstraint, true
from sqlalchemy.orm import Mapped, mapped_column

from app.storage.models.base import EMPTY, Base, Edited, OfTenant


class Tenant(Edited, Base):
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
    fallback_methods: Mapped[list[str]] = mapped_column(server_default=EMPTY)
    locale: Mapped[str] = mapped_column(server_default="en")
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    policy: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY)


class TenantBranding(OfTenant, Base):
    """How a tenant's messages look and whom they come from; a tenant without a row has nothing of its own."""

    __tablename__ = "tenant_branding"
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tenant_branding_tenant"),)

    sender_name: Mapped[str | None]
    reply_to: Mapped[str | None]
    colour: Mapped[str | None]
    code_in_subject: Mapped[bool] = mapped_column(server_default=true())
    email_intro: Mapped[str | None]
    sms_text: Mapped[str | None]
    logo: Mapped[bytes | None]
    logo_version: Mapped[str | None]
    logo_type: Mapped[str | None]
    logo_width: Mapped[int | None]
    logo_height: Mapped[int | None]
    version: Mapped[int] = mapped_column(server_default="0")
    updated_at: Mapped[datetime]


class Activity(OfTenant, Base):
    """How busy a tenant was in ten minutes. The nil UUID's rows are the fleet's."""

    __tablename__ = "activity"
    __table_args__ = (Index("ix_activity_slot", "slot"),)

    slot: Mapped[datetime] = mapped_column(primary_key=True)
    shard: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    requested: Mapped[int] = mapped_column(BigInteger, server_default="0")
    verified: Mapped[int] = mapped_column(BigInteger, server_default="0")
    wrong: Mapped[int] = mapped_column(BigInteger, server_default="0")


class AttackMode(OfTenant, Base):
    """A tenant under attack, or (nil UUID) the fleet: unknown clients get eight digits until then."""

    __tablename__ = "attack_modes"

    since: Mapped[datetime]
    until: Mapped[datetime]


class ChannelHour(OfTenant, Base):
    """How many codes went through in an hour, by channel. The nil UUID's rows are the fleet's."""

    __tablename__ = "channel_hours"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    requested: Mapped[int] = mapped_column(BigInteger, server_default="0")
    sent: Mapped[int] = mapped_column(BigInteger, server_default="0")
    delivered: Mapped[int] = mapped_column(BigInteger, server_default="0")
    failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    verified: Mapped[int] = mapped_column(BigInteger, server_default="0")
