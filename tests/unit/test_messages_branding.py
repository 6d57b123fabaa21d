"""What a tenant may make of its messages, and what the messages then look like."""

import re
import struct
import zlib
from dataclasses import replace
from email.utils import parseaddr
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery import colour, logo, wording
from app.delivery.brand_rules import RULES, check_branding
from app.delivery.branding import PLAIN, Branding, Logo
from app.delivery.message import Message
from app.errors import InvalidRequest
from tests.unit.test_messages import NOW, RENDERER, read, wire

TENANT = SimpleNamespace(id=UUID(int=1), slug="acme", name="Acme", timezone="Europe/Berlin")
COLOURS = st.integers(0, 0xFFFFFF).map("#{:06x}".format)


def png(width: int = 120, height: int = 40) -> bytes:
    """A real one, black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (width + 1) * min(height, 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# The beginnings of real files, as far as their size.
JPEG = bytes.fromhex("ffd8ffe000104a46494600010101004800480000ffc00011080028007803012200021101031101")
JPEG_PROGRESSIVE = JPEG.replace(b"\xff\xc0", b"\xff\xc2")
WEBP_LOSSY = b"RIFF\0\0\0\0WEBPVP8 \x10\0\0\0\x30\x01\0\x9d\x01\x2a\x78\0\x28\0"
WEBP_LOSSLESS = b"RIFF\0\0\0\0WEBPVP8L\x10\0\0\0\x2f" + (119 | 39 << 14).to_bytes(4, "little")
WEBP_EXTENDED = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x77\0\0" + b"\x27\0\0"


def preview(branding: Branding, channel: str = "email", locale: str = "en") -> Message:
    return RENDERER.preview(TENANT, branding, channel, locale, NOW)


def fault(**values: object) -> str:
    """The one fault that is found, with its pointer."""
    with pytest.raises(InvalidRequest) as refusal:
        check_branding(values)
    (error,) = refusal.value.errors
    return f"{error.pointer}: {error.detail}"


@given(chosen=COLOURS, background=COLOURS)
def test_any_colour_becomes_readable(chosen: str, background: str) -> None:
    """4.5:1 on any background (WCAG 1.4.3), and a colour that has it stays as it is."""
    result = colour.readable(chosen, background)
    assert colour.contrast(result, background) >= colour.TEXT_CONTRAST
    if colour.contrast(chosen, background) >= colour.TEXT_CONTRAST:
        assert result == chosen


def test_a_colour_is_changed_as_little_as_needed() -> None:
    """Gold stays gold-ish: darkened on paper to just above the limit, untouched at night."""
    assert colour.readable("#ffd700", "#1c2127") == "#ffd700"
    repaired = colour.readable("#ffd700", "#faf6ee")
    red, green, blue = (int(repaired[at : at + 2], 16) for at in (1, 3, 5))
    assert red > green > blue
    assert colour.contrast(repaired, "#faf6ee") < 4.6


def test_contrast_is_the_standards() -> None:
    """The ratios of WCAG's own examples."""
    assert colour.contrast("#000000", "#ffffff") == 21
    assert colour.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert colour.contrast("#767676", "#ffffff") >= 4.5
    assert (colour.text_on("#ffd700"), colour.text_on("#000080")) == ("#000000", "#ffffff")


@pytest.mark.parametrize(("text", "parsed"), [("#ABC", "#aabbcc"), (" #76530C ", "#76530c")])
def test_colours_are_read(text: str, parsed: str) -> None:
    """In the two ways people write them."""
    assert check_branding({"colour": text}) == {"colour": parsed}


@pytest.mark.parametrize("text", ["red", "#12", "#12345g", "#1234567", "76530c", "#fff;}", "url(x)"])
def test_what_is_no_colour(text: str) -> None:
    """It goes into a style sheet, so nothing else gets there."""
    assert fault(colour=text).startswith("/colour: ")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (png(), "image/png"),
        (JPEG, "image/jpeg"),
        (JPEG_PROGRESSIVE, "image/jpeg"),
        (WEBP_LOSSY, "image/webp"),
        (WEBP_LOSSLESS, "image/webp"),
        (WEBP_EXTENDED, "image/webp"),
    ],
)
def test_a_logo_is_what_its_bytes_say(data: bytes, media_type: str) -> None:
    """Type and size are read from the content."""
    assert logo.inspect(data) == logo.Image(media_type, 120, 40)
    assert check_branding({"logo": data}) == {"logo": data}


@pytest.mark.parametrize(
    "data",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"GIF89a\x01\x00\x01\x00",
        b"<!doctype html><p>",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"\xff\xd8\xff\xda\0\0",
        b"\xff\xd8\xff\xe0\xff",
        b"\x89PNG\r\n\x1a\n",
        png()[:20],
        JPEG[:24],
        WEBP_LOSSLESS[:22],
        b"x" * 100,
    ],
)
def test_what_is_no_logo(data: bytes) -> None:
    """Nothing with scripts or documents in it, nothing cut off."""
    assert fault(logo=data) == "/logo: The logo must be a whole PNG, JPEG or WebP image."


def test_a_logo_has_limits() -> None:
    """64 KiB, and 2048 pixels each way: a small file can unpack to gigapixels."""
    assert "65 KiB" in fault(logo=png() + b"\0" * 65536)
    assert "60000 x 60000 pixels" in fault(logo=png(60_000, 60_000))
    assert "0 x 10" in fault(logo=png(0, 10))


@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("sender_name", "Acme\r\nBcc: eve@evil.example", "control characters"),
        ("sender_name", "Acme\x00", "control characters"),
        ("sender_name", "Acme \u202eknab", "control characters"),
        ("sender_name", "support@bank.example", "no @"),
        ("sender_name", "x" * 65, "at most 64"),
        ("sender_name", 7, "must be text"),
        ("reply_to", "a@b.example, c@d.example", "one email address"),
        ("reply_to", "Acme <a@b.example>", "one email address"),
        ("reply_to", "jürgen@b.example", "one email address"),
        ("email_intro", "Hello {{ code }}", "no placeholder code"),
        ("email_intro", "a\nb", "control characters"),
        ("sms_text", "Your code", "{{ code }} must be in it, once"),
        ("sms_text", "{{ code }} {{ code }}", "once"),
        ("sms_text", "{{ code ", "can't be read"),
        ("sms_text", "{{ ''.__class__ }}{{ code }}", "Only text and"),
        ("code_in_subject", "yes", "true or false"),
        ("code_in_subject", None, "true or false"),
        ("logo", "https://example.com/logo.png", "must be a file"),
        ("font", "Comic Sans", "no such field"),
    ],
)
def test_each_fault_has_its_sentence(name: str, value: object, detail: str) -> None:
    """At the field, for whoever typed it."""
    said = fault(**{name: value})
    assert said.startswith(f"/{name}: ")
    assert detail in said


def test_all_faults_are_told_at_once() -> None:
    """Nobody corrects a form field by field."""
    with pytest.raises(InvalidRequest) as refusal:
        check_branding({"colour": "red", "reply_to": "x", "sender_name": "Acme"})
    assert [error.pointer for error in refusal.value.errors] == ["/colour", "/reply_to"]


def test_nothing_clears_a_field() -> None:
    """None and blanks alike; a name may be in any script."""
    assert check_branding({"sender_name": "  ", "reply_to": None, "logo": b""}) == {
        "sender_name": None,
        "reply_to": None,
        "logo": None,
    }
    assert check_branding({"sender_name": "株式会社 क\u200dष"})["sender_name"] == "株式会社 क\u200dष"
    assert check_branding({"reply_to": "help@bücher.example"}) == {"reply_to": "help@xn--bcher-kva.example"}
    assert set(RULES) == {name for name in Branding.__slots__ if name != "version"}


@pytest.mark.parametrize(
    "source",
    [
        "{{ code.__class__ }}",
        "{{ code|upper }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ self.__init__.__globals__ }}",
        "{{ 7 * 7 }}",
        "{{ cycler }}",
        "{% set x = 1 %}",
        "{% include 'words/en.j2' %}",
        "{{ code() }}",
        "{{ [code] }}",
    ],
)
def test_words_are_text_and_names_only(source: str) -> None:
    """The smallest part of the sandbox: nothing is called, looped or looked into."""
    with pytest.raises(ValueError, match=r"allowed here|no placeholder"):
        wording.check(source, names=("code", "tenant"))


def test_words_are_filled_in_and_escaped_where_they_are_set() -> None:
    """Markup in a tenant's words is text, as everywhere."""
    branding = replace(PLAIN, email_intro="Hi <b>{{ tenant }}</b>, it lasts {{ lifetime }}.")
    message = preview(branding)
    assert message.html
    assert message.text.startswith("Hi <b>Acme</b>, it lasts 10 minutes.\n\nYour sign-in code\n")
    assert "Hi &lt;b&gt;Acme&lt;/b&gt;, it lasts 10 minutes." in message.html
    sms = preview(replace(PLAIN, sms_text="{{ tenant }}: {{ code }}. Gilt {{ lifetime }}."), "sms", "de")
    assert sms.text == "Acme: 123456. Gilt 10 Minuten.\n\n@login.acme.example #123456"
    assert "Gilt" not in preview(replace(PLAIN, sms_text="Gilt {{ code }}"), "whatsapp").text


def test_the_code_can_stay_out_of_the_subject() -> None:
    """For tenants whose lock screens others see; the preheader has no code in any case."""
    assert preview(PLAIN).subject == "123456 is your Acme sign-in code"
    assert preview(replace(PLAIN, code_in_subject=False)).subject == "Your Acme sign-in code"
    html = preview(PLAIN).html
    assert html
    assert "123456" not in html.partition('class="preheader"')[2].partition("</div>")[0]


def test_the_colour_is_repaired_for_day_and_night() -> None:
    """Text in the tenant's colour is readable in both; without one it is brass."""
    html = preview(replace(PLAIN, colour="#ffd700")).html
    assert html
    by_day = re.search(r'class="from" style="[^"]*(?<!-)color: (#\w+)', html)
    assert by_day
    assert colour.contrast(by_day[1], "#faf6ee") >= 4.5
    assert re.search(r"\.from, \.link \{ color: #ffd700 !important; \}", html)
    assert "#76530c" not in html
    plain = preview(PLAIN).html
    assert plain
    assert "#76530c" in plain
    assert "accent" not in plain


def test_a_logo_is_shown_small_and_named() -> None:
    """From our own address, in its proportions, and with the name where pictures are off."""
    mark = Logo("v123", "image/png", 1200, 400)
    html = preview(replace(PLAIN, logo=mark)).html
    assert html
    tag = re.search(r"<img [^>]*>", html)
    assert tag
    for part in (
        'src="https://login.acme.example:8443/t/acme/logo?v=v123.',
        'alt="Acme"',
        'width="144"',
        'height="48"',
    ):
        assert part in tag[0]
    assert "<svg" not in html
    assert "<img" not in (preview(PLAIN).html or "")


def test_sender_and_reply_to() -> None:
    """The name is the tenant's, the address ours; answers go where the tenant says."""
    message = replace(preview(replace(PLAIN, sender_name="Acme Help", reply_to="help@acme.example")), to="a@b.example")
    mail = read(wire(message, sender=message.sender_name or ""))
    assert parseaddr(str(mail["From"])) == ("Acme Help", "codes@gatehouse.example")
    assert mail["Reply-To"].addresses[0].addr_spec == "help@acme.example"
    assert "Reply-To" not in read(wire(replace(preview(PLAIN), to="a@b.example")))


def test_nothing_private_in_the_repr() -> None:
    """A branding that is logged shows no address."""
    assert "help@" not in repr(replace(PLAIN, reply_to="help@acme.example"))
