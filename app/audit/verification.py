"""Checking the audit chain against what the tables hold now, in one pass and constant memory.

One snapshot of the database: sealing may go on meanwhile, removing old months waits. Each fault is told once: the
events of a batch whose seal is missing or changed can't be checked, so nothing is said about them.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from app.audit.chain import BEFORE_ALL_IDS, GENESIS, Mark, Seal, digest, mark, unpack_marks
from app.audit.checkpoints import Checkpoint
from app.audit.sealing import CHAIN_SCOPE, EVENT_TEXTS, SEAL_COLUMNS
from app.audit.verdict import Fault, Finding, Verdict
from app.errors import InvalidRequest
from app.keys import KeyRing
from app.storage.db import Database

# A statement of this pass may take longer than those of a sign-in.
_TIMEOUT: Final = 120.0
_TO_THE_SECOND: Final = "%Y-%m-%dT%H:%M:%SZ"

_SEALS: Final = f"""
SELECT {SEAL_COLUMNS}, marks, (SELECT c.checkpoint FROM audit_checkpoints c WHERE c.number = s.number)
FROM audit_seals s ORDER BY s.number
"""
_EVENTS: Final = f"SELECT {EVENT_TEXTS} FROM audit_events e ORDER BY e.id"
_REMOVALS: Final = f"SELECT {SEAL_COLUMNS} FROM audit_seals WHERE kind = 'removal'"
_LATER_CHECKPOINTS: Final = "SELECT checkpoint FROM audit_checkpoints WHERE number > $1 ORDER BY number"
# The sequence runs ahead of the snapshot, never behind: an id above it was written by hand.
_UNSEALED: Final = """
SELECT count(*) FILTER (WHERE e.id <= s.last_value) AS events,
       min(e.at) FILTER (WHERE e.id <= s.last_value)::text AS since,
       count(*) FILTER (WHERE e.id > s.last_value) AS beyond,
       min(e.id) FILTER (WHERE e.id > s.last_value) AS first_beyond
FROM (SELECT id, at FROM audit_events WHERE id > $1) e,
     (SELECT coalesce(last_value, 0) AS last_value FROM pg_sequences
      WHERE schemaname = 'public' AND sequencename = 'audit_event_id') s
"""


async def verify(db: Database, ring: KeyRing, *, checkpoints: Sequence[Checkpoint] = ()) -> Verdict:
    """Checks every seal, every sealed event and every checkpoint: those in the database and those given.

    Raises `InvalidRequest` when a given checkpoint wasn't signed by a key of the ring, and `Unavailable`.
    """
    for checkpoint in checkpoints:
        if not checkpoint.is_genuine(ring):
            raise InvalidRequest(
                detail=f"The checkpoint is not signed by a key in SECRET_KEYS (it names {checkpoint.key_id})."
            )
    async with _snapshot(db) as connection:
        removals = [Seal(*row) for row in await connection.fetch(_REMOVALS, timeout=_TIMEOUT)]
        pruned_before = max((seal.month for seal in removals if _genuine(ring, seal)), default=0)
        events = _Events(aiter(connection.cursor(_EVENTS, prefetch=1000, timeout=_TIMEOUT)))
        walk = _Walk(ring, events, pruned_before, checkpoints)
        async for row in connection.cursor(_SEALS, prefetch=20, timeout=_TIMEOUT):
            *columns, marks, stored = row.values()
            await walk.step(Seal(*columns), marks, stored)
        for row in await connection.fetch(_LATER_CHECKPOINTS, walk.number, timeout=_TIMEOUT):
            walk.later_checkpoint(row["checkpoint"])
        walk.end()
        await _look_beyond(connection, walk)
    return walk.verdict


@asynccontextmanager
async def _snapshot(db: Database) -> AsyncIterator[asyncpg.Connection]:
    async with db.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        # Before the snapshot is taken, so that no month can be removed between it and the reading.
        await connection.execute("LOCK TABLE audit_events IN ACCESS SHARE MODE", timeout=_TIMEOUT)
        await connection.execute(CHAIN_SCOPE)
        yield connection


async def _look_beyond(connection: asyncpg.Connection, walk: "_Walk") -> None:
    """Events that are not sealed yet, and those that can't have come from the application."""
    row = await connection.fetchrow(_UNSEALED, walk.through, timeout=_TIMEOUT)
    assert row is not None  # noqa: S101 - an aggregate always has one
    walk.verdict.unsealed_events, walk.verdict.unsealed_since = row["events"], row["since"]
    if row["beyond"]:
        others = f", nor {row['beyond'] - 1} more above it" if row["beyond"] > 1 else ""
        sentence = f"Event {row['first_beyond']} was not written by Gatehouse: its id was never given out{others}."
        walk.verdict.add(Finding("event-inserted", sentence, row["first_beyond"]))


def _genuine(ring: KeyRing, seal: Seal) -> bool:
    keys = ring.find(seal.key_id)
    return keys is not None and seal.is_genuine(keys)


class _Events:
    """All events in the order of their ids, one ahead."""

    def __init__(self, rows: AsyncIterator[Any]) -> None:
        self._rows = rows
        self._next: tuple[int, Any] | None = None
        self._begun = False

    async def take(self, through_id: int) -> AsyncIterator[Any]:
        """The events not taken yet with ids up to this one."""
        if not self._begun:
            self._begun = True
            await self._advance()
        while self._next is not None and self._next[0] <= through_id:
            row = self._next[1]
            await self._advance()
            yield row

    async def _advance(self) -> None:
        row = await anext(self._rows, None)
        self._next = (int(row["id"]), row) if row is not None else None


class _Peekable:
    """Marks in the order of their ids, taken bit by bit."""

    def __init__(self, marks: Iterator[Mark]) -> None:
        self._marks = marks
        self._next = next(marks, None)

    def below(self, event_id: int | None) -> list[Mark]:
        """Takes the marks with smaller ids; None: all that are left."""
        taken: list[Mark] = []
        while self._next is not None and (event_id is None or self._next.event_id < event_id):
            taken.append(self._next)
            self._next = next(self._marks, None)
        return taken


class _Walk:
    """From the first seal to the last."""

    def __init__(self, ring: KeyRing, events: _Events, pruned_before: int, checkpoints: Sequence[Checkpoint]) -> None:
        self.verdict = Verdict()
        self.number = 0
        self.through = BEFORE_ALL_IDS
        self._ring = ring
        self._events = events
        self._pruned_before = pruned_before
        self._given = sorted(checkpoints, key=lambda checkpoint: checkpoint.number)
        # The hash the next seal must name; None after one that can't be trusted.
        self._previous: bytes | None = GENESIS
        # The first of the seals that stand directly before and have yet to be vouched for by a later one.
        self._unvouched: Seal | None = None

    async def step(self, seal: Seal, marks: bytes | None, stored_checkpoint: str | None) -> None:
        """The next seal that is there."""
        if seal.number != self.number + 1:
            self._missing(self.number + 1, seal.number - 1)
        trusted = self._check(seal, marks)
        self.number, self.through = seal.number, seal.through_id
        self.verdict.batches += seal.kind == "events"
        self._previous = seal.hash if trusted else None
        if not trusted:
            return
        self._compare_checkpoints(seal, stored_checkpoint)
        # What lies before belongs to a seal that is missing or changed.
        async for _ in self._events.take(seal.after_id):
            pass
        if seal.kind == "events":
            await self._compare_events(seal, marks)

    def later_checkpoint(self, stored: str) -> None:
        """A checkpoint in the database of a seal that isn't there."""
        checkpoint = self._stored(stored)
        if checkpoint is not None:
            self._truncated(checkpoint)

    def end(self) -> None:
        """After the last seal."""
        self._nobody_vouches()
        for checkpoint in self._given:
            self._truncated(checkpoint)

    def _missing(self, first: int, last: int) -> None:
        names = f"Batch {first} is" if first == last else f"Batches {first} to {last} are"
        self.verdict.add(Finding("batch-missing", f"{names} missing from the chain.", batch=first))
        self._nobody_vouches()
        self._previous = None

    def _check(self, seal: Seal, marks: bytes | None) -> bool:
        """Whether this is the seal that was made."""
        keys = self._ring.find(seal.key_id)
        over = seal.kind == "removal" or seal.month < self._pruned_before
        retired = keys is None and over and seal.is_whole()
        if keys is None and not retired:
            self._nobody_vouches()
            self._forged(seal)
            return False
        sentence: str | None = f"Batch {seal.number} was changed after it was sealed."
        if retired or (keys is not None and seal.is_genuine(keys)):
            sentence = self._misfit(seal, marks)
        if sentence is None:
            self._unvouched = (self._unvouched or seal) if retired else None
            return True
        self._nobody_vouches()
        self.verdict.add(Finding("batch-changed", sentence, batch=seal.number))
        return False

    def _misfit(self, seal: Seal, marks: bytes | None) -> str | None:
        """What is wrong around a seal that is as it was made."""
        if seal.previous != (self._previous or seal.previous):
            return f"Batch {seal.number} was not sealed after the batch that stands before it."
        if marks is None and seal.events and seal.month >= self._pruned_before:
            return f"The list of the events of batch {seal.number} was removed."
        if marks is not None and digest(marks) != seal.marks_digest:
            return f"The list of the events of batch {seal.number} was changed."
        return None

    def _nobody_vouches(self) -> None:
        """No genuine seal follows the one whose key is gone."""
        if self._unvouched is not None:
            self._forged(self._unvouched)
            self._unvouched = None

    def _forged(self, seal: Seal) -> None:
        sentence = (
            f"Batch {seal.number} is sealed with a key that is not in SECRET_KEYS ({seal.key_id}): it is forged, "
            "or its secret was taken out; then add that back as the last one."
        )
        self.verdict.add(Finding("batch-forged", sentence, batch=seal.number))

    async def _compare_events(self, seal: Seal, marks: bytes | None) -> None:
        self.verdict.pruned_batches += seal.month < self._pruned_before
        if marks is None:
            self.verdict.pruned_events += seal.events
        else:
            self.verdict.events += seal.events
        # Where the key is gone retention has taken the marks, and every event still there was inserted.
        keys = self._ring.find(seal.key_id) or self._ring.current
        expected = _Peekable(unpack_marks(marks or b""))
        event_id: int | None = None
        # Of the current id (it is one event's, unless somebody forged a second): marks without a row so far, and a
        # row without a mark.
        unmet: list[Mark] = []
        stranger: Any = None
        async for row in self._events.take(seal.through_id):
            found = mark(keys, tuple(row))
            if found.event_id != event_id:
                self._settle(seal, unmet, stranger)
                event_id, stranger = found.event_id, None
                self._settle(seal, expected.below(event_id), None)
                unmet = expected.below(event_id + 1)
            if found in unmet:
                unmet.remove(found)
            elif stranger is None:
                stranger = row
            else:
                self._inserted(seal, row)
        self._settle(seal, unmet, stranger)
        self._settle(seal, expected.below(None), None)

    def _settle(self, seal: Seal, unmet: Sequence[Mark], stranger: Any) -> None:
        """What it means that marks found no row, and a row no mark, under one id."""
        for entry in unmet:
            if stranger is not None:
                self._event("event-changed", "was changed after it was sealed", seal, stranger)
                stranger = None
            elif entry.month < self._pruned_before:
                self.verdict.events -= 1
                self.verdict.pruned_events += 1
            else:
                sentence = f"Event {entry.event_id} was removed after it was sealed in batch {seal.number}."
                self.verdict.add(Finding("event-removed", sentence, entry.event_id, seal.number))
        if stranger is not None:
            self._inserted(seal, stranger)

    def _inserted(self, seal: Seal, row: Any) -> None:
        self._event("event-inserted", "was inserted after its time had been sealed", seal, row)

    def _event(self, fault: Fault, what: str, seal: Seal, row: Any) -> None:
        which = f"Event {row['id']} ({row['action']} of tenant {row['tenant_id']} at {row['at']})"
        self.verdict.add(Finding(fault, f"{which} {what} in batch {seal.number}.", int(row["id"]), seal.number))

    def _compare_checkpoints(self, seal: Seal, stored: str | None) -> None:
        checkpoints = [self._stored(stored)] if stored is not None else []
        while self._given and self._given[0].number <= seal.number:
            checkpoints.append(self._given.pop(0))
        for checkpoint in checkpoints:
            if checkpoint is None or checkpoint.number != seal.number:
                continue
            if checkpoint.hash == seal.hash:
                self.verdict.checkpoint = checkpoint.text()
                continue
            sentence = f"Batch {seal.number} is not the one that was signed at {checkpoint.made_at:{_TO_THE_SECOND}}."
            self.verdict.add(Finding("batch-changed", sentence, batch=seal.number))

    def _stored(self, text: str) -> Checkpoint | None:
        try:
            checkpoint = Checkpoint.parse(text)
        except InvalidRequest:
            checkpoint = None
        if checkpoint is not None and checkpoint.is_genuine(self._ring):
            return checkpoint
        self.verdict.add(Finding("checkpoint-broken", "A checkpoint in the database was changed or forged."))
        return None

    def _truncated(self, checkpoint: Checkpoint) -> None:
        if checkpoint.number <= self.number:
            return
        sentence = (
            f"The chain ends at batch {self.number}, but batch {checkpoint.number} was signed at "
            f"{checkpoint.made_at:{_TO_THE_SECOND}}: the newest batches were removed."
        )
        self.verdict.add(Finding("chain-truncated", sentence, batch=checkpoint.number))
