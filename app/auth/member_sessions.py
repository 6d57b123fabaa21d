"""The sessions of one member, for the admins who look after them."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from app.audit.log import Actor, Client
from app.auth.tenant_sessions import TenantSession
from app.errors import NotFound
from app.storage.db import Database

_LIST: Final = """
SELECT id, kind, 'member' AS subject_kind, $3::uuid AS subject_id, device_name, ip, user_agent, created_at, seen_at
FROM fn.subject_sessions($1, $2, 'member', $3)
"""
# Only those of this member are handed to the function that ends a session of the tenant.
_END: Final = """
SELECT coalesce(sum(fn.end_tenant_sessions($1, $2, s.id, $5, $6, $7)), 0)::integer AS ended
FROM fn.subject_sessions($1, $2, 'member', $3) AS s WHERE $4::uuid IS NULL OR s.id = $4
"""


class MemberSessions:
    """Lists and ends them. Every call is one statement and raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

    async def list(self, tenant_id: UUID, member_id: UUID) -> Sequence[TenantSession]:
        """Those in force, newest first."""
        rows = await self._db.rows(_LIST, self._clock(), tenant_id, member_id)
        return [TenantSession(**row) for row in rows]

    async def end(self, tenant_id: UUID, member_id: UUID, session_id: UUID, *, actor: Actor, client: Client) -> None:
        """Ends one; within 3 seconds no process takes it any more. Raises `NotFound` for any that isn't theirs."""
        if not await self._end(tenant_id, member_id, session_id, actor, client):
            raise NotFound("This session has ended already.")

    async def end_all(self, tenant_id: UUID, member_id: UUID, *, actor: Actor, client: Client) -> int:
        """Ends all; answers how many there were."""
        return await self._end(tenant_id, member_id, None, actor, client)

    async def _end(self, tenant_id: UUID, member_id: UUID, only: UUID | None, actor: Actor, client: Client) -> int:
        row = await self._db.row(
            _END, self._clock(), tenant_id, member_id, only, actor.kind, actor.id, client.as_json()
        )
        return int(row["ended"]) if row else 0
