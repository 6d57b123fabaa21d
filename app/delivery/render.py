"""From a row of the outbox to the message a person reads.

The words stand in `templates/messages/words/<language>.j2`, as named blocks of plain text that serve every channel;
`email.html.j2` and `email.txt.j2` set them. Each block becomes one line, so nothing in a name, a payload or a header of
the request can add a header or a paragraph, and the HTML layout escapes every one of them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from babel import Locale
from css_inline import CSSInliner
from jinja2 import BaseLoader, Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape
from jinja2.runtime import Context

from app import resources
from app.delivery import disowning, gsm, wording
from app.delivery.branding import PLAIN, Branding, Brandings, logo_address
from app.delivery.facts import facts, locale_of
from app.delivery.message import Message, PermanentFailure, one_line
from app.delivery.outbox import Claimed
from app.keys import KeyRing

_TEMPLATES: Final = resources.TEMPLATES / "messages"
_WORDS: Final = "words/"
_DEFAULT: Final = "en"
# The parts of a message that the layouts of an email set.
_PARTS: Final = ("preheader", "heading", "lead", "note", "origin", "closing")
_NOTICES: Final = frozenset(
    {"contact_changed", "factor_changed", "address_taken", "own_contact_changed", "password_changed", "invited"}
)
# What a code is for, where its message says so.
_PURPOSES: Final = {"register": "welcome", "contact": "confirm"}

# A name cut shorter than this says nothing; rather a second segment.
_SHORTEST_NAME: Final = 8
# Kept in one piece and left to right within a line of a right-to-left script (Unicode TR9: FSI, PDI).
_TECHNICAL: Final = ("network", "before", "after")
_ISOLATED: Final = "\u2068{}\u2069"

# The accents as the layout spells them; a tenant's take their place. See `Branding.accents`.
_ACCENTS: Final = {"#76530c": "{{ accent }}", "#dcb45c": "{{ accent_dark }}"}
_LOGO_BOX: Final = (240, 48)


class Addressee(Protocol):
    """What a preview needs of a tenant."""

    @property
    def id(self) -> UUID: ...  # noqa: D102 - these four are as in the contract
    @property
    def slug(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def timezone(self) -> str: ...  # noqa: D102


class _InliningLoader(FileSystemLoader):
    """Loads HTML with its style inlined: once for each file, not for each mail."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, filename, fresh = super().get_source(environment, template)
        if template.endswith(".html.j2"):
            source = CSSInliner(keep_at_rules=True, load_remote_stylesheets=False).inline(source)
            for spelled, name in _ACCENTS.items():
                source = source.replace(spelled, name)
        return source, filename, fresh


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of one message in one language."""

    template: Template
    message: str
    locale: Locale

    def context(self, known: Mapping[str, Any]) -> Context:
        return self.template.new_context(dict(known))

    def line(self, part: str, context: Context) -> str:
        """One part. Whatever white space is in it, line breaks included, becomes blanks."""
        return " ".join("".join(self.template.blocks[f"{self.message}_{part}"](context)).split())


class Renderer:
    """Renders messages, each in the language of whoever asked or is told, else the tenant's, else English.

    `public_url` is where links lead, and the host that SMS autofill is bound to when it is https. Without a `ring`
    emails have no "it wasn't me" link, without `brandings` every tenant looks the same.
    """

    def __init__(
        self,
        public_url: str,
        *,
        ring: KeyRing | None = None,
        brandings: Brandings | None = None,
        loader: BaseLoader | None = None,
    ) -> None:
        environment = Environment(
            loader=loader or _InliningLoader(_TEMPLATES),
            autoescape=select_autoescape(["html.j2"], default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            auto_reload=False,
        )
        self._html = environment.get_template("email.html.j2")
        self._text = environment.get_template("email.txt.j2")
        self._words = {
            name.removeprefix(_WORDS).removesuffix(".j2"): environment.get_template(name)
            for name in environment.list_templates(["j2"])
            if name.startswith(_WORDS)
        }
        self._public_url = public_url.rstrip("/")
        url = urlsplit(public_url)
        self._autofill_host = url.hostname if url.scheme == "https" else None
        self._ring = ring
        self._brandings = brandings

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages there are words in."""
        return tuple(sorted(self._words))

    async def prepare(self, rows: Iterable[Claimed]) -> None:
        """Looks up how the tenants of these rows want to look: at most one round trip, none for those known."""
        if self._brandings:
            await self._brandings.prepare(row.tenant_id for row in rows if row.state == "sending")

    def render(self, claimed: Claimed, code: str | None, now: datetime) -> Message:
        """The message of a claimed row; `code` for rows of kind `code`.

        Raises `PermanentFailure` when there is nowhere to send it.
        """
        if not claimed.destination:
            raise PermanentFailure("contact-missing", "The recipient has no contact for this channel.")
        branding = self._brandings.known(claimed.tenant_id) if self._brandings else PLAIN
        return self._message(claimed, claimed.destination, code, now, branding)

    def preview(self, tenant: Addressee, branding: Branding, channel: str, locale: str, now: datetime) -> Message:
        """A sign-in code's message as `branding` makes it look, with a code nobody can use and a link to nowhere."""
        sample = Claimed(
            state="sending",
            tenant_id=tenant.id,
            id=UUID(int=0),
            kind="code",
            channel=channel,
            challenge_id=UUID(int=0),
            generation=1,
            destination="somebody",
            payload=None,
            attempts=1,
            last_error_class=None,
            created_at=now,
            expires_at=now + timedelta(minutes=10),
            salt=None,
            key_id=None,
            code_length=6,
            subject_kind="tenant",
            subject_id=tenant.id,
            purpose="sign_in",
            challenge_locale=locale,
            ip="192.0.2.1",
            user_agent="Firefox (Windows)",
            asked_at=now,
            tenant_slug=tenant.slug,
            tenant_name=tenant.name,
            tenant_locale=locale,
            tenant_timezone=tenant.timezone,
        )
        return self._message(sample, "somebody", "123456", now, branding)

    def _message(self, claimed: Claimed, to: str, code: str | None, now: datetime, branding: Branding) -> Message:
        words = self._words_for(claimed)
        known: dict[str, Any] = {
            **{name: _sane(value) for name, value in (claimed.payload or {}).items()},
            **facts(claimed, str(words.locale), now),
            "code": code,
            "tenant": one_line(claimed.tenant_name or ""),
            "register_url": f"{self._public_url}/t/{claimed.tenant_slug}/register",
        }
        subject = html = None
        if claimed.channel == "email":
            subject, text, html = self._email(words, known, claimed, branding)
        elif claimed.channel == "sms":
            text = self._sms(words, known, branding)
        else:
            text = words.line("short", words.context(known))
        return Message(
            id=_message_id(claimed),
            channel=claimed.channel,
            tenant=claimed.tenant_slug or "",
            to=to,
            date=claimed.created_at,
            subject=subject,
            text=text,
            html=html,
            code=code,
            locale=str(words.locale).replace("_", "-"),
            # At least one: vendors take none as no limit.
            valid_seconds=max(1, int((claimed.expires_at - now).total_seconds())) if code else None,
            sender_name=branding.sender_name,
            reply_to=branding.reply_to,
        )

    def _words_for(self, claimed: Claimed) -> _Words:
        message = _message_name(claimed)
        told = (claimed.payload or {}).get("locale")
        for tag in (claimed.challenge_locale, told, claimed.tenant_locale, _DEFAULT):
            locale = locale_of(tag)
            if locale and (template := self._words.get(locale.language)):
                return _Words(template, message, locale)
        raise LookupError(message)

    def _email(
        self, words: _Words, known: dict[str, Any], claimed: Claimed, branding: Branding
    ) -> tuple[str, str, str]:
        """Subject, text and HTML."""
        right_to_left = words.locale.text_direction == "rtl"
        told = {n: _ISOLATED.format(known[n]) for n in _TECHNICAL if known.get(n)} if right_to_left else {}
        context = words.context(known | told)
        page: dict[str, Any] = {part: words.line(part, context) for part in _PARTS}
        page |= {"tenant": known["tenant"], "code": known["code"], "intro": None, "link": None}
        if claimed.kind == "code":
            page["intro"] = branding.email_intro and one_line(wording.fill(branding.email_intro, known))
            page["link"] = self._disowning_link(words.line("link", context), claimed)
        elif words.message == "invited":
            page["link"] = {"label": words.line("link", context), "url": known["register_url"]}
        plain = claimed.kind == "code" and not branding.code_in_subject
        subject = words.line("subject_plain" if plain else "subject", context)
        html = self._html.render(
            page,
            lang=words.locale.language,
            dir=words.locale.text_direction,
            logo=self._logo(claimed.tenant_slug, branding),
            **branding.accents,
        )
        return subject, self._text.render(page), html

    def _disowning_link(self, label: str, claimed: Claimed) -> dict[str, str] | None:
        if self._ring is None or claimed.challenge_id is None:
            return None
        token = disowning.token_for(self._ring, claimed.tenant_id, claimed.challenge_id)
        return {"label": label, "url": f"{self._public_url}{disowning.PATH}/{token}"}

    def _logo(self, slug: str | None, branding: Branding) -> dict[str, object] | None:
        logo = branding.logo
        if slug is None or logo is None or self._ring is None:
            return None
        width, height = _LOGO_BOX
        scale = min(1.0, width / logo.width, height / logo.height)
        return {
            "url": f"{self._public_url}{logo_address(self._ring, slug, logo.version)}",
            "width": max(1, round(logo.width * scale)),
            "height": max(1, round(logo.height * scale)),
        }

    def _sms(self, words: _Words, known: dict[str, Any], branding: Branding) -> str:
        """One segment where the alphabet allows: in fewer words, then with the tenant's name cut to fit."""
        # Origin-bound one-time codes (WICG): the last line binds the code to our site for autofill.
        bound = known["code"] and self._autofill_host
        autofill = f"\n\n@{self._autofill_host} #{known['code']}" if bound else ""
        if known["code"] and branding.sms_text:
            return gsm.plain(one_line(wording.fill(branding.sms_text, known))) + autofill
        context = words.context(known)
        full = gsm.plain(words.line("short", context)) + autofill
        if not gsm.excess(full) or not known["code"]:
            return full
        brief = gsm.plain(words.line("brief", context)) + autofill
        name = gsm.plain(known["tenant"])
        if 0 < (excess := gsm.excess(brief)) <= len(name) - _SHORTEST_NAME:
            cut = words.context({**known, "tenant": name[:-excess].rstrip()})
            brief = gsm.plain(words.line("brief", cut)) + autofill
        return full if gsm.excess(brief) else brief


def _message_name(claimed: Claimed) -> str:
    """What the blocks of a row's message are called. Raises `ValueError` for a notice nobody wrote words for."""
    if claimed.kind != "notice":
        return _PURPOSES.get(claimed.purpose or "", claimed.kind) if claimed.kind == "code" else claimed.kind
    name = (claimed.payload or {}).get("template")
    if name not in _NOTICES:
        raise ValueError("notice without a known template")
    return str(name)


def _message_id(claimed: Claimed) -> str:
    """The same for every copy of a message, and known to its readers only: whoever can name it is believed a bounce.

    So it holds the salt, which stays here, because whoever asked knows the challenge's id. Hashed: neither is for mail
    logs.
    """
    source = claimed.id.bytes
    if claimed.challenge_id is not None and claimed.salt is not None:
        source = claimed.challenge_id.bytes + (claimed.generation or 0).to_bytes(4, "big") + claimed.salt
    return hashlib.sha256(b"message-id" + source).hexdigest()[:32]


def _sane(value: object) -> object:
    return one_line(value) if isinstance(value, str) else value
