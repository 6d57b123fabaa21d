"""What admins and operators learn of deliveries beside each message's own story."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from app.storage.db import Database

_UNHEALTHY: Final = "SELECT * FROM fn.unhealthy_contacts($1)"
_COUNTS: Final = """
SELECT channel, provider, state, sum(count)::bigint AS count FROM delivery_counts
GROUP BY channel, provider, state ORDER BY channel, provider, state
"""


@dataclass(frozen=True, slots=True)
class UnhealthyContact:
    """A provider said that nothing can arrive there. `subject_id` is the tenant's id for its own contact."""

    subject_id: UUID
    channel: str
    since: datetime
    error_class: str
    error_text: str | None


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """How often a message came into `state` since the installation began; `provider` may be empty: nobody was asked."""

    channel: str
    provider: str
    state: str
    count: int


class DeliveryHealth:
    """Reads both. Raises `Unavailable` when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unhealthy(self, tenant_id: UUID) -> Sequence[UnhealthyContact]:
        """The contacts of a tenant that are no good, until something arrives there or they are changed."""
        return [UnhealthyContact(**row) for row in await self._database.rows(_UNHEALTHY, tenant_id)]

    async def counts(self) -> Sequence[DeliveryCount]:
        """Counters that never go down, of all processes together."""
        return [DeliveryCount(**row) for row in await self._database.rows(_COUNTS)]
