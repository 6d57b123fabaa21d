"""Editing in place, and the rest of the page with it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import httpx
import pytest
from playwright.async_api import Route, expect

from app.audit.log import Actor, Client
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.delivery.marks import Marks
from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import Site, Window
from tests.browser.test_admin_portal import sign_in
from tests.people import add_member, add_tenant

OpenWindow = Callable[..., Awaitable[Window]]


async def _editing(db: Database, site: Site, window: Window, group: str, **tenant: Any) -> str:
    """Signed in, the tenant's page open and the group in its form; gives the page's path."""
    path = f"/admin/tenants/{(await add_tenant(db, utc_now(), **tenant)).slug}"
    await sign_in(db, site, window)
    await window.open(path)
    await window.page.get_by_role("link", name=f"Edit the {group}").click()
    await expect(window.page.get_by_role("button", name="Save")).to_be_visible()
    return path


async def test_the_whole_page_knows_what_was_saved(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Heading and newest changes follow an edit in place, in the viewer's zone; one action is the main one."""
    window = await open_window()
    await _editing(db, site, window, "details", name="Old Name Ltd")
    main = window.page.locator("main .button.primary")
    await expect(main).to_have_text(["Save"])
    await expect(window.page.get_by_label("Name")).to_have_attribute("maxlength", "120")
    await window.page.get_by_label("Name").fill("New Name Ltd")
    await window.page.get_by_role("button", name="Save").click()
    await expect(window.page.get_by_role("heading", level=1)).to_have_text("New Name Ltd")
    await expect(window.page.locator("#changes li").first).to_contain_text("Name changed")
    await expect(window.page.locator("#about time")).to_contain_text("CE")
    await expect(main).to_have_text(["Send a test message"])


async def _bounced(db: Database, site: Site, window: Window) -> str:
    """A tenant whose address a mail server doesn't know, seen by staff; gives the page's path."""
    tenant = await add_tenant(db, utc_now(), name="Bounced Ltd", email="gone@acme.example")
    await sign_in(db, site, window)
    path = f"/admin/tenants/{tenant.slug}"
    site.mail.answers["RCPT"].append("550 5.1.1 no such user")
    await window.open(path)
    await window.page.locator("#send-test").click()
    await expect(window.page.locator("#test-state")).to_contain_text("Failed")
    return path


async def test_every_part_of_the_page_follows_a_mend(db: Database, site: Site, open_window: OpenWindow) -> None:
    """A bounce, a correction, a test that arrives: advice, badge, mark and story say so without a reload."""
    window = await open_window()
    page = window.page
    path = await _bounced(db, site, window)
    story = page.locator("#timeline .entry .text")
    await expect(story.first).to_contain_text("Test message not delivered: there is no such address")
    await expect(page.locator("#advice")).to_contain_text("The email address bounced. Ask for a new one")
    await expect(page.locator("#delivery-health")).to_contain_text("Failing")
    await expect(page.locator("#marks")).to_contain_text("there is no such address")
    await window.open(path)
    await window.check("admin-tenant-bounced")
    loads: list[str] = []
    page.on("framenavigated", lambda frame: loads.append(frame.url))

    await page.get_by_role("link", name="Edit the contact").click()
    await page.get_by_label("Email").fill("found@acme.example")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#contact")).to_contain_text("found@acme.example")
    await expect(page.locator("#advice")).to_have_text("")
    await expect(page.locator("#delivery-health")).to_have_text("")
    await expect(page.locator("#marks")).to_have_text("")
    await expect(story.filter(has_text="Changed: email")).to_have_count(1)

    await page.locator("#send-test").click()
    await expect(page.locator("#test-state")).to_contain_text("Sent")
    await expect(story.filter(has_text="Test message: accepted by the mail server")).to_have_count(1)
    await expect(page.locator("#advice")).to_have_text("")
    assert loads == []


async def test_every_part_of_a_members_page_follows(db: Database, site: Site, open_window: OpenWindow) -> None:
    """A member's code bounces; the address is corrected in place, and advice, mark and story say so at once."""
    window = await open_window()
    page = window.page
    tenant = await add_tenant(db, utc_now(), name="Members Ltd")
    member = await add_member(db, utc_now(), tenant, email="gone@home.example")
    await sign_in(db, site, window)
    site.mail.answers["RCPT"].append("550 5.1.1 no such user")
    before = site.mail.count("RCPT")
    async with httpx.AsyncClient() as client:
        asked = await client.post(
            f"{site.url}/api/v1/tenants/{tenant.slug}/otp/request", json={"identifier": "gone@home.example"}
        )
    assert asked.status_code == 202
    await site.mail.asked("RCPT", before + 1)
    marks = Marks(db, utc_now)
    while not await marks.of(tenant.id, member):
        pass  # it stands there once the worker has written down what the server said
    await window.open(f"/admin/tenants/{tenant.slug}/members/{member}")
    await expect(page.locator("#advice")).to_contain_text("The email address bounced. Ask for a new one")
    await expect(page.locator("#marks")).to_contain_text("there is no such address")
    await window.check("admin-member-bounced")
    await page.get_by_role("link", name="Edit the contact").click()
    await page.get_by_label("Email").first.fill("found@home.example")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#contact")).to_contain_text("found@home.example")
    await expect(page.locator("#advice")).to_have_text("")
    await expect(page.locator("#marks")).to_have_text("")
    await expect(page.locator("#timeline")).to_contain_text("Member changed")
    await expect(page.locator("#changes")).to_contain_text("Email changed")


@pytest.mark.parametrize("whose", ["tenant", "member"])
async def test_sessions_that_a_new_contact_ended_are_gone(
    db: Database, site: Site, open_window: OpenWindow, sessions: Sessions, whose: Literal["tenant", "member"]
) -> None:
    """The story says that they ended; the list beside it does, too."""
    tenant = await add_tenant(db, utc_now(), name="Signed In Ltd")
    path = f"/admin/tenants/{tenant.slug}"
    somebody = tenant.id
    if whose == "member":
        somebody = await add_member(db, utc_now(), tenant, email="in@home.example")
        path += f"/members/{somebody}"
    links = Links(db, sessions, utc_now)
    token = await links.create(tenant.id, (whose, somebody), Actor("operator"), Client("cli"))
    await links.use(token, Client("page", "192.0.2.9", "Firefox"))
    window = await open_window()
    page = window.page
    await sign_in(db, site, window)
    await window.open(path)
    ends = page.locator("#sessions").get_by_role("button")
    await expect(ends).to_have_count(1)
    await page.get_by_role("link", name="Edit the contact").click()
    await page.get_by_label("Email").first.fill("new@home.example")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#timeline")).to_contain_text("Session ended: the contact changed")
    await expect(ends).to_have_count(0)
    await window.check()


async def test_without_javascript_it_says_so_after_the_redirect(
    db: Database, site: Site, open_window: OpenWindow
) -> None:
    """Each page that a form leads to has it all, the outcome of the test included; the advice's own button does it."""
    window = await open_window(javascript=False)
    page = window.page
    tenant = await add_tenant(db, utc_now(), name="Bounced Plainly Ltd", email="gone@acme.example")
    await sign_in(db, site, window)
    path = f"/admin/tenants/{tenant.slug}"
    site.mail.answers["RCPT"].append("550 5.1.1 no such user")
    await window.open(path)
    await window.press("Send a test message")
    await expect(page.locator("#test-state")).to_contain_text("Failed")
    await expect(page.locator("#advice")).to_contain_text("The email address bounced")
    await expect(page.locator("#delivery-health")).to_contain_text("Failing")

    await page.get_by_role("link", name="Edit the contact").click()
    await page.get_by_label("Email").fill("found@acme.example")
    await window.press("Save")
    await expect(page.locator("#advice")).to_have_text("")
    await expect(page.locator("#delivery-health")).to_have_text("")
    await window.press("Send a test message")
    await expect(page.locator("#test-state")).to_contain_text("Sent")
    story = page.locator("#timeline .entry .text")
    await expect(story.filter(has_text="Test message: accepted by the mail server")).to_have_count(1)


@pytest.mark.parametrize(
    ("link", "field"), [("Edit contact", "#f-email"), ("Edit the contact", "#f-email"), ("Edit the details", "#f-name")]
)
@pytest.mark.parametrize("javascript", [True, False], ids=["in place", "without JavaScript"])
async def test_the_first_field_of_what_was_opened_has_the_focus(
    db: Database, site: Site, open_window: OpenWindow, link: str, field: str, javascript: bool
) -> None:
    """Whichever way it was opened. A browser leaves `autofocus` alone where the address has a fragment."""
    window = await open_window(javascript=javascript)
    page = window.page
    await window.open(await _bounced(db, site, window))
    await page.get_by_role("link", name=link, exact=True).click()
    await expect(page.locator(field)).to_be_focused()


async def test_advice_has_the_button_that_does_it(db: Database, site: Site, open_window: OpenWindow) -> None:
    """A test from the advice arrives, and the advice is gone; a mark can be taken off by hand, too."""
    window = await open_window()
    page = window.page
    path = await _bounced(db, site, window)
    await page.locator("#advice").get_by_role("button", name="Send test").click()
    await expect(page.locator("#test-state")).to_contain_text("Sent")
    await expect(page.locator("#advice")).to_have_text("")
    site.mail.answers["RCPT"].append("550 5.1.1 no such user")
    await page.locator("#send-test").click()
    await expect(page.locator("#delivery-health")).to_contain_text("Failing")
    await page.get_by_role("button", name="It works again").click()
    await expect(page.get_by_text("The contact counts as working again.")).to_be_visible()
    assert page.url.startswith(site.url + path)
    await expect(page.locator("#delivery-health")).to_have_text("")
    await expect(page.locator("#advice")).to_have_text("")


async def test_times_before_a_change_of_clocks_have_their_zone(
    db: Database, site: Site, open_window: OpenWindow
) -> None:
    """The page names one zone for its clock times; a time of the other half of the year says that it is another."""
    window = await open_window()
    now = utc_now()
    tenant = await add_tenant(db, now, name="Two Offsets Ltd")
    async with db.every_tenant() as connection:
        for month in (1, 7):
            await connection.execute(
                "INSERT INTO audit_events (tenant_id, at, action, actor_kind, source) VALUES ($1, $2, $3, $4, $5)",
                tenant.id,
                now.replace(year=now.year - (now.month < month), month=month, day=1),
                "tenant.unlocked",
                "operator",
                "cli",
            )
    await sign_in(db, site, window)
    await window.open(f"/admin/tenants/{tenant.slug}")
    shown = await window.page.locator("#timeline .entry time").all_inner_texts()
    assert sum(text.endswith(("CET", "CEST")) for text in shown) == 1


async def test_a_sign_in_that_ended_is_said(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Whoever saves after the sign-in ended reads that nothing was saved, signs in beside it, and saves what they
    typed.
    """
    window = await open_window()
    await _editing(db, site, window, "details", name="Signed Out Ltd")
    await window.page.context.clear_cookies()
    await window.page.get_by_label("Name").fill("Saved Later Ltd")
    await window.page.get_by_role("button", name="Save").click()
    way = window.page.get_by_role("status").get_by_role("link", name="Sign in in a new tab")
    await expect(window.page.get_by_role("status").first).to_contain_text("Nothing was saved", use_inner_text=True)
    await expect(window.page.get_by_label("Name")).to_have_value("Saved Later Ltd")
    await window.check("admin-signed-out")
    async with window.page.expect_popup() as opened:
        await way.click()
    beside = Window(await opened.value, site.url, window.faults)
    await expect(beside.page.get_by_role("status").first).to_contain_text("was not saved")
    await sign_in(db, site, beside)
    await window.page.get_by_role("button", name="Save").click()
    await expect(window.page.get_by_role("heading", level=1)).to_have_text("Saved Later Ltd")
    await expect(way).to_be_hidden()


async def test_what_takes_long_is_said(db: Database, site: Site, open_window: OpenWindow) -> None:
    """While the server thinks, a status says so; with the answer it goes."""
    window = await open_window()
    await _editing(db, site, window, "details", name="Slow Ltd")
    answered = asyncio.Event()

    async def hold(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await window.page.route("**/details", hold)
    await window.page.get_by_role("button", name="Save").click()
    status = window.page.get_by_role("status").first
    await expect(status).to_contain_text("Working on it", use_inner_text=True)
    answered.set()
    await expect(status).to_contain_text("The details are saved.")
    await expect(status).not_to_contain_text("Working on it", use_inner_text=True)


async def test_on_paper_and_in_high_contrast(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Printed at night a tenant is dark on light, without what can be pressed; forced colours mark only one entry."""
    window = await open_window()
    page = window.page
    await _editing(db, site, window, "details", name="Printed Ltd")
    await page.emulate_media(media="print", color_scheme="dark")
    assert await page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 33, 38)"
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.locator(".top nav, .find, .who, .button").filter(visible=True)).to_have_count(0)
    await page.emulate_media(media="screen", forced_colors="active")
    lines = "[...document.querySelectorAll('.top nav a')].map((entry) => getComputedStyle(entry).borderBottomColor)"
    assert len(set(await page.evaluate(lines))) > 1


async def test_no_network_is_seen_from_far_below(db: Database, site: Site, open_window: OpenWindow) -> None:
    """On a small screen too the notice is where the reader is; what was typed stays, and so does the focus."""
    window = await open_window(width=320, height=480)
    page = window.page
    await _editing(db, site, window, "details", name="Far Below Ltd")
    await page.context.set_offline(True)
    await page.get_by_label("Name").fill("Typed Ltd")
    await page.get_by_label("Name").press("Enter")
    await expect(page.get_by_text("That didn’t reach the server.")).to_be_in_viewport()  # noqa: RUF001 - an apostrophe
    await expect(page.get_by_label("Name")).to_be_focused()
    await expect(page.get_by_label("Name")).to_have_value("Typed Ltd")
    window.faults.clear()  # the browser's own complaint
