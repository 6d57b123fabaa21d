"""How members get on with signing in: codes asked for, sent, arrived, mistyped, used. Read from the audit log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from app.audit.stats import SPANS

# `begun` counts sign-ins and not codes, so that a code sent again doesn't look like a failure.
_STATS: Final = """
WITH happened AS MATERIALIZED (
    SELECT e.at, e.action, e.challenge_id, e.data ->> 'attempts_left' AS attempts_left
    FROM audit_events e
    WHERE e.tenant_id = $1 AND e.at >= $2 AND e.at <= $3 AND e.subject_kind = 'member'
      AND ($4::uuid IS NULL OR e.subject_id = $4)
      AND (e.action IN ('code.requested', 'code.resent', 'code.wrong')
           OR e.action = 'session.started' AND e.data -> 'methods' ->> 0 LIKE 'otp:%')
), begun AS (
    SELECT h.challenge_id, min(h.at) AS at FROM happened h WHERE h.action = 'code.requested' GROUP BY h.challenge_id
), counted AS (
    SELECT h.at, CASE h.action WHEN 'code.wrong' THEN 'wrong' WHEN 'session.started' THEN 'verified'
                               ELSE 'requested' END AS what
    FROM happened h
    UNION ALL
    SELECT h.at, 'locked' FROM happened h WHERE h.action = 'code.wrong' AND h.attempts_left = '0'
    UNION ALL
    SELECT b.at, 'begun' FROM begun b
    UNION ALL
    SELECT b.at, 'succeeded' FROM begun b
    WHERE EXISTS (SELECT FROM happened h WHERE h.challenge_id = b.challenge_id AND h.action = 'session.started')
    UNION ALL
    SELECT d.at, d.state FROM delivery_events d
    WHERE d.tenant_id = $1 AND d.at >= $2 AND d.at <= $3 AND d.kind = 'code' AND d.state IN ('sent', 'delivered')
      AND d.challenge_id IN (SELECT h.challenge_id FROM happened h WHERE h.action IN ('code.requested', 'code.resent'))
)
SELECT s.name, s.since, count(*) FILTER (WHERE c.what = 'requested') AS requested,
       count(*) FILTER (WHERE c.what = 'sent') AS sent, count(*) FILTER (WHERE c.what = 'delivered') AS delivered,
       count(*) FILTER (WHERE c.what = 'verified') AS verified, count(*) FILTER (WHERE c.what = 'wrong') AS wrong,
       count(*) FILTER (WHERE c.what = 'locked') AS locked, count(*) FILTER (WHERE c.what = 'begun') AS begun,
       count(*) FILTER (WHERE c.what = 'succeeded') AS succeeded
FROM unnest($5::text[], $6::timestamptz[]) AS s (name, since) LEFT JOIN counted c ON c.at >= s.since
GROUP BY s.name, s.since ORDER BY s.since DESC
"""


@dataclass(frozen=True, slots=True)
class SignInCounts:
    """Members' codes from `since` until now. `sent` is what a provider took, `delivered` what it said has arrived;
    `locked` counts codes that too many wrong tries used up; `succeeded` of the `begun` sign-ins led to a session.
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


async def read_stats(
    connection: asyncpg.Connection, tenant_id: UUID, now: datetime, member_id: UUID | None = None
) -> Sequence[SignInCounts]:
    """The last 24 hours, 7 and 30 days of all members, or of one. Costs what a month of this tenant's events costs."""
    since = [now - length for length in SPANS.values()]
    rows = await connection.fetch(_STATS, tenant_id, min(since), now, member_id, list(SPANS), since)
    return [SignInCounts(**row) for row in rows]
