"""The story of a tenant's codes: "why didn't I get my code?" answered without reading a log.

Read from three places by one query: the audit log (asked, entered, changed), the delivery events (sent, refused) and
the counted refusals (limits). `app.audit.story` puts it into words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from app.audit.folding import fold
from app.audit.notices import gather
from app.audit.story import Entry, Happening, shown_actor, take_back, tell
from app.cursors import Moment, Text, read_cursor, show_cursor
from app.storage import SYSTEM_TENANT
from app.storage.db import Database

# Each branch gives one page at most; `ref` orders what has one moment.
_STORY: Final = """
SELECT s.*, coalesce(a.email, k.name) AS actor
FROM (
    (SELECT e.at, 'a' || lpad(e.id::text, 19, '0') COLLATE "C" AS ref, e.action AS what, NULL AS kind,
            e.data ->> 'channel' AS channel, NULL AS provider, NULL AS answer, NULL AS error_class,
            NULL::integer AS number, NULL::uuid AS message, e.challenge_id AS challenge, e.subject_kind AS subject,
            e.actor_kind, e.actor_id, host(e.ip) AS ip, e.user_agent, e.data
       FROM audit_events e
      WHERE e.tenant_id = $1 AND ($2::timestamptz IS NULL OR e.at <= $2)
        AND ($2::timestamptz IS NULL OR (e.at, 'a' || lpad(e.id::text, 19, '0') COLLATE "C") < ($2, $3))
      ORDER BY e.at DESC, e.id DESC LIMIT $4)
    UNION ALL
    (SELECT d.at, 'd' || lpad(d.id::text, 19, '0') COLLATE "C", 'delivery.' || d.state, d.kind, d.channel, d.provider,
            coalesce(d.error_text, d.provider_message_id), d.error_class, d.took_ms, d.outbox_id, d.challenge_id, NULL,
            'system', NULL, NULL, NULL, NULL
       FROM delivery_events d
      WHERE d.tenant_id = $1 AND ($2::timestamptz IS NULL OR d.at <= $2)
        AND ($2::timestamptz IS NULL OR (d.at, 'd' || lpad(d.id::text, 19, '0') COLLATE "C") < ($2, $3))
      ORDER BY d.at DESC, d.id DESC LIMIT $4)
    UNION ALL
    -- One line for a minute's, where the last of them was. Rows of older versions know only the minute.
    (SELECT max(coalesce(r.last_at, r.minute)), 'r' || r.reason COLLATE "C", 'refused.' || r.reason, NULL, NULL, NULL,
            NULL, NULL, sum(r.count)::integer, NULL, NULL, NULL, 'anonymous', NULL, NULL, NULL,
            jsonb_build_object('seconds', extract(epoch FROM max(r.last_at) - min(r.first_at)))
       FROM refusals r
      WHERE r.tenant_id = $1 AND ($2::timestamptz IS NULL OR r.minute <= $2)
      GROUP BY r.minute, r.reason
     HAVING $2::timestamptz IS NULL
         OR (max(coalesce(r.last_at, r.minute)), 'r' || r.reason COLLATE "C") < ($2, $3)
      ORDER BY 1 DESC, 2 DESC LIMIT $4)
    ORDER BY at DESC, ref DESC LIMIT $4
) AS s
LEFT JOIN admins a ON s.actor_kind = 'admin' AND a.tenant_id = $5 AND a.id = s.actor_id
LEFT JOIN api_keys k ON s.actor_kind = 'api-key' AND k.tenant_id = $5 AND k.id = s.actor_id
ORDER BY s.at DESC, s.ref DESC
"""
# On an older page the contacts were other ones: the changes since then, to be taken back one by one.
_LATER_CHANGES: Final = """
SELECT data FROM audit_events WHERE tenant_id = $1 AND at >= $2 AND action = 'tenant.changed' ORDER BY at DESC, id DESC
"""


@dataclass(frozen=True, slots=True)
class Story:
    """Some entries, newest first, what they tell of, and the cursor of older ones."""

    entries: Sequence[Entry]
    happenings: Sequence[Happening]
    next: str | None


class Timeline:
    """Reads stories. Raises `Unavailable` when the database is away."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def read(
        self,
        tenant_id: UUID,
        contacts: Mapping[str, str | None],
        *,
        sees_contacts: bool,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Story:
        """A page of a tenant's story. `contacts` are its present ones, masked, by field name; `sees_contacts` is for
        whom it is told, and names colleagues by their address.

        Raises `InvalidRequest` for a foreign cursor.
        """
        at, ref = read_cursor(cursor, tuple[Moment, Text]) if cursor else (None, None)
        async with self._db.every_tenant() as connection:
            rows = await connection.fetch(_STORY, tenant_id, at, ref, limit + 1, SYSTEM_TENANT)
            later = await connection.fetch(_LATER_CHANGES, tenant_id, at) if at else []
        known = dict(contacts)
        for row in later:
            take_back(known, row["data"])
        happenings = [_happening(row, sees_contacts=sees_contacts) for row in rows[:limit]]
        last = happenings[-1] if len(rows) > limit else None
        following = show_cursor((last.at, last.ref)) if last else None
        return Story(tell(fold(gather(happenings)), known), happenings, following)


def _happening(row: Mapping[str, Any], *, sees_contacts: bool) -> Happening:
    values = {name: row[name] for name in Happening.__slots__}
    actor = shown_actor(row["actor"], sees_contacts=sees_contacts)
    return Happening(**(values | {"data": row["data"] or {}, "actor": actor}))
