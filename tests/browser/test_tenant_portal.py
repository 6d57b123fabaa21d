"""A tenant's person in real Chromium: from the front door to signed out, with a code from a real mailbox."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from playwright.async_api import expect

from app.audit.log import Actor, Client
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.delivery.disowning import token_for
from app.keys import KeyRing
from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import Site, Window
from tests.people import SomeTenant, add_tenant, wrong

OpenWindow = Callable[..., Awaitable[Window]]

FRONT_END: Final = "https://app.example/signed-in"


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    """Every channel that a pictured page can offer, and a front end to return to."""
    return {"sms_enabled": True, "whatsapp_enabled": True, "return_urls": (FRONT_END,)}


async def sign_in(site: Site, window: Window, tenant: SomeTenant) -> None:
    """The shortest way in."""
    assert tenant.email
    await window.open(f"/t/{tenant.slug}/login")
    await window.press("Send me a code")
    await window.page.get_by_label("Code").fill(await site.code_for(tenant.email))
    await window.press("Sign in")


async def test_from_the_front_door_to_signed_out(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Names the organisation, mistypes the code, asks for another, signs in, looks around, signs out."""
    tenant = await add_tenant(db, utc_now(), name="Northwind Energy", phone_number="+447700900123")
    assert tenant.email
    window = await open_window()
    page = window.page

    await window.open("/")
    await expect(page).to_have_title(re.compile("^Sign in . Gatehouse$"))
    await window.check("tenant-start")
    await page.get_by_label("Your organisation").fill(tenant.slug)
    await window.press("Continue")

    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    await window.check("tenant-login")
    await window.press("Send me a code")
    first = await site.code_for(tenant.email)
    await expect(page.get_by_label("Code")).to_be_focused()
    await window.check("tenant-verify")

    await page.get_by_label("Code").fill(wrong(first))
    await window.press("Sign in")
    await expect(page).to_have_title(re.compile("^Error: Enter your code"))
    await expect(page.get_by_label("Code")).to_be_focused()
    await expect(page.get_by_role("link", name=re.compile("^Wrong code . 4 attempts left$"))).to_be_visible()
    await window.check("tenant-wrong-code")

    await window.press("Send a new code")
    await expect(page.get_by_role("status").first).to_contain_text("A new code is on its way.")
    second = await site.code_for(tenant.email)
    assert second != first
    await page.get_by_label("Code").fill(f"{second[:3]} {second[3:]}")
    await window.press("Sign in")

    await expect(page.get_by_role("heading", level=1)).to_have_text("Northwind Energy")
    said = await window.says()
    assert tenant.email not in said
    assert "o***@" in said
    assert "Wrong code, 4 tries left" in said
    await window.check("tenant-dashboard")

    await window.press("Sign out")
    await expect(page.get_by_role("status").first).to_contain_text("You are signed out.")
    await window.open(f"/t/{tenant.slug}/")
    await expect(page).to_have_url(f"{site.url}/t/{tenant.slug}/login")


async def test_the_page_tells_by_itself_that_the_code_was_sent(
    db: Database, site: Site, open_window: OpenWindow
) -> None:
    """Nobody has to reload: the line about the delivery changes while one looks at it."""
    tenant = await add_tenant(db, utc_now())
    window = await open_window()
    await window.open(f"/t/{tenant.slug}/login")
    await window.press("Send me a code")
    await expect(window.page.locator("#delivery")).to_contain_text("Your code is on its way")
    await expect(window.page.locator("#delivery")).to_contain_text("Sent.")


async def test_one_browser_ends_another(db: Database, site: Site, open_window: OpenWindow) -> None:
    """A session in the list is ended from the first browser; the second is signed out at its next step."""
    tenant = await add_tenant(db, utc_now())
    here, there = await open_window(), await open_window(width=390, height=844)
    await sign_in(site, here, tenant)
    await sign_in(site, there, tenant)
    await here.open(f"/t/{tenant.slug}/")
    await here.check("tenant-two-sessions")
    await here.press("End the session on Chrome on Linux")
    await expect(here.page.get_by_role("status").first).to_contain_text("That session has ended.")
    await there.open(f"/t/{tenant.slug}/")
    await expect(there.page).to_have_url(f"{site.url}/t/{tenant.slug}/login?done=ended")


async def test_everything_works_without_javascript(db: Database, site: Site, open_window: OpenWindow) -> None:
    """The same with scripts switched off: a second code, sign in, forget the device, sign out."""
    tenant = await add_tenant(db, utc_now())
    assert tenant.email
    window = await open_window(javascript=False)
    await window.open("/login")
    await window.page.get_by_label("Your organisation").fill(tenant.slug)
    await window.press("Continue")
    await window.press("Send me a code")
    await site.code_for(tenant.email)
    await window.press("Send a new code")
    await window.page.get_by_label("Code").fill(await site.code_for(tenant.email))
    await window.press("Sign in")
    await expect(window.page.get_by_role("heading", name="Known devices")).to_be_visible()
    await window.press("Forget Chrome on Linux")
    await expect(window.page.get_by_role("heading", name="Known devices")).to_have_count(0)
    await window.press("Sign out")
    await expect(window.page.get_by_text("You are signed out.")).to_be_visible()


async def test_a_keyboard_is_enough(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Tab, type and Enter lead from the front door to the dashboard and out again; the focus can always be seen."""
    tenant = await add_tenant(db, utc_now())
    assert tenant.email
    window = await open_window()
    keys, page = window.page.keyboard, window.page

    async def tab_to(name: str, role: str = "button") -> None:
        target = page.get_by_role(role, name=name, exact=True).first  # type: ignore[arg-type]  # a role by its name
        for _ in range(40):
            if await target.evaluate("element => element === document.activeElement"):
                outline = await target.evaluate("element => getComputedStyle(element).outlineStyle")
                assert outline == "solid", f"no focus ring on {name}"
                return
            await keys.press("Tab")
        raise AssertionError(f"the keyboard doesn't reach {name}")

    async def enter() -> None:
        async with page.expect_navigation():
            await keys.press("Enter")

    await window.open("/login")
    await keys.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await tab_to("Your organisation", "textbox")
    await keys.type(tenant.slug)
    await enter()
    await tab_to("Send me a code")
    await enter()
    await expect(page.get_by_label("Code", exact=True)).to_be_focused()
    await keys.type(await site.code_for(tenant.email))
    await enter()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Acme")
    await tab_to("Sign out")
    await enter()
    await expect(page.get_by_text("You are signed out.")).to_be_visible()


async def test_the_other_pages_hold_to_the_same_standards(
    db: Database, site: Site, open_window: OpenWindow, ring: KeyRing
) -> None:
    """Refused forms, ended sign-ins, links and problem pages: the ways nobody looks at until they are there."""
    tenant = await add_tenant(db, utc_now())
    window = await open_window()
    page = window.page
    await window.open("/login")
    await page.get_by_label("Your organisation").fill("Acme Ltd")
    await window.press("Continue")
    await expect(page.get_by_label("Your organisation")).to_be_focused()
    await window.check("tenant-start-error")

    await window.open(f"/t/{tenant.slug}/login")
    await page.get_by_label("Your email or phone number").fill("owner@")
    await window.press("Send me a code")
    await expect(page.get_by_label("Your email or phone number")).to_be_focused()
    await window.check("tenant-login-error")
    await page.get_by_label("Your email or phone number").fill("")
    await window.press("Send me a code")
    await page.get_by_text("Not received?").click()
    await window.check("tenant-not-received")
    for _ in range(5):
        await page.get_by_label("Code").fill("000000")
        await window.press("Sign in")
    await expect(page.get_by_text("Too many attempts")).to_be_visible()
    await window.check("tenant-too-many")

    sessions = Sessions(db, ring, site.settings, utc_now)
    link = await Links(db, sessions, utc_now).create(tenant.id, ("tenant", tenant.id), Actor("operator"), Client("cli"))
    await window.open(f"/t/{tenant.slug}/link/{link}")
    await window.check("tenant-link")
    await window.press("Sign in")
    await expect(page).to_have_url(f"{site.url}/t/{tenant.slug}/")
    await window.open(f"/t/{tenant.slug}/link/{link}")
    await window.press("Sign in")
    await expect(page.get_by_text("This link has expired or was used already.")).to_be_visible()
    await window.check("tenant-link-used")

    await window.open(f"/not-me/{token_for(ring, tenant.id, tenant.id)}")
    await window.press("Make this code useless")
    await window.check("tenant-not-me-told")
    await window.open("/t/ACME/login")
    await window.check("problem")
    await window.open("/problems/rate-limited")
    await window.check("problem-type")


async def test_a_front_end_on_another_site_gets_its_person_back(
    db: Database, site: Site, open_window: OpenWindow
) -> None:
    """The browser lands at the front end it came from, although no form may lead there (`form-action`)."""
    tenant = await add_tenant(db, utc_now())
    assert tenant.email
    window = await open_window()
    await window.page.route("https://app.example/**", lambda route: route.fulfill(body="back at the front end"))
    await window.open(f"/t/{tenant.slug}/login?next={FRONT_END}/orders")
    await window.press("Send me a code")
    await window.page.get_by_label("Code").fill(await site.code_for(tenant.email))
    await window.page.get_by_role("button", name="Sign in", exact=True).click()
    await window.page.wait_for_url(f"{FRONT_END}/orders")
    assert await window.says() == "back at the front end"


async def test_a_code_can_come_another_way(db: Database, site: Site, open_window: OpenWindow) -> None:
    """The page offers every installed channel; the one that is chosen is the one that is said."""
    tenant = await add_tenant(db, utc_now(), phone_number="+447700900123")
    window = await open_window()
    await window.open(f"/t/{tenant.slug}/login")
    await window.page.get_by_label("WhatsApp").check()
    await window.press("Send me a code")
    assert "we have sent you a code by WhatsApp" in await window.says()
    await window.page.get_by_text("Not received?").click()
    await window.press("By SMS")
    assert "we have sent you a code by SMS" in await window.says()
