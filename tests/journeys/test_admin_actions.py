"""An admin helps somebody who gets no code: the story, the buttons, the home page. Over HTTP, without JavaScript."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.admins import AdminBrowser, Office, edit, open_office
from tests.conftest import Clock
from tests.people import SomeTenant, count, current_code, wrong


@pytest.fixture
async def office(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[Office]:
    async with open_office(settings, clock, db, ring) as opened:
        yield opened


async def sign_in_as_tenant(office: Office, tenant: SomeTenant) -> str:
    """An access token of somebody of the tenant."""
    asked = await office.http.otp(tenant.slug, "request")
    challenge = asked.json()["challenge_id"]
    code = await current_code(office.db, office.ring, challenge)
    answer = await office.http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})
    token: str = answer.json()["access_token"]
    return token


async def test_suspended_and_resumed(office: Office) -> None:
    """Asks for a reason, ends who is signed in, says why on the page, and takes it back."""
    tenant = await office.tenant()
    token = await sign_in_as_tenant(office, tenant)
    browser = await office.signed_in("manager")
    base = f"/admin/tenants/{tenant.slug}"
    await browser.get(f"{base}/suspend")
    assert "1 session ends at once." in browser.words
    await browser.post(f"{base}/suspend", {"reason": " "})
    assert browser.page.status_code == 422
    await browser.post(f"{base}/suspend", {"reason": "x" * 600})
    assert browser.page.status_code == 422
    await browser.post(f"{base}/suspend", {"reason": "Unpaid since May"})
    assert browser.page.headers["location"] == f"{base}?done=suspended"
    await browser.get(base)
    assert "Suspended: Unpaid since May" in browser.words
    office.clock.forward(seconds=4)
    assert (await office.http.auth("GET", "me", token)).status_code == 401
    await browser.press(f"{base}/resume", base)
    assert browser.page.headers["location"] == f"{base}?done=resumed"
    await browser.get(base)
    assert "Unpaid since May" in browser.words, "the history keeps the reason"
    assert "Suspended: nobody can sign in" in browser.words


async def test_sessions_are_ended(office: Office) -> None:
    """One, then all that are left; the tenant's people are out within seconds, and the log names the admin."""
    tenant = await office.tenant()
    tokens = [await sign_in_as_tenant(office, tenant) for _ in range(3)]
    browser = await office.signed_in("manager")
    base = f"/admin/tenants/{tenant.slug}"
    await browser.get(base)
    one = browser.page.text.split(f"{base}/sessions/")[2].split("/end")[0]
    await browser.post(f"{base}/sessions/{one}/end")
    assert browser.page.headers["location"] == f"{base}?done=session#sessions"
    office.clock.forward(seconds=4)
    statuses = [(await office.http.auth("GET", "me", token)).status_code for token in tokens]
    assert sorted(statuses) == [200, 200, 401]
    await browser.press(f"{base}/sessions/{one}/end", base)
    assert browser.page.status_code == 404

    await browser.get(f"{base}/sessions/end-all")
    assert "End all sessions" in browser.words
    await browser.post(f"{base}/sessions/end-all")
    office.clock.forward(seconds=4)
    assert [(await office.http.auth("GET", "me", token)).status_code for token in tokens] == [401] * 3
    await browser.get(base)
    assert "Nobody is signed in." in browser.words
    assert "Session ended by an admin" in browser.words
    sql = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'session.ended' AND actor_kind = 'admin'"
    assert await count(office.db, sql, tenant.id) == 3


async def test_unlocking_lets_a_code_be_asked_for(office: Office) -> None:
    """Three codes are the hour's; the page says so, the button allows more, and the history tells who pressed it."""
    tenant = await office.tenant()
    for _ in range(3):
        assert (await office.http.otp(tenant.slug, "request")).status_code == 202
    assert (await office.http.otp(tenant.slug, "request")).status_code == 429
    browser = await office.signed_in("manager")
    base = f"/admin/tenants/{tenant.slug}"
    await browser.get(base)
    assert "The codes of this hour are used up." in browser.words
    assert "Not sent: the codes of this hour were used up" in browser.words
    await browser.post(f"{base}/unlock")
    assert browser.page.headers["location"] == f"{base}?done=unlocked"
    assert (await office.http.otp(tenant.slug, "request")).status_code == 202
    await browser.get(f"{base}/history")
    assert "Unlocked" in browser.words
    await browser.press(f"{base}/unlock", base)
    await browser.press(f"{base}/unlock", base)
    assert browser.page.headers["location"] == f"{base}?done=not-locked"


async def test_a_sign_in_link_lets_somebody_in_once(office: Office) -> None:
    """Shown once, works once, and only for that tenant; a suspended one gets none."""
    tenant = await office.tenant(name="Locked Out Ltd")
    browser = await office.signed_in("manager")
    base = f"/admin/tenants/{tenant.slug}"
    await browser.press(f"{base}/sign-in-link", base)
    assert browser.page.status_code == 200
    link = browser.page.text.split("http://localhost:8000")[1].split("<")[0]
    assert link.startswith(f"/t/{tenant.slug}/link/")
    await browser.get(base)
    assert link not in browser.page.text
    assert "Sign-in link made" in browser.words

    customer = AdminBrowser.of(office.http)
    await customer.press(link, link)
    assert customer.page.headers["location"] == f"/t/{tenant.slug}/"
    await customer.get(f"/t/{tenant.slug}/")
    assert "Locked Out Ltd" in customer.words
    await browser.press(f"{base}/suspend", f"{base}/suspend", {"reason": "over"})
    await browser.press(f"{base}/sign-in-link", base)
    assert browser.page.status_code == 400


async def test_a_test_message_is_watched(office: Office) -> None:
    """Queued on the page at once; the live part tells what became of it; another tenant's can't be looked at."""
    tenant, other = await office.tenant(), await office.tenant()
    browser = await office.signed_in("manager")
    base = f"/admin/tenants/{tenant.slug}"
    await browser.press(f"{base}/test-message", base, {"channel": "email"})
    where = browser.page.headers["location"]
    assert where.startswith(f"{base}?test=")
    await browser.get(where)
    assert "On its way" in browser.words
    test_id = where.split("=")[1].split("#")[0]
    live = f"{base}/test-message/{test_id}"
    await browser.get(live, **{"HX-Request": "true"})
    assert "<title>" not in browser.page.text
    assert "data-live" in browser.page.text
    async with office.db.every_tenant() as connection:
        await connection.execute(
            "UPDATE outbox SET state = 'sent', provider = 'smtp' WHERE id = $1::text::uuid", test_id
        )
    await browser.get(live, **{"HX-Request": "true"})
    assert "data-live" not in browser.page.text
    assert "taken by smtp" in browser.words
    assert (await browser.get(live)).headers["location"] == where
    await browser.get(f"/admin/tenants/{other.slug}/test-message/{test_id}", **{"HX-Request": "true"})
    assert browser.page.status_code == 404
    await browser.get(f"/admin/tenants/{other.slug}?test={test_id}")
    assert "taken by smtp" not in browser.words
    await browser.get(f"{base}?test=nonsense")
    assert browser.page.status_code == 200

    await browser.press(f"{base}/test-message", base, {"channel": "sms"})
    assert browser.page.status_code == 422
    assert "SMS is switched off: no provider is set up." in browser.words
    await browser.post(f"{base}/test-message", {"channel": "carrier pigeon"})
    assert browser.page.status_code == 422


async def test_why_did_i_not_get_my_code(office: Office) -> None:
    """The page tells the whole story in plain words, in pages, with the address each code went to at that time."""
    tenant = await office.tenant(email="first@acme.example")
    asked = await office.http.otp(tenant.slug, "request")
    code = await current_code(office.db, office.ring, asked.json()["challenge_id"])
    office.clock.forward(seconds=5)
    body = {"challenge_id": asked.json()["challenge_id"], "code": wrong(code)}
    await office.http.otp(tenant.slug, "verify", body)
    office.clock.forward(seconds=5)
    async with office.db.every_tenant() as connection:
        await connection.execute(
            "INSERT INTO delivery_events (tenant_id, at, outbox_id, kind, channel, state, provider, error_class, "
            "error_text, took_ms) VALUES ($1, $2, $1, 'code', 'email', 'failed', 'smtp', 'recipient', "
            "'550 5.1.1 no such user', 412)",
            tenant.id,
            office.clock(),
        )
    browser = await office.signed_in()
    base = f"/admin/tenants/{tenant.slug}"
    await browser.get(f"{base}/timeline")
    for words in (
        "Code asked for",
        "goes to f***@acme.example by email · code 1 of 3 this hour",
        "Wrong code, 4 tries left",
        "Not delivered: there is no such address, or it takes no mail",
        "smtp · 550 5.1.1 no such user · after 0.4 s",
        "The email address bounced. Ask for a new one, save it, send a test.",
    ):
        assert words in browser.words, words
    assert code not in browser.page.text

    office.clock.forward(minutes=1)
    await browser.get(f"{base}?edit=contact")
    await browser.post(f"{base}/contact", edit(browser, {"email": "second@acme.example", "phone_number": ""}))
    office.clock.forward(minutes=1)
    await office.http.otp(tenant.slug, "request")
    await browser.get(f"{base}/timeline")
    assert "f***@acme.example → s***@acme.example" in browser.words
    async with office.db.every_tenant() as connection:
        await connection.execute(
            "INSERT INTO delivery_events (tenant_id, at, outbox_id, kind, channel, state, provider) "
            "SELECT $1, $2, gen_random_uuid(), 'notice', 'email', 'sent', 'smtp' FROM generate_series(1, 2)",
            tenant.id,
            office.clock(),
        )
    await browser.get(f"{base}/timeline")
    assert browser.words.count("Told of the change f***@acme.example and s***@acme.example by email") == 1
    assert "Notice of the change" not in browser.words
    assert "goes to s***@acme.example by email" in browser.words
    assert "goes to f***@acme.example by email" in browser.words
    assert "The email address bounced" not in browser.words, "somebody mended it since"
    await browser.get(f"{base}/timeline?cursor=nonsense")
    assert browser.page.status_code == 400


async def test_a_long_story_in_pages(office: Office) -> None:
    """Older pages go on where the newer ended, nothing twice, nothing left out, with the contacts of their time."""
    tenant = await office.tenant(email="first@acme.example")
    for _ in range(40):
        office.clock.forward(hours=1, seconds=1)
        await office.http.otp(tenant.slug, "request")
        await office.http.otp(tenant.slug, "request")
    browser = await office.signed_in()
    base = f"/admin/tenants/{tenant.slug}"
    await browser.get(f"{base}?edit=contact")
    await browser.post(f"{base}/contact", edit(browser, {"email": "second@acme.example", "phone_number": ""}))
    await browser.get(f"{base}/timeline")
    told = browser.words.count("Code asked for")
    addressed = browser.words.count("goes to f***@acme.example")
    while 'rel="next"' in browser.page.text:
        await browser.get(browser.page.text.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&"))
        told += browser.words.count("Code asked for")
        addressed += browser.words.count("goes to f***@acme.example")
    assert (told, addressed) == (80, 80)


async def test_home_says_what_needs_attention(office: Office) -> None:
    """No worker, a bounced message, an attack, a tenant without contact: each with the way to it."""
    office.clock.forward(days=2000)  # away from what other tests left behind
    failing = await office.tenant(name="Bouncing Ltd")
    await office.tenant(name="No Contact", email=None)
    now = office.clock()
    async with office.db.every_tenant() as connection:
        await connection.execute(
            "INSERT INTO outbox (tenant_id, id, kind, channel, state, error_class, provider, available_at, expires_at, "
            "created_at, updated_at) VALUES ($1, $1, 'test', 'email', 'failed', 'recipient', 'smtp', $2, $2, $2, $2)",
            failing.id,
            now,
        )
        await connection.execute(
            "INSERT INTO attack_modes (tenant_id, since, until) VALUES ($1, $2, $3)",
            failing.id,
            now,
            now + timedelta(hours=1),
        )
    browser = await office.signed_in("viewer")
    await browser.get("/admin")
    for words in (
        "No worker is running",
        "Bouncing Ltd: the last Email message wasn't delivered",
        "Somebody is guessing codes at Bouncing Ltd",
        "can't be sent a code",
        "Last 24 hours",
    ):
        assert words in browser.words, words
    assert f"/admin/tenants/{failing.slug}/timeline" in browser.page.text
