"""What tables have in common."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from advanced_alchemy.base import CommonTableAttributes, create_registry
from sqlalchemy import LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, INET, JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# The empty array and the empty object are written alike.
EMPTY: Final = text("'{}'")


class Base(CommonTableAttributes, DeclarativeBase):
    """Plain columns: ids, times and versions are set by the services, which are handed `now`."""

    registry = create_registry(
        custom_annotation_map={
            str: Text,
            bytes: LargeBinary,
            datetime: TIMESTAMP(timezone=True),
            UUID: PG_UUID(as_uuid=True),
            list[str]: ARRAY(Text),
            list[datetime]: ARRAY(TIMESTAMP(timezone=True)),
            dict[str, Any]: JSONB,
        }
    )


class OfTenant:
    """A tenant's own; row-level security confines whoever asks to one tenant's rows."""

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)


class TenantRow(OfTenant):
    """A tenant's own, with an id. The key begins with the tenant, so no id leads across."""

    id: Mapped[UUID] = mapped_column(primary_key=True)


class OfSubject:
    """Belongs to a tenant itself, a member or an admin."""

    subject_kind: Mapped[str]
    subject_id: Mapped[UUID]


class FromClient:
    """Came over the network, from there."""

    ip: Mapped[str | None] = mapped_column(INET)
    user_agent: Mapped[str | None]


class Edited:
    """Changed by people; `version` is what `If-Match` compares."""

    version: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Expiring:
    """In force for a while."""

    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Failing:
    """Why a provider failed, if it did."""

    error_class: Mapped[str | None]
    error_text: Mapped[str | None]
