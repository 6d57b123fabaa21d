"""People inside a tenant, what they agreed to, and addresses that are yet to be proven."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Computed, ForeignKeyConstraint, Index, UniqueConstraint, false, text, true
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column

from app.storage.models.base import Base, Edited, Expiring, OfTenant, TenantRow


class Member(TenantRow, Edited, Base):
    """A person inside a tenant."""

    __tablename__ = "members"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_members_tenant"),
        UniqueConstraint("tenant_id", "email", name="uq_members_email"),
        UniqueConstraint("tenant_id", "phone_number", name="uq_members_phone"),
        Index(
            "ix_members_name",
            "tenant_id",
            "sort_name",
            "id",
            postgresql_include=["email", "phone_number", "status", "codes_enabled"],
        ),
    )

    name: Mapped[str]
    email: Mapped[str | None]
    phone_number: Mapped[str | None]
    preferred_method: Mapped[str | None]
    locale: Mapped[str] = mapped_column(server_default="en")
    status: Mapped[str] = mapped_column(server_default="active")
    codes_enabled: Mapped[bool] = mapped_column(server_default=true())
    password_hash: Mapped[str | None]
    email_verified_at: Mapped[datetime | None]
    phone_verified_at: Mapped[datetime | None]
    must_verify: Mapped[bool] = mapped_column(server_default=false())
    last_sign_in_at: Mapped[datetime | None]
    sort_name: Mapped[str] = mapped_column(Computed("lower(name)", persisted=True))


class Consent(TenantRow, Base):
    """Which text a member agreed to, when and from where."""

    __tablename__ = "consents"
    __table_args__ = (Index("ix_consents_member", "tenant_id", "member_id"),)

    member_id: Mapped[UUID]
    document: Mapped[str]
    version: Mapped[str]
    given_at: Mapped[datetime]
    ip: Mapped[str | None] = mapped_column(INET)
    withdrawn_at: Mapped[datetime | None]


class Claim(TenantRow, Expiring, Base):
    """An address somebody says is theirs, under the id of the challenge that is to prove it."""

    __tablename__ = "claims"
    __table_args__ = (
        Index("ix_claims_token", "tenant_id", "token_hash", postgresql_where=text("token_hash IS NOT NULL")),
        Index("ix_claims_expires", "expires_at"),
    )

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


class MemberHour(OfTenant, Base):
    """How a tenant's members got on with signing in within an hour; no hour is left out."""

    __tablename__ = "member_hours"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    requested: Mapped[int] = mapped_column(BigInteger, server_default="0")
    sent: Mapped[int] = mapped_column(BigInteger, server_default="0")
    delivered: Mapped[int] = mapped_column(BigInteger, server_default="0")
    verified: Mapped[int] = mapped_column(BigInteger, server_default="0")
    wrong: Mapped[int] = mapped_column(BigInteger, server_default="0")
    locked: Mapped[int] = mapped_column(BigInteger, server_default="0")
    begun: Mapped[int] = mapped_column(BigInteger, server_default="0")
    succeeded: Mapped[int] = mapped_column(BigInteger, server_default="0")
