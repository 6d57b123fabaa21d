"""Messages in every language: all there, in the right one, and readable from right to left."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from babel import Locale
from jinja2 import Environment, FileSystemLoader

from app import resources
from app.delivery.message import Message
from app.delivery.outbox import Claimed
from tests.unit.test_messages import CODE, NOTICE, NOW, RENDERER, read, render, visible, wire

LANGUAGES = RENDERER.languages
TEST = replace(NOTICE, kind="test", payload=None)
TO_MEMBERS = ("address_taken", "own_contact_changed", "password_changed", "invited")


def in_language(claimed: Claimed, language: str, code: str | None = None) -> Message:
    return render(replace(claimed, challenge_locale=None, tenant_locale=language), code)


def test_these_languages_are_there() -> None:
    """What the product promises."""
    assert LANGUAGES == ("ar", "de", "en", "es", "fr", "hi", "pt")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_complete(language: str) -> None:
    """Every part of every message that English has; a helper of one language only is its own business."""
    environment = Environment(loader=FileSystemLoader(resources.TEMPLATES / "messages" / "words"), autoescape=False)  # noqa: S701
    english = {name for name in environment.get_template("en.j2").blocks if "_" in name}
    assert english <= environment.get_template(f"{language}.j2").blocks.keys()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("channel", ["email", "sms"])
def test_every_message_renders(language: str, channel: str) -> None:
    """In each shape it has, with its language named; nothing of English is left, nothing unfilled, no double blank."""
    phone = {"template": "contact_changed", "contact": "phone_number", "before": None, "after": "+44*****0123"}
    gone = {**phone, "before": "+44*****0123", "after": None}
    shapes = [(CODE, "012345"), (NOTICE, None), (TEST, None)]
    shapes += [(replace(NOTICE, payload=payload), None) for payload in (phone, gone)]
    changes = ("enrolled", "removed", "reset", "backup_codes", "backup_code_used")
    factors = [{"template": "factor_changed", "change": change} for change in changes]
    shapes += [(replace(NOTICE, payload=payload), None) for payload in factors]
    shapes += [(replace(CODE, user_agent=agent, ip=None), "012345") for agent in (None, "iPhone", "Firefox")]
    shapes += [(replace(CODE, purpose=purpose), "012345") for purpose in ("register", "contact")]
    shapes += [(replace(NOTICE, payload={**(NOTICE.payload or {}), "template": name}), None) for name in TO_MEMBERS]
    for claimed, code in shapes:
        message = in_language(replace(claimed, channel=channel), language, code)
        assert message.locale == language
        assert "Acme" in message.text
        assert not re.search(r"[{}]|None|  \S(?<! {4}\d)", message.text.replace("\n    0", "")), message.text
        if channel == "email":
            assert message.subject
            assert message.html
            assert f'lang="{language}"' in message.html
            read(wire(message))
        if language != "en":
            assert not re.search(r"\b(your|the|code was|sign-in)\b", message.text, re.IGNORECASE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_subject_can_do_without_the_code(language: str) -> None:
    """Both subjects name the tenant; only one has the code, in front or early enough for a lock screen."""
    message = in_language(CODE, language, "012345")
    assert message.subject
    assert "Acme" in message.subject
    assert message.subject.startswith("012345")


@pytest.mark.parametrize(
    ("asked", "tenant", "language"),
    [
        ("fr-CA", "de", "fr"),
        ("xx", "de-AT", "de"),
        (None, "de", "de"),
        ("und", "de", "de"),
        ("nonsense!", "xx", "en"),
        (None, None, "en"),
        ("pt-BR", "en", "pt"),
        ("ar-EG", "en", "ar"),
    ],
)
def test_whose_language(asked: str | None, tenant: str | None, language: str) -> None:
    """Of whoever asked, else the tenant's, else English: the first that there are words in."""
    locale = render(replace(CODE, challenge_locale=asked, tenant_locale=tenant)).locale
    assert locale
    assert locale.partition("-")[0] == language


@pytest.mark.parametrize(
    ("language", "minutes", "expected"),
    [
        ("en", 1, "1 minute"),
        ("de", 2, "2 Minuten"),
        ("ar", 2, "دقيقتان"),
        ("ar", 3, "3 دقائق"),
        ("ar", 11, "11 دقيقة"),
        ("hi", 5, "5 मिनट"),
    ],
)
def test_plurals(language: str, minutes: int, expected: str) -> None:
    """As the language counts: Arabic has a dual, and few and many."""
    claimed = replace(CODE, expires_at=NOW + timedelta(minutes=minutes))
    assert expected in in_language(claimed, language, "012345").text


def test_right_to_left() -> None:
    """The page runs from the right, also where the outer tags are dropped; the code and what is technical don't."""
    html = in_language(CODE, "ar", "012345").html
    assert html
    assert re.search(r'<html[^>]* dir="rtl"', html)
    assert re.search(r'<table class="page"[^>]* dir="rtl"', html)
    assert '<div class="code" dir="ltr"' in html
    assert "\u2068203.0.113.0/24\u2069" in visible(html)
    notice = in_language(NOTICE, "ar").text
    assert "\u2068o***@old.example\u2069" in notice
    assert "\u2068" not in in_language(NOTICE, "de").text


def test_isolates_are_not_sent_by_sms() -> None:
    """There each costs one of 70 characters."""
    assert "\u2068" not in in_language(replace(NOTICE, channel="sms"), "ar").text


def test_the_direction_is_known_for_each() -> None:
    """So a new file is enough for a new language."""
    assert {language for language in LANGUAGES if Locale.parse(language).text_direction == "rtl"} == {"ar"}
