"""An admin signs in, over HTTP and without JavaScript; and what each role may then do."""

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
from litestar import get

from admin_portal.guards import ANYONE, guarded
from app.audit.log import Actor, Client
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.errors import ConfigurationError
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from tests.admins import AdminBrowser, Office, add_admin, open_office
from tests.conftest import Clock
from tests.http import serve
from tests.people import count, current_code, wrong

SIGN_IN = "/admin/sign-in"


@pytest.fixture
async def office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    async with open_office(settings, clock, db, ring) as opened:
        yield opened


async def test_nobody_is_told_who_is_an_admin(office: Office) -> None:
    """A stranger's email gets the same answers, up to a code that never fits."""
    admin = await add_admin(office.db, office.clock)
    pages = []
    for email in (admin.email, "nobody@staff.example"):
        browser = AdminBrowser.of(office.http)
        await browser.press(SIGN_IN, SIGN_IN, {"email": email})
        assert (browser.page.status_code, browser.page.headers["location"]) == (303, "/admin/sign-in/code")
        await browser.get("/admin/sign-in/code")
        asked = browser.words
        await browser.post("/admin/sign-in/code", {"code": "000000" if email != admin.email else "000001"})
        pages.append((asked, browser.page.status_code, browser.words))
    assert pages[0] == pages[1]
    assert "Wrong code – 4 attempts left" in pages[0][2]  # noqa: RUF001 - a dash


async def test_signing_in_leads_back_to_where_one_wanted_to_go(office: Office) -> None:
    """A page asked for while signed out comes after the code; nothing outside the portal can be asked for."""
    tenant = await office.tenant()
    wanted = f"/admin/tenants/{tenant.slug}?edit=details"
    browser = AdminBrowser.of(office.http)
    await browser.get(wanted)
    assert browser.page.status_code == 303
    admin = await add_admin(office.db, office.clock)
    entered = await browser.sign_in(office.db, office.ring, admin, at=browser.page.headers["location"])
    assert (entered.status_code, entered.headers["location"]) == (303, wanted)
    assert (await browser.get(wanted)).status_code == 200
    for elsewhere in ("https://evil.example/", "//evil.example", "/admin/../t/x", "/\\evil.example", "/adminx"):
        assert (await browser.get(SIGN_IN)).headers["location"] == "/admin"
        moved = await browser.client.get(SIGN_IN, params={"next": elsewhere})
        assert moved.headers["location"] == "/admin", elsewhere


async def test_what_goes_wrong_at_sign_in_is_said(office: Office) -> None:
    """No address, a mistyped code, too many of them, too many requests: each in words, with the way on."""
    admin = await add_admin(office.db, office.clock)
    browser = AdminBrowser.of(office.http)
    await browser.press(SIGN_IN, SIGN_IN, {"email": "not an address"})
    assert browser.page.status_code == 400
    assert "This is not an email address." in browser.words
    assert browser.value("email") == "not an address"

    await browser.post(SIGN_IN, {"email": admin.email})
    challenge = browser.client.cookies["gh_admin_challenge"].split(".")[0]
    code = await current_code(office.db, office.ring, challenge)
    await browser.get("/admin/sign-in/code")
    await browser.post("/admin/sign-in/code", {"code": "12"})
    assert (browser.page.status_code, browser.value("code")) == (400, "12")
    for _ in range(5):
        await browser.post("/admin/sign-in/code", {"code": wrong(code)})
    assert browser.page.status_code == 429
    assert "Too many attempts" in browser.words
    assert "/admin/sign-in?next=" in browser.page.text

    office.clock.forward(seconds=61)
    for _ in range(3):
        await browser.press(SIGN_IN, SIGN_IN, {"email": admin.email})
    assert browser.page.status_code == 429
    assert browser.page.headers["retry-after"]
    assert "You can ask again in" in browser.words


async def test_a_new_code_replaces_the_old_one(office: Office) -> None:
    """Resend waits for its cooldown, then the new code alone signs in."""
    admin = await add_admin(office.db, office.clock)
    browser = AdminBrowser.of(office.http)
    await browser.press(SIGN_IN, SIGN_IN, {"email": admin.email})
    challenge = browser.client.cookies["gh_admin_challenge"].split(".")[0]
    first = await current_code(office.db, office.ring, challenge)
    await browser.press("/admin/sign-in/resend", "/admin/sign-in/code")
    assert browser.page.status_code == 429
    office.clock.forward(seconds=61)
    await browser.press("/admin/sign-in/resend", "/admin/sign-in/code")
    assert browser.page.headers["location"] == "/admin/sign-in/code"
    second = await current_code(office.db, office.ring, challenge)
    assert first != second
    await browser.press("/admin/sign-in/code", "/admin/sign-in/code", {"code": first})
    assert browser.page.status_code == 401
    await browser.post("/admin/sign-in/code", {"code": second})
    assert browser.page.headers["location"] == "/admin"
    assert (await browser.get("/admin/sign-in/code")).headers["location"] == SIGN_IN
    assert (await browser.get(SIGN_IN)).headers["location"] == "/admin"


async def test_an_expired_code_says_so(office: Office) -> None:
    """Eleven minutes later the page tells it before anybody types."""
    browser = AdminBrowser.of(office.http)
    await browser.press(SIGN_IN, SIGN_IN, {"email": "somebody@staff.example"})
    office.clock.forward(minutes=11)
    await browser.get("/admin/sign-in/code")
    assert browser.page.status_code == 410
    assert "The code has expired" in browser.words


async def test_a_session_ends_when_nobody_uses_it(office: Office) -> None:
    """Every 14 minutes a page keeps it, up to 12 hours; 15 minutes of rest end it, and the log says why."""
    browser = await office.signed_in()
    for _ in range(51):
        office.clock.forward(minutes=14)
        assert (await browser.get("/admin")).status_code == 200
    office.clock.forward(minutes=14)
    assert (await browser.get("/admin")).status_code == 303

    browser = await office.signed_in()
    assert (await browser.get("/admin")).status_code == 200
    office.clock.forward(minutes=15)
    assert (await browser.get("/admin")).headers["location"] == f"{SIGN_IN}?why=idle"
    sql = "SELECT count(*) FROM audit_events WHERE at = $1 AND action = 'session.ended' AND data ->> 'reason' = 'idle'"
    assert await count(office.db, sql, office.clock()) == 1


@pytest.mark.parametrize("minutes", [15, 60 * 24])
async def test_after_a_rest_the_sign_in_says_so_and_comes_back(
    settings: Settings, office: Office, minutes: int
) -> None:
    """No process sends the browser round, however lately it believed in the session; then the page is there again."""
    there = "/admin/tenants?q=acme"
    async with serve(settings, office.clock) as other:
        admin = await add_admin(office.db, office.clock)
        browser, twin = AdminBrowser.of(office.http), AdminBrowser.of(other)
        await browser.sign_in(office.db, office.ring, admin)
        twin.client.cookies.update(browser.client.cookies)
        office.clock.forward(minutes=minutes)
        first = await browser.get(there)
        assert first.headers["location"] == f"{SIGN_IN}?next=%2Fadmin%2Ftenants%3Fq%3Dacme&why=idle"
        assert (await twin.get(there)).headers["location"] == first.headers["location"], "also in another tab"
        await browser.post("/admin/tenants/some/unlock", Referer=f"http://localhost:8000{there}")
        assert browser.page.headers["location"] == f"{SIGN_IN}?next=%2Fadmin%2Ftenants%3Fq%3Dacme&why=idle-unsaved"
        for process in (browser, twin):
            await process.get(first.headers["location"])
            assert process.page.status_code == 200, "no circle"
            assert "You were signed out after 15 minutes without use" in process.words
        await browser.sign_in(office.db, office.ring, admin, at=first.headers["location"])
        assert browser.page.headers["location"] == there


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/admin",
        "//evil.example",
        "/admin/../t/x",
        "/admin/sign-out",
        "/t/acme/",
        "/admin\\evil",
        "",
    ],
)
async def test_nobody_comes_back_to_elsewhere(office: Office, wanted: str) -> None:
    """`next` leads to pages of this portal and nowhere else."""
    browser = AdminBrowser.of(office.http)
    await browser.get(f"{SIGN_IN}?{urlencode({'next': wanted, 'why': 'idle'})}")
    assert browser.value("next") == "/admin"


async def test_signing_out_ends_the_session(office: Office) -> None:
    """The button ends it on the server: the cookie alone opens nothing any more."""
    browser = await office.signed_in()
    cookie = browser.client.cookies["gh_admin"]
    await browser.press("/admin/sign-out", "/admin")
    assert browser.page.headers["location"] == "/admin/sign-in?why=out"
    await browser.get("/admin/sign-in?why=out")
    assert "You are signed out." in browser.words
    browser.client.cookies.set("gh_admin", cookie, domain="localhost.local")
    assert (await browser.get("/admin")).status_code == 303


async def test_a_break_glass_link_opens_once(office: Office, sessions: Sessions) -> None:
    """Looking at it uses nothing up; the button signs in; the second press is told so."""
    admin = await add_admin(office.db, office.clock)
    links = Links(office.db, sessions, office.clock)
    token = await links.create(SYSTEM_TENANT, ("admin", admin.id), Actor("operator"), Client("cli"))
    browser, second = AdminBrowser.of(office.http), AdminBrowser.of(office.http)
    await browser.get(f"/admin/link/{token}")
    await browser.press(f"/admin/link/{token}", f"/admin/link/{token}")
    assert (browser.page.status_code, browser.page.headers["location"]) == (303, "/admin")
    assert admin.email in (await browser.get("/admin")).text
    await second.press(f"/admin/link/{token}", f"/admin/link/{token}")
    assert second.page.status_code == 410
    assert "This link has expired or was used already." in second.words


def test_a_route_without_a_role_does_not_start() -> None:
    """Whoever forgets to say who may use a page learns of it before anybody can."""

    @get("/secrets", sync_to_thread=False)
    def secrets() -> str:
        return "all of them"

    @get("/open", opt=ANYONE, sync_to_thread=False)
    def open_page() -> str:
        return ""

    with pytest.raises(ConfigurationError, match="secrets"):
        guarded([open_page, secrets])
