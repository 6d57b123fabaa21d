"""The tenant whose members a call is about, and one transaction that sees no other's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from app.errors import TenantNotFound
from app.storage.db import Database
from app.tenants.rules import check_slug, region_of

_TENANT: Final = "SELECT id, locale, timezone FROM tenants WHERE slug = $1"


@dataclass(frozen=True, slots=True)
class Home:
    """`region` is the country that phone numbers without a country code are read in."""

    connection: asyncpg.Connection
    tenant_id: UUID
    region: str | None


@asynccontextmanager
async def home_of(db: Database, slug: str) -> AsyncIterator[Home]:
    """A transaction in the tenant with this slug. Raises `InvalidRequest` for what is no slug, `TenantNotFound`."""
    check_slug(slug)
    async with db.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.tenant_slug', $1, true)", slug)
        row = await connection.fetchrow(_TENANT, slug)
        if row is None:
            raise TenantNotFound(f"No tenant has the slug {slug}.")
        await connection.execute("SELECT set_config('app.tenant_id', $1, true)", str(row["id"]))
        yield Home(connection, row["id"], region_of(row["locale"], row["timezone"]))
