"""S2 in real Chromium: the household customers of a utility, from the day staff add them to the day they sign out."""

import re
from base64 import b32decode
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from playwright.async_api import expect

from app.auth.factors import totp
from app.keys import KeyRing
from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import ClockAhead, Site, Window
from tests.browser.staff import Staff
from tests.people import add_tenant, current_code, wrong

OpenWindow = Callable[..., Awaitable[Window]]

SLUG: Final = "city-water"


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    """One business, whose customers may choose between email and phone."""
    return {"default_tenant": SLUG, "sms_enabled": True, "sms_provider": ("console",)}


@pytest.fixture(scope="module")
def now() -> ClockAhead:
    """A clock that expires codes."""
    return ClockAhead()


@pytest.fixture(scope="module")
async def staff(db: Database, site: Site, now: ClockAhead) -> Staff:
    """Of the business."""
    await add_tenant(db, utc_now(), slug=SLUG, name="City Water")
    return await Staff.of(db, site, now)


async def test_codes_by_email(site: Site, open_window: OpenWindow, staff: Staff, now: ClockAhead) -> None:
    """The front page asks for the email or phone only; wrong codes count down, the fifth ends it, an expired one says
    so, a new one voids the old; the dashboard; out again.
    """
    email = "ana@home.example"
    await staff.add_member(SLUG, {"name": "Ana Silva", "email": email, "phone_number": "+447700900411"})
    window = await open_window()
    page = window.page

    async def ask() -> str:
        await window.open("/login")
        await page.get_by_label("Email or phone number").fill(email)
        await window.press("Send me a code")
        return await site.code_for(email)

    async def enter(code: str) -> None:
        await page.get_by_label("Code", exact=True).fill(code)
        await window.press("Sign in")

    await window.open("/login")
    await expect(page.get_by_label("Your organisation")).to_have_count(0)
    await window.check("s2-login")

    code = await ask()
    for left in ("4 attempts", "3 attempts", "2 attempts", "1 attempt"):
        await enter(wrong(code))
        await expect(page.get_by_role("link", name=re.compile(f"^Wrong code . {left} left$"))).to_be_visible()
        await expect(page.get_by_label("Code", exact=True)).to_be_focused()
    await enter(wrong(code))
    await expect(page.get_by_role("alert")).to_contain_text("Too many attempts")
    await expect(page.get_by_label("Code", exact=True)).to_have_count(0)
    await window.check("s2-too-many")

    now.forward(minutes=10)
    code = await ask()
    now.forward(minutes=10)
    await enter(code)
    await expect(page.get_by_role("alert")).to_contain_text("The code has expired")
    await window.check("s2-expired")

    first = await ask()
    await window.press("Send a new code")
    await expect(page.get_by_role("status").first).to_contain_text("A new code is on its way.")
    second = await site.code_for(email)
    await enter(first)
    await expect(page.get_by_role("link", name=re.compile("^A newer code was sent"))).to_be_visible()
    await enter(second)
    await expect(page.get_by_role("heading", level=1)).to_have_text("City Water")
    await expect(page.get_by_text("You are signed in as Ana Silva")).to_be_visible()

    token = await page.locator("form[action$='/logout'] [name=csrf_token]").get_attribute("value")
    forged = await page.request.post(
        f"{site.url}/t/{SLUG}/logout", form={"csrf_token": "x" * len(token or "")}, headers={"Origin": site.url}
    )
    assert forged.status == 403, "forms are CSRF-protected"
    await window.press("Sign out")
    await expect(page.get_by_role("status").first).to_contain_text("You are signed out.")
    await window.open(f"/t/{SLUG}/")
    await expect(page).to_have_url(f"{site.url}/t/{SLUG}/login")


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
async def test_another_address(
    site: Site, open_window: OpenWindow, staff: Staff, db: Database, ring: KeyRing, *, javascript: bool
) -> None:
    """An address that staff entered is proven by its first code, the other from the dashboard; then either signs in."""
    key = 1 if javascript else 2
    email, phone, new = f"bo{key}@home.example", f"+44770090042{key}", f"bo{key}@work.example"
    await staff.add_member(SLUG, {"name": "Bo Berg", "email": email, "phone_number": phone, "must_verify": True})
    window = await open_window(javascript=javascript)
    page = window.page

    async def ask(identifier: str) -> None:
        await window.open("/login")
        await page.get_by_label("Email or phone number").fill(identifier)
        await window.press("Send me a code")

    async def enter(code: str) -> None:
        await page.get_by_label("Code", exact=True).fill(code)
        await window.press("Sign in")

    await ask(email)
    await enter(await site.code_for(email))
    contacts = page.get_by_role("region", name="Where your codes go")
    await expect(contacts).to_contain_text(re.compile(r"b\*\*\*@home\.example\s*Verified"))
    await expect(contacts).to_contain_text(re.compile(r"\+44\*+042\d\s*Not verified"))
    if javascript:
        await window.check("s2-dashboard")

    await page.get_by_role("link", name="Change your phone").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your phone number")
    await page.get_by_label("New phone number").fill("12")
    await window.press("Send me a code")
    await expect(page.get_by_label("New phone number")).to_have_value("12")
    if javascript:
        await window.check("s2-contact-refused")
    await page.get_by_label("New phone number").fill(phone)
    await window.press("Send me a code")
    await expect(page.get_by_label("Code", exact=True)).to_be_focused()
    code = await current_code(db, ring, await window.challenge("phone-claim"))
    await page.get_by_label("Code", exact=True).fill(wrong(code))
    await window.press("Confirm")
    await expect(page.get_by_role("link", name=re.compile("^Wrong code . 4 attempts left$"))).to_be_visible()
    if javascript:
        await window.check("s2-contact-code")
    await page.get_by_label("Code", exact=True).fill(code)
    await window.press("Confirm")
    await expect(contacts).to_contain_text(re.compile(r"\+44\*+042\d\s*Verified"))

    await page.get_by_role("link", name="Change your email").click()
    await page.get_by_label("New email address").fill(new)
    await window.press("Send me a code")
    if javascript:
        await expect(page.locator("#delivery")).to_contain_text("Sent.")
    await page.get_by_label("Code", exact=True).fill(await site.code_for(new))
    await window.press("Confirm")
    await expect(page.get_by_role("status").first).to_contain_text("Your email address is verified.")
    await expect(contacts).to_contain_text(re.compile(r"b\*\*\*@work\.example\s*Verified"))
    told: set[str] = set()
    while not {email, new} <= told:
        told.update((await site.mail.next()).recipients)
    await window.press("Sign out")

    await ask(phone)
    await enter(await current_code(db, ring, await window.challenge()))
    await expect(page.get_by_text("You are signed in as Bo Berg")).to_be_visible()
    await window.press("Sign out")
    await expect(page.get_by_text("You are signed out.")).to_be_visible()


async def test_with_an_authenticator_app(site: Site, open_window: OpenWindow, staff: Staff, now: ClockAhead) -> None:
    """The QR code sets an app up; the next sign-in asks for the code by email, then for the app's."""
    email = "cy@home.example"
    await staff.add_member(SLUG, {"name": "Cy Dee", "email": email})
    window = await open_window()
    page = window.page

    async def sign_in() -> None:
        await window.open("/login")
        await page.get_by_label("Email or phone number").fill(email)
        await window.press("Send me a code")
        await page.get_by_label("Code", exact=True).fill(await site.code_for(email))
        await window.press("Sign in")

    await sign_in()
    await page.get_by_role("link", name="Set up").click()
    await window.press("Set up an app")
    image = page.get_by_role("img", name="QR code for an authenticator app")
    assert await image.evaluate("image => image.naturalWidth") > 100
    secret = b32decode(re.sub(r"\s", "", await page.evaluate("document.querySelector('.key').textContent")))
    await page.get_by_label("The 6 digits that the app shows now").fill(totp.code_at(secret, totp.step_at(now())))
    await window.press("Confirm")
    assert "From now on every sign-in asks for its code." in await window.says()
    await page.get_by_role("link", name="Back to the start").click()
    await window.press("Sign out")

    now.forward(seconds=totp.SECONDS)
    await sign_in()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Enter the code of your app")
    await page.get_by_label("Code").fill(totp.code_at(secret, totp.step_at(now())))
    await window.press("Sign in")
    await expect(page.get_by_text("You are signed in as Cy Dee")).to_be_visible()
    await window.press("Sign out")
    await expect(page.get_by_text("You are signed out.")).to_be_visible()
