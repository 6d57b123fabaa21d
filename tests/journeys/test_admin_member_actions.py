"""What an admin does to one member with one button, over HTTP and without JavaScript."""

import json
import re
from datetime import timedelta
from uuid import uuid4

from tests.adminpages import base_of, looks, office, sign_in, somebody, stored, tenant
from tests.admins import AdminBrowser, Office, edit
from tests.http import BASE_URL
from tests.markup import faults
from tests.people import SomeTenant, count

__all__ = ["office", "tenant"]

_APP = (
    "INSERT INTO factors (tenant_id, id, subject_kind, subject_id, secret, key_id, begun_by, created_at, confirmed_at, "
    "last_step) VALUES ($1, $2, 'member', $3, '', 'k', $3, $4, $4, 1)"
)


async def test_a_manager_does_not_erase(office: Office, tenant: SomeTenant) -> None:
    """What can't be undone is for owners: no button, and a refusal."""
    member = await somebody(office, tenant)
    browser, base = await office.signed_in("manager"), base_of(tenant)
    await looks(browser, f"{base}/{member}")
    assert "Erase" not in browser.words
    await browser.post(f"{base}/{member}/erase", {"name": "Ana Silva"})
    assert browser.page.status_code == 403
    assert await stored(office, member)


async def test_suspended_and_resumed(office: Office, tenant: SomeTenant) -> None:
    """A page asks first; then the member is out everywhere, and can be resumed by a button."""
    member = await somebody(office, tenant)
    await sign_in(office, tenant)
    browser, there = await office.signed_in("manager"), f"{base_of(tenant)}/{member}"
    await looks(browser, f"{there}/suspend")
    assert "Suspend Ana Silva?" in browser.words
    await browser.post(f"{there}/suspend", {"version": browser.value("version")})
    assert browser.page.headers["location"] == f"{there}?done=member-suspended"
    live = "SELECT count(*) FROM sessions WHERE subject_id = $1 AND ended_at IS NULL"
    assert await count(office.db, live, member) == 0
    await looks(browser, there)
    assert "Suspended" in browser.words
    await browser.post(f"{there}/resume")
    row = await stored(office, member)
    assert row
    assert row["status"] == "active"


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
    await browser.get(f"{there}/suspend")
    await browser.post(f"{there}/suspend", {"version": browser.value("version")})
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
    version = {"version": browser.value("version")}
    await browser.post(f"{there}/erase", version | {"name": "Ana"})
    assert browser.page.status_code == 422
    assert "Type the name as it stands above" in browser.words
    assert await stored(office, member)
    await browser.post(f"{there}/erase", version | {"name": " ana silva "})
    assert browser.page.headers["location"] == f"{base_of(tenant)}?done=member-erased"
    assert await stored(office, member) is None
    await looks(browser, f"{base_of(tenant)}?done=member-erased")
    assert "All that was kept of this person is deleted." in browser.words
    await browser.get(there)
    assert browser.page.status_code == 404


async def test_a_page_that_is_out_of_date(office: Office, tenant: SomeTenant) -> None:
    """Nobody is suspended or erased by whoever was asked about somebody who has changed since: they are asked again."""
    member = await somebody(office, tenant)
    browser, other = await office.signed_in(), await office.signed_in()
    there = f"{base_of(tenant)}/{member}"
    await browser.get(f"{there}/erase")
    sent = {"version": browser.value("version"), "name": "Ana Silva"}
    await other.get(f"{there}?edit=details")
    await other.post(f"{there}/details", edit(other, {"name": "Ben Okri", "locale": "en"}))
    for step, heading in (("suspend", "Suspend Ben Okri?"), ("erase", "Erase Ben Okri?")):
        fields = sent if step == "erase" else {"version": sent["version"]}
        await browser.post(f"{there}/{step}", fields)
        assert (browser.page.status_code, faults(browser.page.text)) == (412, []), step
        assert "Somebody else saved a change first. Look at it and decide again." in browser.words
        assert heading in browser.words
        assert browser.value("version") == "2"
        await browser.post(f"{there}/{step}", {name: text for name, text in fields.items() if name != "version"})
        assert browser.page.status_code == 400, "without the version it showed"
        await browser.get(f"{there}/{step}")
    row = await stored(office, member)
    assert row
    assert row["status"] == "active"


async def test_unlocked(office: Office, tenant: SomeTenant) -> None:
    """The page says what was counted against a member; unlocked, a code can be asked for, and the history has it."""
    member = await somebody(office, tenant)
    for _ in range(3):
        await sign_in(office, tenant, wrong_first=2)
    assert (await office.http.otp(tenant.slug, "request", {"identifier": "ana@home.example"})).status_code == 429
    browser, there = await office.signed_in("manager"), f"{base_of(tenant)}/{member}"
    await looks(browser, there)
    assert "Codes in the last hour 3 the next one 14 Mar 2026, 10:26 UTC Wrong in 24 hours 6 Locked No" in browser.words
    until = office.clock() + timedelta(minutes=15)
    async with office.db.every_tenant() as connection:
        await connection.execute("UPDATE quota SET locked_until = $1 WHERE tenant_id = $2", until, tenant.id)
    await looks(browser, there)
    assert "Locked until 14 Mar 2026, 09:41 UTC" in browser.words
    await browser.post(f"{there}/unlock")
    assert browser.page.headers["location"] == f"{there}?done=unlocked#standing"
    await looks(browser, f"{there}?done=unlocked")
    assert "Unlocked. A code can be asked for now." in browser.words
    assert "Codes in the last hour 0 Wrong in 24 hours 0 Locked No" in browser.words
    assert "Unlocked manager-" in browser.words
    assert f'action="{there}/unlock"' not in browser.page.text
    await browser.post(f"{there}/unlock")
    assert browser.page.headers["location"] == f"{there}?done=not-locked#standing"
    await sign_in(office, tenant)


async def test_invited_again(office: Office) -> None:
    """Where registration lets them in, at most once a minute; where it is closed, the page says what that means."""
    tenant = await office.tenant(policy={"registration": "invite"})
    member = await somebody(office, tenant, status="pending")
    browser, there = await office.signed_in("manager"), f"{base_of(tenant)}/{member}"
    await looks(browser, there)
    await browser.post(f"{there}/invite")
    assert browser.page.headers["location"] == f"{there}?done=member-invited#invitation"
    await looks(browser, f"{there}?done=member-invited")
    assert "The invitation is on its way." in browser.words
    assert "Invited manager-" in browser.words
    await browser.post(f"{there}/invite")
    assert (browser.page.status_code, faults(browser.page.text)) == (429, [])
    assert "An invitation has just been sent. Wait a minute." in browser.words
    assert await count(office.db, "SELECT count(*) FROM outbox WHERE tenant_id = $1", tenant.id) == 1

    closed = await office.tenant()
    member = await somebody(office, closed, status="pending")
    there = f"{base_of(closed)}/{member}"
    await looks(browser, there)
    assert "Registration is closed:" in browser.words
    assert f'action="{there}/invite"' not in browser.page.text
    await browser.post(f"{there}/invite")
    assert browser.page.status_code == 403
    assert "Registration is closed here. Set the tenant's policy" in browser.words
    active = await somebody(office, closed, email="ben@home.example")
    await looks(browser, f"{base_of(closed)}/{active}")
    assert "Invitation" not in browser.words
    await browser.post(f"{base_of(closed)}/{active}/invite")
    assert "This member needs no invitation" in browser.words


async def test_the_second_factor_leads_to_its_reset(office: Office, tenant: SomeTenant) -> None:
    """Where an app is set up, for those who may take it away; nowhere else."""
    member = await somebody(office, tenant)
    manager, viewer = await office.signed_in("manager"), await office.signed_in("viewer")
    there = f"{base_of(tenant)}/{member}"
    await looks(manager, there)
    assert "Second factor None" in manager.words
    assert f"{there}/reset-factors" not in manager.page.text
    async with office.db.every_tenant() as connection:
        await connection.execute(_APP, tenant.id, uuid4(), member, office.clock())
    await looks(manager, there)
    assert "Second factor Authenticator app Reset … the second factor" in manager.words
    assert f'href="{there}/reset-factors"' in manager.page.text
    await looks(viewer, there)
    assert "Second factor Authenticator app" in viewer.words
    assert f"{there}/reset-factors" not in viewer.page.text
