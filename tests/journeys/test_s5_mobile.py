"""S5, mobile-first API: a phone number alone, strict limits by policy, registration after the code."""

from collections.abc import AsyncIterator

import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import CONSENT, SomeTenant, add_tenant, count, current_code, sent_to, wrong

PHONE = "+447700900555"
POLICY = {
    "registration": "open",
    "max_attempts": 3,
    "code_ttl_seconds": 180,
    "per_minute_limit": 3,
    "hourly_limit": 10,
    "resend_cooldown_seconds": 0,
}


@pytest.fixture
async def http(settings: Settings, clock: Clock) -> AsyncIterator[Http]:
    async with serve(
        settings,
        clock,
        sms_enabled=True,
        sms_provider=("console",),
        otp_hourly_limit=10,
        otp_resend_cooldown_seconds=0,
    ) as served:
        yield served


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock(), name="Ride", policy=POLICY)


async def test_from_an_unknown_number_to_sign_out(
    http: Http, tenant: SomeTenant, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """A number nobody has gets a real code, then completes the registration; later the number signs in."""
    asked = await http.otp(tenant.slug, "request", {"identifier": PHONE})
    assert (asked.status_code, asked.json()["expires_in"]) == (202, 180)
    challenge = asked.json()["challenge_id"]
    assert await sent_to(db, challenge) == PHONE
    body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge), "device_name": "Ana's phone"}
    proven = (await http.otp(tenant.slug, "verify", body)).json()
    assert set(proven) == {"next", "registration_token", "expires_in"}
    assert proven["next"] == "register"
    assert await count(db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 0

    path = f"/api/v1/tenants/{tenant.slug}/members"
    told = {
        "name": "Ana Silva",
        "consent": {"document": "terms", "version": "7"},
        "registration_token": proven["registration_token"],
    }
    done = await http.post(path, told)
    assert done.status_code == 200, done.text
    tokens = done.json()
    assert (tokens["expires_in"], tokens["refresh_expires_in"]) == (900, 604_800)
    assert tokens["subject"]["kind"] == "member"
    assert (await http.post(path, told)).status_code == 410, "a token makes one member"
    async with db.tenant(tenant.id) as connection:
        consent = await connection.fetchrow("SELECT document, version, given_at, host(ip) AS ip FROM consents")
    assert dict(consent) == {"document": "terms", "version": "7", "given_at": clock(), "ip": "192.0.2.10"}
    me = (await http.auth("GET", "me", tokens["access_token"])).json()
    assert me["contacts"] == {"email": None, "phone_number": "+44*****0555"}
    assert me["factors"] == ["otp:sms"]

    clock.forward(hours=1)
    asked = await http.otp(tenant.slug, "request", {"identifier": "+44 7700 900 555"})
    challenge = asked.json()["challenge_id"]
    body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    again = (await http.otp(tenant.slug, "verify", body)).json()
    assert again["subject"] == tokens["subject"]
    renewed = (await http.auth("POST", "refresh", json={"refresh_token": again["refresh_token"]})).json()
    assert (await http.auth("POST", "logout", renewed["access_token"])).status_code == 204
    assert (await http.auth("GET", "me", renewed["access_token"])).status_code == 401
    attempts = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND ip IS NULL AND actor_kind <> 'system'"
    assert await count(db, attempts, tenant.id) == 0


async def test_three_of_each(http: Http, tenant: SomeTenant, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Three sends a minute, three attempts, three minutes: as the policy says."""
    asked = [await http.otp(tenant.slug, "request", {"identifier": PHONE}) for _ in range(4)]
    assert [answer.status_code for answer in asked] == [202, 202, 202, 429]
    assert int(asked[3].headers["Retry-After"]) <= 61
    challenge = asked[0].json()["challenge_id"]
    code = await current_code(db, ring, challenge)
    guess = {"challenge_id": challenge, "code": wrong(code)}
    device = {"User-Agent": "Ride/2.1 (Android 16)"}
    tries = [await http.otp(tenant.slug, "verify", guess, headers=device) for _ in range(3)]
    assert [answer.status_code for answer in tries] == [401, 401, 429]
    assert (await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})).status_code == 429
    attempts = """
        SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'code.wrong' AND host(ip) = '192.0.2.10'
        AND user_agent = 'Ride/2.1 (Android 16)'"""
    assert await count(db, attempts, tenant.id) == 3, "each with its address and device"
    challenge = asked[1].json()["challenge_id"]
    code = await current_code(db, ring, challenge)
    clock.forward(seconds=180)
    assert (await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})).status_code == 410


async def test_registration_token_is_worth_nothing_elsewhere(
    http: Http, tenant: SomeTenant, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """It opens no session, no other tenant's registration, and lapses after 15 minutes."""
    other = await add_tenant(db, clock(), policy=POLICY)
    challenge = (await http.otp(tenant.slug, "request", {"identifier": PHONE})).json()["challenge_id"]
    body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    token = (await http.otp(tenant.slug, "verify", body)).json()["registration_token"]
    assert (await http.auth("GET", "me", token)).status_code == 401
    assert (await http.auth("POST", "mfa", json={"mfa_token": token, "totp": "123456"})).status_code == 410
    told = {"name": "Ana", "consent": CONSENT, "registration_token": token}
    assert (await http.post(f"/api/v1/tenants/{other.slug}/members", told)).status_code == 410
    clock.forward(minutes=15)
    assert (await http.post(f"/api/v1/tenants/{tenant.slug}/members", told)).status_code == 410
    assert await count(db, "SELECT count(*) FROM members WHERE tenant_id = ANY ($1)", [tenant.id, other.id]) == 0
