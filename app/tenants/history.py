"""Who changed what about a tenant, when and from where: read from the audit log, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from app.audit.story import shown_actor
from app.cursors import Moment, Number, read_cursor, show_cursor
from app.storage import SYSTEM_TENANT

# Changes of the tenant only: what happened to its codes is another story, told by the timeline.
_HISTORY: Final = """
SELECT e.at, e.id, e.action, e.actor_kind, coalesce(a.email, k.name) AS actor_name, e.source, host(e.ip) AS ip,
       e.user_agent, e.request_id, e.data
FROM audit_events e
LEFT JOIN admins a ON e.actor_kind = 'admin' AND a.tenant_id = $2 AND a.id = e.actor_id
LEFT JOIN api_keys k ON e.actor_kind = 'api-key' AND k.tenant_id = $2 AND k.id = e.actor_id
WHERE e.tenant_id = $1 AND e.action LIKE 'tenant.%' AND ($3::timestamptz IS NULL OR (e.at, e.id) < ($3, $4::bigint))
ORDER BY e.at DESC, e.id DESC LIMIT $5
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry. `changes` are `{"field", "before", "after"}`, contacts masked.

    `actor` is an admin's email (masked for those who may not see contacts) or an API key's name; None for somebody
    at the command line.
    """

    id: int
    at: datetime
    action: str
    actor_kind: str
    actor: str | None
    source: str
    ip: str | None
    user_agent: str | None
    request_id: str | None
    changes: Sequence[dict[str, Any]]
    reason: str | None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Some entries, and the cursor of older ones; None where there are none."""

    entries: Sequence[Change]
    next: str | None


async def read_history(
    connection: asyncpg.Connection, tenant_id: UUID, *, sees_contacts: bool, cursor: str | None, limit: int
) -> HistoryPage:
    """A page of a tenant's history, read in the all-tenants scope. Raises InvalidRequest for a foreign cursor."""
    at, event_id = read_cursor(cursor, tuple[Moment, Number]) if cursor else (None, None)
    rows = await connection.fetch(_HISTORY, tenant_id, SYSTEM_TENANT, at, event_id, limit + 1)
    entries = [
        Change(
            id=row["id"],
            at=row["at"],
            action=row["action"],
            actor_kind=row["actor_kind"],
            actor=shown_actor(row["actor_name"], sees_contacts=sees_contacts),
            source=row["source"],
            ip=row["ip"],
            user_agent=row["user_agent"],
            request_id=row["request_id"],
            changes=row["data"].get("changes", []),
            reason=row["data"].get("reason"),
        )
        for row in rows[:limit]
    ]
    last = (entries[-1].at, entries[-1].id) if len(rows) > limit else None
    return HistoryPage(entries, show_cursor(last) if last else None)
