"""Taking a tenant out for good: nobody stays signed in, no code stays open, and only the audit log's rows are left."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from app.audit.log import Actor, Client, record
from app.errors import EditConflict, TenantNotFound
from app.storage.db import Database, repeatable
from app.tenants.rules import check_slug

# Before the row, as whoever signs in takes them.
_LOCK_FIRST: Final = "SELECT fn.lock_subject(id, true) FROM tenants WHERE slug = $1"
_LOCK: Final = "SELECT id, name, version FROM tenants WHERE slug = $1 FOR UPDATE"
# Audit events stay: they say who removed it, and their chain has no gaps. See `sql/removal.sql`.
_EMPTY: Final = "SELECT fn.empty_tenant($1)"
_DELETE: Final = "DELETE FROM tenants WHERE id = $1"
# A busy tenant's history is long, and nobody waits for these rows.
_PATIENCE: Final = 60.0


class Removal:
    """Removes tenants. Raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

    @repeatable
    async def remove(self, slug: str, *, expected_version: int | None = None, actor: Actor, client: Client) -> None:
        """Removes a tenant and everything of it, in one transaction. There is no way back.

        Raises `InvalidRequest` for what is no slug, `TenantNotFound`, and `EditConflict` if `expected_version` is not
        the stored one.
        """
        check_slug(slug)
        now = self._clock()
        async with self._db.every_tenant() as connection:
            await connection.execute(_LOCK_FIRST, slug)
            tenant = await connection.fetchrow(_LOCK, slug)
            if tenant is None:
                raise TenantNotFound(f"No tenant has the slug {slug}.")
            if expected_version is not None and expected_version != tenant["version"]:
                raise EditConflict(tenant["version"])
            removed = await connection.fetchval(_EMPTY, tenant["id"], timeout=_PATIENCE)
            await connection.execute(_DELETE, tenant["id"])
            data = {"slug": slug, "name": tenant["name"], "version": tenant["version"], "rows": removed}
            subject = ("tenant", tenant["id"])
            await record(connection, now, tenant["id"], "tenant.removed", actor, client, subject=subject, data=data)
        # A request that still saw the tenant may have committed while we were at it.
        async with self._db.every_tenant() as connection:
            await connection.execute(_EMPTY, tenant["id"], timeout=_PATIENCE)
