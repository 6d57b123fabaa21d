"""How an email is built: what mail readers need of it, by day and by night. What it looks like is in docs/images."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Final

import pytest

from app.delivery import colour
from app.delivery.branding import PLAIN, Logo
from app.delivery.message import Message
from tests.unit.test_messages import CODE, NOTICE, NOW, RENDERER, render
from tests.unit.test_messages_branding import preview

VOID: Final = frozenset({"meta", "img", "br"})
_COLOUR: Final = re.compile(r"(?:^|;)\s*color:\s*(#[0-9a-f]{6})")
_GROUND: Final = re.compile(r"(?:^|;)\s*background:\s*(#[0-9a-f]{6})")


class Page(HTMLParser):
    """Each text with its tag, and the text and ground colours it is seen in."""

    def __init__(self, html: str, *, dark: bool = False) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str, str]] = []
        self._night = _night(html) if dark else {}
        self._open: list[tuple[str, str, str]] = [("", "#000000", "#ffffff")]
        self.feed(html)
        assert len(self._open) == 1, "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        _, ink, ground = self._open[-1]
        style = attributes.get("style", "")
        if found := _COLOUR.search(style):
            ink = found[1]
        if found := _GROUND.search(style):
            ground = found[1]
        for name in (tag, *(f".{c}" for c in attributes.get("class", "").split())):
            night = self._night.get(name, {})
            ink, ground = night.get("color", ink), night.get("background", ground)
        if tag not in VOID:
            self._open.append((tag, ink, ground))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tags = {tag for tag, _, _ in self._open}
        if data.strip() and "body" in tags and "style" not in tags:
            self.texts.append((data.strip(), *self._open[-1][1:]))

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def _night(html: str) -> dict[str, dict[str, str]]:
    """The colours of the dark rules, by selector."""
    rules = html.partition("(prefers-color-scheme: dark) {")[2].partition("@media")[0]
    found: dict[str, dict[str, str]] = {}
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", rules):
        told = dict(re.findall(r"(?<![-\w])(color|background): (#[0-9a-f]{6}) !important", body))
        for selector in selectors.split(","):
            found.setdefault(selector.strip(), {}).update(told)
    return found


LOGO: Final = replace(PLAIN, logo=Logo("v1", "image/png", 120, 40), colour="#ffd700", email_intro="Hello")
MAILS: Final = {
    "code": render(),
    "branded": preview(LOGO),
    "right to left": preview(PLAIN, locale="ar"),
    "notice": render(NOTICE, None),
}


def html_of(message: Message) -> str:
    assert message.html
    return message.html


@pytest.mark.parametrize("mail", MAILS.values(), ids=MAILS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_word_is_readable(mail: Message, dark: bool) -> None:
    """4.5:1 for each text on what is behind it, the hidden preheader apart."""
    page = Page(html_of(mail), dark=dark)
    ground = {ground for _, _, ground in page.texts}
    assert ("#faf6ee" in ground) != dark
    assert ("#1c2127" in ground) == dark
    for text, ink, behind in page.texts:
        assert colour.contrast(ink, behind) >= 4.5, (text, ink, behind)


@pytest.mark.parametrize("mail", MAILS.values(), ids=MAILS)
def test_a_mail_loads_and_runs_nothing(mail: Message) -> None:
    """No scripts, forms, fonts, style sheets or pictures from elsewhere; the logo is ours."""
    html = html_of(mail)
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "form", "input", "iframe", "link", "object", "video"}
    assert not re.search(r"@import|@font-face|url\(", html)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    for picture in page.all("img"):
        assert picture["src"].startswith("https://login.acme.example:8443/t/acme/logo?v=")
        assert picture["alt"]
    for link in page.all("a"):
        assert link["href"].startswith("https://login.acme.example:8443/not-me/")


@pytest.mark.parametrize("mail", MAILS.values(), ids=MAILS)
def test_mail_readers_find_what_they_need(mail: Message) -> None:
    """Language, direction, both colour schemes, one heading, tables that are layout only."""
    page = Page(html_of(mail))
    assert page.all("html")[0]["lang"]
    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")
    assert len(page.all("h1")) == 1
    assert all(table["role"] == "presentation" for table in page.all("table"))
    # Gmail cuts a mail off at 102 KB, and drops a style element with more than 8 KB.
    assert len(html_of(mail).encode()) < 16_000


def test_the_preheader_comes_first_and_tells_the_expiry() -> None:
    """What a list of mails shows beside the subject; it is hidden without `display: none`, which filters dislike."""
    page = Page(html_of(render()))
    assert page.texts[0][0] == "Valid for 10 minutes. Never pass it on."
    assert "display: none" not in html_of(render())


def test_both_parts_say_the_same() -> None:
    """In the same order; a reader of either misses nothing."""
    message = preview(LOGO)
    words = [text for text, _, _ in Page(html_of(message)).texts][1:]
    text = message.text
    for word in words:
        assert word in text, word
        text = text.partition(word)[2]


def test_a_code_stands_once_and_alone() -> None:
    """As text in one element, so that it is copied by a click and found by autofill; eight digits fit as well."""
    for code in ("012345", "01234567"):
        page = Page(html_of(RENDERER.render(CODE, code, NOW)))
        assert [text for text, _, _ in page.texts if code in text] == [code]
