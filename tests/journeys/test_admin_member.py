"""An admin looks after one member on their page, over HTTP and without JavaScript."""

from tests.adminpages import base_of, looks, names, office, somebody, stored, tenant
from tests.admins import Office, edit
from tests.markup import faults
from tests.people import SomeTenant, count

__all__ = ["office", "tenant"]


async def test_a_viewer_only_reads_and_sees_contacts_masked(office: Office, tenant: SomeTenant) -> None:
    """Nor can an address be spelled out by searching for its parts, and every step that changes is refused."""
    member = await somebody(office, tenant, name="Ana Silva", email="secret.person@masked.example")
    browser, base = await office.signed_in("viewer"), base_of(tenant)
    for path in (base, f"{base}/{member}", f"{base}/{member}?edit=contact"):
        await looks(browser, path)
        assert "secret.person" not in browser.page.text, path
        assert "s***@masked.example" in browser.words
        assert f'action="{base}/{member}' not in browser.page.text
        assert 'type="checkbox" name="member"' not in browser.page.text
    await browser.get(f"{base}?q=secret.person")
    assert names(browser) == []
    for path in ("new", "import", "codes?codes=off&of=found", f"{member}/suspend", f"{member}/erase"):
        await browser.get(f"{base}/{path}")
        assert browser.page.status_code == 403, path
    await browser.get(base)
    for path in ("new", "codes", f"{member}/contact", f"{member}/suspend", f"{member}/export", f"{member}/erase"):
        assert (await browser.post(f"{base}/{path}")).status_code == 403, path
        await browser.get(base)
    row = await stored(office, member)
    assert row
    assert row["version"] == 1


async def test_a_contact_is_changed(office: Office, tenant: SomeTenant) -> None:
    """A fault comes back as typed; saved, it is said, told to both addresses, and in the history with who did it."""
    member = await somebody(office, tenant, email="old@home.example", email_verified_at=office.clock())
    browser, there = await office.signed_in("manager"), f"{base_of(tenant)}/{member}"
    await looks(browser, there)
    assert "verified 14 Mar 2026" in browser.words
    await looks(browser, f"{there}?edit=contact")
    typed = {"email": "new(at)home", "phone_number": "12", "preferred_method": ""}
    await browser.post(f"{there}/contact", edit(browser, typed))
    assert browser.page.status_code == 422
    assert (browser.value("email"), browser.value("phone_number")) == ("new(at)home", "12")
    assert (browser.value("before_email"), browser.value("version")) == ("old@home.example", "1")
    assert "This is not an email address." in browser.words
    typed = {"email": "New@Home.example", "phone_number": "", "preferred_method": "email"}
    await browser.post(f"{there}/contact", edit(browser, typed))
    assert browser.page.headers["location"] == f"{there}?done=member-contact#contact"
    await looks(browser, f"{there}?done=member-contact")
    assert "the old and the new address are told" in browser.words
    assert "new@home.example not verified yet" in browser.words
    assert (
        await count(office.db, "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'notice'", tenant.id) == 2
    )
    assert "Email, Codes go by changed manager-" in browser.words


async def test_name_language_and_sign_in_are_changed(office: Office, tenant: SomeTenant) -> None:
    """Each group alone; an emptied language is the usual one; a switch takes yes or no and nothing else."""
    member = await somebody(office, tenant, locale="de")
    browser, there = await office.signed_in("manager"), f"{base_of(tenant)}/{member}"
    await browser.get(f"{there}?edit=details")
    await browser.post(f"{there}/details", edit(browser, {"name": "Ana Maria", "locale": ""}))
    assert browser.page.headers["location"] == f"{there}?done=member-details#details"
    await looks(browser, f"{there}?edit=access")
    await browser.post(f"{there}/access", edit(browser, {"codes_enabled": "perhaps", "must_verify": "yes"}))
    assert browser.page.status_code == 422
    await browser.get(f"{there}?edit=access")
    await browser.post(f"{there}/access", edit(browser, {"codes_enabled": "no", "must_verify": "yes"}))
    assert browser.page.headers["location"] == f"{there}?done=member-access#access"
    row = await stored(office, member)
    assert row
    assert (row["name"], row["locale"], row["codes_enabled"], row["must_verify"]) == ("Ana Maria", "en", False, True)
    await browser.get(there)
    assert "Code after the password, Must prove new addresses changed" in browser.words


async def test_two_change_the_same_member(office: Office, tenant: SomeTenant) -> None:
    """Other fields meanwhile are no conflict; the same ones show yours, theirs and before, and the choice is saved."""
    member = await somebody(office, tenant, email="before@home.example")
    one, two = await office.signed_in(), await office.signed_in("manager")
    there = f"{base_of(tenant)}/{member}"
    for browser in (one, two):
        await browser.get(f"{there}?edit=contact")
    mine = edit(two, {"email": "yours@home.example", "phone_number": "", "preferred_method": ""})
    typed = edit(one, {"email": "theirs@home.example", "phone_number": "", "preferred_method": ""})
    await one.get(f"{there}?edit=details")
    await one.post(f"{there}/details", edit(one, {"name": "Ana Maria", "locale": "en"}))
    await one.get(there)
    await one.post(f"{there}/contact", typed)
    assert one.page.headers["location"] == f"{there}?done=member-contact#contact"
    await two.get(f"{there}?edit=details")
    await two.post(f"{there}/details", edit(two, {"name": "Ana Maria S.", "locale": "en"}))
    await two.get(there)

    await two.post(f"{there}/contact", mine)
    assert two.page.status_code == 412
    assert faults(two.page.text) == []
    assert "Somebody else saved first" in two.words
    assert "manager-" not in two.page.text.partition("<main")[2], "who renamed them has nothing to do with it"
    for words in (
        "owner-",
        "saved a change",
        "Yours yours@home.example",
        "Theirs theirs@home.example",
        "Before before@home.example",
    ):
        assert words in two.words
    assert (two.value("version"), two.value("before_email")) == ("4", "theirs@home.example")
    hidden = {name: two.value(name) or "" for name in ("version", "before_email", "before_phone_number")}
    chosen = {**hidden, "before_preferred_method": "", "email": "yours@home.example", "phone_number": ""}
    await two.post(f"{there}/contact", chosen | {"preferred_method": ""})
    row = await stored(office, member)
    assert row
    assert (row["email"], row["name"]) == ("yours@home.example", "Ana Maria S.")
    await two.get(f"{there}?edit=details")
    await two.post(
        f"{there}/details", {"name": "X", "locale": "en", "before_name": "Ana Maria S.", "before_locale": "en"}
    )
    assert two.page.status_code == 400, "without the version it showed"


async def test_another_tenants_member(office: Office, tenant: SomeTenant) -> None:
    """Is nobody here: 404 for every page and step, and nothing of them changes."""
    other = await office.tenant()
    stranger = await somebody(office, other)
    await somebody(office, tenant, name="Ben Okri", email="ben@home.example")
    browser, base = await office.signed_in(), base_of(tenant)
    for path in ("", "?edit=contact", "/suspend", "/sessions/end-all", "/erase"):
        assert (await browser.get(f"{base}/{stranger}{path}")).status_code == 404, path
    fields = {"version": "1", "name": "X", "locale": "en", "before_name": "Ana Silva", "before_locale": "en"}
    for path, sent in (
        ("details", fields),
        ("suspend", {"version": "1"}),
        ("resume", {}),
        ("unlock", {}),
        ("invite", {}),
        ("sign-in-link", {}),
        ("sessions/end-all", {}),
        ("export", {}),
        ("erase", {"version": "1", "name": "Ana Silva"}),
    ):
        await browser.get(base)
        assert (await browser.post(f"{base}/{stranger}/{path}", sent)).status_code == 404, path
    await browser.get(base)
    ticked = {"codes": "off", "of": "ticked", "q": "", "status": "", "count": "1", "member": [str(stranger)]}
    assert (await browser.post(f"{base}/codes", ticked)).status_code == 404
    row = await stored(office, stranger)
    assert row
    assert (row["version"], row["status"], row["codes_enabled"]) == (1, "active", True)


async def test_every_change_takes_a_young_sign_in(office: Office, tenant: SomeTenant) -> None:
    """After an hour each form and each step asks to sign in again, and nothing is done."""
    member = await somebody(office, tenant)
    browser, base = await office.signed_in(), base_of(tenant)
    for _ in range(5):
        office.clock.forward(minutes=12)
        await browser.get("/admin")
    await looks(browser, f"{base}/{member}")
    for path in ("new", "import", "codes?codes=off&of=found", f"{member}?edit=details", f"{member}/erase"):
        await browser.get(f"{base}/{path}")
        assert browser.page.headers["location"].startswith("/admin/sign-in?"), path
    fields = {"version": "1", "name": "X", "locale": "en", "before_name": "Ana Silva", "before_locale": "en"}
    for path, sent in (
        ("new", {"name": "X", "email": "x@home.example"}),
        ("codes", {"codes": "off", "of": "found", "count": "1"}),
        (f"{member}/details", fields),
        (f"{member}/suspend", {}),
        (f"{member}/resume", {}),
        (f"{member}/export", {}),
        (f"{member}/erase", {"name": "Ana Silva"}),
    ):
        await browser.get(f"{base}/{member}")
        await browser.post(f"{base}/{path}", sent)
        assert browser.page.headers["location"].startswith("/admin/sign-in?"), path
    await browser.get(base)
    await browser.post(f"{base}/import")
    assert browser.page.headers["location"].startswith("/admin/sign-in?")
    row = await stored(office, member)
    assert row
    assert (row["version"], row["codes_enabled"]) == (1, True)
    assert await count(office.db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 1
