"""Who runs the installation, and what calls its admin API."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.storage.models.base import Base, Edited, OfTenant, TenantRow


class Admin(TenantRow, Edited, Base):
    """A person of the company's staff. `tenant_id` is always the system tenant."""

    __tablename__ = "admins"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email", name="uq_admins_email"),
        ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_admins_tenant"),
    )

    email: Mapped[str]
    name: Mapped[str]
    role: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="active")
    last_sign_in_at: Mapped[datetime | None]


class ApiKey(TenantRow, Base):
    """A caller's key to the admin API; only a hash of its secret is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_api_keys_tenant"),)

    name: Mapped[str]
    role: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(server_default=text("'{sign-in,introspect,admin}'"))
    secret_hash: Mapped[bytes]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    admin_id: Mapped[UUID | None]


class IdempotencyKey(OfTenant, Base):
    """The answer a repeated POST gets again, encrypted. `answer` is null while the first one is under way."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_begun", "begun_at"),)

    caller: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    begun_at: Mapped[datetime]
    key_id: Mapped[str | None]
    answer: Mapped[bytes | None]


class Repeat(OfTenant, Base):
    """What a form or a POST of an app was answered, sealed. `answer` is null while the first one is under way."""

    __tablename__ = "repeats"
    __table_args__ = (Index("ix_repeats_begun", "begun_at"),)

    id: Mapped[bytes] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    begun_at: Mapped[datetime]
    answer: Mapped[bytes | None]
