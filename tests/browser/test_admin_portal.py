"""An admin in real Chromium: finds a tenant, changes it, sees what happened to its codes."""

from collections.abc import Awaitable, Callable

from playwright.async_api import expect

from app.audit.log import Actor, Client
from app.auth.admins import Admin, Admins
from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import Site, Window
from tests.people import SomeTenant, add_tenant, wrong

OpenWindow = Callable[..., Awaitable[Window]]


async def add_admin(db: Database, role: str = "owner") -> Admin:
    """Somebody of the staff."""
    email = f"{role}-{utc_now():%H%M%S%f}@staff.example"
    return await Admins(db, utc_now).add(email, role, actor=Actor("operator"), client=Client("cli"))


async def sign_in(db: Database, site: Site, window: Window, role: str = "owner") -> Admin:
    """The shortest way in, as a new admin."""
    admin = await add_admin(db, role)
    await window.open("/admin/sign-in")
    await window.page.get_by_label("Email").fill(admin.email)
    await window.press("Send me a code")
    await window.page.get_by_label("Code").fill(await site.code_for(admin.email))
    await window.press("Sign in")
    return admin


async def ask_for_code(site: Site, window: Window, tenant: SomeTenant) -> str:
    """A code for the tenant's contact, as it arrived."""
    assert tenant.email
    await window.open(f"/t/{tenant.slug}/login")
    await window.press("Send me a code")
    return await site.code_for(tenant.email)


async def test_sign_in_find_and_change_a_contact(db: Database, site: Site, open_window: OpenWindow) -> None:
    """With a mailed code; search as one types; a fault keeps what was typed; saved in place, told to both addresses."""
    tenant = await add_tenant(db, utc_now(), name="Northwind Energy", email="office@northwind.example")
    admin = await add_admin(db)
    window = await open_window()
    page = window.page
    await window.open("/admin/tenants")
    await expect(page).to_have_title("Admin sign-in – Gatehouse")  # noqa: RUF001 - a dash
    await window.check("admin-sign-in")
    await page.get_by_label("Email").fill(admin.email)
    await window.press("Send me a code")
    code = await site.code_for(admin.email)
    await expect(page.get_by_label("Code")).to_be_focused()
    await window.check("admin-code")
    await page.get_by_label("Code").fill(wrong(code))
    await window.press("Sign in")
    await expect(page.get_by_role("link", name="Wrong code – 4 attempts left")).to_be_visible()  # noqa: RUF001 - a dash
    await window.check("admin-wrong-code")
    await page.get_by_label("Code").fill(code)
    await window.press("Sign in")

    await expect(page).to_have_url(f"{site.url}/admin/tenants")
    await window.check("admin-tenants")
    await page.get_by_label("Search").fill("northwind en")
    await expect(page.locator("#result-count")).to_have_text("1 tenant matches")
    await expect(page).to_have_url(f"{site.url}/admin/tenants?q=northwind%20en&status=&method=&contact=&sort=name")
    await page.get_by_role("link", name="Northwind Energy").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Northwind Energy")
    await window.check("admin-tenant-new")

    await page.get_by_role("link", name="Edit the contact").click()
    await expect(page.get_by_label("Email (optional)")).to_be_focused()
    await window.check()
    await page.get_by_label("Email (optional)").fill("office(at)northwind.example")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("link", name="This is not an email address.")).to_be_visible()
    await expect(page.get_by_label("Email (optional)")).to_be_focused()
    await expect(page.get_by_label("Email (optional)")).to_have_value("office(at)northwind.example")
    await window.check("admin-tenant-field-error")
    await window.open(f"/admin/tenants/{tenant.slug}?edit=contact")
    await page.get_by_label("Email (optional)").fill("desk@northwind.example")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#notice")).to_contain_text("The contact is saved.")
    await expect(page.locator("#contact")).to_contain_text("desk@northwind.example")
    await expect(page.get_by_role("link", name="Edit the contact")).to_be_focused()
    told = {recipient for _ in range(2) for recipient in (await site.mail.next()).recipients}
    assert told == {"office@northwind.example", "desk@northwind.example"}

    await window.open(f"/admin/tenants/{tenant.slug}/history")
    await expect(page.get_by_role("heading", name="Email")).to_be_visible()
    said = await window.says()
    assert admin.email in said
    assert "o***@northwind.example" in said
    assert "d***@northwind.example" in said
    await window.check("admin-history")
    await window.press("Sign out")
    await expect(page.get_by_role("status").first).to_contain_text("You are signed out.")


async def test_two_browsers_change_the_same_contact(db: Database, site: Site, open_window: OpenWindow) -> None:
    """The second sees yours, theirs and before, chooses, and the choice is saved; the first one's name stands there."""
    tenant = await add_tenant(db, utc_now(), name="Two Desks", email="before@desks.example")
    one, two = await open_window(), await open_window()
    first = await sign_in(db, site, one)
    await sign_in(db, site, two, "manager")
    for window in (one, two):
        await window.open(f"/admin/tenants/{tenant.slug}")
        await window.page.get_by_role("link", name="Edit the contact").click()
    await one.page.get_by_label("Email (optional)").fill("theirs@desks.example")
    await one.page.get_by_role("button", name="Save").click()
    await expect(one.page.locator("#notice")).to_contain_text("The contact is saved.")
    await two.page.get_by_label("Email (optional)").fill("yours@desks.example")
    await two.page.get_by_label("Phone number (optional)").fill("+442079460018")
    await two.page.get_by_role("button", name="Save").click()
    await expect(two.page.get_by_role("heading", level=1)).to_have_text("Somebody else saved first")
    await expect(two.page.get_by_text(first.email)).to_be_visible()
    await expect(two.page.get_by_label("Before before@desks.example")).to_be_visible()
    assert len(two.faults) == 1, "htmx writes the refused answer to the console"
    two.faults.clear()
    await two.check("admin-conflict")
    await two.page.get_by_label("Theirs theirs@desks.example").check()
    await two.page.get_by_label("Yours +442079460018").check()
    await two.press("Save my choice")
    await expect(two.page.locator("#contact")).to_contain_text("theirs@desks.example")
    await expect(two.page.locator("#contact")).to_contain_text("+442079460018")


async def test_a_test_message_arrives_while_one_watches(db: Database, site: Site, open_window: OpenWindow) -> None:
    """The button, then the line under it changes by itself; the mail is there, without a code in it."""
    tenant = await add_tenant(db, utc_now(), name="Watched Ltd", email="watched@watched.example")
    window = await open_window()
    await sign_in(db, site, window, "manager")
    await window.open(f"/admin/tenants/{tenant.slug}")
    await window.page.get_by_role("button", name="Send a test message").click()
    await expect(window.page.locator("#test-state")).to_contain_text("Sent")
    await expect(window.page.locator("#test-state")).to_contain_text("taken by smtp")
    mail = await site.mail.next()
    assert mail.recipients == ["watched@watched.example"]
    await window.open(f"/admin/tenants/{tenant.slug}")
    await expect(window.page.locator("#timeline")).to_contain_text("Test message: accepted by the mail server")


async def test_suspended_resumed_ended(db: Database, site: Site, open_window: OpenWindow) -> None:
    """A reason is needed; whoever was signed in is out; resumed, they come back; one session is ended in place."""
    tenant = await add_tenant(db, utc_now(), name="Paused Ltd", email="paused@paused.example")
    desk, customer = await open_window(), await open_window()
    await sign_in(db, site, desk, "manager")

    async def customer_signs_in() -> None:
        await customer.page.get_by_label("Code").fill(await ask_for_code(site, customer, tenant))
        await customer.press("Sign in")
        await expect(customer.page.get_by_role("heading", level=1)).to_have_text("Paused Ltd")

    await customer_signs_in()
    await desk.open(f"/admin/tenants/{tenant.slug}")
    await desk.check("admin-tenant")
    await desk.page.get_by_role("link", name="Suspend …").click()
    await desk.press("Suspend the tenant")
    await expect(desk.page.get_by_label("Reason")).to_be_focused()
    await desk.check("admin-suspend")
    await desk.page.get_by_label("Reason").fill("Asked us to")
    await desk.press("Suspend the tenant")
    await expect(desk.page.get_by_text("Suspended: Asked us to").first).to_be_visible()
    await desk.check("admin-tenant-suspended")
    await customer.page.wait_for_timeout(3100)  # a session check may be three seconds old
    await customer.open(f"/t/{tenant.slug}/")
    await expect(customer.page).to_have_url(f"{site.url}/t/{tenant.slug}/login?done=ended")

    await desk.press("Resume")
    await customer_signs_in()
    await desk.open(f"/admin/tenants/{tenant.slug}")
    await desk.page.get_by_role("button", name="End the session on Chrome on Linux").click()
    await expect(desk.page.locator("#sessions")).to_contain_text("Nobody is signed in.")
    await expect(desk.page.locator("#notice")).to_contain_text("The session is ended.")


async def test_every_page_looked_at(db: Database, site: Site, open_window: OpenWindow) -> None:
    """States that no other journey looks at: forms, nothing found, a story, refusals, a link, what a viewer sees."""
    tenant = await add_tenant(
        db,
        utc_now(),
        name="A tenant with quite a long name, as holdings and their subsidiaries like to have them GmbH",
        email="somebody.with.a.long.name@department.of.a.long.domain.example",
        phone_number="+442079460018",
    )
    window, viewer, customer = await open_window(), await open_window(), await open_window()
    await customer.page.get_by_label("Code").fill(wrong(await ask_for_code(site, customer, tenant)))
    await customer.press("Sign in")
    await sign_in(db, site, window)
    base = f"/admin/tenants/{tenant.slug}"
    for path, picture in (
        ("/admin/tenants?q=nobody-has-this", "admin-tenants-none"),
        (f"{base}?edit=contact", "admin-tenant-edit"),
        (f"{base}?edit=delivery", "admin-tenant-edit-delivery"),
        (f"{base}?edit=details", "admin-tenant-edit-details"),
        (f"{base}/timeline", "admin-timeline"),
        ("/admin/tenants/no-such-tenant", "admin-not-found"),
        ("/admin/sign-in?why=again", "admin-sign-in-again"),
    ):
        await window.open(path)
        await window.check(picture)
    await window.open(base)
    await window.press("Make a sign-in link")
    await window.check("admin-sign-in-link")
    await window.open("/admin/tenants/new")
    await window.press("Add the tenant")
    await window.check("admin-tenant-add-errors")
    await window.open(f"{base}/branding")
    await window.page.get_by_label("Colour").fill("brick")
    await window.press("Save")
    await window.check("admin-branding-errors")
    await window.open("/admin")
    await window.page.keyboard.press("?")
    await window.check("admin-shortcuts")
    await sign_in(db, site, viewer, "viewer")
    await viewer.open(base)
    await viewer.check("admin-tenant-viewer")
    await viewer.open("/admin/tenants/new")
    await viewer.check("admin-forbidden")


async def test_without_javascript(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Sign in, search, a fault, a saved change, a conflict, a test message, suspend, sign out: all with plain forms."""
    tenant = await add_tenant(db, utc_now(), name="Bare Forms", email="plain@forms.example")
    window, other = await open_window(javascript=False), await open_window(javascript=False)
    page = window.page
    await sign_in(db, site, window)
    await sign_in(db, site, other)
    await page.get_by_label("Find a tenant").fill("bare forms")
    await page.get_by_label("Find a tenant").press("Enter")
    await page.get_by_role("link", name="Bare Forms").click()
    await page.get_by_role("link", name="Edit the contact").click()
    await other.open(f"/admin/tenants/{tenant.slug}?edit=contact")
    await page.get_by_label("Email (optional)").fill("nonsense")
    await window.press("Save")
    await expect(page.get_by_label("Email (optional)")).to_have_value("nonsense")
    await expect(page).to_have_title("Error: Bare Forms – Gatehouse")  # noqa: RUF001 - a dash
    await page.get_by_label("Email (optional)").fill("new@forms.example")
    await window.press("Save")
    await expect(page.locator("#contact")).to_contain_text("new@forms.example")
    await other.page.get_by_label("Email (optional)").fill("other@forms.example")
    await other.press("Save")
    await expect(other.page.get_by_role("heading", level=1)).to_have_text("Somebody else saved first")
    await other.press("Save my choice")
    await expect(other.page.locator("#contact")).to_contain_text("other@forms.example")
    await window.press("Send a test message")
    while "taken by" not in await page.inner_text("#test"):
        await page.reload()
    await page.get_by_role("link", name="Suspend …").click()
    await page.get_by_label("Reason").fill("No scripts")
    await window.press("Suspend the tenant")
    await window.press("Resume")
    await expect(page.get_by_text("The tenant is resumed.")).to_be_visible()
    await window.press("Sign out")
    await expect(page.get_by_text("You are signed out.")).to_be_visible()


async def test_a_keyboard_is_enough(db: Database, site: Site, open_window: OpenWindow) -> None:
    """`/` finds a tenant, Tab and Enter edit it, `?` lists the keys, and the focus is never lost."""
    await add_tenant(db, utc_now(), name="Keyboard Ltd", email="keys@keyboard.example")
    window = await open_window()
    page = window.page
    await sign_in(db, site, window)
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("/")
    await expect(page.get_by_label("Find a tenant")).to_be_focused()
    await page.keyboard.type("keyboard ltd")
    await page.keyboard.press("Enter")
    await expect(page).to_have_title("Tenants matching “keyboard ltd” – Gatehouse")  # noqa: RUF001 - a dash
    await tab_to(window, "Keyboard Ltd")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Keyboard Ltd")
    await tab_to(window, "Edit the contact")
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Email (optional)")).to_be_focused()
    await page.keyboard.press("ControlOrMeta+a")
    await page.keyboard.type("tabbed@keyboard.example")
    await page.keyboard.press("Enter")
    await expect(page.locator("#contact")).to_contain_text("tabbed@keyboard.example")
    await expect(page.get_by_role("link", name="Edit the contact")).to_be_focused()
    await tab_to(window, "Sign out", backwards=True)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").first).to_contain_text("You are signed out.")


async def tab_to(window: Window, name: str, *, backwards: bool = False) -> None:
    """Presses Tab until the thing of this name has the focus; each stop on the way shows that it has."""
    for _ in range(60):
        await window.page.keyboard.press("Shift+Tab" if backwards else "Tab")
        here = await window.page.evaluate(
            "[document.activeElement.innerText.trim().replace(/\\s+/g, ' '),"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        if here[0] == name:
            assert here[1] != "none", f"{name} doesn't show the focus"
            return
    raise AssertionError(f"Tab never came to {name}")


async def test_a_link_from_elsewhere_finds_the_session(db: Database, site: Site, open_window: OpenWindow) -> None:
    """A colleague's link in a chat leads to the page, although browsers keep Strict cookies from other sites' links."""
    tenant = await add_tenant(db, utc_now(), name="Linked Ltd")
    for javascript in (True, False):
        window = await open_window(javascript=javascript)
        await sign_in(db, site, window)
        await window.page.route(
            "https://chat.example/",
            lambda route: route.fulfill(
                content_type="text/html", body=f'<a href="{site.url}/admin/tenants/{tenant.slug}?edit=details">look</a>'
            ),
        )
        await window.page.goto("https://chat.example/")
        await window.page.get_by_text("look").click()
        await expect(window.page.get_by_role("heading", level=1)).to_have_text("Linked Ltd")
        stranger = await open_window(javascript=javascript)
        await stranger.page.route(
            "https://chat.example/",
            lambda route: route.fulfill(
                content_type="text/html", body=f'<a href="{site.url}/admin/tenants/{tenant.slug}">look</a>'
            ),
        )
        await stranger.page.goto("https://chat.example/")
        await stranger.page.get_by_text("look").click()
        await expect(stranger.page).to_have_title("Admin sign-in – Gatehouse")  # noqa: RUF001 - a dash
