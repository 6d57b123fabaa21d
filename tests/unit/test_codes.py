"""Codes are derived, digits only, and worthless without the key."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth import codes
from app.errors import InvalidRequest
from app.keys import Keys, keyed_hash

KEYS = Keys.derive(b"a secret of at least thirty-two bytes, for tests only")
OTHER = Keys.derive(b"another secret of at least thirty-two bytes, for tests")
CHALLENGE = UUID(int=0x0123456789ABCDEF0123456789ABCDEF)
SALT = bytes(range(16))


def test_a_code_is_the_same_after_a_crash() -> None:
    """Deriving twice gives the same digits, so a message sent twice carries one code."""
    assert codes.derive(KEYS, CHALLENGE, 1, SALT, 6) == codes.derive(KEYS, CHALLENGE, 1, SALT, 6)


def test_every_input_changes_the_code() -> None:
    """Challenge, generation, salt, length and key each matter."""
    base = codes.derive(KEYS, CHALLENGE, 1, SALT, 8)
    others = {
        codes.derive(OTHER, CHALLENGE, 1, SALT, 8),
        codes.derive(KEYS, UUID(int=1), 1, SALT, 8),
        codes.derive(KEYS, CHALLENGE, 2, SALT, 8),
        codes.derive(KEYS, CHALLENGE, 1, bytes(16), 8),
    }
    assert base not in others
    assert len(others) == 4
    assert codes.derive(KEYS, CHALLENGE, 1, SALT, 6) != base[:6]


@given(st.integers(1, 10_000), st.sampled_from(codes.LENGTHS))
def test_codes_have_their_length_and_keep_leading_zeros(generation: int, length: int) -> None:
    """A code is always exactly as long as promised, ASCII digits only."""
    code = codes.derive(KEYS, CHALLENGE, generation, SALT, length)
    assert len(code) == length
    assert code.isascii()
    assert code.isdigit()


def test_codes_are_spread_evenly() -> None:
    """Over 20,000 codes each leading digit appears about equally often (5 sigma)."""
    seen = [codes.derive(KEYS, CHALLENGE, n, SALT, 6)[0] for n in range(20_000)]
    for digit in "0123456789":
        assert abs(seen.count(digit) - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5


@given(st.integers(0, 999_999))
def test_only_the_code_matches_its_digest(guess: int) -> None:
    """Any other six digits fail, and so does the right code under another key."""
    code = codes.derive(KEYS, CHALLENGE, 1, SALT, 6)
    stored = codes.digest(KEYS, CHALLENGE, 1, SALT, code)
    typed = f"{guess:06d}"
    assert codes.matches(KEYS, CHALLENGE, 1, SALT, typed, stored) is (typed == code)
    assert not codes.matches(OTHER, CHALLENGE, 1, SALT, code, stored)


def test_the_digest_of_six_digits_does_not_admit_eight() -> None:
    """Each length has a code and a digest of its own."""
    made = codes.candidates(KEYS, CHALLENGE, 1)
    eight = codes.derive(KEYS, CHALLENGE, 1, made.salt, 8)
    assert codes.matches(KEYS, CHALLENGE, 1, made.salt, eight, made.digest_8)
    assert not codes.matches(KEYS, CHALLENGE, 1, made.salt, eight, made.digest_6)
    assert not codes.matches(KEYS, CHALLENGE, 1, made.salt, eight, made.digest_decoy)


@pytest.mark.parametrize("typed", ["123456", "123 456", "123-456", " 123456 ", "12\u00a034\u201356"])
def test_spaces_and_dashes_do_not_count(typed: str) -> None:
    """People paste what they see."""
    assert codes.clean(typed) == "123456"


@pytest.mark.parametrize(
    "typed",
    ["", "12345", "12345678901", "12345a", "12345\u00b2", "1" * 5000, "12\n3456"],
)
def test_what_is_no_code_points_at_the_field(typed: str) -> None:
    """Anything but 6 to 10 digits is malformed, not wrong."""
    with pytest.raises(InvalidRequest) as refusal:
        codes.clean(typed)
    assert [error.pointer for error in refusal.value.errors] == ["/code"]


@given(st.binary(min_size=16, max_size=16))
def test_challenge_ids_survive_the_round_trip(raw: bytes) -> None:
    """Shown and read back, an id is the same; it is 22 characters."""
    shown = codes.show_challenge_id(UUID(bytes=raw))
    assert len(shown) == 22
    assert codes.read_challenge_id(shown) == UUID(bytes=raw)


@given(st.text(max_size=40))
def test_no_second_spelling_of_a_challenge_id(text: str) -> None:
    """Whatever is read is what would be shown; all other text is refused."""
    try:
        read = codes.read_challenge_id(text)
    except ValueError:
        return
    assert codes.show_challenge_id(read) == text


@given(st.lists(st.binary(max_size=6), min_size=2, max_size=2), st.lists(st.binary(max_size=6), min_size=2, max_size=2))
def test_keyed_hashes_cannot_be_confused(one: list[bytes], two: list[bytes]) -> None:
    """Length prefixes: moving a byte from one input to the next changes the hash."""
    same = keyed_hash(KEYS.code, "p", *one) == keyed_hash(KEYS.code, "p", *two)
    assert same is (one == two)


def test_purposes_have_keys_of_their_own() -> None:
    """No two purposes share a key, and no key shows in a repr."""
    material = [KEYS.code, KEYS.verify, KEYS.recipient, KEYS.refresh, KEYS.cookie, KEYS.encryption]
    assert len(set(material)) == len(material)
    assert not any(key.hex() in repr(KEYS) or repr(key) in repr(KEYS) for key in material)
