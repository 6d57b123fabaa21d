"""An admin looks after the members of a tenant on pages, over HTTP and without JavaScript."""

import json
import re
from collections.abc import AsyncIterator
from html import unescape
from uuid import UUID

import httpx
import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database, Row
from tests.admins import AdminBrowser, Office, edit, open_office
from tests.conftest import Clock
from tests.http import BASE_URL
from tests.markup import faults
from tests.people import SomeTenant, add_member, count, current_code, wrong


@pytest.fixture
async def office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    async with open_office(settings, clock, db, ring) as opened:
        yield opened


@pytest.fixture
async def tenant(office: Office) -> SomeTenant:
    return await office.tenant(name="Acme Water")


def base_of(tenant: SomeTenant) -> str:
    return f"/admin/tenants/{tenant.slug}/members"


async def somebody(office: Office, tenant: SomeTenant, **fields: object) -> UUID:
    """A member in the table."""
    return await add_member(office.db, office.clock(), tenant, **({"email": "ana@home.example"} | fields))


async def stored(office: Office, member_id: UUID) -> Row | None:
    """A member as the table has them."""
    async with office.db.every_tenant() as connection:
        row: Row | None = await connection.fetchrow("SELECT * FROM members WHERE id = $1", member_id)
    return row


def names(browser: AdminBrowser) -> list[str]:
    """The names in the list."""
    return [line.split("</a>")[0].split(">")[-1] for line in browser.page.text.split('<td class="name">')[1:]]


def leads(browser: AdminBrowser, rel: str) -> str:
    """Where a link of the pager leads."""
    return unescape(browser.page.text.split(f'rel="{rel}" href="')[1].split('"')[0])


async def looks(browser: AdminBrowser, path: str, status: int = 200) -> AdminBrowser:
    """Goes to a page, which has to be valid HTML."""
    await browser.get(path)
    assert browser.page.status_code == status, browser.page.text
    assert faults(browser.page.text) == [], path
    return browser


async def test_finding_a_member(office: Office, tenant: SomeTenant) -> None:
    """By a part of the name, an email, digits of a phone in any notation, and a status; other tenants' never show."""
    await somebody(office, tenant, name="Ana Silva", phone_number="+442079460001")
    await somebody(office, tenant, name="Ben Okri", email="ben@home.example", status="suspended")
    await somebody(office, tenant, name="Cleo Voss", email="cleo@home.example", status="pending")
    other = await office.tenant()
    await somebody(office, other, name="Ana Else", email="ana@else.example")
    browser, base = await office.signed_in("manager"), base_of(tenant)
    await looks(browser, base)
    assert names(browser) == ["Ana Silva", "Ben Okri", "Cleo Voss"]
    assert "3 members" in browser.words
    for query, expected in (
        ("q=silva", ["Ana Silva"]),
        ("q=BEN@home", ["Ben Okri"]),
        ("q=020 7946 0001", ["Ana Silva"]),
        ("status=suspended", ["Ben Okri"]),
        ("status=pending", ["Cleo Voss"]),
        ("status=odd", ["Ana Silva", "Ben Okri", "Cleo Voss"]),
        ("q=nobody", []),
    ):
        await looks(browser, f"{base}?{query}")
        assert names(browser) == expected, query
    assert "No member matches." in browser.words
    await browser.get(f"{base}?cursor=nonsense")
    assert browser.page.status_code == 400
    await browser.get("/admin/tenants/nobody-has-this/members")
    assert browser.page.status_code == 404


async def test_nobody_yet(office: Office, tenant: SomeTenant) -> None:
    """The empty list says what members are and how to add one; the tenant's page says so too, and leads here."""
    browser = await office.signed_in()
    await looks(browser, f"/admin/tenants/{tenant.slug}")
    assert "Members See members Nobody yet." in browser.words
    assert f'href="{base_of(tenant)}"' in browser.page.text
    await looks(browser, base_of(tenant))
    assert "There are no members yet." in browser.words
    assert "Add the first member" in browser.words
    await somebody(office, tenant)
    await browser.get(f"/admin/tenants/{tenant.slug}")
    assert "1 member." in browser.words


async def test_a_long_list_in_pages(office: Office, tenant: SomeTenant) -> None:
    """Next and Previous lead through all of it and back, each member once."""
    for number in range(60):
        await somebody(office, tenant, name=f"Member {number:02}", email=f"m{number}@home.example")
    browser = await office.signed_in("viewer")
    await browser.get(base_of(tenant))
    first, seen = names(browser), names(browser)
    while 'rel="next"' in browser.page.text:
        await browser.get(leads(browser, "next"))
        seen += names(browser)
    assert seen == [f"Member {number:02}" for number in range(60)]
    assert len(names(browser)) == 10
    await browser.get(leads(browser, "prev"))
    await browser.get(leads(browser, "prev"))
    assert names(browser) == first
    assert 'rel="prev"' not in browser.page.text


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


async def test_a_manager_does_not_erase(office: Office, tenant: SomeTenant) -> None:
    """What can't be undone is for owners: no button, and a refusal."""
    member = await somebody(office, tenant)
    browser, base = await office.signed_in("manager"), base_of(tenant)
    await looks(browser, f"{base}/{member}")
    assert "Erase" not in browser.words
    await browser.post(f"{base}/{member}/erase", {"name": "Ana Silva"})
    assert browser.page.status_code == 403
    assert await stored(office, member)


async def test_a_new_member(office: Office, tenant: SomeTenant) -> None:
    """Faults stand at their fields and what was typed stays; then they are there, with who added them."""
    browser, base = await office.signed_in("manager"), base_of(tenant)
    typed = {
        "name": "Zoë",
        "email": "zoe at home",
        "phone_number": "12",
        "preferred_method": "",
        "locale": "xx",
        "status": "pending",
    }
    await browser.press(f"{base}/new", f"{base}/new", typed)
    assert browser.page.status_code == 422
    assert faults(browser.page.text) == []
    assert "<title>Error: New member of Acme Water" in browser.page.text
    assert "This is not an email address." in browser.words
    assert (browser.value("name"), browser.value("email")) == ("Zoë", "zoe at home")
    typed |= {"email": "", "phone_number": "", "locale": ""}
    await browser.post(f"{base}/new", typed)
    assert "A member has an email address or a phone number." in browser.words
    await browser.post(f"{base}/new", typed | {"email": "zoe@home.example", "preferred_method": "sms"})
    assert "Delivery by sms needs a phone number." in browser.words
    assert '<option value="sms" selected>' in browser.page.text
    await browser.post(f"{base}/new", typed | {"email": "zoe@home.example"})
    there = browser.page.headers["location"]
    assert there.endswith("?done=member-added")
    await looks(browser, there)
    assert "The member is added." in browser.words
    assert "Invited" in browser.words
    assert "manager-" in browser.words
    await browser.press(f"{base}/new", f"{base}/new", typed | {"email": "ZOE@home.example"})
    assert "Another member has this email address or phone number." in browser.words
    await browser.post(f"{base}/new", typed | {"password_hash": "x"})
    assert browser.page.status_code == 400
    assert await count(office.db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 1


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

    await two.post(f"{there}/contact", mine)
    assert two.page.status_code == 412
    assert faults(two.page.text) == []
    assert "Somebody else saved first" in two.words
    for words in ("owner-", "Yours yours@home.example", "Theirs theirs@home.example", "Before before@home.example"):
        assert words in two.words
    assert (two.value("version"), two.value("before_email")) == ("3", "theirs@home.example")
    hidden = {name: two.value(name) or "" for name in ("version", "before_email", "before_phone_number")}
    chosen = {**hidden, "before_preferred_method": "", "email": "yours@home.example", "phone_number": ""}
    await two.post(f"{there}/contact", chosen | {"preferred_method": ""})
    row = await stored(office, member)
    assert row
    assert (row["email"], row["name"]) == ("yours@home.example", "Ana Maria")
    await two.get(f"{there}?edit=details")
    await two.post(f"{there}/details", {"name": "X", "locale": "en", "before_name": "Ana Maria", "before_locale": "en"})
    assert two.page.status_code == 400, "without the version it showed"


async def test_suspended_and_resumed(office: Office, tenant: SomeTenant) -> None:
    """A page asks first; then the member is out everywhere, and can be resumed by a button."""
    member = await somebody(office, tenant)
    await sign_in(office, tenant)
    browser, there = await office.signed_in("manager"), f"{base_of(tenant)}/{member}"
    await looks(browser, f"{there}/suspend")
    assert "Suspend Ana Silva?" in browser.words
    await browser.post(f"{there}/suspend")
    assert browser.page.headers["location"] == f"{there}?done=member-suspended"
    live = "SELECT count(*) FROM sessions WHERE subject_id = $1 AND ended_at IS NULL"
    assert await count(office.db, live, member) == 0
    await looks(browser, there)
    assert "Suspended" in browser.words
    await browser.post(f"{there}/resume")
    row = await stored(office, member)
    assert row
    assert row["status"] == "active"


async def sign_in(office: Office, tenant: SomeTenant, *, wrong_first: int = 0) -> None:
    """The member signs in by the API, after some wrong codes."""
    asked = await office.http.otp(tenant.slug, "request", {"identifier": "ana@home.example"})
    challenge = asked.json()["challenge_id"]
    code = await current_code(office.db, office.ring, challenge)
    for _ in range(wrong_first):
        await office.http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": wrong(code)})
    answer = await office.http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})
    assert answer.status_code == (429 if wrong_first >= 5 else 200), answer.text


async def test_sessions_of_one_member(office: Office, tenant: SomeTenant) -> None:
    """Listed without other people's, ended one by one or all; another member's session is not theirs to end."""
    member = await somebody(office, tenant)
    other = await somebody(office, tenant, name="Ben Okri", email="ben@home.example")
    for _ in range(3):
        await sign_in(office, tenant)
        office.clock.forward(minutes=1)
    browser, base = await office.signed_in("manager"), base_of(tenant)
    await looks(browser, f"{base}/{other}")
    assert "They are not signed in." in browser.words
    await looks(browser, f"{base}/{member}")
    ends = re.findall(rf'action="({base}/{member}/sessions/[^"]+/end)"', browser.page.text)
    assert len(ends) == 3
    assert (await browser.post(ends[0].replace(str(member), str(other)))).status_code == 404
    await browser.get(f"{base}/{member}")
    await browser.post(ends[0])
    assert browser.page.headers["location"] == f"{base}/{member}?done=session#sessions"
    await looks(browser, f"{base}/{member}/sessions/end-all")
    await browser.post(f"{base}/{member}/sessions/end-all")
    await browser.get(f"{base}/{member}")
    assert "They are not signed in." in browser.words
    assert "Session ended by an admin" in browser.words


async def test_a_link_lets_a_member_in(office: Office, tenant: SomeTenant) -> None:
    """Shown once; it opens as that member. Nobody who is suspended gets one."""
    member = await somebody(office, tenant)
    browser, there = await office.signed_in("manager"), f"{base_of(tenant)}/{member}"
    await browser.get(there)
    await browser.post(f"{there}/sign-in-link")
    assert faults(browser.page.text) == []
    assert "Whoever opens it is signed in as Ana Silva" in browser.words
    link = re.search(rf"{BASE_URL}(/t/{tenant.slug}/link/[^<]+)<", browser.page.text)
    assert link
    visitor = AdminBrowser.of(office.http)
    await visitor.press(link[1], link[1])
    assert visitor.page.status_code == 303
    assert await count(office.db, "SELECT count(*) FROM sessions WHERE subject_id = $1", member) == 1
    await browser.get(there)
    await browser.post(f"{there}/suspend")
    await browser.get(there)
    assert (await browser.post(f"{there}/sign-in-link")).status_code == 400


async def test_their_data_is_handed_out(office: Office, tenant: SomeTenant) -> None:
    """As a file, whole, and that it was is in the history."""
    member = await somebody(office, tenant)
    browser, there = await office.signed_in("manager"), f"{base_of(tenant)}/{member}"
    await browser.get(there)
    answer = await browser.post(f"{there}/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="member.json"'
    assert json.loads(answer.text)["member"]["email"] == "ana@home.example"
    await browser.get(there)
    assert "All data exported" in browser.words


async def test_erased_by_name(office: Office, tenant: SomeTenant) -> None:
    """Only whoever types the name erases; then nothing is left but the log."""
    member = await somebody(office, tenant)
    browser, there = await office.signed_in("owner"), f"{base_of(tenant)}/{member}"
    await looks(browser, f"{there}/erase")
    await browser.post(f"{there}/erase", {"name": "Ana"})
    assert browser.page.status_code == 422
    assert "Type the name as it stands above" in browser.words
    assert await stored(office, member)
    await browser.post(f"{there}/erase", {"name": " ana silva "})
    assert browser.page.headers["location"] == f"{base_of(tenant)}?done=member-erased"
    assert await stored(office, member) is None
    await looks(browser, f"{base_of(tenant)}?done=member-erased")
    assert "All that was kept of this person is deleted." in browser.words
    await browser.get(there)
    assert browser.page.status_code == 404


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
        ("suspend", {}),
        ("resume", {}),
        ("sign-in-link", {}),
        ("sessions/end-all", {}),
        ("export", {}),
        ("erase", {"name": "Ana Silva"}),
    ):
        await browser.get(base)
        assert (await browser.post(f"{base}/{stranger}/{path}", sent)).status_code == 404, path
    await browser.get(base)
    ticked = {"codes": "off", "of": "ticked", "q": "", "status": "", "count": "1", "member": [str(stranger)]}
    assert (await browser.post(f"{base}/codes", ticked)).status_code == 404
    row = await stored(office, stranger)
    assert row
    assert (row["version"], row["status"], row["codes_enabled"]) == (1, "active", True)


async def test_codes_of_many(office: Office, tenant: SomeTenant) -> None:
    """For the ticked or for all who are found, after a page with how many it changes and some of their names."""
    ids = [
        await somebody(office, tenant, name=f"Member {n}", email=f"m{n}@home.example", codes_enabled=n != 0)
        for n in range(8)
    ]
    browser, base = await office.signed_in("manager"), base_of(tenant)

    async def off() -> int:
        sql = "SELECT count(*) FROM members WHERE tenant_id = $1 AND NOT codes_enabled"
        return await count(office.db, sql, tenant.id)

    await looks(browser, f"{base}/codes?codes=off&of=ticked", 422)
    assert "Nobody is ticked." in browser.words
    ticked = f"&member={ids[0]}&member={ids[1]}&member={ids[2]}"
    await looks(browser, f"{base}/codes?codes=off&of=ticked{ticked}")
    assert "Switch codes off for 2 members?" in browser.words
    assert "Member 1 Member 2" in browser.words
    sent = {"codes": "off", "of": "ticked", "q": "", "status": "", "member": [str(i) for i in ids[:3]]}
    await browser.post(f"{base}/codes", sent | {"count": "2"})
    assert browser.page.headers["location"] == f"{base}?done=codes-off"
    assert await off() == 3

    await looks(browser, f"{base}/codes?codes=off&of=found&q=member&status=")
    assert "Switch codes off for 5 members?" in browser.words
    found = {"codes": "off", "of": "found", "q": "member", "status": ""}
    await somebody(office, tenant, name="Member late", email="late@home.example")
    await browser.post(f"{base}/codes", found | {"count": "5"})
    assert browser.page.status_code == 422
    assert "Meanwhile it is another number of members." in browser.words
    assert "Switch codes off for 6 members?" in browser.words
    assert await off() == 3
    await browser.post(f"{base}/codes", found | {"count": "6", "q": "member 3"})
    assert await off() == 3, "only as many as the page said"
    await browser.post(f"{base}/codes", found | {"count": "1", "q": "member 3"})
    assert await off() == 4
    await looks(browser, f"{base}/codes?codes=off&of=found&q=member 3")
    assert "Codes are off for all of them already." in browser.words
    for odd in ("codes=odd&of=found", "codes=on&of=odd", "codes=on&of=ticked&member=odd"):
        assert (await browser.get(f"{base}/codes?{odd}")).status_code == 400, odd


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
    assert (await upload(browser, base, b"name,email\nX,x@home.example\n")).status_code == 303
    row = await stored(office, member)
    assert row
    assert (row["version"], row["codes_enabled"]) == (1, True)
    assert await count(office.db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 1


async def upload(
    browser: AdminBrowser, base: str, body: bytes, fields: dict[str, str] | None = None, origin: str = BASE_URL
) -> httpx.Response:
    """Sends a file as a browser does, with the token of the page it was on last."""
    sent = {"csrf_token": browser.token(), **(fields or {})}
    files = {"file": ("members.csv", body, "text/csv")}
    browser.page = await browser.client.post(f"{base}/import", data=sent, files=files, headers={"Origin": origin})
    return browser.page


async def test_a_file_is_checked_and_imported(office: Office, tenant: SomeTenant) -> None:
    """First what each row would do; then, with the same file again, it is done."""
    await somebody(office, tenant)
    await somebody(office, tenant, name="Ben Okri", email="ben@home.example")
    browser, base = await office.signed_in("manager"), base_of(tenant)
    await looks(browser, f"{base}/import")
    body = b"name,email,locale\nAna Maria,ana@home.example,en\nBen Okri,ben@home.example,en\nCleo,c@home.example,de\n"
    await upload(browser, base, body)
    assert (browser.page.status_code, faults(browser.page.text)) == (200, [])
    assert "In the file 1 1 1 0" in browser.words
    assert "Row 2 Ana Maria Changed: Name" in browser.words
    assert "Row 4 Cleo Added" in browser.words
    people = "SELECT count(*) FROM members WHERE tenant_id = $1"
    assert await count(office.db, people, tenant.id) == 2
    digest = re.search(r'name="checked" value="([^"]+)"', browser.page.text)
    assert digest
    await upload(browser, base, body + b"Dan,dan@home.example,en\n", {"checked": digest[1]})
    assert browser.page.status_code == 422
    assert "This is not the file that was checked." in browser.words
    assert await count(office.db, people, tenant.id) == 2
    await upload(browser, base, body, {"checked": digest[1]})
    assert browser.page.headers["location"] == f"{base}?done=members-imported"
    assert await count(office.db, people, tenant.id) == 3


async def test_a_faulty_file(office: Office, tenant: SomeTenant) -> None:
    """Every fault stands with its row and column, nothing is imported, and there is no button to do it all the same."""
    browser, base = await office.signed_in("manager"), base_of(tenant)
    await browser.get(f"{base}/import")
    body = b"name,email,phone_number\nAna,ana@home.example,12\n,nobody,\nCleo,c@home.example,\nDan,d***@home.example,\n"
    await upload(browser, base, body)
    assert (browser.page.status_code, faults(browser.page.text)) == (422, [])
    assert "In the file 1 0 0 3" in browser.words
    for words in (
        "Row 2 Phone number",
        "Row 3 Name Enter the name.",
        "Row 3 Email",
        "Row 5 Email This contact is masked",
    ):
        assert words in browser.words
    assert 'name="checked"' not in browser.page.text
    for what, words in (
        (b"", "Choose a file."),
        (b"\xff\xfe", "This is not a CSV file in UTF-8."),
        (b"name,iban\nAna,1\n", "The first row has the names of the fields"),
    ):
        await upload(browser, base, what)
        assert browser.page.status_code == 422
        assert words in browser.words
    assert await count(office.db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 0


async def test_an_upload_is_guarded_as_any_form(office: Office, tenant: SomeTenant) -> None:
    """Another site's, one without the token, one with an unknown or repeated field: refused, nothing imported."""
    browser, base = await office.signed_in("manager"), base_of(tenant)
    body = b"name,email\nAna,ana@home.example\n"
    await browser.get(f"{base}/import")
    assert (await upload(browser, base, body, origin="https://evil.example")).status_code == 403
    await browser.get(f"{base}/import")
    assert (await upload(browser, base, body, {"csrf_token": "odd"})).status_code == 403
    await browser.get(f"{base}/import")
    assert (await upload(browser, base, body, {"odd": "1"})).status_code == 400
    await browser.get(f"{base}/import")
    assert (await upload(browser, base, body, {"file": "1"})).status_code == 400
    await browser.get(f"{base}/import")
    await browser.post(f"{base}/import", {"file": "name"})
    assert "Choose a file." in browser.words
    assert await count(office.db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 0


async def test_how_sign_in_goes(office: Office, tenant: SomeTenant) -> None:
    """Codes asked for, mistyped, locked and used, for all members and for one, and the share that succeeded."""
    member = await somebody(office, tenant)
    other = await somebody(office, tenant, name="Ben Okri", email="ben@home.example")
    await sign_in(office, tenant, wrong_first=1)
    await sign_in(office, tenant, wrong_first=5)
    office.clock.forward(days=2)
    await sign_in(office, tenant)
    browser, base = await office.signed_in("viewer"), base_of(tenant)
    await looks(browser, base)
    assert "Last 24 hours 1 0 0 0 0 1 100 %" in browser.words
    assert "Last 7 days 3 0 0 6 1 2 67 %" in browser.words
    await looks(browser, f"{base}/{member}")
    assert "Last 7 days 3 0 0 6 1 2 67 %" in browser.words
    assert "Wrong code, 4 tries left" in browser.words
    await browser.get(f"{base}/{other}")
    assert "Last 7 days 0 0 0 0 0 0 none yet" in browser.words
    assert "No code was asked for yet." in browser.words
