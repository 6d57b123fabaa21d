"""The pure half of the audit chain: encoding, marks, seals, checkpoints, cells."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.chain import (
    COLUMNS,
    GENESIS,
    Mark,
    Seal,
    digest,
    encode,
    mark,
    month_name,
    month_of,
    pack_marks,
    seal_events,
    seal_removal,
    unpack_marks,
)
from app.audit.checkpoints import Checkpoint
from app.audit.export import csv_cell
from app.errors import InvalidRequest
from app.keys import KeyRing

_NOW: Final = datetime(2026, 3, 14, 9, 26, 53, 589793, tzinfo=UTC)
_RING: Final = KeyRing([b"the secret in force, 32 bytes and more", b"the one before, 32 bytes and some more"])
_OTHERS: Final = KeyRing([b"somebody else's secret, 32 bytes and more"])

_texts = st.none() | st.text(max_size=20)
_rows = st.tuples(*[_texts] * len(COLUMNS))
_marks = st.builds(
    Mark, st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**16 - 1), st.binary(min_size=16, max_size=16)
)


def event(event_id: int, at: str = "2026-03-14 09:26:53+00", **values: str | None) -> Sequence[str | None]:
    """An event's columns as PostgreSQL writes them."""
    row = dict.fromkeys(COLUMNS) | {
        "tenant_id": "00000000-0000-0000-0000-000000000007",
        "at": at,
        "id": str(event_id),
        "action": "code.wrong",
        "actor_kind": "tenant",
        "source": "api",
        "data": "{}",
    }
    return list((row | values).values())


@given(_rows, _rows)
def test_no_two_events_are_encoded_alike(one: Sequence[str | None], other: Sequence[str | None]) -> None:
    """Whatever the columns hold, different events have different encodings."""
    assert (encode(one) == encode(other)) == (one == other)


def test_text_does_not_flow_from_one_column_into_the_next() -> None:
    """A value that looks like the encoding of two is still one; nothing and the empty text are two things."""
    forged = event(1, action="a,9:actor_kind,1:b", actor_kind=None)
    assert encode(forged) != encode(event(1, action="a", actor_kind="b"))
    assert encode(event(1, ip=None)) != encode(event(1, ip=""))


def test_the_encoding_is_this_one() -> None:
    """A changed encoding would call every sealed event tampered: this is the stored format."""
    row = event(5, ip="192.0.2.1", data='{"é": 1}')
    assert encode(row).decode() == (
        "9:tenant_id,36:00000000-0000-0000-0000-000000000007,2:at,22:2026-03-14 09:26:53+00,2:id,1:5,"
        '6:action,10:code.wrong,10:actor_kind,6:tenant,6:source,3:api,2:ip,9:192.0.2.1,4:data,8:{"é": 1},'
    )


@given(st.lists(_marks))
def test_marks_come_back_as_they_were_packed(marks: list[Mark]) -> None:
    """Packing loses nothing, for any id and month."""
    assert list(unpack_marks(pack_marks(marks))) == marks


def test_a_mark_needs_the_key() -> None:
    """The same event has another mark under each secret."""
    ours, theirs = (mark(ring.current, event(1)) for ring in (_RING, _OTHERS))
    assert ours._replace(mac=b"") == theirs._replace(mac=b"")
    assert ours.mac != theirs.mac


def test_seals_form_a_chain() -> None:
    """Numbers, ranges and hashes of one seal continue those of the one before; the first follows nothing."""
    first, marks = seal_events(_RING.current, None, 10, [event(3), event(7, at="2026-04-01 00:00:00+00")], _NOW)
    second, _ = seal_events(_RING.current, first, 20, [event(12)], _NOW)
    removal = seal_removal(_RING.current, second, month_of("2026-03"), _NOW)
    assert (first.number, first.previous, first.through_id, first.events) == (1, GENESIS, 10, 2)
    assert first.after_id < 0
    assert month_name(first.month) == "2026-04"
    assert [entry.event_id for entry in unpack_marks(marks)] == [3, 7]
    assert first.marks_digest == digest(marks)
    assert (second.number, second.previous, second.after_id, second.through_id) == (2, first.hash, 10, 20)
    assert (removal.number, removal.previous, removal.after_id, removal.through_id) == (3, second.hash, 20, 20)
    assert all(seal.is_genuine(_RING.current) for seal in (first, second, removal))


@pytest.mark.parametrize("name", [field.name for field in fields(Seal)])
def test_the_hash_covers_every_field(name: str) -> None:
    """Whatever is changed in a seal, it is not genuine any more; nor is it with other keys."""
    seal, _ = seal_events(_RING.current, None, 10, [event(3)], _NOW)
    value: Any = getattr(seal, name)
    match value:
        case int():
            changed: Any = value + 1
        case datetime():
            changed = value + timedelta(microseconds=1)
        case bytes():
            changed = bytes([value[0] ^ 1]) + value[1:]
        case _:
            changed = f"{value}x"
    assert seal.is_genuine(_RING.current)
    assert not replace(seal, **{name: changed}).is_genuine(_RING.current)
    assert not seal.is_genuine(_OTHERS.current)


@pytest.mark.parametrize(
    ("at", "name"),
    [
        ("2026-03-14 09:26:53.589793+00", "2026-03"),
        ("2026-12-31 23:59:59+00", "2026-12"),
        ("2027-01-01 00:00:00+00", "2027-01"),
        ("infinity", "5461-04"),
        ("-infinity", "5461-04"),
        ("12026-03-14 09:26:53+00", "5461-04"),
        ("0044-03-15 12:00:00+00 BC", "5461-04"),
    ],
)
def test_months_are_told_from_times_as_the_database_writes_them(at: str, name: str) -> None:
    """An ordinary time belongs to its month; one that only a forger writes is never old enough to be removed."""
    assert month_name(month_of(at)) == name


def test_a_checkpoint_survives_being_written_down() -> None:
    """Parsing what was printed gives the same checkpoint, and its signature holds, also under the older key."""
    seal, _ = seal_events(_RING.current, None, 10, [event(3)], _NOW)
    for key_id in ("current", "older"):
        keys = (
            _RING.current
            if key_id == "current"
            else _RING.get(KeyRing([b"the one before, 32 bytes and some more"]).current.id)
        )
        checkpoint = Checkpoint.of(keys, seal, _NOW)
        again = Checkpoint.parse(f"  {checkpoint.text()}\n")
        assert again == checkpoint
        assert (again.number, again.hash, again.made_at) == (1, seal.hash, _NOW)
        assert again.is_genuine(_RING)
        assert not again.is_genuine(_OTHERS)


@pytest.mark.parametrize("change", [{"number": 2}, {"hash": bytes(32)}, {"made_at": _NOW + timedelta(seconds=1)}])
def test_a_changed_checkpoint_is_not_genuine(change: dict[str, Any]) -> None:
    """The signature covers number, hash and time."""
    seal, _ = seal_events(_RING.current, None, 10, [event(3)], _NOW)
    changed = replace(Checkpoint.of(_RING.current, seal, _NOW), **change)
    assert not Checkpoint.parse(changed.text()).is_genuine(_RING)


@given(st.text(max_size=300))
def test_anything_else_is_refused_as_a_checkpoint(text: str) -> None:
    """Text of any kind is bad input, never a crash."""
    for attempt in (text, f"ghc_{text}"):
        with pytest.raises(InvalidRequest):
            Checkpoint.parse(attempt)


def test_a_checkpoint_has_one_spelling() -> None:
    """Cut, longer or with other spare bits in its last letter it is refused."""
    seal, _ = seal_events(_RING.current, None, 10, [event(3)], _NOW)
    text = Checkpoint.of(_RING.current, seal, _NOW).text()
    for attempt in (text[:-1], text[:-4], text + "AAAA", text.removeprefix("ghc_"), text[:-1] + chr(ord(text[-1]) + 1)):
        with pytest.raises(InvalidRequest):
            Checkpoint.parse(attempt)


def test_a_checkpoint_signature_is_no_token() -> None:
    """What the signing key signs here can't be passed off as an access token's signature."""
    seal, _ = seal_events(_RING.current, None, 10, [event(3)], _NOW)
    checkpoint = Checkpoint.of(_RING.current, seal, _NOW)
    header, claims, _ = jwt.encode({"sub": "x"}, _RING.current.signing, "EdDSA").split(".")
    with pytest.raises(jwt.PyJWTError):
        jwt.decode(f"{header}.{claims}.{checkpoint.text()}", _RING.current.public, algorithms=["EdDSA"])


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    """What a spreadsheet would compute is quoted; the rest stays as it is."""
    assert csv_cell(text) == f"'{text}"
    assert csv_cell(f"x{text}") == f"x{text}"
    assert csv_cell(None) == ""
    assert csv_cell(7) == "7"
