"""S3 in real Chromium: a shop's customer registers with a password, signs in, is locked out for a while, and leaves."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from playwright.async_api import expect

from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import ClockAhead, Site, Window
from tests.browser.staff import Staff
from tests.mailserver import Mail
from tests.people import SomeTenant, add_tenant

OpenWindow = Callable[..., Awaitable[Window]]

EMAIL: Final = "ana@home.example"
PASSWORD: Final = "a window left ajar"
POLICY: Final[dict[str, Any]] = {
    "registration": "open",
    "first_factor": "password",
    "lock_after_failures": 5,
    "resend_cooldown_seconds": 60,
}


@pytest.fixture(scope="module")
def now() -> ClockAhead:
    """A clock that ends cooldowns and locks."""
    return ClockAhead()


async def log_in(window: Window, tenant: SomeTenant, password: str = PASSWORD) -> None:
    """With the password, up to whatever comes after it."""
    page = window.page
    await window.open(f"/t/{tenant.slug}/login")
    await page.get_by_label("Your email or phone number").fill(EMAIL)
    await page.get_by_text("I have a password").click()
    await page.get_by_label("Password", exact=True).fill(password)
    await window.press("Send me a code")


async def enter(window: Window, code: str) -> None:
    await window.page.get_by_label("Code", exact=True).fill(code)
    await window.press("Sign in")


async def out(window: Window) -> None:
    await window.press("Sign out")
    await expect(window.page.get_by_text("You are signed out.")).to_be_visible()


def last_mail(site: Site) -> Mail:
    """The newest one to the customer."""
    return next(mail for mail in reversed(site.mail.mails) if EMAIL in mail.recipients)


async def test_from_registration_to_the_way_out(
    db: Database, site: Site, open_window: OpenWindow, now: ClockAhead
) -> None:
    """Register, welcome mail, password then code, cooldown, lock, codes switched off, a consent withdrawn, sign out."""
    tenant = await add_tenant(db, utc_now(), name="Corner Shop", policy=POLICY)
    staff = await Staff.of(db, site, now)
    window = await open_window()
    page = window.page

    await window.open(f"/t/{tenant.slug}/login")
    await page.get_by_role("link", name="Register").click()
    await page.get_by_label("Your name").fill("Ana Silva")
    await page.get_by_role("textbox", name="Email").fill(EMAIL)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_label("I agree").check()
    await window.press("Register")
    code = await site.code_for(EMAIL)
    assert "Welcome to Corner Shop" in last_mail(site).part("plain")
    assert "15 minutes" in last_mail(site).part("plain")
    now.forward(minutes=14)
    await enter(window, code)
    await expect(page.get_by_text("You are signed in as Ana Silva")).to_be_visible()
    await expect(page.get_by_role("region", name="Where your codes go")).to_contain_text("Verified")
    await out(window)

    now.forward(hours=1)
    await log_in(window, tenant, "not the one")
    await expect(page.get_by_role("alert")).to_contain_text("Wrong sign-in details")
    await log_in(window, tenant)
    first = await site.code_for(EMAIL)
    assert "10 minutes" in last_mail(site).part("plain")
    again = page.get_by_role("button", name="Send a new code", exact=True)
    await expect(again).to_be_disabled()
    await expect(page.locator("#wait")).to_contain_text("You can ask for a new code in")
    await window.check("s3-cooldown")
    now.forward(seconds=60)
    await window.open(f"/t/{tenant.slug}/verify")
    await expect(again).to_be_enabled()
    await window.press("Send a new code")
    second = await site.code_for(EMAIL)
    await enter(window, first)
    await expect(page.get_by_role("alert")).to_contain_text("A newer code was sent")
    await enter(window, second)
    await expect(page.get_by_text("You are signed in as Ana Silva")).to_be_visible()
    await out(window)

    now.forward(hours=1)
    stranger = await open_window()
    for guess in range(5):
        await log_in(stranger, tenant, f"guess number {guess}")
        await expect(stranger.page.get_by_role("alert")).to_contain_text("Wrong sign-in details")
    await log_in(stranger, tenant)
    await expect(stranger.page.get_by_role("alert")).to_contain_text("You can ask again in 15 minutes.")
    await stranger.check("s3-locked")
    now.forward(minutes=15, seconds=1)
    await log_in(stranger, tenant)
    await enter(stranger, await site.code_for(EMAIL))
    await expect(stranger.page.get_by_text("You are signed in as Ana Silva")).to_be_visible()
    await out(stranger)

    await staff.change_member(tenant.slug, EMAIL, {"codes_enabled": False})
    await log_in(window, tenant)
    await expect(page.get_by_text("You are signed in as Ana Silva")).to_be_visible()

    await page.get_by_role("link", name="See them").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your consents")
    await window.check("s3-consents")
    await page.get_by_role("link", name="Withdraw").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Withdraw this consent?")
    await window.check("s3-consent-withdraw")
    await window.press("Withdraw")
    await expect(page.get_by_role("status").first).to_contain_text("Your consent is withdrawn.")
    await expect(page.get_by_role("main")).to_contain_text("Withdrawn")
    await expect(page.get_by_role("link", name="Withdraw")).to_have_count(0)
    await window.check("s3-consent-withdrawn")
    await page.get_by_role("link", name="Back to the start").click()

    now.forward(minutes=11)
    await page.get_by_role("link", name="Change your email").click()
    await expect(page.get_by_text("To change anything here, sign in again")).to_be_visible()
    await window.check("s3-contact-stale")
    await window.press("Sign out and in again")
    await expect(page.get_by_text("You are signed out.")).to_be_visible()
