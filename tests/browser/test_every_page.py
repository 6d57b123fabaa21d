"""Every page that the application has, from its own routes: a new one is held to the standards without being named."""

import re
from base64 import b32decode
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from playwright.async_api import expect

from app.asgi import create_app
from app.audit.log import Actor, Client
from app.auth.admins import Admins
from app.auth.factors import totp
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.delivery.disowning import token_for
from app.errors import RateLimited
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import Site, Window
from tests.people import add_member, add_tenant

OpenWindow = Callable[..., Awaitable[Window]]

# What nobody sees by its address alone, and the test that gets there and looks at it.
EXCUSED: Final = {
    "/": "leads to /login at once",
    "/admin/sign-in/code": "a code is asked for: test_admin_portal",
    "/admin/sign-in/second-factor": "half signed in: the same macro in test_second_factor",
    "/admin/tenants/{slug}/branding/preview": "a mail, in a frame: test_mail_look",
    "/admin/tenants/{slug}/test-message/{message_id}": "a part of a page: test_admin_portal",
    "/callbacks/{provider}": "no page: for providers",
    "/docs": "draws itself by JavaScript: below",
    "/docs/{path}": "no page: answers 404",
    "/static/{name}": "no page: files",
    "/t/{slug}/continue": "goes on at once: test_tenant_portal",
    "/t/{slug}/logo": "no page: an image",
    "/t/{slug}/second-factor": "half signed in: test_second_factor",
    "/t/{slug}/verify": "a code is asked for: test_tenant_portal",
    "/t/{slug}/verify/status": "a part of a page: test_tenant_portal",
}

# What is asked for where an address alone says too little.
QUERIES: Final = {"/admin/tenants/{slug}/members/codes": "?codes=off&of=found"}

# Enough to turn a page.
_MANY: Final = 30


def pages(app: Litestar) -> list[str]:
    """Paths that a browser can open; what answers something else than HTML is found out by asking."""
    return [
        route.path_format
        for route in app.routes
        if isinstance(route, HTTPRoute) and "GET" in route.methods and not route.path_format.startswith("/api/")
    ]


@pytest.mark.parametrize("part", ["/admin/tenants/{", "/admin", "/t/", "/"])
async def test_held_to_the_standards(
    part: str, db: Database, site: Site, open_window: OpenWindow, ring: KeyRing
) -> None:
    """As a stranger, and where that leads away, as the tenant's own person, as a member, or as an owner."""
    parts = ["/admin/tenants/{", "/admin", "/t/", "/"]
    everybody, values = await _people(db, site, open_window, ring)
    for path in pages(create_app(site.settings)):
        if part != next(start for start in parts if path.startswith(start)) or path in EXCUSED:
            continue
        assert await _look(path, path.format_map(values) + QUERIES.get(path, ""), everybody), (
            f"nobody gets to see {path}"
        )


def test_what_is_looked_at_elsewhere_is_there(settings: Settings) -> None:
    """Nothing is excused that is no page any more."""
    assert EXCUSED.keys() <= set(pages(create_app(settings)))


async def test_the_api_reference_draws_itself(open_window: OpenWindow) -> None:
    """From our own document, under our policy, and to the standards, also with an operation open, being tried out, and
    with the dialog that asks for a token.
    """
    window = await open_window()
    await window.open("/docs")
    operation = window.page.locator(".opblock-summary-control", has_text="Ask for a code").first
    await expect(operation).to_be_visible()
    await window.check("page-docs")
    await operation.click()
    await expect(window.page.get_by_role("button", name="Try it out")).to_be_visible()
    await window.check("page-docs-operation")
    await window.page.get_by_role("button", name="Try it out").click()
    await expect(window.page.get_by_role("textbox", name="Request body")).to_be_visible()
    await window.check("page-docs-try")
    await window.page.get_by_role("button", name="Authorize", exact=True).click()
    await expect(window.page.get_by_role("heading", name="Available authorizations")).to_be_visible()
    await window.check("page-docs-authorize")
    await window.page.get_by_role("button", name="Close").first.click()
    await expect(window.page.get_by_role("heading", name="Available authorizations")).to_be_hidden()


async def _look(path: str, address: str, everybody: list[Window]) -> bool:
    """Whether somebody sees it. What is no page passes unseen."""
    for window in everybody:
        answer = await window.page.request.get(window.url + address, max_redirects=0, headers={"Accept": "text/html"})
        if answer.ok:
            if answer.headers.get("content-type", "").startswith("text/html"):
                await window.open(address)
                await window.check("page" + path.replace("/", "-").replace("{", "").replace("}", ""))
            return True
    return False


async def _people(db: Database, site: Site, open_window: OpenWindow, ring: KeyRing) -> tuple[list[Window], "_Values"]:
    """A stranger, and with an app each a tenant's person, a member and an owner; what their addresses are made of."""
    now = utc_now()
    tenant = await add_tenant(db, now, name="Northwind Energy", phone_number="+447700900123")
    member = await add_member(db, now, tenant, email=f"ana@{tenant.slug}.example")
    admin = await Admins(db, utc_now).add(
        f"owner@{tenant.slug}.example", "owner", actor=Actor("operator"), client=Client("cli")
    )
    for n in range(_MANY):
        await add_tenant(
            db,
            now,
            name=f"Branch {n} of an organisation with quite a long name, as holdings like to have them GmbH",
            status="active" if n % 3 else "suspended",
            email=None if n % 4 == 0 else f"somebody.with.a.long.name.{n}@department.of.a.long.domain.example",
        )
    consent = uuid4()
    async with db.every_tenant() as connection:
        await connection.execute(
            "INSERT INTO consents (tenant_id, id, member_id, document, version, given_at)"
            " VALUES ($1, $2, $3, 'member-data', '1', $4)",
            *(tenant.id, consent, member, now),
        )
    links = Links(db, Sessions(db, ring, site.settings, utc_now), utc_now)

    async def link(tenant_id: UUID, kind: Any, subject: UUID) -> str:
        return await links.create(tenant_id, (kind, subject), Actor("operator"), Client("cli"))

    everybody = [await open_window() for _ in range(4)]
    own = f"/t/{tenant.slug}"
    for window, address, factors in (
        (everybody[1], f"{own}/link/{await link(tenant.id, 'tenant', tenant.id)}", f"{own}/factors"),
        (everybody[2], f"{own}/link/{await link(tenant.id, 'member', member)}", f"{own}/factors"),
        (everybody[3], f"/admin/link/{await link(SYSTEM_TENANT, 'admin', admin.id)}", "/admin/second-factor"),
    ):
        await window.open(address)
        await window.press("Sign in")
        await window.open(factors)
        await window.press("Set up an app")
        shown = await window.page.locator(".key").text_content()
        assert shown
        code = totp.code_at(b32decode(re.sub(r"\s", "", shown)), totp.step_at(utc_now()))
        await window.page.get_by_label("The 6 digits that the app shows now").fill(code)
        await window.press("Confirm")
    await everybody[2].open(f"{own}/contacts/email")
    await everybody[2].page.get_by_label("New email address").fill(f"new@{tenant.slug}.example")
    await everybody[2].press("Send me a code")
    return everybody, _Values(
        slug=tenant.slug,
        member_id=str(member),
        consent_id=str(consent),
        session_id=str(tenant.id),
        message_id=str(tenant.id),
        code=RateLimited.code,
        provider="smtp",
        name="email",
        token=token_for(ring, tenant.id, tenant.id),
    )


class _Values(dict[str, str]):
    def __missing__(self, name: str) -> str:
        raise AssertionError(f"say in `_people` what stands for {{{name}}}")
