"""A browser as pages see it, without JavaScript and without a window: cookies, forms with their hidden fields, 303."""

import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html import unescape
from html.parser import HTMLParser
from ipaddress import IPv4Address
from typing import Any, cast

import httpx

from app.keys import KeyRing
from app.storage.db import Database
from app.web.cookies import per_tenant
from tests.http import BASE_URL, Http
from tests.markup import faults
from tests.people import current_code

BROWSER = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
}
FORM_POST = {"Origin": BASE_URL, "Sec-Fetch-Site": "same-origin"}


class Visitor:
    """Somebody at a browser of their own. `page` is the answer they look at; it has to be valid HTML."""

    def __init__(self, client: httpx.AsyncClient, address: str) -> None:
        self.client = client
        self.address = address
        self.page = httpx.Response(204)

    async def open(self, path: str, **headers: str) -> httpx.Response:
        """Goes to an address, and on to wherever that leads."""
        return self._look(await self.client.get(path, headers=headers, follow_redirects=True))

    async def submit(self, path: str, fields: Mapping[str, str] | None = None, **options: Any) -> httpx.Response:
        """Sends the form of the page they look at, and goes where that leads."""
        return self._look(await self.send(path, fields, follow_redirects=True, **options))

    async def send(self, path: str, fields: Mapping[str, str] | None = None, **options: Any) -> httpx.Response:
        """The same, but stays and only looks at the answer. `csrf_token` among the fields replaces the page's own."""
        headers = FORM_POST | options.pop("headers", {})
        data = {"csrf_token": self.token, **(fields or {})}
        return await self.client.post(path, data=data, headers=headers, **options)

    def _look(self, page: httpx.Response) -> httpx.Response:
        assert faults(page.text) == [], page.url
        self.page = page
        return page

    @property
    def token(self) -> str:
        """The token in the page's first form."""
        found = re.search(r'name="csrf_token" value="([^"]*)"', self.page.text)
        return found[1] if found else ""

    @property
    def text(self) -> str:
        """What the page says, without its tags."""
        reader = _Text()
        reader.feed(self.page.text)
        return re.sub(r"\s+", " ", unescape("".join(reader.parts)))

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies the browser has by now."""
        return {cookie.name: cookie.value or "" for cookie in self.client.cookies.jar}

    @property
    def session(self) -> str | None:
        """The cookie of the one session that the browser has, or None."""
        return next((value for name, value in self.cookies.items() if "gh_session_" in name), None)


def session_name(slug: str) -> str:
    """The name of a tenant's session cookie, on a developer's machine."""
    return f"gh_{per_tenant('session', slug)}"


def challenge_of(person: Visitor, cookie: str = "challenge") -> str:
    """The id of the challenge that a browser has under way, from its cookie."""
    (value,) = [value for name, value in person.cookies.items() if f"gh_{cookie}" in name]
    return value.partition(".")[0]


def looks(person: Visitor, slug: str) -> tuple[Any, ...]:
    """What of an answer could tell one slug, or one address, from another."""
    page = person.page
    body = page.text.replace(slug, "SLUG").replace(person.token or "TOKEN", "TOKEN")
    cookies = re.sub(r"_[0-9a-f]{12}=[^;]*|=[A-Za-z0-9_-]{43}", "=", page.headers.get("set-cookie", ""))
    ignored = {"date", "x-request-id", "set-cookie"}
    headers = sorted((name, value) for name, value in page.headers.items() if name not in ignored)
    return page.status_code, str(page.url).replace(slug, "SLUG"), body, cookies, headers


async def sign_in(person: Visitor, db: Database, ring: KeyRing, slug: str, identifier: str = "") -> None:
    """The shortest way in: as the organisation itself, or as whom the identifier names."""
    await person.open(f"/t/{slug}/login")
    await person.submit(f"/t/{slug}/login", {"identifier": identifier})
    await person.submit(f"/t/{slug}/verify", {"code": await current_code(db, ring, challenge_of(person))})
    assert person.page.url.path == f"/t/{slug}/", person.text


@asynccontextmanager
async def visitor(http: Http) -> AsyncIterator[Visitor]:
    """A fresh browser in front of the application, at an address of its own: addresses are limited."""
    address = str(IPv4Address(0x0A000000 + secrets.randbelow(2**24)))
    # Litestar and httpx type the same protocol differently.
    transport = httpx.ASGITransport(cast("Any", http.app), client=(address, 50001))
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers=BROWSER) as client:
        yield Visitor(client, address)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)
