"""The sessions of a tenant and its people, or of one of them, for the admins who look after it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from app.audit.log import Actor, Client
from app.errors import NotFound
from app.storage.db import Database

SHOWN_AT_MOST: Final = 50

_LIST: Final = "SELECT * FROM fn.tenant_sessions($1, $2, $3, $4)"
_END: Final = "SELECT fn.end_tenant_sessions($1, $2, $3, $4, $5, $6, $7) AS ended"


@dataclass(frozen=True, slots=True)
class TenantSession:
    """Somebody of the tenant who is signed in."""

    id: UUID
    kind: str
    subject_kind: str
    subject_id: UUID
    device_name: str | None
    ip: str | None
    user_agent: str | None
    created_at: datetime
    seen_at: datetime


class TenantSessions:
    """Lists and ends them: all, or with `member_id` only that member's.

    Every call is one statement and raises `Unavailable` when the database is away.
    """

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

    async def list(self, tenant_id: UUID, member_id: UUID | None = None) -> Sequence[TenantSession]:
        """Those in force, last used first, 50 at most."""
        rows = await self._db.rows(_LIST, self._clock(), tenant_id, member_id, SHOWN_AT_MOST)
        return [TenantSession(**row) for row in rows]

    async def end(
        self, tenant_id: UUID, session_id: UUID, member_id: UUID | None = None, *, actor: Actor, client: Client
    ) -> None:
        """Ends one; within 3 seconds no process takes it any more. Raises `NotFound` for any that isn't theirs."""
        if not await self._end(tenant_id, member_id, session_id, actor, client):
            raise NotFound("This session has ended already.")

    async def end_all(self, tenant_id: UUID, member_id: UUID | None = None, *, actor: Actor, client: Client) -> int:
        """Ends all; answers how many there were."""
        return await self._end(tenant_id, member_id, None, actor, client)

    async def _end(
        self, tenant_id: UUID, member_id: UUID | None, only: UUID | None, actor: Actor, client: Client
    ) -> int:
        row = await self._db.row(
            _END, self._clock(), tenant_id, member_id, only, actor.kind, actor.id, client.as_json()
        )
        return int(row["ended"]) if row else 0
