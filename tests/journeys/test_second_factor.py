"""A second factor, as people live it: over the API, on the tenant's pages without JavaScript, and as an admin."""

import re
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from app.audit.log import Actor, Client
from app.auth.admins import Admins
from app.auth.api_keys import ApiKeys
from app.auth.factors.service import Factors
from app.auth.sessions import Sessions
from app.keys import KeyRing
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.tenants.service import Tenants
from tests.admins import HTML, AdminBrowser, add_admin, open_office
from tests.conftest import Clock
from tests.factors import App
from tests.http import Http, serve
from tests.pages import Visitor, challenge_of, visitor
from tests.people import SomeTenant, add_member, add_tenant, current_code

OPERATOR, SHELL = Actor("operator"), Client("cli")
HTTPS = "https://login.example"


async def by_code(http: Http, db: Database, ring: KeyRing, slug: str, **more: Any) -> dict[str, Any]:
    """Asks for a code over the API and enters it; `more` goes along with the code."""
    challenge = (await http.otp(slug, "request")).json()["challenge_id"]
    body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge), "device_name": "Ana's phone"}
    answer = await http.otp(slug, "verify", body | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_over_the_api(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Set up, sign in with it, keep backup codes, prove it to a service, take it away: every answer to the letter."""
    tenant = await add_tenant(db, clock(), name="Acme Water")
    access = (await by_code(http, db, ring, tenant.slug))["access_token"]
    me = (await http.auth("GET", "me", access)).json()
    assert me["second_factor"] == {"totp": False, "backup_codes": 0}

    shown = (await http.auth("POST", "totp", access, json={})).json()
    assert sorted(shown) == ["qr_svg", "secret", "uri"]
    assert shown["uri"].startswith("otpauth://totp/Acme%20Water:" + tenant.slug + "?")
    assert shown["qr_svg"].startswith("<svg")
    app = App.scan(shown["secret"], clock)
    refused = await http.auth("POST", "totp/confirm", access, json={"code": app.wrong()})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/code")
    confirmed = await http.auth("POST", "totp/confirm", access, json={"code": app.code()})
    assert (confirmed.status_code, confirmed.json()) == (200, {"totp": True, "backup_codes": 0})

    half = await by_code(http, db, ring, tenant.slug)
    assert half | {"mfa_token": ""} == {
        "next": "totp",
        "mfa_token": "",
        "expires_in": 600,
        "options": ["totp", "backup_code"],
    }
    mfa = {"mfa_token": half["mfa_token"]}
    wrong = await http.post("/api/v1/auth/mfa", mfa | {"totp": app.wrong()})
    assert (wrong.status_code, wrong.json()["code"], wrong.json()["attempts_left"]) == (401, "invalid-code", 4)
    for neither in ({}, {"totp": "123456", "backup_code": "00000-00000"}):
        assert (await http.post("/api/v1/auth/mfa", mfa | neither)).status_code == 400
    tokens = (await http.post("/api/v1/auth/mfa", mfa | {"totp": app.next()})).json()
    assert tokens["subject"] == {"kind": "tenant", "id": str(tenant.id), "name": "Acme Water"}
    assert tokens["device_token"]
    me = (await http.auth("GET", "me", tokens["access_token"])).json()
    assert me["factors"] == ["otp:email", "totp"]
    assert me["second_factor"] == {"totp": True, "backup_codes": 0}
    assert me["session"]["device_name"] == "Ana's phone"

    codes = (await http.auth("POST", "backup-codes", tokens["access_token"])).json()["codes"]
    assert len(codes) == 10
    mfa = {"mfa_token": (await by_code(http, db, ring, tenant.slug))["mfa_token"]}
    spared = await http.post("/api/v1/auth/mfa", mfa | {"backup_code": codes[3]})
    assert spared.status_code == 200
    access = spared.json()["access_token"]
    assert (await http.auth("GET", "me", access)).json()["second_factor"] == {"totp": True, "backup_codes": 9}

    assert (await http.auth("DELETE", "totp", access)).status_code == 204
    assert (await http.auth("DELETE", "totp", access)).status_code == 404
    clock.forward(hours=1)
    assert "access_token" in await by_code(http, db, ring, tenant.slug)
    late = await http.auth("POST", "totp", (await by_code(http, db, ring, tenant.slug))["access_token"], json={})
    assert late.status_code == 200


async def enrolled(http: Http, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant) -> App:
    """Signs in and sets an app up."""
    access = (await by_code(http, db, ring, tenant.slug))["access_token"]
    app = App.scan((await http.auth("POST", "totp", access, json={})).json()["secret"], clock)
    confirmed = await http.auth("POST", "totp/confirm", access, json={"code": app.code()})
    assert confirmed.status_code == 200, confirmed.text
    return app


async def finish(http: Http, half: dict[str, Any], **proof: str) -> dict[str, Any]:
    """The second step over the API."""
    answer = await http.post("/api/v1/auth/mfa", {"mfa_token": half["mfa_token"]} | proof)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("ends", ["time", "contact", "factor", "nothing"])
async def test_a_remembered_device_stands_for_the_code_alone(
    settings: Settings, http: Http, db: Database, ring: KeyRing, clock: Clock, ends: str
) -> None:
    """The wish outlives the second step; the app is asked for all the same; time or any change makes a code needed."""
    # Where a new contact ends no sessions the device stays known; remembered it is no more.
    policy = {"remember_device_days": 30, "end_sessions_on_contact_change": False}
    tenant = await add_tenant(db, clock(), policy=policy)
    app = await enrolled(http, db, ring, clock, tenant)
    half = await by_code(http, db, ring, tenant.slug, remember_device=True)
    tokens = await finish(http, half, totp=app.next())
    device = {"X-Device-Token": tokens["device_token"]}

    clock.forward(hours=2)
    asked = await http.otp(tenant.slug, "request", headers=device)
    assert (asked.status_code, asked.json()["next"]) == (200, "totp")
    mfa = {"mfa_token": asked.json()["mfa_token"], "totp": app.wrong()}
    assert (await http.post("/api/v1/auth/mfa", mfa)).status_code == 401
    tokens = await finish(http, asked.json(), totp=app.code())
    me = (await http.auth("GET", "me", tokens["access_token"])).json()
    assert me["factors"] == ["device", "totp"]

    match ends:
        case "time":
            clock.forward(days=30)
        case "contact":
            changed = {"email": f"new@{tenant.slug}.example"}
            await Tenants(db, settings, clock, lambda: None).update(tenant.slug, changed, actor=OPERATOR, client=SHELL)
        case "factor":
            assert (await http.auth("DELETE", "totp", tokens["access_token"])).status_code == 204
        case _:
            clock.forward(days=29)
    clock.forward(hours=1)
    asked = await http.otp(tenant.slug, "request", headers=device)
    assert asked.status_code == (200 if ends == "nothing" else 202), asked.text


async def test_a_device_is_remembered_where_the_policy_says_so(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Neither without the wish nor without the policy; with an app that is set up in the second step it is."""
    wishes: tuple[tuple[dict[str, int], bool, int], ...] = (
        ({"remember_device_days": 30}, False, 202),
        ({}, True, 202),
        ({"remember_device_days": 30}, True, 200),
    )
    for policy, wish, status in wishes:
        tenant = await add_tenant(db, clock(), policy={"second_factor": "required"} | policy)
        half = await by_code(http, db, ring, tenant.slug, remember_device=wish)
        app = App.scan((await http.post("/api/v1/auth/totp", {"mfa_token": half["mfa_token"]})).json()["secret"], clock)
        body = {"mfa_token": half["mfa_token"], "code": app.code()}
        tokens = (await http.post("/api/v1/auth/totp/confirm", body)).json()
        device = {"X-Device-Token": tokens["device_token"]}
        assert (await http.otp(tenant.slug, "request", headers=device)).status_code == status, (policy, wish)


async def test_a_remembered_device_alone_sets_no_app_up(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Whoever got hold of one would shut its owner out: neither signed in by it, nor where an app becomes required."""
    tenant = await add_tenant(db, clock(), policy={"remember_device_days": 30})
    tokens = await by_code(http, db, ring, tenant.slug, remember_device=True)
    device = {"X-Device-Token": tokens["device_token"]}
    signed_in = (await http.otp(tenant.slug, "request", headers=device)).json()
    refused = await http.auth("POST", "totp", signed_in["access_token"], json={})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "not from a remembered device alone" in refused.json()["detail"]
    async with db.tenant(tenant.id) as connection:
        await connection.execute("""UPDATE tenants SET policy = policy || '{"second_factor": "required"}'""")
    assert (await http.otp(tenant.slug, "request", headers=device)).status_code == 202


async def test_a_service_demands_it(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Before a sensitive operation: introspection with `max_age` and `factor`, as JSON and as a form."""
    tenant = await add_tenant(db, clock())
    _, key = await ApiKeys(db, clock).create("shop", "viewer", actor=OPERATOR, client=SHELL)
    access = (await by_code(http, db, ring, tenant.slug))["access_token"]
    signed_in_at = int(clock().timestamp())
    bearer = {"Authorization": f"Bearer {key}"}

    async def ask(token: str, **demands: object) -> dict[str, Any]:
        answer = await http.post("/api/v1/auth/introspect", {"token": token, **demands}, headers=bearer)
        form = {"token": token, **{name: str(value) for name, value in demands.items()}}
        same = await http.client.post("/api/v1/auth/introspect", data=form, headers=bearer)
        assert answer.json() == same.json()
        found: dict[str, Any] = answer.json()
        return found

    clock.forward(minutes=5)
    plain = await ask(access)
    assert (plain["auth_time"], plain["amr"]) == (signed_in_at, ["otp:email"])
    assert (await ask(access, max_age=300))["active"]
    assert await ask(access, max_age=299) == {"active": False, "reason": "max_age"}
    assert await ask(access, factor="mfa") == {"active": False, "reason": "factor"}

    app = App.scan((await http.auth("POST", "totp", access, json={})).json()["secret"], clock)
    await http.auth("POST", "totp/confirm", access, json={"code": app.code()})
    mfa = {"mfa_token": (await by_code(http, db, ring, tenant.slug))["mfa_token"]}
    strong = (await http.post("/api/v1/auth/mfa", mfa | {"totp": app.next()})).json()["access_token"]
    assert (await ask(strong, factor="mfa", max_age=60))["amr"] == ["otp:email", "totp", "mfa"]
    assert (await ask(strong, factor="totp"))["active"]
    assert await ask(strong, factor="passkey") == {"active": False, "reason": "factor"}


async def test_where_one_is_required(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """The first sign-in sets the app up with the `mfa_token`, and its first code answers with the tokens."""
    tenant = await add_tenant(db, clock(), policy={"second_factor": "required"})
    half = await by_code(http, db, ring, tenant.slug)
    assert (half["next"], half["options"]) == ("enrol", [])
    shown = (await http.post("/api/v1/auth/totp", {"mfa_token": half["mfa_token"]})).json()
    app = App.scan(shown["secret"], clock)
    body = {"mfa_token": half["mfa_token"], "code": app.code()}
    tokens = (await http.post("/api/v1/auth/totp/confirm", body)).json()
    assert tokens["token_type"] == "Bearer"
    refused = await http.auth("DELETE", "totp", tokens["access_token"])
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    again = await http.post("/api/v1/auth/totp/confirm", body)
    assert (again.status_code, again.json()["code"]) == (410, "code-expired")


async def sign_in(person: Visitor, db: Database, ring: KeyRing, tenant: SomeTenant, **ticked: str) -> None:
    """Up to whatever comes after the code."""
    await person.open(f"/t/{tenant.slug}/login")
    await person.submit(f"/t/{tenant.slug}/login")
    challenge = challenge_of(person)
    await person.submit(f"/t/{tenant.slug}/verify", {"code": await current_code(db, ring, challenge)} | ticked)


def scan(person: Visitor | AdminBrowser, clock: Clock) -> App:
    """Holds a phone in front of the page; the link, the key and the QR code's text are one."""
    key = re.search(r'<code class="key">([^<]+)</code>', person.page.text)
    link = re.search(r'href="(otpauth://[^"]+)"', person.page.text)
    assert key
    assert link
    assert f"secret={key[1].replace(' ', '')}&amp;" in unquote(link[1])
    assert 'src="data:image/svg+xml,%3Csvg' in person.page.text
    return App.scan(key[1].replace(" ", ""), clock)


async def test_on_the_pages(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """From the dashboard to an app, to backup codes, through the next sign-in, and out of it again."""
    tenant = await add_tenant(db, clock(), name="Northwind Energy")
    home, factors = f"/t/{tenant.slug}/", f"/t/{tenant.slug}/factors"
    async with visitor(http) as person:
        await sign_in(person, db, ring, tenant)
        assert person.page.url.path == home
        await person.open(factors)
        assert "Not set up." in person.text
        await person.submit(f"{factors}/totp")
        app = scan(person, clock)
        await person.submit(f"{factors}/totp/confirm", {"code": app.wrong()})
        assert person.page.status_code == 400
        assert "This is not what the app shows now" in person.text
        assert scan(person, clock) == app
        await person.submit(f"{factors}/totp/confirm", {"code": app.code()})
        assert "From now on every sign-in asks for its code." in person.text
        await person.submit(f"{factors}/backup-codes")
        codes = re.findall(r"<li><code>([^<]+)</code></li>", person.page.text)
        assert len(codes) == 10
        await person.open(factors)
        assert "10 are left" in person.text
        assert codes[0] not in person.text
        await person.open(home)
        assert "Every sign-in also takes a code of your authenticator app. 10 backup codes are left." in person.text
        assert "An authenticator app was set up" in person.text
        await person.submit(f"/t/{tenant.slug}/logout")

        step = f"/t/{tenant.slug}/second-factor"
        await sign_in(person, db, ring, tenant)
        assert person.page.url.path == step
        assert "type the 6 digits" in person.text
        await person.submit(step, {"totp": "12"})
        assert person.page.status_code == 400
        assert 'value="12"' in person.page.text
        await person.submit(step, {"totp": app.wrong()})
        assert "Wrong code – 4 attempts left" in person.text  # noqa: RUF001 - a dash
        await person.submit(step, {"totp": app.next()})
        assert person.page.url.path == home
        assert not [name for name in person.cookies if "half" in name]
        await person.submit(f"/t/{tenant.slug}/logout")

        await sign_in(person, db, ring, tenant)
        await person.open(f"{step}?using=backup_code")
        await person.submit(step, {"backup_code": codes[0]})
        assert person.page.url.path == home
        await person.open(f"{factors}/totp/remove")
        assert "Remove the authenticator app?" in person.text
        await person.submit(f"{factors}/totp/remove")
        assert "Signing in takes no second factor any more." in person.text


async def test_a_remembered_browser_asks_for_the_app_alone(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """The tick on the page of the code holds through the second step: next time there is no code, but the app."""
    tenant = await add_tenant(db, clock(), policy={"remember_device_days": 30})
    app = await enrolled(http, db, ring, clock, tenant)
    home, step = f"/t/{tenant.slug}/", f"/t/{tenant.slug}/second-factor"
    async with visitor(http) as person:
        await sign_in(person, db, ring, tenant, remember_device="yes")
        await person.submit(step, {"totp": app.next()})
        assert person.page.url.path == home
        await person.submit(f"/t/{tenant.slug}/logout")
        clock.forward(hours=2)
        await person.open(f"/t/{tenant.slug}/login")
        await person.submit(f"/t/{tenant.slug}/login")
        assert person.page.url.path == step
        await person.open(home)
        assert person.page.url.path == f"/t/{tenant.slug}/login"
        await person.open(step)
        await person.submit(step, {"totp": app.code()})
        assert person.page.url.path == home


async def test_what_goes_wrong_on_the_pages_is_said(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Too many tries, too late, too old a sign-in, a stranger: each in words, with the way on."""
    tenant = await add_tenant(db, clock(), policy={"second_factor": "required"})
    step, factors = f"/t/{tenant.slug}/second-factor", f"/t/{tenant.slug}/factors"
    async with visitor(http) as person:
        await person.open(step)
        assert person.page.url.path == f"/t/{tenant.slug}/login"
        await sign_in(person, db, ring, tenant)
        assert "A second factor is required here." in person.text
        app = scan(person, clock)
        await person.submit(f"{step}/enrol", {"code": app.wrong()})
        assert "4 attempts left" in person.text
        assert scan(person, clock) == app
        await person.submit(f"{step}/enrol", {"code": app.code()})
        assert person.page.url.path == factors
        assert "The app is set up." in person.text
        assert f"{factors}/totp/remove" not in person.page.text

        clock.forward(minutes=10)
        await person.open(factors)
        assert "To change anything here, sign in again" in person.text
        answer = await person.send(f"{factors}/backup-codes")
        assert answer.status_code == 403
        await person.submit(f"/t/{tenant.slug}/logout")

        await sign_in(person, db, ring, tenant)
        for _ in range(5):
            await person.submit(step, {"totp": app.wrong()})
        assert person.page.status_code == 429
        assert "Too many attempts" in person.text
        assert f'href="/t/{tenant.slug}/login"' in person.page.text

        await sign_in(person, db, ring, tenant)
        clock.forward(minutes=11)
        await person.submit(step, {"totp": app.code()})
        assert person.page.status_code == 410


async def test_an_admin_in_production_sets_one_up_first(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Owners and managers don't get in without; viewers do. After a reset at the command line it starts again."""
    step = "/admin/sign-in/second-factor"
    async with serve(settings, clock, environment="production", public_url=HTTPS) as http:

        async def arrive(role_or_email: str) -> AdminBrowser:
            client = httpx.AsyncClient(transport=http.client._transport, base_url=HTTPS, headers=HTML)
            browser = AdminBrowser(client, httpx.Response(200))
            email = role_or_email
            if "@" not in email:
                email = (await add_admin(db, clock, role_or_email)).email
            await browser.get("/admin/sign-in")
            await browser.post("/admin/sign-in", {"email": email}, Origin=HTTPS)
            challenge = browser.client.cookies["__Host-gh_admin_challenge"].split(".")[0]
            await browser.get("/admin/sign-in/code")
            await browser.post("/admin/sign-in/code", {"code": await current_code(db, ring, challenge)}, Origin=HTTPS)
            return browser

        viewer = await arrive("viewer")
        assert viewer.page.headers["location"] == "/admin"
        for role in ("manager", "owner"):
            admin = await add_admin(db, clock, role)
            browser = await arrive(admin.email)
            assert browser.page.headers["location"] == step
            assert "__Host-gh_admin" not in browser.client.cookies
            await browser.get(step)
            app = scan(browser, clock)
            await browser.post(f"{step}/enrol", {"code": app.code()}, Origin=HTTPS)
            assert browser.page.headers["location"] == "/admin/second-factor?done=enrolled"
            await browser.get("/admin/second-factor?done=enrolled")
            assert "The app is set up." in browser.words
            await browser.post("/admin/second-factor/backup-codes", Origin=HTTPS)
            codes = re.findall(r"<li><code>([^<]+)</code></li>", browser.page.text)
            await browser.post("/admin/second-factor/totp/remove", Origin=HTTPS)
            assert browser.page.status_code == 403

            again = await arrive(admin.email)
            await again.get(f"{step}?using=backup_code")
            await again.post(step, {"backup_code": codes[0]}, Origin=HTTPS)
            assert again.page.headers["location"] == "/admin"

            sessions = Sessions(db, ring, settings, clock)
            factors = Factors(db, ring, settings, sessions, clock, lambda: None)
            found = await Admins(db, clock).find(admin.email)
            assert found
            assert await factors.reset(SYSTEM_TENANT, "admin", found.id, actor=OPERATOR, client=SHELL)
            clock.forward(seconds=4)
            assert (await again.get("/admin")).status_code == 303
            await db.run("SELECT fn.unlock_recipient($1, $2)", SYSTEM_TENANT, found.id)
            assert (await arrive(admin.email)).page.headers["location"] == step


async def test_a_manager_helps_who_lost_the_phone(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """On the tenant's page, asked before, with a young sign-in; afterwards the code alone signs in."""
    async with open_office(settings, clock, db, ring) as office:
        tenant = await office.tenant()
        page = f"/admin/tenants/{tenant.slug}"
        manager = await office.signed_in("manager")
        await manager.get(page)
        assert "Reset second factor" not in manager.words
        access = (await by_code(office.http, db, ring, tenant.slug))["access_token"]
        app = App.scan((await office.http.auth("POST", "totp", access)).json()["secret"], clock)
        await office.http.auth("POST", "totp/confirm", access, json={"code": app.code()})
        assert (await by_code(office.http, db, ring, tenant.slug))["next"] == "totp"

        await manager.get(page)
        assert f'href="{page}/reset-factors"' in manager.page.text
        for _ in range(5):
            clock.forward(minutes=14)
            await manager.get(f"{page}/reset-factors")
        assert "who lost phone and backup codes" in manager.words
        await manager.post(f"{page}/reset-factors")
        assert manager.page.headers["location"].startswith("/admin/sign-in?next=")
        manager = await office.signed_in("manager")
        await manager.press(f"{page}/reset-factors", f"{page}/reset-factors")
        assert manager.page.headers["location"] == f"{page}?done=factor-reset"
        await manager.get(f"{page}/timeline")
        assert "Second factor reset" in manager.words
        assert "Authenticator app set up" in manager.words
        assert "access_token" in await by_code(office.http, db, ring, tenant.slug)


async def test_a_manager_helps_a_member_who_lost_the_phone(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """The same for one member, who is signed out; another tenant's member is nobody here, and a viewer may not."""
    async with open_office(settings, clock, db, ring) as office:
        tenant, other = await office.tenant(), await office.tenant()
        email = f"ana@{tenant.slug}.example"
        member_id = await add_member(db, clock(), tenant, email=email)
        asked = (await office.http.otp(tenant.slug, "request", {"identifier": email})).json()["challenge_id"]
        body = {"challenge_id": asked, "code": await current_code(db, ring, asked)}
        access = (await office.http.otp(tenant.slug, "verify", body)).json()["access_token"]
        app = App.scan((await office.http.auth("POST", "totp", access)).json()["secret"], clock)
        await office.http.auth("POST", "totp/confirm", access, json={"code": app.code()})

        reset = f"/admin/tenants/{tenant.slug}/members/{member_id}/reset-factors"
        viewer = await office.signed_in("viewer")
        assert (await viewer.get(reset)).status_code == 403
        manager = await office.signed_in("manager")
        assert (await manager.get(reset.replace(tenant.slug, other.slug))).status_code == 404
        await manager.get(reset)
        assert "Reset the second factor of Ana Silva?" in manager.words
        foreign = await manager.post(reset.replace(tenant.slug, other.slug))
        assert foreign.status_code == 404
        await manager.press(reset, reset)
        assert manager.page.headers["location"] == f"{reset.removesuffix('/reset-factors')}?done=factor-reset"
        clock.forward(seconds=4)
        assert (await office.http.auth("GET", "me", access)).status_code == 401
        await manager.press(reset, reset)
        assert manager.page.headers["location"].endswith("?done=no-factor")


async def test_an_admin_elsewhere_may_have_one(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """In development it is optional: set up and removed on a page of one's own, 10 minutes after signing in at most."""
    admin = await add_admin(db, clock, "viewer")
    browser = AdminBrowser.of(http)
    await browser.sign_in(db, ring, admin)
    await browser.get("/admin")
    assert 'href="/admin/second-factor"' in browser.page.text
    await browser.press("/admin/second-factor/totp", "/admin/second-factor")
    await browser.get("/admin/second-factor")
    app = scan(browser, clock)
    await browser.post("/admin/second-factor/totp/confirm", {"code": app.code()})
    clock.forward(minutes=10)
    await browser.get("/admin/second-factor")
    assert "Sign in again" in browser.words
    again = re.search(r'href="(/admin/sign-in\?[^"]+)"', browser.page.text)
    assert again
    await browser.get(again[1].replace("&amp;", "&"))
    assert "To change your second factor, sign in again" in browser.words
    await browser.post("/admin/sign-in", {"email": admin.email, "next": browser.value("next") or ""})
    challenge = browser.client.cookies["gh_admin_challenge"].split(".")[0]
    await browser.get(browser.page.headers["location"])
    code = await current_code(db, ring, challenge)
    await browser.post("/admin/sign-in/code", {"code": code, "next": browser.value("next") or ""})
    await browser.press("/admin/sign-in/second-factor", "/admin/sign-in/second-factor", {"totp": app.next()})
    assert browser.page.headers["location"] == "/admin/second-factor"
    await browser.get("/admin/second-factor/totp/remove")
    await browser.post("/admin/second-factor/totp/remove")
    assert browser.page.headers["location"] == "/admin/second-factor?done=removed"
