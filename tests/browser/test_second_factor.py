"""A second factor in real Chromium: set up from the page's QR code, asked for at the next sign-in, spared by a code."""

import re
from base64 import b32decode
from collections.abc import Awaitable, Callable
from typing import Final

from playwright.async_api import expect

from app.auth.factors import totp
from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import Site, Window
from tests.people import SomeTenant, add_tenant

OpenWindow = Callable[..., Awaitable[Window]]

_SHOWN: Final = "document.querySelector('.key').textContent"


async def sign_in(site: Site, window: Window, tenant: SomeTenant) -> None:
    """Up to whatever comes after the code."""
    assert tenant.email
    await window.open(f"/t/{tenant.slug}/login")
    await window.press("Send me a code")
    await window.page.get_by_label("Code").fill(await site.code_for(tenant.email))
    await window.press("Sign in")


async def test_with_an_app_and_with_a_backup_code(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Every page on the way held to the standards; the QR code is drawn, the sheet of codes is shown once."""
    tenant = await add_tenant(db, utc_now(), name="Northwind Energy")
    window = await open_window()
    page = window.page
    await sign_in(site, window, tenant)
    await page.get_by_role("link", name="Set up").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Second factor")
    await window.check("factors-none")
    await window.press("Set up an app")
    image = page.get_by_role("img", name="QR code for an authenticator app")
    assert await image.evaluate("image => image.naturalWidth") > 100
    await window.check("factors-new-app")
    secret = b32decode(re.sub(r"\s", "", await page.evaluate(_SHOWN)))
    await page.get_by_label("The 6 digits that the app shows now").fill("123")
    await window.press("Confirm")
    await window.check("factors-new-app-refused")
    await expect(page.get_by_label("The 6 digits that the app shows now")).to_be_focused()
    confirmed = totp.step_at(utc_now())
    await page.get_by_label("The 6 digits that the app shows now").fill(totp.code_at(secret, confirmed))
    await window.press("Confirm")
    await window.check("factors-set-up")
    await window.press("Make backup codes")
    codes = await page.locator(".backup-codes code").all_inner_texts()
    assert len(codes) == 10
    await window.check("factors-backup-codes")
    await window.open(f"/t/{tenant.slug}/")
    await window.check("factors-dashboard")
    await window.press("Sign out")

    await sign_in(site, window, tenant)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Enter the code of your app")
    await expect(page.get_by_label("Code")).to_be_focused()
    await window.check("second-factor")
    await page.get_by_role("link", name="Use a backup code").click()
    await page.get_by_label("Backup code").fill("nonsense")
    await window.press("Sign in")
    await window.check("second-factor-refused")
    await page.get_by_label("Backup code").fill(codes[0])
    await window.press("Sign in")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Northwind Energy")
    await page.get_by_role("link", name="Change").click()
    await page.get_by_role("link", name="Remove").click()
    await window.check("factors-remove")
    await window.press("Remove the app")
    assert "Signing in takes no second factor any more." in await window.says()


async def test_one_that_is_required(db: Database, site: Site, open_window: OpenWindow) -> None:
    """The first sign-in sets the app up, without JavaScript too."""
    tenant = await add_tenant(db, utc_now(), policy={"second_factor": "required"})
    window = await open_window(javascript=False)
    page = window.page
    await sign_in(site, window, tenant)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Set up an authenticator app")
    shown = await page.locator(".key").text_content()
    assert shown
    secret = b32decode(re.sub(r"\s", "", shown))
    code = totp.code_at(secret, totp.step_at(utc_now()))
    await page.get_by_label("The 6 digits that the app shows now").fill(code)
    await window.press("Set up and sign in")
    assert "The app is set up." in await window.says()
