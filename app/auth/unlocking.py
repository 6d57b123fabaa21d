"""What keeps a recipient from getting another code, and letting them have one all the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from app.audit.log import Actor, Client, record
from app.auth.asking import door_key
from app.keys import KeyRing
from app.storage.db import Database, repeatable

_STANDING: Final = "SELECT * FROM fn.recipient_standing($1, $2, $3, $4)"
_UNLOCK: Final = "SELECT fn.unlock_recipient($1, $2, $3)"
# The slug and the addresses of a member, or of the tenant itself.
_ADDRESSES: Final = """
SELECT t.slug, CASE WHEN t.id = $2 THEN t.email ELSE m.email END AS email,
       CASE WHEN t.id = $2 THEN t.phone_number ELSE m.phone_number END AS phone_number
FROM tenants t LEFT JOIN members m ON m.tenant_id = t.id AND m.id = $2
WHERE t.id = $1
"""
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Standing:
    """`sends` are those of the last hour, oldest first; `wrong_today` counts wrong codes and passwords of the last 24
    hours.
    """

    sends: Sequence[datetime] = ()
    wrong_today: int = 0
    locked_until: datetime | None = None

    def next_code_at(self, hourly_limit: int) -> datetime | None:
        """When the next code may be asked for; None: now."""
        full = len(self.sends) >= hourly_limit
        return max(filter(None, (self.locked_until, self.sends[-hourly_limit] + _HOUR if full else None)), default=None)


class Unlocking:
    """Looks at and forgets what counts against a recipient. Raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, ring: KeyRing, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._ring = ring
        self._clock = clock

    async def standing(self, tenant_id: UUID, subject_id: UUID) -> Standing:
        """How a recipient stands, seen by unknown clients."""
        async with self._db.tenant(tenant_id) as connection:
            doors = await self._doors(connection, tenant_id, subject_id)
            row = await connection.fetchrow(_STANDING, self._clock(), tenant_id, subject_id, doors)
        return Standing(row["sends"], row["wrong_today"], row["locked_until"]) if row else Standing()

    @repeatable
    async def unlock(self, tenant_id: UUID, member_id: UUID | None = None, *, actor: Actor, client: Client) -> bool:
        """Forgets wrong codes and passwords, lock and hourly quota of a member, or of the tenant's contact; audited.

        False: nothing was there. A code that is already out stays valid or void as it was.
        """
        now = self._clock()
        subject = ("tenant", tenant_id) if member_id is None else ("member", member_id)
        kind, subject_id = subject
        async with self._db.tenant(tenant_id) as connection:
            doors = await self._doors(connection, tenant_id, subject_id)
            if not await connection.fetchval(_UNLOCK, tenant_id, subject_id, doors):
                return False
            await record(connection, now, tenant_id, f"{kind}.unlocked", actor, client, subject=subject)
        return True

    async def _doors(self, connection: asyncpg.Connection, tenant_id: UUID, subject_id: UUID) -> list[bytes]:
        """What counts for the addresses of a recipient; it may have counted before they were theirs."""
        row = await connection.fetchrow(_ADDRESSES, tenant_id, subject_id)
        if row is None:
            return []
        addresses = [row["email"], row["phone_number"], "" if subject_id == tenant_id else None]
        return [door_key(self._ring, row["slug"], address) for address in addresses if address is not None]
