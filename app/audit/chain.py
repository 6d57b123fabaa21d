"""The audit chain: how events are sealed so that a change behind the application's back shows. Pure.

An event's *mark* is an HMAC over its canonical encoding. A *seal* covers a batch: all events whose ids lie in a
range. It lists their marks, so that a changed, removed or inserted event is found by name. Its hash covers the hash
of the seal before it, and its own HMAC covers the hash: one seal vouches for all that stand before it, also for those
whose key was retired. The ranges of one seal after the other leave no gap. All HMACs are made with a key that no
store has: whoever owns the database can break the chain, not mend it.

What cuts off the newest seals together with their events leaves a shorter chain that is whole in itself; a
checkpoint (app/audit/checkpoints.py) that was copied elsewhere proves it.
"""

import hashlib
import hmac
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from app.keys import Keys, keyed_hash

# An event's columns in the order of the encoding, in which a column without a value doesn't occur: one that is
# added later, at the end, leaves the marks of older events as they are.
COLUMNS: Final = (
    "tenant_id",
    "at",
    "id",
    "action",
    "actor_kind",
    "actor_id",
    "subject_kind",
    "subject_id",
    "challenge_id",
    "source",
    "ip",
    "user_agent",
    "request_id",
    "data",
)
_LABELS: Final = tuple(f"{len(name)}:{name}," for name in COLUMNS)

# The chain begins with nothing before it.
GENESIS: Final = bytes(32)
# Ids of the sequence begin at 1; the first range begins below every id that could be written by hand.
BEFORE_ALL_IDS: Final = -(2**63)

# 128 bits (RFC 2104, section 5: no less than half of the hash).
_MAC_BYTES: Final = 16
_MARK: Final = struct.Struct(f">qH{_MAC_BYTES}s")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# The month of an event whose time is no ordinary one: never over.
_NO_MONTH: Final = 2**16 - 1


class Mark(NamedTuple):
    """What a seal remembers of an event. `month` is counted from year 0 and tells when retention takes it."""

    event_id: int
    month: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """One link of the chain.

    `events`: the batch of all events with `after_id < id <= through_id`; `month` is the newest among theirs.
    `removal`: the statement, by somebody who has the key, that events before `month` were removed by retention.
    """

    number: int
    kind: Literal["events", "removal"]
    after_id: int
    through_id: int
    month: int
    events: int
    marks_digest: bytes
    previous: bytes
    key_id: str
    sealed_at: datetime
    hash: bytes = b""
    mac: bytes = b""

    def is_whole(self) -> bool:
        """Whether its hash is that of its content. Anybody can make such a seal."""
        return self.hash == self._content_hash()

    def is_genuine(self, keys: Keys) -> bool:
        """Whether it was made with these keys and is unchanged."""
        return self.is_whole() and hmac.compare_digest(self.mac, _seal_mac(keys, self.hash))

    def signed(self, keys: Keys) -> "Seal":
        """With hash and HMAC filled in."""
        content = self._content_hash()
        return replace(self, hash=content, mac=_seal_mac(keys, content))

    def _content_hash(self) -> bytes:
        numbers = (self.number, self.after_id, self.through_id, self.month, self.events, _microseconds(self.sealed_at))
        parts = (
            self.kind.encode(),
            struct.pack(">6q", *numbers),
            self.marks_digest,
            self.previous,
            self.key_id.encode(),
        )
        return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def _seal_mac(keys: Keys, content_hash: bytes) -> bytes:
    return keyed_hash(keys.audit, "audit-seal", content_hash)


def encode(values: Iterable[str | None]) -> bytes:
    """The canonical encoding of an event: netstrings of name and value, in the order of `COLUMNS`.

    `values` are PostgreSQL's own texts of the columns, with times in UTC and ISO notation: whatever stands in a
    tampered row has one, and no two different rows have the same.
    """
    return "".join(
        [f"{label}{len(value)}:{value}," for label, value in zip(_LABELS, values, strict=True) if value is not None]
    ).encode()


def mark(keys: Keys, values: Sequence[str | None]) -> Mark:
    """The mark of an event with these column values."""
    at, event_id = values[1], values[2]
    assert at is not None  # noqa: S101 - both are part of the table's key
    assert event_id is not None  # noqa: S101
    return Mark(int(event_id), month_of(at), keyed_hash(keys.audit, "audit-event", encode(values))[:_MAC_BYTES])


def pack_marks(marks: Iterable[Mark]) -> bytes:
    """Marks as a seal stores them: 26 bytes each."""
    return b"".join([_MARK.pack(*entry) for entry in marks])


def unpack_marks(packed: bytes) -> Iterator[Mark]:
    """The marks of a seal, in the order of their ids."""
    return map(Mark._make, _MARK.iter_unpack(packed))


def digest(packed_marks: bytes) -> bytes:
    """What the seal's hash covers in place of the marks, which retention erases in the end."""
    return hashlib.sha256(packed_marks).digest()


def seal_events(
    keys: Keys, head: Seal | None, through_id: int, events: Iterable[Sequence[str | None]], now: datetime
) -> tuple[Seal, bytes]:
    """The seal of the events after `head` through `through_id`, in the order of their ids, and its packed marks."""
    marks = [mark(keys, event) for event in events]
    packed = pack_marks(marks)
    newest = max((entry.month for entry in marks), default=0)
    return _link(keys, head, "events", through_id, newest, packed, len(marks), now), packed


def seal_removal(keys: Keys, head: Seal | None, before: int, now: datetime) -> Seal:
    """The record that the events before the month `before` were removed by retention."""
    return _link(keys, head, "removal", head.through_id if head else BEFORE_ALL_IDS, before, b"", 0, now)


def _link(
    keys: Keys,
    head: Seal | None,
    kind: Literal["events", "removal"],
    through_id: int,
    month: int,
    packed: bytes,
    events: int,
    now: datetime,
) -> Seal:
    return Seal(
        number=head.number + 1 if head else 1,
        kind=kind,
        after_id=head.through_id if head else BEFORE_ALL_IDS,
        through_id=through_id,
        month=month,
        events=events,
        marks_digest=digest(packed),
        previous=head.hash if head else GENESIS,
        key_id=keys.id,
        sealed_at=now,
    ).signed(keys)


def month_of(at: str) -> int:
    """The month of a time such as `2026-03-14 09:26:53+00`, counted from year 0."""
    if at[4:5] == "-" and at[:4].isdecimal() and not at.endswith("BC"):
        return int(at[:4]) * 12 + int(at[5:7]) - 1
    return _NO_MONTH


def month_name(month: int) -> str:
    """`2026-03`."""
    return f"{month // 12:04}-{month % 12 + 1:02}"


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND
