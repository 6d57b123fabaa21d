"""What members do about themselves on pages, without JavaScript: sign in anew, devices, consents."""

import re
from urllib.parse import quote
from uuid import uuid4

import pytest

from app.keys import KeyRing
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http
from tests.pages import Visitor, challenge_of, sign_in, visitor
from tests.people import SomeTenant, add_member, add_tenant, count, current_code

EMAIL = "ana@home.example"


@pytest.fixture
async def tenant(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock(), name="City Water", policy={"registration": "open", "hourly_limit": 10})


@pytest.mark.parametrize("page", ["password", "contacts/email", "factors"])
async def test_a_new_sign_in_leads_back_to_where_it_was_wanted(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant, page: str
) -> None:
    """What the page says before anything is typed, its button does: out, in again, and on with what one came for."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    path = f"/t/{tenant.slug}/{page}"
    await person.open(path)
    assert "sign in again" not in person.text
    clock.forward(minutes=11)
    await person.open(path)
    assert "To change anything here, sign in again: your last sign-in is more than 10 minutes ago" in person.text
    (wanted,) = re.findall(r'name="next" value="([^"]*)"', person.page.text)
    await person.submit(f"/t/{tenant.slug}/logout", {"next": wanted})
    assert "You are signed out." in person.text
    (carried,) = re.findall(r'name="next" value="([^"]*)"', person.page.text)
    await person.submit(f"/t/{tenant.slug}/login", {"identifier": EMAIL, "next": carried})
    await person.submit(f"/t/{tenant.slug}/verify", {"code": await current_code(db, ring, challenge_of(person))})
    assert person.page.url.path == path
    assert "sign in again" not in person.text


@pytest.mark.parametrize("page", ["//evil.example", "https://evil.example/password", "../admin", "logout", "sessions"])
async def test_signing_out_leads_to_no_other_page(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant, page: str
) -> None:
    """A wish that names none of those pages is dropped at each step, and the sign-in ends on the dashboard."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    answer = await person.send(f"/t/{tenant.slug}/logout", {"next": page})
    assert answer.headers["location"] == f"/t/{tenant.slug}/login?done=signed-out"
    await person.open(f"/t/{tenant.slug}/login?next={quote(page, safe='')}")
    await person.submit(f"/t/{tenant.slug}/login", {"identifier": EMAIL, "next": page})
    await person.submit(f"/t/{tenant.slug}/verify", {"code": await current_code(db, ring, challenge_of(person))})
    assert person.page.url.path == f"/t/{tenant.slug}/"


async def test_an_organisation_is_not_led_to_a_members_page(
    person: Visitor, db: Database, ring: KeyRing, tenant: SomeTenant
) -> None:
    """Whoever signs in as the organisation has no password: they arrive on the dashboard, and so they do again."""
    await person.open(f"/t/{tenant.slug}/login?next=password")
    await person.submit(f"/t/{tenant.slug}/login", {"identifier": "", "next": "password"})
    await person.submit(f"/t/{tenant.slug}/verify", {"code": await current_code(db, ring, challenge_of(person))})
    assert person.page.url.path == f"/t/{tenant.slug}/"
    assert (await person.open(f"/t/{tenant.slug}/login?next=password")).url.path == f"/t/{tenant.slug}/"


async def test_remembered_devices_are_told_and_forgotten(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """One says until when it is remembered, by today's policy, the other doesn't; then all are strangers again."""
    tenant = await add_tenant(db, clock(), policy={"remember_device_days": 30, "hourly_limit": 10})
    await add_member(db, clock(), tenant, email=EMAIL)
    async with visitor(http) as person, visitor(http) as elsewhere:
        await sign_in(elsewhere, db, ring, tenant.slug, EMAIL)
        await person.open(f"/t/{tenant.slug}/login")
        await person.submit(f"/t/{tenant.slug}/login", {"identifier": EMAIL})
        code = await current_code(db, ring, challenge_of(person))
        await person.submit(f"/t/{tenant.slug}/verify", {"code": code, "remember_device": "yes"})
        assert person.text.count("remembered until 13 April 2026") == 1
        assert person.text.count("remembered until") == 1
        clock.forward(days=30)
        await sign_in(person, db, ring, tenant.slug, EMAIL)
        assert "remembered until" not in person.text, "the device stands for a code no longer"
        await person.submit(f"/t/{tenant.slug}/devices/forget-all")
        assert "Your devices are forgotten." in person.text
        assert "Known devices" not in person.text
        assert (await person.open(f"/t/{tenant.slug}/")).url.path == f"/t/{tenant.slug}/", "still signed in"
    known = "SELECT count(*) FROM devices WHERE tenant_id = $1 AND revoked_at IS NULL"
    assert await count(db, known, tenant.id) == 0


async def test_without_the_policy_no_device_is_remembered(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """A tenant that stops remembering devices stops at once, also for those that were remembered before."""
    tenant = await add_tenant(db, clock(), policy={"remember_device_days": 30})
    await add_member(db, clock(), tenant, email=EMAIL)
    await person.open(f"/t/{tenant.slug}/login")
    await person.submit(f"/t/{tenant.slug}/login", {"identifier": EMAIL})
    code = await current_code(db, ring, challenge_of(person))
    await person.submit(f"/t/{tenant.slug}/verify", {"code": code, "remember_device": "yes"})
    assert "remembered until" in person.text
    async with db.every_tenant() as connection:
        stop = """UPDATE tenants SET policy = policy || '{"remember_device_days": 0}' WHERE id = $1"""
        await connection.execute(stop, tenant.id)
    await person.open(f"/t/{tenant.slug}/")
    assert "remembered until" not in person.text


async def test_a_consent_is_read_and_withdrawn(
    http: Http, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Which text, which version, when; after a page that asks, it stays listed as withdrawn, once, and in the log."""
    async with visitor(http) as person:
        path = f"/t/{tenant.slug}/register"
        await person.open(path)
        hidden = dict(re.findall(r'<input type="hidden" name="(document|version)" value="([^"]*)"', person.page.text))
        await person.submit(path, {"name": "Ana Silva", "email": EMAIL, "consent": "yes", **hidden})
        code = await current_code(db, ring, challenge_of(person))
        await person.submit(f"/t/{tenant.slug}/verify", {"code": code})
        base = f"/t/{tenant.slug}/consents"
        assert f'href="{base}"' in person.page.text
        await person.open(base)
        assert "member-data, version 1" in person.text
        assert "I agree that this organisation keeps my name" in person.text
        assert "given 14 Mar 2026, 09:26 UTC" in person.text
        (found,) = re.findall(rf'href="({base}/[0-9a-f-]+/withdraw)"', person.page.text)
        await person.open(found)
        assert "Withdraw this consent?" in person.text
        assert "Your account stays." in person.text
        assert (await person.send(found, {"csrf_token": "x" * 43})).status_code == 403
        assert (await person.send(found, {"sure": "yes"})).status_code == 400
        clock.forward(hours=1)
        await person.open(found)
        token = person.token
        for _ in range(2):
            await person.submit(found, {"csrf_token": token})
            assert "Your consent is withdrawn." in person.text
            clock.forward(minutes=1)
        assert "withdrawn 14 Mar 2026, 10:26 UTC" in person.text
        assert "/withdraw" not in person.page.text
        assert (await person.open(found)).status_code == 404
        await person.open(f"/t/{tenant.slug}/")
        assert "A consent was withdrawn" in person.text
        log = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'consent.withdrawn'"
        assert await count(db, log, tenant.id) == 1


async def test_somebody_elses_consent_is_not_there(
    http: Http, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """A member of the same tenant neither sees nor withdraws it."""
    ana = await add_member(db, clock(), tenant, email=EMAIL)
    await add_member(db, clock(), tenant, email="bo@home.example", name="Bo")
    consent = uuid4()
    async with db.every_tenant() as connection:
        await connection.execute(
            "INSERT INTO consents (tenant_id, id, member_id, document, version, given_at) "
            "VALUES ($1, $2, $3, 'terms', '7', $4)",
            tenant.id,
            consent,
            ana,
            clock(),
        )
    async with visitor(http) as person:
        await sign_in(person, db, ring, tenant.slug, "bo@home.example")
        await person.open(f"/t/{tenant.slug}/consents")
        assert "terms" not in person.text
        assert "Nothing yet." in person.text
        path = f"/t/{tenant.slug}/consents/{consent}/withdraw"
        assert (await person.open(path)).status_code == 404
        await person.open(f"/t/{tenant.slug}/")
        assert (await person.send(path)).status_code == 404
    assert await count(db, "SELECT count(*) FROM consents WHERE id = $1 AND withdrawn_at IS NULL", consent) == 1


async def test_everything_is_found_on_the_dashboard(
    person: Visitor, db: Database, ring: KeyRing, clock: Clock, tenant: SomeTenant
) -> None:
    """Contacts, second factor, password, sessions, devices, consents and history each have their place there."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await sign_in(person, db, ring, tenant.slug, EMAIL)
    for path in ("contacts/email", "factors", "password", "consents"):
        assert f'href="/t/{tenant.slug}/{path}"' in person.page.text, path
        answer = await person.open(f"/t/{tenant.slug}/{path}")
        assert answer.status_code == 200
        assert f'href="/t/{tenant.slug}/"' in answer.text, f"no way back from {path}"
        await person.open(f"/t/{tenant.slug}/")
    for heading in ("Signed-in devices", "Known devices", "What happened with your sign-in"):
        assert heading in person.text
