"""What happened to one member: the story of their codes, and who changed what about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg

from app.audit.folding import fold
from app.audit.story import Entry, Happening, shown_actor, tell
from app.members.stats import SignInCounts
from app.storage import SYSTEM_TENANT
from app.tenants.history import Change

_NAMES: Final = """
LEFT JOIN admins a ON s.actor_kind = 'admin' AND a.tenant_id = $3 AND a.id = s.actor_id
LEFT JOIN api_keys k ON s.actor_kind = 'api-key' AND k.tenant_id = $3 AND k.id = s.actor_id
"""
# What providers said stands with the challenge, not with the member; `ref` orders what has one moment.
_STORY: Final = f"""
WITH own AS MATERIALIZED (
    SELECT e.* FROM audit_events e WHERE e.tenant_id = $1 AND e.subject_id = $2 ORDER BY e.at DESC, e.id DESC LIMIT $4
)
SELECT s.*, coalesce(a.email, k.name) AS actor
FROM (
    SELECT o.at, 'a' || lpad(o.id::text, 19, '0') COLLATE "C" AS ref, o.action AS what, NULL AS kind,
           o.data ->> 'channel' AS channel, NULL AS provider, NULL AS answer, NULL AS error_class,
           NULL::integer AS number, NULL::uuid AS message, o.challenge_id AS challenge, o.subject_kind AS subject,
           o.actor_kind, o.actor_id, host(o.ip) AS ip, o.user_agent, o.data
      FROM own o
    UNION ALL
    SELECT d.at, 'd' || lpad(d.id::text, 19, '0') COLLATE "C", 'delivery.' || d.state, d.kind, d.channel, d.provider,
           coalesce(d.error_text, d.provider_message_id), d.error_class, d.took_ms, d.outbox_id, d.challenge_id, NULL,
           'system', NULL, NULL, NULL, NULL
      FROM delivery_events d
     WHERE d.tenant_id = $1 AND d.at >= (SELECT min(o.at) FROM own o)
       AND d.challenge_id IN (SELECT o.challenge_id FROM own o)
) AS s
{_NAMES}
ORDER BY s.at DESC, s.ref DESC LIMIT $4
"""
_CHANGES: Final = f"""
SELECT s.at, s.id, s.action, s.actor_kind, coalesce(a.email, k.name) AS actor, s.source, host(s.ip) AS ip,
       s.user_agent, s.request_id, s.data
FROM audit_events s
{_NAMES}
WHERE s.tenant_id = $1 AND s.subject_id = $2 AND s.action LIKE 'member.%'
ORDER BY s.at DESC, s.id DESC LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class About:
    """What staff read of a member beside their fields, each newest first. Contacts and names in it are masked.

    `happenings` is what the entries tell of.
    """

    entries: Sequence[Entry]
    happenings: Sequence[Happening]
    changes: Sequence[Change]
    counts: Sequence[SignInCounts]


async def read_story(
    connection: asyncpg.Connection, tenant_id: UUID, member_id: UUID, *, sees_contacts: bool, limit: int
) -> Sequence[Happening]:
    """The newest of a member's story, read in the all-tenants scope."""
    rows = await connection.fetch(_STORY, tenant_id, member_id, SYSTEM_TENANT, limit)
    return [_happening(row, sees_contacts=sees_contacts) for row in rows]


def told(happenings: Sequence[Happening]) -> Sequence[Entry]:
    """The story in words."""
    return tell(fold(happenings), {})


async def read_changes(
    connection: asyncpg.Connection, tenant_id: UUID, member_id: UUID, *, sees_contacts: bool, limit: int
) -> Sequence[Change]:
    """The newest changes of a member, read in the all-tenants scope."""
    rows = await connection.fetch(_CHANGES, tenant_id, member_id, SYSTEM_TENANT, limit)
    return [_change(row, sees_contacts=sees_contacts) for row in rows]


def _happening(row: asyncpg.Record, *, sees_contacts: bool) -> Happening:
    values = {name: row[name] for name in Happening.__slots__}
    actor = shown_actor(row["actor"], sees_contacts=sees_contacts)
    return Happening(**values | {"data": row["data"] or {}, "actor": actor})


def _change(row: asyncpg.Record, *, sees_contacts: bool) -> Change:
    fields: dict[str, Any] = {**row, "actor": shown_actor(row["actor"], sees_contacts=sees_contacts)}
    data = fields.pop("data")
    return Change(**fields, changes=data.get("changes", []), reason=data.get("reason"))
