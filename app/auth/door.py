"""What is refused before anybody is known: the limit of an address, names that nobody has. Counted, and found by staff.

Counted in the process, by hour, and written in batches: whoever is refused waits for no database, a flood costs a few
rows, and a slug that somebody has is treated as one that nobody has. What a process had not written when it crashed is
lost.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeAlias

import structlog

from app.auth.limits import network_of
from app.errors import Unavailable
from app.storage.db import Database
from app.tenants.rules import SLUG

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# A name was asked for; only whoever nobody has is written.
UNKNOWN_NAME: Final = "unknown-name"
# A name that can't be anybody's. It is not kept: it may be anything.
MALFORMED_NAME: Final = "malformed-name"
# Many more than have a row of their own.
OTHERS: Final = "::/0"

_WRITE_SECONDS: Final = 5.0
# Counters a process has between two batches, of each kind.
_MOST_HERE: Final = 1000
# Rows of an hour: of all, of one tenant, of slugs that nobody has. A month of floods is under 250 MB.
MOST_ROWS: Final = 2000
MOST_ROWS_OF_ONE: Final = 50
MOST_ROWS_OF_NOBODY: Final = 500

_NOTE: Final = f"SELECT fn.note_door({', '.join(f'${n}' for n in range(1, 11))})"
_Key: TypeAlias = tuple[datetime, str, str, str]
_Count: TypeAlias = tuple[int, datetime, datetime]


class DoorLog:
    """The counters of one process. Noting never waits and never fails."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._refused: dict[_Key, _Count] = {}
        self._named: dict[_Key, _Count] = {}

    def refused(self, reason: str, address: str | None, slug: str | None) -> None:
        """Somebody was refused at a door. `slug` as it was asked for, if one was."""
        network = OTHERS if address is None else network_of(address)
        key = self._key(reason, network, slug)
        if key not in self._refused and len(self._refused) >= _MOST_HERE:
            key = self._key(reason, OTHERS, None)
        self._add(self._refused, key)

    def named(self, address: str | None, slug: str) -> None:
        """Somebody asked for a code at this name. Whether anybody has it is looked up when it is written."""
        if not SLUG.fullmatch(slug):
            self.refused(MALFORMED_NAME, address, None)
            return
        key = self._key(UNKNOWN_NAME, OTHERS if address is None else network_of(address), slug)
        if key in self._named or len(self._named) < _MOST_HERE:
            self._add(self._named, key)

    async def write(self) -> None:
        """Writes what was counted since the last time. Raises `Unavailable`, and keeps it for the next time."""
        counted = self._refused | self._named
        if not counted:
            return
        refused, self._refused, named, self._named = self._refused, {}, self._named, {}
        hours, reasons, networks, slugs = zip(*counted, strict=True)
        counts, firsts, lasts = zip(*counted.values(), strict=True)
        columns = [list(column) for column in (hours, reasons, networks, slugs, counts, firsts, lasts)]
        try:
            await self._db.run(_NOTE, *columns, MOST_ROWS, MOST_ROWS_OF_ONE, MOST_ROWS_OF_NOBODY)
        except Unavailable:
            for counters, unwritten in ((self._refused, refused), (self._named, named)):
                for key, count in unwritten.items():
                    self._add(counters, key, count)
            raise

    async def keep_writing(self) -> None:
        """Writes every few seconds, for as long as the process lives; and once more when it ends."""
        try:
            while True:
                await asyncio.sleep(_WRITE_SECONDS)
                await self._try_to_write()
        finally:
            await self._try_to_write()

    async def _try_to_write(self) -> None:
        try:
            await self.write()
        except Unavailable:
            return
        except Exception:
            # Evidence that may be lost takes no process down.
            log.exception("What was refused at the door could not be written")

    def _key(self, reason: str, network: str, slug: str | None) -> _Key:
        named = slug if slug is not None and SLUG.fullmatch(slug) else ""
        return self._clock().replace(minute=0, second=0, microsecond=0), reason, network, named

    def _add(self, counters: dict[_Key, _Count], key: _Key, more: _Count | None = None) -> None:
        count, first, last = more or (1, self._clock(), self._clock())
        before = counters.get(key, (0, first, last))
        counters[key] = (before[0] + count, min(before[1], first), max(before[2], last))
