"""SMS: what fits into a segment, and what a text is counted and paid as."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery import gsm
from app.delivery.render import Renderer
from tests.unit.test_messages import CODE, NOW, render

SMS = replace(CODE, channel="sms", destination="+447700900123")
HTTPS = Renderer("https://login.example.com")
LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "pt")


def test_an_sms_fits_one_segment_and_fills_itself_in() -> None:
    """160 characters of the GSM alphabet; the last line binds the code to our host."""
    assert render(SMS).text == (
        "012345 is your Acme sign-in code, valid for 10 minutes.\n\n@login.acme.example #012345"
    )
    long = render(replace(SMS, tenant_name="The Very Long Name of a Company " * 5)).text
    assert gsm.segments(long) == 1
    assert long.startswith("012345 is your The Very Long Name of a Company")
    assert long.endswith("\n\n@login.acme.example #012345")


def test_only_sms_fills_itself_in() -> None:
    """WhatsApp and push have ways of their own; the line would be noise, and WhatsApp wants no links."""
    for channel in ("whatsapp", "push"):
        assert render(replace(CODE, channel=channel)).text == (
            "012345 is your Acme sign-in code, valid for 10 minutes."
        )
    assert "@" not in Renderer("http://localhost:8000").render(SMS, "012345", NOW).text


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_segment_in_every_language(language: str) -> None:
    """With a name of usual length, a code of eight digits and the line for autofill."""
    text = HTTPS.render(replace(SMS, challenge_locale=language, tenant_name="Acme Logistics"), "01234567", NOW).text
    assert gsm.segments(text) == 1
    assert gsm.is_gsm(text) == (language not in {"ar", "hi"}), "accents outside the alphabet would halve the room"
    assert "01234567" in text
    assert "Acme Logistics" in text


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("Ana\u2019s \u201cBest\u201d Shop", 'Ana\'s "Best" Shop'),
        ("\u201eGut\u201c \u2013 und mehr", '"Gut" - und mehr'),
        ("\u00abBon\u00bb \u2014 mieux", '"Bon" - mieux'),
        ("No\u2011break\u00a0space\u202fhere", "No-break space here"),
        ("\u2039a\u203a \u2212 b\u2009c\u00ad", "'a' - b c"),
        ("Wait\u2026", "Wait..."),
        ("\u2018x\u2019 `y\u00b4 \u2032z\u2033", "'x' 'y' 'z\""),
    ],
)
def test_typographic_marks_make_no_sms_dearer(typed: str, sent: str) -> None:
    """In the tenant's name and in its own words: quotes, dashes and spaces become those of the cheap alphabet."""
    text = HTTPS.render(replace(SMS, tenant_name=typed), "012345", NOW).text
    assert sent in text
    assert gsm.is_gsm(text)
    assert gsm.segments(text) == 1
    assert gsm.plain(typed) == sent


def test_a_text_that_is_dear_anyway_grows_no_longer() -> None:
    """Arabic stays UCS-2: three dots for one would only cost room."""
    assert gsm.plain("شركة\u2026") == "شركة\u2026"


def test_fewer_words_before_a_shorter_name() -> None:
    """Where 70 characters must do, how long the code is valid goes first, then the end of the name."""
    arabic = replace(SMS, challenge_locale="ar", tenant_name="شركة النقل")
    wordy = Renderer("http://localhost:8000").render(arabic, "012345", NOW).text
    brief = HTTPS.render(arabic, "012345", NOW).text
    cut = HTTPS.render(replace(arabic, tenant_name="شركة النقل والتوصيل المحدودة"), "012345", NOW).text
    assert "10 دقائق" in wordy
    assert "دقائق" not in brief
    assert "شركة النقل" in brief
    assert "شركة النقل" in cut
    assert "المحدودة" not in cut
    assert [gsm.segments(text) for text in (wordy, brief, cut)] == [1, 1, 1]


def test_an_sms_names_its_sender_even_if_that_takes_two() -> None:
    """A name cut to a few letters says nothing, so rather a second segment, and then all that is to be said."""
    tight = Renderer(f"https://{'long-' * 8}name.example")
    text = tight.render(replace(SMS, tenant_name="Çelik株式会社"), "012345", NOW).text
    assert "Çelik株式会社" in text
    assert "10 minutes" in text
    assert gsm.segments(text) == 2


@pytest.mark.parametrize(
    ("text", "segments", "excess"),
    [
        ("", 1, 0),
        ("a" * 160, 1, 0),
        ("a" * 161, 2, 1),
        ("a" * 306, 2, 146),
        ("a" * 307, 3, 147),
        ("€" * 80, 1, 0),
        ("€" * 81, 2, 2),
        # 153 is odd: the second half of a character doesn't go into the next segment.
        ("€" * 153, 3, 146),
        ("ç" * 70, 1, 0),
        ("ç" * 71, 2, 1),
        ("ç" * 134, 2, 64),
        ("ç" * 135, 3, 65),
        ("😀" * 35, 1, 0),
        ("😀" * 36, 2, 2),
        ("😀" * 67, 3, 64),
        ("é" * 160, 1, 0),
    ],
)
def test_segments(text: str, segments: int, excess: int) -> None:
    """160 and 153 septets, 70 and 67 UTF-16 units (GSM 03.38, 03.40); no character is split."""
    assert (gsm.segments(text), gsm.excess(text)) == (segments, excess)


@given(st.text(max_size=400))
def test_a_text_without_excess_is_one_segment(text: str) -> None:
    """The two ways to count agree."""
    assert (gsm.excess(text) == 0) == (gsm.segments(text) == 1)
