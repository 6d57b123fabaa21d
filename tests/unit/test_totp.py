"""Authenticator apps and backup codes, as far as they are arithmetic."""

import re
from base64 import b32decode
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth.factors import backup_codes, totp
from app.errors import InvalidRequest

SEED = b"12345678901234567890"
SEEDS = {"sha1": SEED, "sha256": (SEED * 2)[:32], "sha512": (SEED * 4)[:64]}
# RFC 6238, appendix B: seconds since 1970, and the code of each algorithm.
TABLE = [
    (59, "94287082", "46119246", "90693936"),
    (1_111_111_109, "07081804", "68084774", "25091201"),
    (1_111_111_111, "14050471", "67062674", "99943326"),
    (1_234_567_890, "89005924", "91819424", "93441116"),
    (2_000_000_000, "69279037", "90698825", "38618901"),
    (20_000_000_000, "65353130", "77737706", "47863826"),
]
# RFC 4226, appendix D: the codes of counters 0 to 9.
HOTP = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[0]))
def test_codes_agree_with_the_rfc(row: tuple[int, str, str, str]) -> None:
    """RFC 6238's table, all three algorithms."""
    step = totp.step_at(datetime.fromtimestamp(row[0], UTC))
    for algorithm, expected in zip(SEEDS, row[1:], strict=True):
        assert totp.code_at(SEEDS[algorithm], step, 8, algorithm) == expected


def test_counters_agree_with_the_rfc() -> None:
    """RFC 4226's table, in the six digits that we use."""
    assert [totp.code_at(SEED, counter) for counter in range(10)] == HOTP


@pytest.mark.parametrize(("steps", "taken"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_clocks_may_differ_by_one_step(steps: int, taken: bool) -> None:
    """The code before and the code after are taken, no others."""
    step = totp.step_at(NOW) + steps
    found = totp.matching_step(SEED, totp.code_at(SEED, step), NOW)
    assert found == (step if taken else None)


def test_a_step_counts_once() -> None:
    """What was accepted, or is older, is refused; a newer one is not."""
    here = totp.step_at(NOW)
    code = totp.code_at(SEED, here)
    assert totp.matching_step(SEED, code, NOW, after=here - 1) == here
    assert totp.matching_step(SEED, code, NOW, after=here) is None
    assert totp.matching_step(SEED, totp.code_at(SEED, here - 1), NOW, after=here) is None
    assert totp.matching_step(SEED, totp.code_at(SEED, here + 1), NOW, after=here) == here + 1


def test_a_step_lasts_thirty_seconds() -> None:
    """On whole half minutes, as every app has it."""
    start = NOW.replace(second=30)
    assert totp.step_at(start + timedelta(seconds=29.999)) == totp.step_at(start)
    assert totp.step_at(start + timedelta(seconds=30)) == totp.step_at(start) + 1


def test_what_apps_scan() -> None:
    """Issuer and account are there, whatever is in them; the secret is 160 bits in Base32."""
    secret = totp.new_secret()
    address = totp.uri(secret, "Müller & Söhne: Wasser", "a+b@c.example")
    parts = urlsplit(address)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert unquote(parts.path) == "/Müller & Söhne  Wasser:a+b@c.example"
    assert query.pop("issuer") == "Müller & Söhne  Wasser"
    assert b32decode(query.pop("secret")) == secret
    assert len(secret) == 20
    assert query == {"algorithm": "SHA1", "digits": "6", "period": "30"}
    assert "+" not in parts.query, "some apps take a plus for a plus"


def test_the_qr_code_is_an_image_and_nothing_more() -> None:
    """One SVG, dark on white, without style, script or anything that our policy forbids."""
    svg = totp.qr_svg(totp.uri(SEED, "Acme", "acme"))
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "g", "path"}
    assert "style" not in svg
    assert '"#fff"' in svg


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "12345a", "1" * 100, "12 34 5"])
def test_a_code_of_another_form_is_no_attempt(typed: str) -> None:
    """Six digits of any script, however they are grouped, or it is refused before anything is counted."""
    with pytest.raises(InvalidRequest) as refusal:
        totp.read_code(typed, "/totp")
    assert refusal.value.errors[0].pointer == "/totp"
    assert totp.read_code(" 123-456 ", "/totp") == "123456"


def test_backup_codes_are_ten_different_ones() -> None:
    """Fifty random bits each, in two groups."""
    codes = backup_codes.new_codes()
    assert len(set(codes)) == 10
    assert all(re.fullmatch(r"[0-9a-hjkmnp-tv-z]{5}-[0-9a-hjkmnp-tv-z]{5}", code) for code in codes)


def test_backup_codes_are_read_as_people_type_them() -> None:
    """Capitals, blanks, and the letters that look like digits."""
    digest = backup_codes.digest("0a1bcdefg1")
    for typed in ("0a1bc-defg1", "OAIBC DEFGL", "oalbcdefgi", " 0A1BC-DEFG1 "):
        assert backup_codes.matches(backup_codes.read_code(typed, ""), digest)
    assert not backup_codes.matches("0a1bcdefg2", digest)


@given(st.text(max_size=80))
def test_whatever_is_typed_is_a_code_or_refused(typed: str) -> None:
    """No other end, for either kind."""
    for read in (totp.read_code, backup_codes.read_code):
        try:
            assert read(typed, "/x").isascii()
        except InvalidRequest:
            continue
