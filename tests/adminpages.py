"""Pages about the members of a tenant, as staff see them: a tenant to look after, and what its pages show."""

from collections.abc import AsyncIterator
from html import unescape
from uuid import UUID

import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database, Row
from tests.admins import AdminBrowser, Office, open_office
from tests.conftest import Clock
from tests.markup import faults
from tests.people import SomeTenant, add_member, current_code, wrong


@pytest.fixture
async def office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    async with open_office(settings, clock, db, ring) as opened:
        yield opened


@pytest.fixture
async def tenant(office: Office) -> SomeTenant:
    return await office.tenant(name="Acme Water")


def base_of(tenant: SomeTenant) -> str:
    return f"/admin/tenants/{tenant.slug}/members"


async def somebody(office: Office, tenant: SomeTenant, **fields: object) -> UUID:
    """A member in the table."""
    return await add_member(office.db, office.clock(), tenant, **({"email": "ana@home.example"} | fields))


async def stored(office: Office, member_id: UUID) -> Row | None:
    """A member as the table has them."""
    async with office.db.every_tenant() as connection:
        row: Row | None = await connection.fetchrow("SELECT * FROM members WHERE id = $1", member_id)
    return row


def names(browser: AdminBrowser) -> list[str]:
    """The names in the list."""
    return [line.split("</a>")[0].split(">")[-1] for line in browser.page.text.split('<td class="name">')[1:]]


def leads(browser: AdminBrowser, rel: str) -> str:
    """Where a link of the pager leads."""
    return unescape(browser.page.text.split(f'rel="{rel}" href="')[1].split('"')[0])


async def looks(browser: AdminBrowser, path: str, status: int = 200) -> AdminBrowser:
    """Goes to a page, which has to be valid HTML."""
    await browser.get(path)
    assert browser.page.status_code == status, browser.page.text
    assert faults(browser.page.text) == [], path
    return browser


async def sign_in(office: Office, tenant: SomeTenant, *, wrong_first: int = 0) -> None:
    """The member signs in by the API, after some wrong codes."""
    asked = await office.http.otp(tenant.slug, "request", {"identifier": "ana@home.example"})
    challenge = asked.json()["challenge_id"]
    code = await current_code(office.db, office.ring, challenge)
    for _ in range(wrong_first):
        await office.http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": wrong(code)})
    answer = await office.http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})
    assert answer.status_code == (429 if wrong_first >= 5 else 200), answer.text
