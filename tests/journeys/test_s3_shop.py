"""S3, shop accounts with a password, over HTTP: register, password then code, remembered device, reset, lock."""

from typing import Any

import httpx
import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.worker import tidy
from tests.adminapi import admin_api
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import CONSENT, SomeTenant, add_member, add_tenant, count, current_code, sent_to

POLICY = {"registration": "open", "first_factor": "password", "remember_device_days": 30}
PASSWORD = "a window left ajar"
EMAIL = "ana@home.example"


async def shop(db: Database, clock: Clock, **policy: Any) -> SomeTenant:
    return await add_tenant(db, clock(), name="Corner Shop", policy=POLICY | policy)


async def enter(http: Http, db: Database, ring: KeyRing, slug: str, asked: httpx.Response, **more: Any) -> Any:
    """Sends the code back that was asked for."""
    challenge = asked.json()["challenge_id"]
    body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge), **more}
    answer = await http.otp(slug, "verify", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def register(http: Http, db: Database, ring: KeyRing, slug: str) -> Any:
    body = {"name": "Ana Silva", "email": EMAIL, "password": PASSWORD, "consent": CONSENT}
    asked = await http.post(f"/api/v1/tenants/{slug}/members", body)
    assert (asked.status_code, asked.json()["expires_in"]) == (202, 900), asked.text
    return await enter(http, db, ring, slug, asked)


async def test_from_registration_to_sign_out(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """Register by code, then password and code; the wrong password is refused; a new one by reset; sign out."""
    tenant = await shop(db, clock)
    async with serve(settings, clock) as http:
        tokens = await register(http, db, ring, tenant.slug)
        assert tokens["subject"]["name"] == "Ana Silva"

        clock.forward(hours=2)
        refused = await http.otp(tenant.slug, "request", {"identifier": EMAIL, "password": "not the one"})
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid-credentials")
        asked = await http.otp(tenant.slug, "request", {"identifier": EMAIL, "password": PASSWORD})
        assert (asked.status_code, asked.json()["expires_in"]) == (202, 600)
        early = await http.otp(tenant.slug, "resend", {"challenge_id": asked.json()["challenge_id"]})
        assert (early.status_code, early.headers["Retry-After"]) == (429, "60")
        signed_in = await enter(http, db, ring, tenant.slug, asked)
        me = (await http.auth("GET", "me", signed_in["access_token"])).json()
        assert me["factors"] == ["password", "otp:email"]

        clock.forward(hours=1)
        renewed = await http.auth("POST", "refresh", json={"refresh_token": signed_in["refresh_token"]})
        signed_in = renewed.json()
        stale = await http.auth("PUT", "password", signed_in["access_token"], json={"password": "another good one"})
        assert (stale.status_code, stale.json()["code"]) == (403, "forbidden"), "it takes a sign-in of the last minutes"
        forgotten = await http.otp(tenant.slug, "request", {"identifier": EMAIL, "purpose": "reset"})
        fresh = await enter(http, db, ring, tenant.slug, forgotten)
        for bad in ("short", "x" * 129, "password123", "aaaaaaaaaa", EMAIL):
            worse = await http.auth("PUT", "password", fresh["access_token"], json={"password": bad})
            assert (worse.status_code, worse.json()["errors"][0]["pointer"]) == (400, "/password"), bad
        changed = await http.auth("PUT", "password", fresh["access_token"], json={"password": "another good one"})
        assert changed.status_code == 204
        clock.forward(seconds=4)
        old = await http.auth("POST", "refresh", json={"refresh_token": signed_in["refresh_token"]})
        assert old.status_code == 401, "all other sessions have ended"
        old = await http.otp(tenant.slug, "request", {"identifier": EMAIL, "password": PASSWORD})
        assert old.status_code == 401
        clock.forward(hours=1)
        new = await http.otp(tenant.slug, "request", {"identifier": EMAIL, "password": "another good one"})
        last = await enter(http, db, ring, tenant.slug, new)
        assert (await http.auth("POST", "logout", last["access_token"])).status_code == 204
        assert (await http.auth("GET", "me", last["access_token"])).status_code == 401
        over = await http.auth("POST", "refresh", json={"refresh_token": last["refresh_token"]})
        assert over.status_code == 401

    clock.forward(hours=2)
    await tidy(db, since=clock(), now=clock())
    for table in ("challenges", "claims"):
        assert await count(db, f"SELECT count(*) FROM {table} WHERE tenant_id = $1", tenant.id) == 0, table
    told = "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND payload ->> 'template' = 'password_changed'"
    assert await count(db, told, tenant.id) == 1
    kept = "SELECT count(*) FROM members WHERE tenant_id = $1 AND password_hash LIKE '$argon2id$%'"
    assert await count(db, kept, tenant.id) == 1


async def test_without_the_password_no_code(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """A member who leaves the password out gets what a stranger gets: an answer and no code."""
    tenant = await shop(db, clock, registration="closed")
    await add_member(db, clock(), tenant, email=EMAIL)
    async with serve(settings, clock) as http:
        member = await http.otp(tenant.slug, "request", {"identifier": EMAIL})
        stranger = await http.otp(tenant.slug, "request", {"identifier": "who@home.example"})
    assert member.json() | {"challenge_id": ""} == stranger.json() | {"challenge_id": ""}
    assert await sent_to(db, member.json()["challenge_id"]) is None


async def test_a_member_without_codes(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """Codes switched off by an admin: the right password alone is answered with tokens; on again, with a code."""
    tenant = await shop(db, clock)
    members = f"/tenants/{tenant.slug}/members"
    async with serve(settings, clock) as http:
        staff = await admin_api(http, db, clock, "manager")
        customer = (await register(http, db, ring, tenant.slug))["subject"]["id"]
        off = await staff("PATCH", f"{members}/{customer}", json={"codes_enabled": False}, headers={"If-Match": '"1"'})
        assert (off.status_code, off.json()["codes_enabled"]) == (200, False), off.text
        body = {"identifier": EMAIL, "password": PASSWORD}
        signed_in = await http.otp(tenant.slug, "request", body)
        assert signed_in.status_code == 200
        me = (await http.auth("GET", "me", signed_in.json()["access_token"])).json()
        assert (me["subject"]["kind"], me["factors"]) == ("member", ["password"])
        assert (await http.otp(tenant.slug, "request", body | {"password": "wrong wrong"})).status_code == 401
        forgotten = await http.otp(tenant.slug, "request", {"identifier": EMAIL})
        assert forgotten.status_code == 202
        assert await sent_to(db, forgotten.json()["challenge_id"]) is None, "nor is the code enough without it"
        on = await staff("POST", f"{members}/codes", json={"codes_enabled": True})
        assert on.json() == {"changed": 1}
        assert (await http.otp(tenant.slug, "request", body)).status_code == 202


@pytest.mark.parametrize("ends", ["time", "policy", "password", "nothing"])
async def test_a_remembered_device(settings: Settings, clock: Clock, db: Database, ring: KeyRing, ends: str) -> None:
    """A remembered device needs the password and no code, until its days are over, the policy or the password goes."""
    tenant = await shop(db, clock)
    async with serve(settings, clock) as http:
        await register(http, db, ring, tenant.slug)
        clock.forward(hours=2)
        body = {"identifier": EMAIL, "password": PASSWORD}
        asked = await http.otp(tenant.slug, "request", body)
        tokens = await enter(http, db, ring, tenant.slug, asked, remember_device=True)
        device = {"X-Device-Token": tokens["device_token"]}
        again = await http.otp(tenant.slug, "request", body, headers=device)
        assert again.status_code == 200
        me = (await http.auth("GET", "me", again.json()["access_token"])).json()
        assert me["factors"] == ["password", "device"]
        assert (await http.otp(tenant.slug, "request", {"identifier": EMAIL}, headers=device)).status_code == 202

        match ends:
            case "time":
                clock.forward(days=30, seconds=1)
            case "policy":
                async with db.every_tenant() as connection:
                    await connection.execute(
                        "UPDATE tenants SET policy = policy - 'remember_device_days' WHERE id = $1", tenant.id
                    )
            case "password":
                token = again.json()["access_token"]
                body |= {"password": "another good one"}
                done = await http.auth("PUT", "password", token, json={"password": body["password"]})
                assert done.status_code == 204
            case _:
                clock.forward(days=29)
        clock.forward(hours=1)
        asked = await http.otp(tenant.slug, "request", body, headers=device)
        assert asked.status_code == (200 if ends == "nothing" else 202)


async def test_lock_after_failures(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """Wrong passwords and wrong codes count together; then even the right password waits."""
    tenant = await shop(db, clock, lock_after_failures=6)
    async with serve(settings, clock) as http:
        await register(http, db, ring, tenant.slug)
        clock.forward(hours=2)
        body = {"identifier": EMAIL, "password": PASSWORD}
        statuses = [
            (await http.otp(tenant.slug, "request", body | {"password": f"guess number {n}"})).status_code
            for n in range(6)
        ]
        assert statuses == [401] * 6
        locked = await http.otp(tenant.slug, "request", body)
        assert (locked.status_code, locked.headers["Retry-After"]) == (429, "900")
        clock.forward(minutes=15, seconds=1)
        assert (await http.otp(tenant.slug, "request", body)).status_code == 202


async def test_a_remembered_device_alone_changes_nothing(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Where no password is asked for, a remembered device signs in; a new password or contact needs a code."""
    tenant = await shop(db, clock, first_factor="code")
    await add_member(db, clock(), tenant, email=EMAIL)
    async with serve(settings, clock) as http:
        asked = await http.otp(tenant.slug, "request", {"identifier": EMAIL})
        tokens = await enter(http, db, ring, tenant.slug, asked, remember_device=True)
        device = {"X-Device-Token": tokens["device_token"]}
        signed_in = await http.otp(tenant.slug, "request", {"identifier": EMAIL}, headers=device)
        assert signed_in.status_code == 200
        token = signed_in.json()["access_token"]
        for path, body in (("password", {"password": PASSWORD}), ("contacts", {"email": "x@home.example"})):
            assert (await http.auth("PUT", path, token, json=body)).status_code == 403
        foreign = await add_member(db, clock(), tenant, email="bo@home.example")
        asked = await http.otp(tenant.slug, "request", {"identifier": "bo@home.example"}, headers=device)
        assert asked.status_code == 202, "it is somebody else's device"
        async with db.tenant(tenant.id) as connection:
            await connection.execute("UPDATE members SET status = 'suspended' WHERE id <> $1", foreign)
        asked = await http.otp(tenant.slug, "request", {"identifier": EMAIL}, headers=device)
        assert asked.status_code == 202, "to a suspended member it is as good as to a stranger"
