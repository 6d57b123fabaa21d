"""Admins to sign in as, and a browser for them that speaks HTTP: it keeps cookies and sends forms as it got them."""

import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx

from app.audit.log import Actor, Client
from app.auth.admins import Admin, Admins
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import BASE_URL, Http, serve
from tests.people import SomeTenant, add_tenant, current_code

_numbers = itertools.count(1)
_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
HTML = {"Accept": "text/html"}


async def add_admin(db: Database, clock: Clock, role: str = "owner") -> Admin:
    """Somebody of the staff with an address of their own in this run."""
    email = f"{role}-{next(_numbers)}-{id(clock):x}@staff.example"
    return await Admins(db, clock).add(email, role, actor=Actor("operator"), client=Client("cli"))


@dataclass(slots=True)
class AdminBrowser:
    """One browser. `page` is the answer it looks at."""

    client: httpx.AsyncClient
    page: httpx.Response

    @classmethod
    def of(cls, http: Http) -> "AdminBrowser":
        """A fresh one, without cookies."""
        client = httpx.AsyncClient(transport=http.client._transport, base_url=BASE_URL, headers=HTML)
        return cls(client, httpx.Response(200))

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Goes to a page; redirects are looked at, not followed."""
        self.page = await self.client.get(path, headers=headers)
        return self.page

    async def post(self, path: str, fields: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        """Sends a form with the token of the page it was on last that had one."""
        sent = {"csrf_token": self.token(), **(fields or {})}
        self.page = await self.client.post(
            path,
            content=urlencode(sent, doseq=True),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": BASE_URL, **headers},
        )
        return self.page

    async def press(self, path: str, on: str, fields: dict[str, Any] | None = None) -> httpx.Response:
        """Goes to the page `on`, and sends its form to `path`."""
        await self.get(on)
        return await self.post(path, fields)

    def token(self) -> str:
        """The CSRF token of the page."""
        found = _TOKEN.search(self.page.text)
        return found[1] if found else ""

    @property
    def words(self) -> str:
        """The page without tags."""
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", re.sub(r"</?bdi>", "", self.page.text))).split())

    def value(self, name: str) -> str | None:
        """What stands in a field of the page's forms."""
        found = re.search(rf'name="{name}"[^>]* value="([^"]*)"', self.page.text)
        return unescape(found[1]) if found else None

    async def sign_in(self, db: Database, ring: KeyRing, admin: Admin, *, at: str = "/admin/sign-in") -> httpx.Response:
        """The whole way in, as `admin`."""
        await self.press("/admin/sign-in", at, {"email": admin.email, "next": self.wanted(at)})
        assert self.page.status_code == 303, self.page.text
        challenge = self.client.cookies["gh_admin_challenge"].split(".")[0]
        code = await current_code(db, ring, challenge)
        await self.get(self.page.headers["location"])
        return await self.post("/admin/sign-in/code", {"code": code, "next": self.value("next") or ""})

    @staticmethod
    def wanted(address: str) -> str:
        """The `next` in a sign-in address."""
        return str(httpx.URL(BASE_URL + address).params.get("next", ""))


@dataclass(frozen=True, slots=True)
class Office:
    """An installation with people in it."""

    http: Http
    db: Database
    ring: KeyRing
    clock: Clock

    async def signed_in(self, role: str = "owner") -> AdminBrowser:
        """The browser of a new admin who has just signed in."""
        browser = AdminBrowser.of(self.http)
        await browser.sign_in(self.db, self.ring, await add_admin(self.db, self.clock, role))
        return browser

    async def tenant(self, **fields: object) -> SomeTenant:
        """A tenant to look after."""
        return await add_tenant(self.db, self.clock(), **fields)


@asynccontextmanager
async def open_office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    """The installation of a test."""
    async with serve(settings, clock) as http:
        yield Office(http, db, ring, clock)


def edit(tenant_page: AdminBrowser, group: dict[str, Any]) -> dict[str, Any]:
    """The fields of the open form, with some changed."""
    hidden = {name: tenant_page.value(name) or "" for name in ("version", *(f"before_{field}" for field in group))}
    return {**hidden, **group}
