"""The audit log and the chain that seals it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.storage.models.base import EMPTY, Base, FromClient, OfTenant


class AuditEvent(OfTenant, FromClient, Base):
    """Who did what to whom, when, from where. Append-only."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_subject", "tenant_id", "subject_id", "at"),
        Index("ix_audit_events_changes", "tenant_id", "at", "id", postgresql_where=text("action LIKE 'tenant.%'")),
        Index("ix_audit_events_id", "id"),
        Index("ix_audit_events_at", "at", postgresql_using="brin"),
        {"postgresql_partition_by": "RANGE (at)"},
    )

    at: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, server_default=text("nextval('audit_event_id')"))
    action: Mapped[str]
    actor_kind: Mapped[str]
    actor_id: Mapped[UUID | None]
    subject_kind: Mapped[str | None]
    subject_id: Mapped[UUID | None]
    challenge_id: Mapped[UUID | None]
    source: Mapped[str]
    request_id: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY)


class AuditSeal(Base):
    """One batch of events in the tamper-evident chain, or the record that old months were removed. Append-only."""

    __tablename__ = "audit_seals"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str]
    after_id: Mapped[int] = mapped_column(BigInteger)
    through_id: Mapped[int] = mapped_column(BigInteger)
    month: Mapped[int]
    events: Mapped[int]
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
