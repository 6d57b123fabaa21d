"""What strangers, colleagues with a lower role and hostile pages may try on the admin portal: nothing changes."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.auth.admin_sessions import STEP_UP
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.admins import AdminBrowser, Office, add_admin, edit, open_office
from tests.conftest import Clock
from tests.http import BASE_URL
from tests.pages import session_name
from tests.people import SomeTenant, add_member, count, current_code

WRITES = ("contact", "delivery", "details", "suspend", "unlock", "sign-in-link", "sessions/end-all", "test-message")


@pytest.fixture
async def office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    async with open_office(settings, clock, db, ring) as opened:
        yield opened


async def footprint(office: Office, tenant: SomeTenant) -> tuple[int, ...]:
    """Everything that a successful attack would leave behind."""
    tables = ("audit_events", "outbox", "sign_in_links")
    version = await count(office.db, "SELECT version FROM tenants WHERE id = $1", tenant.id)
    rows = [await count(office.db, f"SELECT count(*) FROM {t} WHERE tenant_id = $1", tenant.id) for t in tables]
    return (version, *rows)


FORMS: dict[str, dict[str, object]] = {
    "contact": {"email": "evil@evil.example", "phone_number": ""},
    "delivery": {"otp_delivery_method": "email", "fallback_methods": ["sms"]},
    "details": {"name": "Pwned", "locale": "en", "timezone": "UTC"},
    "suspend": {"reason": "because"},
    "test-message": {"channel": "email"},
}


async def sendable(browser: AdminBrowser, base: str, verb: str) -> dict[str, object]:
    """A form that would do it, and the page it stands on in `browser`."""
    await browser.get(f"{base}?edit={verb}" if verb in {"contact", "delivery", "details"} else f"{base}/suspend")
    form = FORMS.get(verb, {})
    return edit(browser, form) if verb in {"contact", "delivery", "details"} else form


@pytest.mark.parametrize("verb", WRITES)
async def test_a_form_from_elsewhere_changes_nothing(office: Office, verb: str) -> None:
    """Without a token, with somebody else's, a forged one, from another site, with no sign of a browser: 403."""
    tenant = await office.tenant()
    base = f"/admin/tenants/{tenant.slug}"
    victim, colleague = await office.signed_in(), await office.signed_in()
    await colleague.get("/admin")
    stranger = AdminBrowser.of(office.http)
    await stranger.get("/admin/sign-in")
    form = await sendable(victim, base, verb)
    before = await footprint(office, tenant)
    for token in ("", "x", colleague.token(), stranger.token(), victim.token()[:-1] + "~"):
        refused = await victim.client.post(
            f"{base}/{verb}", data={**form, "csrf_token": token}, headers={"Origin": BASE_URL}
        )
        assert refused.status_code == 403, (verb, token)
    good = {**form, "csrf_token": victim.token()}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"{BASE_URL}.evil.example"},
        {"Origin": BASE_URL, "Sec-Fetch-Site": "cross-site"},
        {"Origin": BASE_URL, "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {},
    ):
        refused = await victim.client.post(f"{base}/{verb}", data=good, headers=headers)
        assert refused.status_code == 403, (verb, headers)
    assert await footprint(office, tenant) == before
    done = await victim.post(f"{base}/{verb}", form)
    assert done.status_code in {200, 303}, "the honest form works, or this test proves nothing"


@pytest.mark.parametrize("verb", WRITES)
async def test_a_viewer_cannot_write(office: Office, verb: str) -> None:
    """The forms aren't shown to viewers, and sending them all the same is refused."""
    tenant = await office.tenant()
    base = f"/admin/tenants/{tenant.slug}"
    manager, viewer = await office.signed_in("manager"), await office.signed_in("viewer")
    form = await sendable(manager, base, verb)
    before = await footprint(office, tenant)
    await viewer.get(base)
    refused = await viewer.post(f"{base}/{verb}", form)
    assert refused.status_code == 403
    assert await footprint(office, tenant) == before


@pytest.mark.parametrize("verb", ["contact", "delivery", "details", "suspend", "test-message"])
async def test_unknown_and_doubled_fields_are_refused(office: Office, verb: str) -> None:
    """Nobody slips in another field (status, slug, policy), or the same one twice."""
    tenant = await office.tenant()
    base = f"/admin/tenants/{tenant.slug}"
    browser = await office.signed_in()
    form = await sendable(browser, base, verb)
    before = await footprint(office, tenant)
    for extra in ({"status": "active"}, {"slug": "other"}, {"policy": "{}"}, {"tenant_id": str(tenant.id)}):
        assert (
            await browser.client.post(
                f"{base}/{verb}", data={**form, **extra, "csrf_token": browser.token()}, headers={"Origin": BASE_URL}
            )
        ).status_code == 400
    first = next(iter(form))
    await browser.get(base)
    refused = await browser.post(f"{base}/{verb}", {**form, first: [form[first], "twice"]})
    assert refused.status_code == 400
    assert await footprint(office, tenant) == before


async def test_a_stale_or_invented_version_changes_nothing(office: Office) -> None:
    """An old page, a version from the future, or none at all never overwrites what somebody saved."""
    tenant = await office.tenant(email="before@acme.example")
    base = f"/admin/tenants/{tenant.slug}"
    browser, other = await office.signed_in(), await office.signed_in()
    await browser.get(f"{base}?edit=contact")
    stale = edit(browser, {"email": "mine@acme.example", "phone_number": ""})
    await other.get(f"{base}?edit=contact")
    await other.post(f"{base}/contact", edit(other, {"email": "theirs@acme.example", "phone_number": ""}))
    before = await footprint(office, tenant)
    for version in ("1", "0", "99999"):
        await browser.get(base)
        assert (await browser.post(f"{base}/contact", stale | {"version": version})).status_code == 412, version
    for version in ("", "-1", "2.0", "٢", "9" * 30):
        await browser.get(base)
        assert (await browser.post(f"{base}/contact", stale | {"version": version})).status_code == 400, version
    await browser.get(base)
    claims = stale | {"version": "2", "before_email": "never@was.example"}
    assert (await browser.post(f"{base}/contact", claims)).status_code == 303, "the current version is what counts"
    assert before[0] == 2


async def test_neither_portal_takes_the_others_session(office: Office) -> None:
    """A tenant's cookie opens no admin page under either name, an admin's no tenant page; nor do their tokens."""
    tenant = await office.tenant()
    admin = await office.signed_in()
    customer = AdminBrowser.of(office.http)
    login = f"/t/{tenant.slug}/login"
    await customer.press(login, login)
    challenge = next(v for k, v in customer.client.cookies.items() if k.startswith("gh_challenge")).split(".")[0]
    code = await current_code(office.db, office.ring, challenge)
    await customer.press(f"/t/{tenant.slug}/verify", f"/t/{tenant.slug}/verify", {"code": code})
    assert customer.page.status_code == 303
    session = customer.client.cookies[session_name(tenant.slug)]

    thief = AdminBrowser.of(office.http)
    thief.client.cookies.set("gh_admin", session)
    thief.client.cookies.set(session_name(tenant.slug), admin.client.cookies["gh_admin"])
    before = await footprint(office, tenant)
    for path in ("/admin", "/admin/tenants", f"/admin/tenants/{tenant.slug}"):
        assert (await thief.get(path)).status_code == 303, path
    assert (await thief.get(f"/t/{tenant.slug}/")).headers["location"].startswith(login)
    await customer.get(f"/t/{tenant.slug}/")
    refused = await customer.post(f"/admin/tenants/{tenant.slug}/suspend", {"reason": "mine"})
    assert refused.status_code == 303
    assert refused.headers["location"].startswith("/admin/sign-in")
    assert await footprint(office, tenant) == before


async def test_a_session_of_one_tenant_is_not_ended_through_another(office: Office) -> None:
    """The session's id under another tenant's address is no session there, and stays."""
    tenant, other = await office.tenant(), await office.tenant()
    asked = await office.http.otp(tenant.slug, "request")
    challenge = asked.json()["challenge_id"]
    code = await current_code(office.db, office.ring, challenge)
    await office.http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})
    browser = await office.signed_in()
    await browser.get(f"/admin/tenants/{tenant.slug}")
    session = browser.page.text.split("/sessions/")[2].split("/end")[0]
    await browser.post(f"/admin/tenants/{other.slug}/sessions/{session}/end")
    assert browser.page.status_code == 404
    live = "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL"
    assert await count(office.db, live, tenant.id) == 1


async def test_the_system_tenant_has_no_page(office: Office) -> None:
    """The tenant that admins live under can't be looked at, suspended or let into."""
    browser = await office.signed_in()
    for path in ("", "/timeline", "/history", "/suspend"):
        assert (await browser.get(f"/admin/tenants/_system{path}")).status_code == 400, path
    await browser.get("/admin")
    assert (await browser.post("/admin/tenants/_system/suspend", {"reason": "x"})).status_code == 400
    await browser.get("/admin/tenants?q=_system")
    assert "No tenant matches." in browser.words


async def test_a_dismissed_admin_is_out_at_once(office: Office) -> None:
    """Suspending or demoting an admin counts from the next page on, within the cache's three seconds."""
    admin = await add_admin(office.db, office.clock)
    browser = AdminBrowser.of(office.http)
    await browser.sign_in(office.db, office.ring, admin)
    assert (await browser.get("/admin/tenants/new")).status_code == 200
    for change, status in (("role = 'viewer'", 403), ("status = 'suspended'", 303)):
        async with office.db.every_tenant() as connection:
            await connection.execute(f"UPDATE admins SET {change} WHERE id = $1", admin.id)
        office.clock.forward(seconds=4)
        assert (await browser.get("/admin/tenants/new")).status_code == status


async def test_cookies_are_as_tight_as_they_can_be(office: Office) -> None:
    """HttpOnly and SameSite=Strict; the session's value is new at each sign-in and a chosen one is never taken."""
    admin = await add_admin(office.db, office.clock)
    browser = AdminBrowser.of(office.http)
    browser.client.cookies.set("gh_admin", "A" * 86)
    entered = await browser.sign_in(office.db, office.ring, admin)
    cookie = next(c for c in entered.headers.get_list("set-cookie") if c.startswith("gh_admin="))
    assert "A" * 86 not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}


async def test_markup_in_what_others_typed_stays_text(office: Office) -> None:
    """Names, reasons, user agents and providers' answers are shown, never run."""
    evil = "<script>alert(1)</script>"
    tenant = await office.tenant(name=evil)
    await office.http.otp(tenant.slug, "request", headers={"User-Agent": f"Mozilla {evil}"})
    async with office.db.every_tenant() as connection:
        await connection.execute(
            "INSERT INTO delivery_events (tenant_id, at, outbox_id, kind, channel, state, provider, error_text) "
            "VALUES ($1, $2, $1, 'code', 'email', 'failed', 'smtp', $3)",
            tenant.id,
            office.clock(),
            evil,
        )
    browser = await office.signed_in()
    base = f"/admin/tenants/{tenant.slug}"
    await browser.press(f"{base}/suspend", f"{base}/suspend", {"reason": evil})
    for path in (
        base,
        f"{base}/timeline",
        f"{base}/history",
        f"/admin/tenants?q={tenant.slug}",
        f"{base}?edit=details",
    ):
        await browser.get(path)
        assert "<script>alert" not in browser.page.text, path
        assert "&lt;script&gt;alert" in browser.page.text, path


async def test_a_sign_in_link_takes_a_young_sign_in(office: Office) -> None:
    """Whoever finds an old session open can't let themself in as a tenant or a member with it, by page or by API."""
    tenant = await office.tenant()
    member = await add_member(office.db, office.clock(), tenant, email="ana@home.example")
    browser = await office.signed_in("manager")
    base = f"/admin/tenants/{tenant.slug}"
    for _ in range(STEP_UP // timedelta(minutes=12)):
        office.clock.forward(minutes=12)
        await browser.get(base)
    for path in (base, f"{base}/members/{member}"):
        await browser.press(f"{path}/sign-in-link", path)
        assert browser.page.headers["location"].startswith("/admin/sign-in?"), path
    await browser.get(base)
    refused = await browser.client.post(
        f"/api/v1{base}/sign-in-link", headers={"Origin": BASE_URL, "X-CSRF-Token": browser.token()}
    )
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "Sign in again" in refused.json()["detail"]
    assert await count(office.db, "SELECT count(*) FROM sign_in_links WHERE tenant_id = $1", tenant.id) == 0
