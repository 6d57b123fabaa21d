"""From a row of the outbox to the message a person reads.

The words stand in `templates/messages/<language>/<message>.j2`, as named blocks of plain text that serve every
channel; `email.html.j2` and `email.txt.j2` set them. Each block becomes one line, so nothing in a name, a payload or
a header of the request can add a header or a paragraph, and the HTML layout escapes every one of them.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time, format_timedelta
from css_inline import CSSInliner
from jinja2 import BaseLoader, Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape

from app import resources
from app.delivery import gsm
from app.delivery.client import browser_and_system
from app.delivery.message import Message, PermanentFailure, one_line
from app.delivery.outbox import Claimed
from app.masking import mask_ip

_TEMPLATES: Final = resources.TEMPLATES / "messages"
_DEFAULT: Final = "en"
# The parts of a message that every words file has.
_PARTS: Final = ("subject", "preheader", "heading", "lead", "note", "origin", "closing")
_NOTICES: Final = frozenset({"contact_changed"})

# One SMS holds so many characters of the GSM alphabet, or of any other.
_GSM_SEGMENT: Final = 160
_UCS2_SEGMENT: Final = 70
# A name cut shorter than this says nothing; rather a second segment.
_SHORTEST_NAME: Final = 8


class _InliningLoader(FileSystemLoader):
    """Loads HTML with its style inlined: once for each file, not for each mail."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, filename, fresh = super().get_source(environment, template)
        if template.endswith(".html.j2"):
            source = CSSInliner(keep_at_rules=True, load_remote_stylesheets=False).inline(source)
        return source, filename, fresh


class Renderer:
    """Renders messages. `public_url` gives the host that SMS autofill is bound to, when it is https."""

    def __init__(self, public_url: str, *, loader: BaseLoader | None = None) -> None:
        self._environment = Environment(
            loader=loader or _InliningLoader(_TEMPLATES),
            autoescape=select_autoescape(["html.j2"], default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            auto_reload=False,
        )
        self._html = self._environment.get_template("email.html.j2")
        self._text = self._environment.get_template("email.txt.j2")
        self._words = {
            (name.split("/")[0], name.split("/")[1].removesuffix(".j2")): self._environment.get_template(name)
            for name in self._environment.list_templates(["j2"])
            if "/" in name
        }
        url = urlsplit(public_url)
        self._autofill_host = url.hostname if url.scheme == "https" else None

    def render(self, claimed: Claimed, code: str | None, now: datetime) -> Message:
        """The message of a claimed row; `code` for rows of kind `code`.

        Raises `PermanentFailure` when there is nowhere to send it.
        """
        if not claimed.destination:
            raise PermanentFailure("contact-missing", "The recipient has no contact for this channel.")
        words, locale = self._words_for(claimed)
        known = {
            **(claimed.payload or {}),
            **_facts(claimed, str(locale), now),
            "code": code,
            "tenant": one_line(claimed.tenant_name or ""),
        }
        if claimed.channel == "email":
            parts = {part: _block(words, part, known) for part in _PARTS}
            page = {**parts, "code": code, "tenant": known["tenant"]}
            subject = parts["subject"]
            text = self._text.render(page)
            html = self._html.render(page, lang=locale.language, dir=locale.text_direction)
        else:
            subject, text, html = None, self._short(words, known), None
        return Message(
            id=_message_id(claimed),
            channel=claimed.channel,
            tenant=claimed.tenant_slug or "",
            to=claimed.destination,
            date=claimed.created_at,
            subject=subject,
            text=text,
            html=html,
            code=code,
            locale=str(locale).replace("_", "-"),
            valid_seconds=max(0, int((claimed.expires_at - now).total_seconds())) if code else None,
        )

    def _words_for(self, claimed: Claimed) -> tuple[Template, Locale]:
        """In the language of whoever asked, else the tenant's, else English."""
        name = _template_name(claimed)
        for tag in (claimed.challenge_locale, claimed.tenant_locale, _DEFAULT):
            locale = _locale(tag)
            if locale and (words := self._words.get((locale.language, name))):
                return words, locale
        raise LookupError(name)

    def _short(self, words: Template, known: dict[str, Any]) -> str:
        """For SMS and its kin: one segment where the alphabet allows, with the tenant's name cut to fit."""
        # Origin-bound one-time codes (WICG): the last line binds the code to our site for autofill.
        bound = known["code"] and self._autofill_host
        autofill = f"\n\n@{self._autofill_host} #{known['code']}" if bound else ""
        text = _block(words, "short", known) + autofill
        name = known["tenant"]
        if 0 < (excess := _excess(text)) <= len(name) - _SHORTEST_NAME:
            text = _block(words, "short", {**known, "tenant": name[:-excess].rstrip()}) + autofill
        return text


def _template_name(claimed: Claimed) -> str:
    """The words file of a row. Raises `ValueError` for a notice nobody wrote words for."""
    if claimed.kind != "notice":
        return claimed.kind
    name = (claimed.payload or {}).get("template")
    if name not in _NOTICES:
        raise ValueError("notice without a known template")
    return str(name)


def _message_id(claimed: Claimed) -> str:
    """The same for every copy of a message. Hashed: a challenge's id is for whoever asked, not for mail logs."""
    source = claimed.id.bytes
    if claimed.challenge_id is not None:
        source = claimed.challenge_id.bytes + (claimed.generation or 0).to_bytes(4, "big")
    return hashlib.sha256(b"message-id" + source).hexdigest()[:32]


def _facts(claimed: Claimed, locale: str, now: datetime) -> dict[str, str | None]:
    zone = claimed.tenant_timezone or "UTC"
    asked = _moment((claimed.asked_at or claimed.created_at).replace(second=0, microsecond=0), zone, locale)
    expires = _moment(claimed.expires_at.replace(second=0, microsecond=0), zone, locale)
    browser, system = browser_and_system(claimed.user_agent)
    return {
        "asked_date": asked[0],
        "asked_time": asked[1],
        "expires_time": expires[1],
        "zone": expires[2],
        "lifetime": _lifetime(max(1, int((claimed.expires_at - now).total_seconds() + 30) // 60), locale),
        "browser": browser,
        "system": system,
        "network": mask_ip(claimed.ip) if claimed.ip else None,
    }


# Mails of one minute share their times, and Babel isn't cheap.
@lru_cache(maxsize=1024)
def _moment(minute: datetime, zone: str, locale: str) -> tuple[str, str, str]:
    """Date, time and offset as written in a language."""
    try:
        local = minute.astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        local = minute
    offset = local.strftime("%z")
    shown = "UTC" if offset == "+0000" else f"UTC{offset[:3]}:{offset[3:]}"
    return format_date(local, "long", locale), format_time(local, "short", locale=locale), shown


@lru_cache(maxsize=256)
def _lifetime(minutes: int, locale: str) -> str:
    return format_timedelta(timedelta(minutes=minutes), granularity="minute", threshold=60, locale=locale)


@lru_cache(maxsize=256)
def _locale(tag: str | None) -> Locale | None:
    """The locale of a BCP 47 tag, if it is one that is known."""
    try:
        return Locale.parse(tag, sep="-") if tag else None
    except (UnknownLocaleError, ValueError):
        return None


def _block(words: Template, part: str, known: dict[str, Any]) -> str:
    return one_line("".join(words.blocks[part](words.new_context(known))))


def _excess(text: str) -> int:
    """How many characters an SMS has beyond one segment; none when it fits."""
    if gsm.is_gsm(text):
        return len(text) + sum(c in gsm.EXTENSION for c in text) - _GSM_SEGMENT
    return len(text.encode("utf-16-be")) // 2 - _UCS2_SEGMENT
