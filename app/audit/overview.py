"""What needs attention in the whole installation: read for the home page.

Everything here stands in tables that hold a day, so it costs what a day's traffic costs, however long the history is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.audit.blame import OF_RECIPIENT, OURS
from app.storage import SYSTEM_TENANT
from app.storage.db import Database

_DAY: Final = timedelta(hours=24)
# Counting stops here: a page that says "more than 1,000" has said enough.
_COUNT_AT_MOST: Final = 1_000
_LISTED: Final = 5
# A worker says every five seconds that it lives.
_WORKER_SILENT: Final = timedelta(seconds=30)
_WAITS_TOO_LONG: Final = timedelta(minutes=1)
_MANY_FAILURES: Final = 5

_SPEED: Final = """
SELECT percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM updated_at - created_at)::float8)
FROM outbox WHERE created_at > $1 AND kind = 'code' AND state IN ('sent', 'delivered')
"""
# A tenant fails while the newest of its messages did. What is ours to mend is no tenant's failure, and what went to a
# contact that has changed since tells nothing.
_FAILING: Final = """
SELECT t.id, t.slug, t.name, newest.channel, newest.error_class
FROM (SELECT DISTINCT tenant_id FROM outbox
      WHERE created_at > $1 AND state = 'failed' AND kind IN ('code', 'test') AND NOT former) AS suspect
JOIN tenants t ON t.id = suspect.tenant_id AND t.id <> $2
JOIN LATERAL (SELECT o.state, o.channel, o.error_class, o.updated_at FROM outbox o
              WHERE o.tenant_id = t.id AND o.created_at > $1 AND o.kind IN ('code', 'test')
                AND o.state IN ('sent', 'delivered', 'failed') AND NOT o.former
              ORDER BY o.created_at DESC LIMIT 1) AS newest
    ON newest.state = 'failed' AND NOT coalesce(newest.error_class = ANY ($4), false)
ORDER BY newest.updated_at DESC LIMIT $3
"""
# What a provider refuses on account of a recipient is no fault of its.
_PROVIDERS: Final = """
SELECT provider, channel, failed, tried FROM (
    SELECT provider, channel, count(*) AS tried,
           count(*) FILTER (WHERE state = 'failed' AND NOT coalesce(error_class = ANY ($3), false)) AS failed
    FROM outbox
    WHERE created_at > $1 AND provider IS NOT NULL AND state IN ('sent', 'delivered', 'failed') AND kind <> 'decoy'
    GROUP BY provider, channel
) AS p
WHERE failed >= $2 AND 2 * failed >= tried
ORDER BY failed DESC
"""
# What is ours to mend: each provider once, for as long as it has taken nothing from one of the tenants since.
_REFUSING: Final = """
SELECT r.provider, r.channel, sum(r.count)::integer AS messages, count(*)::integer AS tenants,
       (array_agg(r.error_class ORDER BY r.at DESC))[1] AS error_class,
       (array_agg(r.error_text ORDER BY r.at DESC))[1] AS error_text,
       (array_agg(t.slug ORDER BY r.at DESC))[1] AS slug
FROM (
    SELECT d.tenant_id, d.provider, d.channel, count(*) AS count, max(d.at) AS at,
           (array_agg(d.error_class ORDER BY d.at DESC))[1] AS error_class,
           (array_agg(d.error_text ORDER BY d.at DESC))[1] AS error_text
    FROM delivery_events d
    WHERE d.at > $1 AND d.state IN ('queued', 'failed') AND d.error_class = ANY ($2)
    GROUP BY d.tenant_id, d.provider, d.channel
) AS r
LEFT JOIN tenants t ON t.id = r.tenant_id AND t.id <> $3
WHERE NOT EXISTS (
    SELECT FROM delivery_events s
    WHERE s.tenant_id = r.tenant_id AND s.at > r.at AND s.channel = r.channel AND s.state IN ('sent', 'delivered')
      AND (r.provider IS NULL OR s.provider = r.provider))
GROUP BY r.provider, r.channel
ORDER BY messages DESC
"""
_ATTACKS: Final = """
SELECT m.tenant_id, t.slug, t.name FROM attack_modes m LEFT JOIN tenants t ON t.id = m.tenant_id
WHERE m.until > $1 ORDER BY m.tenant_id LIMIT $2
"""
_WORKERS: Final = "SELECT EXISTS (SELECT FROM workers WHERE seen_at > $1)"
_WAITING: Final = """
SELECT count(*) FROM (SELECT FROM outbox WHERE state = 'queued' AND available_at < $1 AND expires_at > $2 LIMIT $3) AS w
"""


@dataclass(frozen=True, slots=True)
class FailingTenant:
    """A tenant whose newest message was not delivered."""

    id: UUID
    slug: str
    name: str
    channel: str
    error_class: str | None


@dataclass(frozen=True, slots=True)
class FailingProvider:
    """A provider that refused at least half of what it was given in the last hour."""

    name: str
    channel: str
    failed: int
    tried: int


@dataclass(frozen=True, slots=True)
class RefusingProvider:
    """A provider that refused us in the last day, for a reason that whoever runs this installation can mend.

    `name` None: there is none for the channel. `error_text` is the last it said, to the tenant `slug` (None: to staff).
    """

    name: str | None
    channel: str
    messages: int
    tenants: int
    error_class: str
    error_text: str | None
    slug: str | None


@dataclass(frozen=True, slots=True)
class Attack:
    """Somebody guesses codes; `slug` None: all over the installation."""

    slug: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Installation:
    """How it goes. `waiting` counts messages that are a minute late; `speed` has the seconds within which half and
    95 % of the last day's codes were handed over, None without any.
    """

    failing: Sequence[FailingTenant]
    providers: Sequence[FailingProvider]
    refusing: Sequence[RefusingProvider]
    attacks: Sequence[Attack]
    worker_alive: bool
    waiting: int
    speed: tuple[float, float] | None


class Overview:
    """Looks at all tenants at once. Raises `Unavailable` when the database is away."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def read(self, now: datetime) -> Installation:
        """The installation at `now`."""
        async with self._db.every_tenant() as connection:
            failing = await connection.fetch(_FAILING, now - _DAY, SYSTEM_TENANT, _LISTED, list(OURS))
            providers = await connection.fetch(_PROVIDERS, now - timedelta(hours=1), _MANY_FAILURES, list(OF_RECIPIENT))
            refusing = await connection.fetch(_REFUSING, now - _DAY, list(OURS), SYSTEM_TENANT)
            attacks = await connection.fetch(_ATTACKS, now, _LISTED)
            alive = await connection.fetchval(_WORKERS, now - _WORKER_SILENT)
            waiting = await connection.fetchval(_WAITING, now - _WAITS_TOO_LONG, now, _COUNT_AT_MOST)
            speed = await connection.fetchval(_SPEED, now - _DAY)
        refused = [RefusingProvider(*row.values()) for row in refusing]
        known = {(one.name, one.channel) for one in refused}
        return Installation(
            [FailingTenant(**row) for row in failing],
            [
                FailingProvider(row["provider"], row["channel"], row["failed"], row["tried"])
                for row in providers
                if (row["provider"], row["channel"]) not in known
            ],
            refused,
            [Attack(row["slug"], row["name"]) for row in attacks],
            bool(alive),
            int(waiting),
            (speed[0], speed[1]) if speed else None,
        )
