"""An admin finds, adds and changes tenants on pages, over HTTP and without JavaScript."""

import re
from collections.abc import AsyncIterator

import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.admins import AdminBrowser, Office, add_admin, edit, open_office
from tests.conftest import Clock
from tests.people import count


@pytest.fixture
async def office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    async with open_office(settings, clock, db, ring) as opened:
        yield opened


async def test_finding_a_tenant(office: Office) -> None:
    """By a part of the name, by phone digits, by filters in the address; what an address can't mean is left out."""
    mark = office.clock().strftime("x%f") + str(id(office))
    for number in range(3):
        await office.tenant(name=f"{mark} Water {number}", phone_number=f"+4420794600{number:02}")
    await office.tenant(name=f"{mark} Gas", email=None, status="suspended")
    browser = await office.signed_in()

    async def found(query: str) -> list[str]:
        await browser.get(f"/admin/tenants?{query}")
        assert browser.page.status_code == 200
        return [line.split("</a>")[0].split(">")[-1] for line in browser.page.text.split('<td class="name">')[1:]]

    water = [f"{mark} Water {number}" for number in range(3)]
    assert await found(f"q={mark}") == [f"{mark} Gas", *water]
    assert "4 tenants match" in browser.words
    assert await found(f"q={mark}&sort=-name") == [*reversed(water), f"{mark} Gas"]
    assert await found(f"q={mark}&status=suspended") == [f"{mark} Gas"]
    assert "Contact missing" in browser.words
    assert await found(f"q={mark}&contact=missing") == [f"{mark} Gas"]
    async with office.db.every_tenant() as connection:
        await connection.execute(
            "INSERT INTO contact_health (tenant_id, subject_id, channel, since, error_class) "
            "SELECT id, id, 'sms', $2, 'recipient' FROM tenants WHERE name = $1",
            f"{mark} Water 1",
            office.clock(),
        )
    for viewer in (browser, await office.signed_in("viewer")):
        await viewer.get(f"/admin/tenants?q={mark}&contact=failing")
        assert f"{mark} Water 1" in viewer.words
        assert "1 tenant matches" in viewer.words
        assert "Failing" in viewer.words.split("Status")[-1]
    assert await found(f"q={mark}&method=sms") == []
    assert "No tenant matches." in browser.words
    assert await found(f"q={mark}&status=odd&sort=odd&method=odd") == [f"{mark} Gas", *water]
    assert f"{mark} Water 1" in await found("q=020 7946 0001")


async def test_a_name_keeps_its_direction_to_itself(office: Office) -> None:
    """Written from right to left, it moves no word around it: in the list, in headings, in the way back, in fields."""
    name = "\u05de\u05d9\u05dd 24"
    tenant = await office.tenant(name=name)
    browser = await office.signed_in()
    page = f"/admin/tenants/{tenant.slug}"
    for path, isolated in (
        (f"/admin/tenants?q={tenant.slug}", f'<a href="{page}" dir="auto">{name}</a>'),
        (page, f"<h1><bdi>{name}</bdi></h1>"),
        (f"{page}/suspend", f"Suspend <bdi>{name}</bdi>?"),
        (f"{page}/timeline", f'<a href="{page}" dir="auto">{name}</a>'),
        (f"{page}?edit=details", f'value="{name}" dir="auto"'),
    ):
        await browser.get(path)
        assert isolated in browser.page.text, path


async def test_a_long_list_in_pages(office: Office) -> None:
    """Next and Previous lead through all of it and back, each tenant once."""
    mark = f"p{id(office)}"
    for number in range(60):
        await office.tenant(name=f"{mark} {number:02}")
    browser = await office.signed_in()

    def names() -> list[str]:
        return [line.split("</a>")[0].split(">")[-1] for line in browser.page.text.split('<td class="name">')[1:]]

    def leads(rel: str) -> str:
        return browser.page.text.split(f'rel="{rel}" href="')[1].split('"')[0].replace("&amp;", "&")

    await browser.get(f"/admin/tenants?q={mark}")
    seen = names()
    first = list(seen)
    while 'rel="next"' in browser.page.text:
        await browser.get(leads("next"))
        seen += names()
    assert seen == [f"{mark} {number:02}" for number in range(60)]
    await browser.get(leads("prev"))
    await browser.get(leads("prev"))
    assert names() == first


async def test_a_viewer_sees_contacts_masked_everywhere(office: Office) -> None:
    """List, page, timeline and history hold no address, and no form to change one."""
    tenant = await office.tenant(email="secret.person@masked.example", phone_number="+442079460777")
    browser = await office.signed_in("viewer")
    base = f"/admin/tenants/{tenant.slug}"
    for path in (
        f"/admin/tenants?q={tenant.slug}",
        base,
        f"{base}?edit=contact",
        f"{base}/timeline",
        f"{base}/history",
    ):
        await browser.get(path)
        assert browser.page.status_code == 200, path
        assert "secret.person" not in browser.page.text, path
        assert "79460777" not in browser.page.text, path
        assert '<form method="post" action="/admin/tenants' not in browser.page.text, path
    await browser.get(base)
    assert "s***@masked.example" in browser.words
    # Nor can one be spelled out by searching for its parts.
    for part in ("secret.person", "79460777"):
        await browser.get(f"/admin/tenants?q={part}")
        assert tenant.slug not in browser.page.text, part


async def test_a_new_tenant(office: Office) -> None:
    """Faults stand at their fields and what was typed stays; then it is there, with who added it."""
    browser = await office.signed_in()
    slug = f"new-{id(office)}"
    typed = {
        "name": "Zoë & Söhne",
        "slug": "Not A Slug",
        "email": "somebody at home",
        "phone_number": "",
        "otp_delivery_method": "email",
        "locale": "de",
        "timezone": "Mars/Olympus",
    }
    await browser.press("/admin/tenants/new", "/admin/tenants/new", typed)
    assert browser.page.status_code == 422
    assert "<title>Error: New tenant" in browser.page.text
    for words in ("A slug is 1 to 63", "This is not an email address.", "This time zone is not known"):
        assert words in browser.words
    assert (browser.value("name"), browser.value("email")) == ("Zoë & Söhne", "somebody at home")

    await browser.post(
        "/admin/tenants/new",
        typed
        | {"slug": slug, "email": "", "timezone": "", "otp_delivery_method": "sms", "phone_number": "+442079460018"},
    )
    assert browser.page.status_code == 422
    assert "SMS is switched off: no provider is set up." in browser.words

    await browser.post("/admin/tenants/new", typed | {"slug": slug, "email": "office@zoe.example", "timezone": ""})
    assert browser.page.headers["location"] == f"/admin/tenants/{slug}?done=added"
    await browser.get(f"/admin/tenants/{slug}?done=added")
    assert "The tenant is added." in browser.words
    assert "Zoë & Söhne" in browser.words
    await browser.get(f"/admin/tenants/{slug}/history")
    assert "owner-" in browser.words
    await browser.press("/admin/tenants/new", "/admin/tenants/new", typed | {"slug": slug, "email": "", "timezone": ""})
    assert "There is a tenant with this slug already." in browser.words

    await browser.post("/admin/tenants/new", {"name": "", "slug": ""})
    assert "Enter the name." in browser.words
    assert "Enter the slug." in browser.words


async def test_a_contact_is_changed(office: Office) -> None:
    """Saved, said, told to both addresses, and in the history with who did it; a fault comes back as typed."""
    tenant = await office.tenant(email="old@acme.example")
    browser = await office.signed_in("manager")
    base = f"/admin/tenants/{tenant.slug}"
    await browser.get(f"{base}?edit=contact")
    await browser.post(f"{base}/contact", edit(browser, {"email": "new(at)acme", "phone_number": "12"}))
    assert browser.page.status_code == 422
    assert (browser.value("email"), browser.value("phone_number")) == ("new(at)acme", "12")
    assert (browser.value("before_email"), browser.value("version")) == ("old@acme.example", "1")
    assert "This is not an email address." in browser.words

    await browser.post(f"{base}/contact", edit(browser, {"email": "", "phone_number": "+442079460018"}))
    assert "Codes go by email, so an email address is needed." in browser.words

    await browser.post(f"{base}/contact", edit(browser, {"email": "New@Acme.example", "phone_number": ""}))
    assert browser.page.headers["location"] == f"{base}?done=contact#contact"
    await browser.get(f"{base}?done=contact")
    assert "new@acme.example" in browser.words
    assert "the old and the new address are told" in browser.words
    notices = "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'notice'"
    assert await count(office.db, notices, tenant.id) == 2
    await browser.get(f"{base}/history")
    assert "Email o***@acme.example n***@acme.example" in browser.words
    assert "manager-" in browser.words


async def test_changing_a_contact_takes_a_young_sign_in(office: Office) -> None:
    """After an hour the page asks to sign in again before anything is typed, and then leads back."""
    tenant = await office.tenant()
    admin = await add_admin(office.db, office.clock)
    browser = AdminBrowser.of(office.http)
    await browser.sign_in(office.db, office.ring, admin)
    base = f"/admin/tenants/{tenant.slug}"
    await browser.get(f"{base}?edit=contact")
    fields = edit(browser, {"email": "later@acme.example", "phone_number": ""})
    token = browser.token()
    for _ in range(5):
        office.clock.forward(minutes=12)
        await browser.get("/admin")
    await browser.get(f"{base}?edit=details")
    assert browser.page.status_code == 200

    await browser.get(f"{base}?edit=contact")
    again = browser.page.headers["location"]
    assert browser.page.status_code == 303
    refused = await browser.post(f"{base}/contact", fields | {"csrf_token": token})
    assert refused.headers["location"] == again
    assert await count(office.db, "SELECT version FROM tenants WHERE id = $1", tenant.id) == 1
    await browser.get(again)
    assert "Nothing was saved yet." in browser.words
    assert browser.value("email") == admin.email

    before = browser.client.cookies["gh_admin"]
    entered = await browser.sign_in(office.db, office.ring, admin, at=again)
    assert entered.headers["location"] == f"{base}?edit=contact"
    assert browser.client.cookies["gh_admin"] != before
    await browser.get(f"{base}?edit=contact")
    await browser.post(f"{base}/contact", fields)
    assert browser.page.headers["location"].endswith("#contact")
    live = "SELECT count(*) FROM sessions WHERE subject_id = $1 AND ended_at IS NULL"
    assert await count(office.db, live, admin.id) == 1


async def test_delivery_and_details_are_changed(office: Office) -> None:
    """The other two groups: fallbacks in order, an emptied language is the usual one, faults at the field."""
    tenant = await office.tenant(phone_number="+442079460018", locale="de")
    browser = await office.signed_in()
    base = f"/admin/tenants/{tenant.slug}"
    await browser.get(f"{base}?edit=delivery")
    group = {"otp_delivery_method": "email", "fallback_methods": ["sms", "", "sms"]}
    await browser.post(f"{base}/delivery", edit(browser, group))
    assert browser.page.status_code == 422
    assert "sms is listed twice." in browser.words
    await browser.post(f"{base}/delivery", edit(browser, group | {"fallback_methods": ["whatsapp", "sms", ""]}))
    assert browser.page.headers["location"] == f"{base}?done=delivery#delivery"
    await browser.get(base)
    assert "WhatsApp , then SMS" in browser.words or "WhatsApp, then SMS" in browser.words
    await browser.get(f"{base}?edit=delivery")
    await browser.post(f"{base}/delivery", edit(browser, group | {"otp_delivery_method": "sms"}))
    assert browser.page.status_code == 422

    await browser.get(f"{base}?edit=details")
    await browser.post(f"{base}/details", edit(browser, {"name": " ", "locale": "", "timezone": ""}))
    assert "A name has 1 to 120 characters." in browser.words
    await browser.post(f"{base}/details", edit(browser, {"name": "Neu", "locale": "", "timezone": ""}))
    assert browser.page.headers["location"] == f"{base}?done=details#details"
    assert await count(office.db, "SELECT count(*) FROM tenants WHERE id = $1 AND locale = 'en'", tenant.id) == 1


async def test_two_people_change_the_same_field(office: Office) -> None:
    """The second decides with yours, theirs and before at hand; nothing is lost, and the choice is saved."""
    tenant = await office.tenant(email="before@acme.example")
    first, second = await office.signed_in(), await office.signed_in("manager")
    base = f"/admin/tenants/{tenant.slug}"
    await first.get(f"{base}?edit=contact")
    await second.get(f"{base}?edit=contact")
    await first.post(f"{base}/contact", edit(first, {"email": "theirs@acme.example", "phone_number": ""}))
    await second.post(f"{base}/contact", edit(second, {"email": "yours@acme.example", "phone_number": "+442079460018"}))
    assert second.page.status_code == 412
    for words in ("Somebody else saved first", "owner-", "yours@acme", "theirs@acme", "before@acme", "+442079460018"):
        assert words in second.words
    assert await count(office.db, "SELECT version FROM tenants WHERE id = $1", tenant.id) == 2
    assert (second.value("version"), second.value("before_email")) == ("2", "theirs@acme.example")

    await second.post(
        f"{base}/contact",
        {
            "version": "2",
            "before_email": "theirs@acme.example",
            "before_phone_number": "",
            "email": "yours@acme.example",
            "phone_number": "+442079460018",
        },
    )
    assert second.page.status_code == 303
    await second.get(base)
    assert "yours@acme.example" in second.words


async def test_a_conflict_names_who_changed_the_same_fields(office: Office) -> None:
    """Of two who saved meanwhile the page names the one whose change is in the way, with its time."""
    tenant = await office.tenant(email="before@acme.example")
    owner, manager, late = await office.signed_in(), await office.signed_in("manager"), await office.signed_in()
    base = f"/admin/tenants/{tenant.slug}"
    await late.get(f"{base}?edit=contact")
    mine = edit(late, {"email": "yours@acme.example", "phone_number": ""})
    await manager.get(f"{base}?edit=contact")
    await manager.post(f"{base}/contact", edit(manager, {"email": "theirs@acme.example", "phone_number": ""}))
    office.clock.forward(minutes=1)
    await owner.get(f"{base}?edit=details")
    await owner.post(f"{base}/details", edit(owner, {"name": "Renamed", "locale": "en", "timezone": "UTC"}))
    assert owner.page.status_code == 303
    await late.post(f"{base}/contact", mine)
    assert late.page.status_code == 412
    assert re.search(r"manager-\S+ saved a change", late.words)


async def test_a_change_of_other_fields_is_no_conflict(office: Office) -> None:
    """Somebody renamed the tenant meanwhile: the contact is saved on top, and the name stays theirs."""
    tenant = await office.tenant(email="before@acme.example")
    first, second = await office.signed_in(), await office.signed_in()
    base = f"/admin/tenants/{tenant.slug}"
    await first.get(f"{base}?edit=details")
    await second.get(f"{base}?edit=contact")
    await first.post(f"{base}/details", edit(first, {"name": "Renamed", "locale": "en", "timezone": "UTC"}))
    await second.post(f"{base}/contact", edit(second, {"email": "yours@acme.example", "phone_number": ""}))
    assert second.page.headers["location"] == f"{base}?done=contact#contact"
    await second.get(base)
    assert "Renamed" in second.words
    assert "yours@acme.example" in second.words
