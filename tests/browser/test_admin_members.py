"""An admin looks after members in real Chromium: in place, by file, and without JavaScript."""

from playwright.async_api import FilePayload, expect

from app.storage.db import Database
from app.web.services import utc_now
from tests.browser.conftest import Site
from tests.browser.test_admin_portal import OpenWindow, sign_in
from tests.people import add_member, add_tenant

_FILE = b"name,email,phone_number\nAna Maria,ana@home.example,\nCleo Voss,cleo@home.example,\n"


def upload(body: bytes, name: str = "members.csv") -> FilePayload:
    """A file as the file chooser takes it."""
    return {"name": name, "mimeType": "text/csv", "buffer": body}


async def test_a_member_is_edited_in_place(db: Database, site: Site, open_window: OpenWindow) -> None:
    """A fault keeps what was typed and has the focus; saved in place, the focus is back at the link."""
    tenant = await add_tenant(db, utc_now(), name="Northwind Homes")
    member = await add_member(db, utc_now(), tenant, name="Ana Silva", email="ana@home.example")
    for n in range(4):
        await add_member(db, utc_now(), tenant, name=f"Member {n}", phone_number=f"+4477009001{n:02}", status="pending")
    window = await open_window()
    page = window.page
    await sign_in(db, site, window, "owner")
    await window.open(f"/admin/tenants/{tenant.slug}")
    await page.get_by_role("link", name="See members").click()
    await window.check("admin-members")
    await page.get_by_label("Search").fill("silv")
    await expect(page.locator("#result-count")).to_have_text("1 member matches")
    await page.get_by_role("link", name="Ana Silva").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Ana Silva")
    await window.check("admin-member")

    email = page.get_by_label("Email (optional)")
    await page.get_by_role("link", name="Edit the contact").click()
    await expect(email).to_be_focused()
    await window.check("admin-member-edit")
    await email.fill("ana(at)home.example")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("link", name="This is not an email address.")).to_be_visible()
    await expect(email).to_be_focused()
    await expect(email).to_have_value("ana(at)home.example")
    await window.check("admin-member-field-error")
    await page.get_by_label("Email (optional)").fill("silva@home.example")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#notice")).to_contain_text("The contact is saved.")
    await expect(page.locator("#contact")).to_contain_text("silva@home.example")
    await expect(page.get_by_role("link", name="Edit the contact")).to_be_focused()
    await expect(page).to_have_url(f"{site.url}/admin/tenants/{tenant.slug}/members/{member}")
    await page.get_by_role("link", name="Edit the sign-in settings").click()
    await expect(page.get_by_label("Yes, a code follows")).to_be_focused()
    await window.check("admin-member-edit-access")
    await page.get_by_label("No, the password alone signs in").check()
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#access")).to_contain_text("Code after itNo")


async def test_two_browsers_change_the_same_member(db: Database, site: Site, open_window: OpenWindow) -> None:
    """The second sees yours, theirs and before, chooses, and the choice is saved."""
    tenant = await add_tenant(db, utc_now(), name="Two Desks")
    member = await add_member(db, utc_now(), tenant, email="before@home.example")
    one, two = await open_window(), await open_window()
    first = await sign_in(db, site, one)
    await sign_in(db, site, two, "manager")
    for window in (one, two):
        await window.open(f"/admin/tenants/{tenant.slug}/members/{member}")
        await window.page.get_by_role("link", name="Edit the contact").click()
    await one.page.get_by_label("Email (optional)").fill("theirs@home.example")
    await one.page.get_by_role("button", name="Save").click()
    await expect(one.page.locator("#notice")).to_contain_text("The contact is saved.")
    await two.page.get_by_label("Email (optional)").fill("yours@home.example")
    await two.page.get_by_role("button", name="Save").click()
    await expect(two.page.get_by_role("heading", level=1)).to_have_text("Somebody else saved first")
    await expect(two.page.get_by_text(first.email)).to_be_visible()
    assert len(two.faults) == 1, "htmx writes the refused answer to the console"
    two.faults.clear()
    await two.check("admin-member-conflict")
    await two.page.get_by_label("Yours yours@home.example").check()
    await two.press("Save my choice")
    await expect(two.page.locator("#contact")).to_contain_text("yours@home.example")


async def test_a_file_is_imported_with_one_choice(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Faults beside their rows, then the mended file, then one more button: the chosen file stays in the form."""
    tenant = await add_tenant(db, utc_now(), name="Filed Ltd")
    await add_member(db, utc_now(), tenant, name="Ana Silva", email="ana@home.example")
    window = await open_window()
    page = window.page
    await sign_in(db, site, window, "manager")
    await window.open(f"/admin/tenants/{tenant.slug}/members/import")
    await window.check("admin-members-import")
    await page.get_by_label("File", exact=True).set_input_files(upload(_FILE + b"Dan,nobody,12\n,x@home.example,\n"))
    await page.get_by_role("button", name="Check the file").click()
    await expect(page.locator("#report")).to_contain_text("Nothing was imported: the file has faults")
    await expect(page.get_by_role("row", name="4 Email This is not an email address.")).to_be_visible()
    await window.check("admin-members-import-faults")
    await page.get_by_label("File", exact=True).set_input_files(upload(_FILE))
    await page.get_by_role("button", name="Check the file").click()
    await expect(page.get_by_role("row", name="Cleo Voss Added")).to_be_visible()
    await window.check("admin-members-import-ready")
    await page.get_by_role("button", name="Import 2 members").click()
    await expect(page.get_by_text("The file is imported.")).to_be_visible()
    await expect(page.get_by_role("link", name="Cleo Voss")).to_be_visible()


async def test_without_javascript(db: Database, site: Site, open_window: OpenWindow) -> None:
    """Add, a fault, a saved change, codes of many, a file, suspend, erase: all with plain forms."""
    tenant = await add_tenant(db, utc_now(), name="Plain Forms")
    window = await open_window(javascript=False)
    page = window.page
    await sign_in(db, site, window)
    await window.open(f"/admin/tenants/{tenant.slug}/members")
    await page.get_by_role("link", name="Add the first member").click()
    await page.get_by_label("Name", exact=True).fill("Ana Silva")
    await window.press("Add the member")
    await expect(page).to_have_title("Error: New member of Plain Forms – Gatehouse")  # noqa: RUF001 - a dash
    await page.get_by_label("Email (optional)").fill("ana@home.example")
    await window.press("Add the member")
    await expect(page.get_by_text("The member is added.")).to_be_visible()
    await page.get_by_role("link", name="Edit the details").click()
    await page.get_by_label("Language").fill("xx")
    await window.press("Save")
    await expect(page.get_by_label("Language")).to_have_value("xx")
    await page.get_by_label("Language").fill("de")
    await window.press("Save")
    await expect(page.get_by_text("The details are saved.")).to_be_visible()

    await window.open(f"/admin/tenants/{tenant.slug}/members/import")
    for button in ("Check the file", "Import 2 members"):
        await page.get_by_label("File", exact=True).set_input_files(upload(_FILE))
        await window.press(button)
    await expect(page.get_by_text("The file is imported.")).to_be_visible()
    await page.get_by_label("Tick Cleo Voss").check()
    await window.press("Switch off …")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Switch codes off for 1 member?")
    await window.press("Switch codes off")
    await expect(page.get_by_text("Codes are off for these members.")).to_be_visible()
    await page.get_by_role("link", name="Cleo Voss").click()
    await page.get_by_role("link", name="Suspend …").click()
    await window.press("Suspend the member")
    await window.press("Resume")
    await page.get_by_role("link", name="Erase …").click()
    await page.get_by_label("Type the name").fill("Cleo Voss")
    await window.press("Erase for good")
    await expect(page.get_by_text("All that was kept of this person is deleted.")).to_be_visible()
    await expect(page.get_by_role("link", name="Cleo Voss")).to_have_count(0)


async def test_every_page_looked_at(db: Database, site: Site, open_window: OpenWindow) -> None:
    """What no other journey looks at: nobody yet, nothing found, each form, a viewer's pages, long values."""
    empty, tenant = await add_tenant(db, utc_now(), name="Nobody Ltd"), await add_tenant(db, utc_now(), name="Full Ltd")
    long = await add_member(
        db,
        utc_now(),
        tenant,
        name="Wolfeschlegelsteinhausenbergerdorff with a name too long to fit into any line of any table",
        email="somebody.with.a.very.long.name@department.of.a.long.domain.example",
        phone_number="+442079460018",
        preferred_method="sms",
    )
    for n in range(30):
        await add_member(db, utc_now(), tenant, name=f"Person {n:02}", email=f"p{n}@home.example", status="suspended")
    window, viewer = await open_window(), await open_window()
    await sign_in(db, site, window)
    base, there = f"/admin/tenants/{tenant.slug}/members", f"/admin/tenants/{tenant.slug}/members/{long}"
    for path, picture in (
        (f"/admin/tenants/{empty.slug}/members", "admin-members-empty"),
        (f"/admin/tenants/{empty.slug}", "admin-tenant-without-members"),
        (f"{base}?q=nobody-has-this", "admin-members-none"),
        (base, "admin-members-long"),
        (f"{base}/new", "admin-member-add"),
        (there, "admin-member-long"),
        (f"{there}?edit=details", "admin-member-edit-details"),
        (f"{there}/suspend", "admin-member-suspend"),
        (f"{there}/sessions/end-all", "admin-member-end-all"),
        (f"{there}/erase", "admin-member-erase"),
        (f"{base}/codes?codes=off&of=found", "admin-members-codes"),
        (f"{base}/codes?codes=on&of=found", "admin-members-codes-none"),
        (f"{base}/codes?codes=on&of=ticked", "admin-members-codes-unticked"),
    ):
        await window.open(path)
        await window.check(picture)
    await window.open(there)
    await window.press("Make a sign-in link")
    await window.check("admin-member-link")
    await window.open(f"{base}/new")
    await window.press("Add the member")
    await window.check("admin-member-add-errors")
    await sign_in(db, site, viewer, "viewer")
    for path, picture in ((base, "admin-members-viewer"), (there, "admin-member-viewer")):
        await viewer.open(path)
        await viewer.check(picture)
