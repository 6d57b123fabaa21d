"""Messages, what became of them, and who sends them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, SmallInteger, false, text
from sqlalchemy.orm import Mapped, mapped_column

from app.storage.models.base import EMPTY, Base, Expiring, Failing, OfTenant, TenantRow


class Outbox(TenantRow, Expiring, Failing, Base):
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

    kind: Mapped[str]
    challenge_id: Mapped[UUID | None]
    generation: Mapped[int | None]
    channel: Mapped[str]
    destination: Mapped[str | None]
    payload: Mapped[dict[str, Any] | None]
    state: Mapped[str] = mapped_column(server_default="queued")
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    available_at: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    updated_at: Mapped[datetime]
    previous_id: Mapped[UUID | None]
    refused: Mapped[list[str]] = mapped_column(server_default=EMPTY)
    report_key: Mapped[str | None]
    fallback_at: Mapped[datetime | None]
    counted: Mapped[bool] = mapped_column(server_default=false())
    former: Mapped[bool] = mapped_column(server_default=false())


class DeliveryEvent(OfTenant, Failing, Base):
    """One step in a message's life; never changed."""

    __tablename__ = "delivery_events"
    __table_args__ = (
        Index("ix_delivery_events_at", "at", "id"),
        Index("ix_delivery_events_challenge", "tenant_id", "challenge_id"),
        {"postgresql_partition_by": "RANGE (at)"},
    )

    at: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, server_default=text("nextval('delivery_event_id')"))
    outbox_id: Mapped[UUID]
    challenge_id: Mapped[UUID | None]
    kind: Mapped[str]
    channel: Mapped[str]
    state: Mapped[str]
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    took_ms: Mapped[int | None]


class ContactHealth(OfTenant, Base):
    """A contact that a provider said is no good, until something arrives there or it is changed."""

    __tablename__ = "contact_health"
    __table_args__ = (Index("ix_contact_health_own", "tenant_id", postgresql_where=text("subject_id = tenant_id")),)

    subject_id: Mapped[UUID] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    error_class: Mapped[str]
    error_text: Mapped[str | None]


class ProviderReport(Failing, Base):
    """A report on a message that isn't known as sent yet; kept for minutes."""

    __tablename__ = "provider_reports"
    __table_args__ = (Index("ix_provider_reports_received", "received_at"),)

    report_key: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    unhealthy: Mapped[bool]
    received_at: Mapped[datetime]


class SendCount(Base):
    """How many messages that cost money went out since the beginning of a minute, hour or day."""

    __tablename__ = "send_counts"
    __table_args__ = (Index("ix_send_counts_since", "since"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int]


class DeliveryCount(Base):
    """Steps of deliveries since the installation began, for /metrics."""

    __tablename__ = "delivery_counts"

    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
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
