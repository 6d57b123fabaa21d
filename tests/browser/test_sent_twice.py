"""Real Chromium on a slow line: buttons pressed twice, answers that got lost, two organisations, and an idle admin."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from playwright.async_api import expect

from app.audit.log import Actor, Client
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.storage.db import Database
from tests.admins import add_admin
from tests.browser.conftest import ClockAhead, Site, Window
from tests.people import SomeTenant, add_tenant, count

OpenWindow = Callable[..., Awaitable[Window]]

LATENCY_MS: Final = 150
APART_SECONDS: Final = 0.12
_SESSIONS: Final = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'session.started'"
_CODES: Final = "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'code'"
# Past the lock, as a browser without it sends a form that is pressed twice.
_SUBMIT_TWICE: Final = """
(apart) => { const form = document.querySelector("main form"); form.submit(); setTimeout(() => form.submit(), apart); }
"""


@pytest.fixture(scope="module")
def now() -> ClockAhead:
    """A clock that these tests set forward."""
    return ClockAhead()


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    """Two ways for a code, and as long to wait for another as people have."""
    return {
        "sms_enabled": True,
        "sms_provider": ("console",),
        "otp_resend_cooldown_seconds": 60,
        # Whoever may not know how the delivery went is told nothing of a failure.
        "otp_disclose_errors": True,
    }


async def slow(window: Window) -> None:
    """Every answer takes its time; one that is given up meanwhile is lost, its cookies too."""
    line = await window.page.context.new_cdp_session(window.page)
    unlimited = {"downloadThroughput": -1, "uploadThroughput": -1}
    await line.send("Network.enable")
    await line.send("Network.emulateNetworkConditions", {"offline": False, "latency": LATENCY_MS, **unlimited})


async def press_twice(window: Window, name: str) -> None:
    """A person's two clicks, the second before the first one's answer."""
    box = await window.page.get_by_role("button", name=name, exact=True).bounding_box()
    assert box
    at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await window.page.mouse.click(*at)
    await asyncio.sleep(APART_SECONDS)
    await window.page.mouse.click(*at)


async def signed_in(site: Site, window: Window, tenant: SomeTenant) -> None:
    assert tenant.email
    await window.open(f"/t/{tenant.slug}/login")
    await window.press("Send me a code")
    await window.page.get_by_label("Code").fill(await site.code_for(tenant.email))
    await window.press("Sign in")
    await expect(window.page).to_have_url(f"{site.url}/t/{tenant.slug}/")


@pytest.mark.parametrize("javascript", [True, False], ids=["locked", "without JavaScript"])
async def test_two_clicks_sign_in_once(
    db: Database, site: Site, open_window: OpenWindow, now: ClockAhead, javascript: bool
) -> None:
    """One mail for two clicks, its code is right, and two clicks with it lead in, with one session."""
    tenant = await add_tenant(db, now())
    assert tenant.email
    window = await open_window(javascript=javascript)
    await window.open(f"/t/{tenant.slug}/login")
    await slow(window)
    await press_twice(window, "Send me a code")
    await expect(window.page).to_have_url(re.compile("/verify$"))
    await window.page.get_by_label("Code").fill(await site.code_for(tenant.email))
    await press_twice(window, "Sign in")
    await expect(window.page).to_have_url(f"{site.url}/t/{tenant.slug}/")
    await window.page.reload()
    await expect(window.page.get_by_role("button", name="Sign out", exact=True)).to_be_visible()
    assert await count(db, _CODES, tenant.id) == 1
    assert await count(db, _SESSIONS, tenant.id) == 1


@pytest.mark.parametrize("apart", [0, 60, 120, 400], ids="{} ms".format)
async def test_the_first_answer_is_lost(
    db: Database, site: Site, open_window: OpenWindow, now: ClockAhead, apart: int
) -> None:
    """Whenever the second request comes: before the first, while it is under way, or when its answer is there."""
    tenant = await add_tenant(db, now())
    assert tenant.email
    window = await open_window()
    await window.open(f"/t/{tenant.slug}/login")
    await window.press("Send me a code")
    await window.page.get_by_label("Code").fill(await site.code_for(tenant.email))
    await slow(window)
    await window.page.evaluate(_SUBMIT_TWICE, apart)
    await expect(window.page).to_have_url(f"{site.url}/t/{tenant.slug}/")
    await window.page.reload()
    await expect(window.page).to_have_url(f"{site.url}/t/{tenant.slug}/")
    assert await count(db, _SESSIONS, tenant.id) == 1


async def test_links_and_the_admins_code_are_not_burnt(
    db: Database, site: Site, open_window: OpenWindow, now: ClockAhead, sessions: Sessions
) -> None:
    """A tenant's sign-in link, a break-glass link and an admin's code, each with its first answer lost."""
    tenant, admin = await add_tenant(db, now()), await add_admin(db, now)  # type: ignore[arg-type]
    links, shell = Links(db, sessions, now), (Actor("operator"), Client("cli"))
    window = await open_window()
    token = await links.create(tenant.id, ("tenant", tenant.id), *shell)
    await window.open(f"/t/{tenant.slug}/link/{token}")
    await slow(window)
    await window.page.evaluate(_SUBMIT_TWICE, 120)
    await expect(window.page).to_have_url(f"{site.url}/t/{tenant.slug}/")

    await window.open("/admin/sign-in?next=/admin/tenants")
    await window.page.get_by_label("Email").fill(admin.email)
    await press_twice(window, "Send me a code")
    await window.page.get_by_label("Code").fill(await site.code_for(admin.email))
    await window.page.evaluate(_SUBMIT_TWICE, 120)
    await expect(window.page).to_have_url(f"{site.url}/admin/tenants")
    await window.page.get_by_role("button", name="Sign out", exact=True).click()
    await expect(window.page).to_have_url(re.compile("/admin/sign-in"))


async def test_a_form_opens_again(db: Database, site: Site, open_window: OpenWindow, now: ClockAhead) -> None:
    """Locked when it is sent, it looks so also under the pointer; after a failure, and back on the page, it is open."""
    tenant = await add_tenant(db, now())
    window = await open_window()
    page = window.page
    await window.open(f"/t/{tenant.slug}/login")
    button = page.get_by_role("button", name="Send me a code", exact=True)
    await page.evaluate("addEventListener('submit', () => setTimeout(() => stop(), 5), {once: true})")
    await page.route("**/login", lambda _: asyncio.sleep(30))
    await page.clock.install()
    await button.click(no_wait_after=True)
    await expect(button).to_be_disabled()
    look = "(each) => [getComputedStyle(each).backgroundColor, getComputedStyle(each).textDecorationLine]"
    pointed = await button.evaluate(look)
    await page.mouse.move(0, 0)
    assert await button.evaluate(look) == pointed
    await page.clock.run_for(11_000)
    await expect(button).to_be_enabled()
    await page.unroute("**/login")
    await button.click()
    await expect(page).to_have_url(re.compile("/verify$"))
    await page.go_back()
    await expect(button).to_be_enabled()


async def test_two_organisations_in_one_browser(
    db: Database, site: Site, open_window: OpenWindow, now: ClockAhead
) -> None:
    """Signed in to both, in two tabs; signing out of one leaves the other."""
    one, two = await add_tenant(db, now(), name="One"), await add_tenant(db, now(), name="Two")
    window = await open_window()
    await signed_in(site, window, one)
    await signed_in(site, window, two)
    for tenant in (one, two):
        await window.open(f"/t/{tenant.slug}/")
        await expect(window.page).to_have_url(f"{site.url}/t/{tenant.slug}/")
    await window.press("Sign out")
    now.forward(seconds=4)
    await window.open(f"/t/{two.slug}/")
    await expect(window.page).to_have_url(re.compile(f"/t/{two.slug}/login"))
    await window.open(f"/t/{one.slug}/")
    await expect(window.page).to_have_url(f"{site.url}/t/{one.slug}/")


async def test_an_idle_admin_comes_back_to_the_page(
    db: Database, site: Site, open_window: OpenWindow, now: ClockAhead
) -> None:
    """After 15 minutes: told so, no circle of redirects, and after the code on the same page again."""
    tenant, admin = await add_tenant(db, now()), await add_admin(db, now)  # type: ignore[arg-type]
    window = await open_window()
    page = window.page

    async def prove() -> None:
        await window.press("Send me a code")
        await page.get_by_label("Code").fill(await site.code_for(admin.email))
        await window.press("Sign in")

    await window.open("/admin/sign-in")
    await page.get_by_label("Email").fill(admin.email)
    await prove()
    there = f"/admin/tenants/{tenant.slug}"
    await window.open(there)
    now.forward(minutes=16)
    # Within the seconds in which a process still believes in the session.
    await window.open(there)
    assert "You were signed out after 15 minutes without use" in await window.says()
    await page.get_by_label("Email").fill(admin.email)
    await prove()
    await expect(page).to_have_url(site.url + there)


async def test_the_ways_out_open_when_the_page_says_so(
    db: Database, site: Site, open_window: OpenWindow, now: ClockAhead
) -> None:
    """A failed delivery: while the buttons are shut the page says for how long; then it says that they are open."""
    tenant = await add_tenant(db, now(), phone_number="+447700900123")
    window = await open_window()
    page = window.page
    await page.clock.install()
    await window.open(f"/t/{tenant.slug}/login")
    await window.press("Send me a code")
    async with db.every_tenant() as connection:
        await connection.execute("UPDATE outbox SET state = 'failed' WHERE tenant_id = $1", tenant.id)
    await page.reload()
    told, way = page.locator("#delivery"), page.get_by_role("button", name="By SMS", exact=True)
    await expect(told).to_contain_text(re.compile(r"You can try another way below in \d+ seconds"))
    await expect(told).not_to_contain_text("Try another way below")
    await expect(way).to_be_visible()
    await expect(way).to_be_disabled()
    await page.clock.run_for(61_000)
    await expect(told).to_contain_text("Failed to deliver the code (Email). Try another way below.")
    await expect(way).to_be_enabled()
    now.forward(seconds=61)
    await window.press("By SMS")
    assert "A new code is on its way." in await window.says()
