"""An admin looks after the members of a tenant on pages, over HTTP and without JavaScript: all of them together."""

from tests.adminpages import base_of, leads, looks, names, office, sign_in, somebody, tenant
from tests.admins import Office
from tests.markup import faults
from tests.people import SomeTenant, count

__all__ = ["office", "tenant"]


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
    assert "so a phone number is needed." in browser.words
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
