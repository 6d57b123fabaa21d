"""How members get on with signing in: codes asked for, sent, arrived, mistyped, used. Counted from the audit log.

What all members of a tenant did is counted once for each hour that is over and kept, so that looking at a busy month
costs what a few hours cost: by the worker, ahead, or else by whoever looks first. One member's month is read as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from app.audit.stats import SPANS
from app.storage.db import Database

_COUNTED: Final = ("requested", "sent", "delivered", "verified", "wrong", "locked", "begun", "succeeded")
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_MOMENT: Final = timedelta(microseconds=1)
# A sign-in that has led to no session by then, and a message that nobody reported on by then, never will: a code and
# what may come behind it live for minutes.
_SETTLED: Final = timedelta(hours=2)

# Hours from $2 until before $3. `begun` counts sign-ins and not codes, so that a code sent again doesn't look like a
# failure; it and `succeeded` belong to the hour of the first code.
_COUNT: Final = f"""
WITH happened AS MATERIALIZED (
    SELECT e.at, e.action, e.challenge_id, e.data ->> 'attempts_left' AS attempts_left
    FROM audit_events e
    WHERE e.tenant_id = $1 AND e.at >= $2::timestamptz - interval '{_SETTLED}' AND e.subject_kind = 'member'
      AND e.at < $3::timestamptz + interval '{_SETTLED}' {{of_member}}
      AND (e.action IN ('code.requested', 'code.resent', 'code.wrong')
           OR e.action = 'session.started' AND e.data -> 'methods' ->> 0 LIKE 'otp:%')
), told AS (
    SELECT h.at, CASE h.action WHEN 'code.wrong' THEN 'wrong' WHEN 'session.started' THEN 'verified'
                               ELSE 'requested' END AS what
    FROM happened h
    UNION ALL
    SELECT h.at, 'locked' FROM happened h WHERE h.action = 'code.wrong' AND h.attempts_left = '0'
    UNION ALL
    SELECT h.at, 'begun' FROM happened h WHERE h.action = 'code.requested'
    UNION ALL
    SELECT h.at, 'succeeded' FROM happened h
    WHERE h.action = 'code.requested'
      AND h.challenge_id IN (SELECT s.challenge_id FROM happened s WHERE s.action = 'session.started')
    UNION ALL
    SELECT d.at, d.state FROM delivery_events d
    WHERE d.tenant_id = $1 AND d.at >= $2 AND d.at < $3 AND d.kind = 'code' AND d.state IN ('sent', 'delivered')
      AND d.challenge_id IN (SELECT h.challenge_id FROM happened h WHERE h.action = 'code.requested')
)
SELECT date_trunc('hour', t.at, 'UTC') AS hour,
       {", ".join(f"count(*) FILTER (WHERE t.what = '{name}') AS {name}" for name in _COUNTED)}
FROM told t WHERE t.at >= $2 AND t.at < $3 GROUP BY 1
"""
_COUNT_ALL: Final = _COUNT.format(of_member="")
_COUNT_ONE: Final = _COUNT.format(of_member="AND e.subject_id = $6")
_BUSY: Final = """
SELECT DISTINCT tenant_id FROM audit_events
WHERE at >= $1 AND at < $2 AND subject_kind = 'member' AND action = 'code.requested'
"""
_KEPT_UNTIL: Final = "SELECT max(hour) FROM member_hours WHERE tenant_id = $1"
_FORGET: Final = "DELETE FROM member_hours WHERE tenant_id = $1 AND hour < $2"
# Two who look at the same moment count the same.
_KEEP: Final = f"""
INSERT INTO member_hours (tenant_id, hour, {", ".join(_COUNTED)})
SELECT $1, s.hour, {", ".join(f"coalesce(c.{name}, 0)" for name in _COUNTED)}
FROM generate_series($2::timestamptz, $3::timestamptz - interval '1 hour', interval '1 hour') AS s (hour)
LEFT JOIN ({_COUNT_ALL}) AS c USING (hour)
ON CONFLICT DO NOTHING
"""
_SUM: Final = f"""
SELECT s.name, s.since, {", ".join(f"coalesce(sum(c.{name}), 0)::bigint AS {name}" for name in _COUNTED)}
FROM unnest($4::text[], $5::timestamptz[]) AS s (name, since) LEFT JOIN ({{counted}}) AS c ON c.hour >= s.since
GROUP BY s.name, s.since ORDER BY s.since DESC
"""
_KEPT: Final = f"SELECT hour, {', '.join(_COUNTED)} FROM member_hours WHERE tenant_id = $1 AND hour < $2"
_SUM_ALL: Final = _SUM.format(counted=f"({_COUNT_ALL}) UNION ALL {_KEPT}")
_SUM_ONE: Final = _SUM.format(counted=_COUNT_ONE)


@dataclass(frozen=True, slots=True)
class SignInCounts:
    """Members' codes from `since`, a full hour, until now. `sent` is what a provider took, `delivered` what it said has
    arrived; `locked` counts codes that too many wrong tries used up; `succeeded` of the `begun` sign-ins led to a
    session.
    """

    name: str
    since: datetime
    requested: int
    sent: int
    delivered: int
    verified: int
    wrong: int
    locked: int
    begun: int
    succeeded: int

    @property
    def success_rate(self) -> float | None:
        """The share of sign-ins begun that came to their end, 0 to 1; None where there was none."""
        return self.succeeded / self.begun if self.begun else None


class Hours:
    """Counts finished hours ahead of whoever looks. Raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._counted_until: datetime | None = None

    async def roll_up(self) -> None:
        """Counts, once an hour, what is over for every tenant whose members signed in since the last time.

        Cheap in between; the worker does it. At its start it looks a day back. Whoever was idle for longer, or while no
        worker ran, is counted at the first look: that is little.
        """
        now = self._clock()
        until = _hour_of(now) - _SETTLED
        since = self._counted_until or until - _DAY
        if since >= until:
            return
        async with self._db.every_tenant() as connection:
            busy = await connection.fetch(_BUSY, since, until)
        for row in busy:
            kept = False
            while not kept:
                async with self._db.tenant(row["tenant_id"]) as connection:
                    kept = await keep_hours(connection, row["tenant_id"], now)
        self._counted_until = until


async def keep_hours(connection: asyncpg.Connection, tenant_id: UUID, now: datetime) -> bool:
    """Counts the next day of hours that nobody has looked at yet, in the caller's transaction of the tenant, and
    forgets old ones; whether there was none left. A day at a time, so that no statement runs long after a busy month.
    """
    oldest, until = min(_since(now)), _hour_of(now) - _SETTLED
    kept_until = await _kept_until(connection, tenant_id, oldest)
    if kept_until >= until:
        return True
    await connection.execute(_FORGET, tenant_id, oldest)
    await connection.execute(_KEEP, tenant_id, kept_until, min(kept_until + _DAY, until))
    return False


async def read_stats(connection: asyncpg.Connection, tenant_id: UUID, now: datetime) -> Sequence[SignInCounts]:
    """The last 24 hours, 7 and 30 days of all members. Costs what the hours cost that `keep_hours` has not counted."""
    since = _since(now)
    kept_until = await _kept_until(connection, tenant_id, min(since))
    rows = await connection.fetch(_SUM_ALL, tenant_id, kept_until, now + _MOMENT, list(SPANS), since)
    return [SignInCounts(**row) for row in rows]


async def read_stats_of(
    connection: asyncpg.Connection, tenant_id: UUID, now: datetime, member_id: UUID
) -> Sequence[SignInCounts]:
    """The same of one member."""
    since = _since(now)
    rows = await connection.fetch(_SUM_ONE, tenant_id, min(since), now + _MOMENT, list(SPANS), since, member_id)
    return [SignInCounts(**row) for row in rows]


async def _kept_until(connection: asyncpg.Connection, tenant_id: UUID, oldest: datetime) -> datetime:
    """The first hour that isn't counted; nothing before `oldest` is."""
    newest: datetime | None = await connection.fetchval(_KEPT_UNTIL, tenant_id)
    return max(newest + _HOUR, oldest) if newest else oldest


def _since(now: datetime) -> list[datetime]:
    return [_hour_of(now - length) for length in SPANS.values()]


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
