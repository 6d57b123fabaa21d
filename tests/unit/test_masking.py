"""A mask tells an admin which contact it was, and a stranger nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.masking import mask_contact, mask_email, mask_ip, mask_phone

LOCAL = st.text("abcdefghijklmnopqrstuvwxyz0123456789.+_-", min_size=1, max_size=64)


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("oskar@example.com", "o***@example.com"),
        ("a@b.c", "***@b.c"),
        ("", "***"),
        ("nonsense", "***"),
        ("a@evil@example.com", "a***@example.com"),
    ],
)
def test_email_keeps_first_letter_and_domain(value: str, masked: str) -> None:
    """The documented shape of a masked address, odd ones included."""
    assert mask_email(value) == masked


@given(LOCAL)
def test_email_mask_never_holds_the_local_part(local: str) -> None:
    """Whatever the local part is, it can't be read from the mask."""
    masked = mask_email(f"{local}@example.com").removesuffix("@example.com")
    assert local not in masked
    assert len(masked) <= 4


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("+447700901234", "+44*****1234"),
        ("+14155552671", "+1*****2671"),
        ("+35312345678", "+353*****5678"),
        ("+29012345", "+290*****"),  # Saint Helena: five digits, four of them would give it away
        ("07700 900123", "***"),
        ("+44", "***"),
        ("+", "***"),
        ("+\u0664\u0664\u0667\u0667\u0660\u0660", "***"),
    ],
)
def test_phone_keeps_country_code_and_last_four(value: str, masked: str) -> None:
    """The documented shape of a masked number; anything that isn't E.164 is hidden whole."""
    assert mask_phone(value) == masked


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_phone_mask_hides_at_least_half_of_the_number(number: str) -> None:
    """However short the national number is, at least four of its digits, or all of them, are hidden."""
    country, _, shown = mask_phone(number).removeprefix("+").partition("*****")
    hidden = len(number) - 1 - len(country) - len(shown)
    assert hidden >= min(4, len(number) - 1 - len(country))


@given(st.one_of(LOCAL, LOCAL.map(lambda s: f"{s}@example.com"), st.from_regex(r"\+[0-9]{0,16}", fullmatch=True)))
def test_masking_twice_is_masking_once(value: str) -> None:
    """A value masked by a caller and again by the log keeps its shape."""
    assert mask_contact(mask_contact(value)) == mask_contact(value)


@given(st.text())
def test_every_string_gets_a_mask(value: str) -> None:
    """Masking never raises: it runs where nothing may fail."""
    assert isinstance(mask_contact(value), str)
    assert isinstance(mask_ip(value), str)


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:aaaa:bbbb::1", "2001:db8:aaaa::/48"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("::1", "::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("not an address", "unknown"),
    ],
)
def test_ip_is_cut_to_its_network(address: str, masked: str) -> None:
    """An IPv4 address shows its /24, an IPv6 address its site."""
    assert mask_ip(address) == masked
