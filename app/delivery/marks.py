"""Marks at contacts of which a provider said that there is no such address or number: reading them, taking them off.

A mark goes by itself with the next arrival, and with the contact (a trigger of the tables).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from app.audit.log import Actor, Client, record
from app.storage.db import Database

_OF: Final = """
SELECT channel, since, error_class, error_text FROM contact_health
WHERE tenant_id = $1 AND subject_id = $2 ORDER BY since DESC, channel
"""
_CLEAR: Final = """
SELECT fn.forget_contact($1, $2, array_agg(channel)) FROM contact_health
WHERE tenant_id = $1 AND subject_id = $2 HAVING count(*) > 0
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """By `channel` nothing can arrive, as a provider said."""

    channel: str
    since: datetime
    error_class: str
    error_text: str | None


class Marks:
    """Those of one contact at a time. Raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

    async def of(self, tenant_id: UUID, subject_id: UUID) -> Sequence[Mark]:
        """Those of a member, or of the tenant's own contact (the tenant's id), the newest first."""
        async with self._db.tenant(tenant_id) as connection:
            return [Mark(**row) for row in await connection.fetch(_OF, tenant_id, subject_id)]

    async def clear(
        self, tenant_id: UUID, member_id: UUID | None = None, *, actor: Actor, client: Client
    ) -> Sequence[str]:
        """Takes all marks off a member's contact, or the tenant's; audited. Answers which channels were marked."""
        now = self._clock()
        subject = ("tenant", tenant_id) if member_id is None else ("member", member_id)
        async with self._db.tenant(tenant_id) as connection:
            channels: list[str] = await connection.fetchval(_CLEAR, tenant_id, subject[1]) or []
            if channels:
                action = f"{subject[0]}.contact_cleared"
                data = {"channels": channels}
                await record(connection, now, tenant_id, action, actor, client, subject=subject, data=data)
        return channels
