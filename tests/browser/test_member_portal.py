"""A member in real Chromium: registers, signs in with the password, forgets it and sets a new one."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import expect

from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import Site, Window
from tests.people import add_tenant

OpenWindow = Callable[..., Awaitable[Window]]

PASSWORD = "a window left ajar"
POLICY: dict[str, Any] = {"registration": "open", "first_factor": "password", "remember_device_days": 30}


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    """The wait between two codes, which the other modules do without."""
    return {"otp_resend_cooldown_seconds": 60}


async def test_registers_and_replaces_a_password(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Every page on the way passes axe and fits a small screen; Enter in the password field signs in, not resets."""
    tenant = await add_tenant(db, utc_now(), name="Corner Shop", policy=POLICY)
    email = f"ana@{tenant.slug}.example"
    window = await open_window()
    page = window.page
    await window.open(f"/t/{tenant.slug}/login")
    await page.get_by_role("link", name="Register").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Register")
    await window.press("Register")
    await expect(page.get_by_text("Tick this box to register.").first).to_be_visible()
    await window.check("tenant-register-refused")
    await page.get_by_label("Your name").fill("Ana Silva")
    await page.get_by_role("textbox", name="Email").fill(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_label("I agree").check()
    await window.press("Register")
    await expect(page.get_by_role("button", name="Send a new code")).to_be_disabled()
    await window.check("tenant-verify-wait")
    await page.get_by_label("Code", exact=True).fill(await site.code_for(email))
    await window.press("Sign in")
    await expect(page.get_by_text("You are signed in as Ana Silva")).to_be_visible()
    await window.press("Sign out")

    await page.get_by_label("Your email or phone number").fill(email)
    await page.get_by_text("I have a password").click()
    await page.get_by_text("I forgot my password").click()
    await window.check("tenant-login-password")
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    async with page.expect_navigation():
        await page.get_by_label("Password", exact=True).press("Enter")
    await page.get_by_label("Code", exact=True).fill(await site.code_for(email))
    await page.get_by_label("Remember this device").check()
    await window.press("Sign in")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Corner Shop")
    await window.press("Sign out")

    await page.get_by_label("Your email or phone number").fill(email)
    await page.get_by_text("I forgot my password").click()
    await window.press("Send a code for a new password")
    await page.get_by_label("Code", exact=True).fill(await site.code_for(email))
    await window.press("Sign in")
    await expect(page.get_by_role("heading", level=1)).to_have_text("New password")
    await window.check("tenant-password")
    await page.get_by_label("New password").fill("another good one")
    await window.press("Save the password")
    await expect(page.get_by_text("Your password is changed.")).to_be_visible()
    await window.check()
