"""How many codes were asked for, sent, delivered and used, by channel. See `sql/stats.sql`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.storage.db import Database

SPANS: Final = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}

# A day at a time, so that no statement runs long after a quiet month.
_HOURS: Final = 24
_ROLL_UP: Final = "SELECT fn.roll_up_codes($1, $2) AS hours"
_STATS: Final = "SELECT * FROM fn.code_stats($1, $2)"


@dataclass(frozen=True, slots=True)
class ChannelCounts:
    """One channel. `sent` is what a provider took; `delivered` only what it said has arrived."""

    channel: str
    requested: int
    sent: int
    delivered: int
    failed: int
    verified: int


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time that began at a full hour, `since`, and lasts until now."""

    name: str
    since: datetime
    channels: Sequence[ChannelCounts]


class Stats:
    """Counts for the whole installation. Raises `Unavailable` when the database is away."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

    async def roll_up(self) -> None:
        """Counts the hours that finished since the last time. Cheap when there is none; the worker does it."""
        counted = _HOURS
        while counted == _HOURS:
            row = await self._db.row(_ROLL_UP, self._clock(), _HOURS)
            counted = int(row["hours"]) if row else 0

    async def read(self) -> Sequence[Span]:
        """The last 24 hours, 7 and 30 days. Costs what an hour's traffic costs, once the hours before are counted."""
        await self.roll_up()
        now = self._clock()
        spans = []
        for name, length in SPANS.items():
            since = (now - length).replace(minute=0, second=0, microsecond=0)
            rows = await self._db.rows(_STATS, now, since)
            spans.append(Span(name, since, [ChannelCounts(**row) for row in rows]))
        return spans
