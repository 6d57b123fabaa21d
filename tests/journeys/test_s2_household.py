"""S2, household customers of a utility, over HTTP: register, choose email or phone, sign in, look around, sign out."""

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.adminapi import admin_api
from tests.conftest import Clock
from tests.http import Http, serve
from tests.pages import Visitor, visitor
from tests.people import CONSENT, SomeTenant, add_member, add_tenant, count, current_code, sent_to, wrong

PHONE = "+447700900321"
POLICY = {"registration": "open"}


async def utility(db: Database, clock: Clock) -> SomeTenant:
    return await add_tenant(db, clock(), name="City Water", policy=POLICY)


async def sign_in(http: Http, db: Database, ring: KeyRing, slug: str, identifier: str) -> str:
    asked = (await http.otp(slug, "request", {"identifier": identifier})).json()
    body = {"challenge_id": asked["challenge_id"], "code": await current_code(db, ring, asked["challenge_id"])}
    token: str = (await http.otp(slug, "verify", body)).json()["access_token"]
    return token


def challenge_of(person: Visitor) -> str:
    """The id in the browser's cookie."""
    (value,) = [value for name, value in person.cookies.items() if "gh_challenge" in name]
    return value.partition(".")[0]


async def test_from_registration_to_sign_out(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """A customer registers with email and phone, proves both, signs in by either, and signs out."""
    tenant = await utility(db, clock)
    email = f"ana@{tenant.slug}.example"
    async with serve(settings, clock, sms_enabled=True, sms_provider=("console",)) as http:
        asked = await http.post(
            f"/api/v1/tenants/{tenant.slug}/members",
            {
                "name": "Ana Silva",
                "email": email.upper(),
                "phone_number": "+44 7700 900321",
                "consent": CONSENT,
            },
        )
        assert asked.status_code == 202
        assert list(asked.json()) == ["challenge_id", "message", "code_length", "expires_in", "resend_in"]
        assert asked.json()["expires_in"] == 900
        challenge = asked.json()["challenge_id"]
        assert await sent_to(db, challenge) == email
        assert await count(db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 0

        code = await current_code(db, ring, challenge)
        tokens = (await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})).json()
        assert tokens["subject"]["kind"] == "member"
        assert tokens["subject"]["name"] == "Ana Silva"
        token = tokens["access_token"]

        # The phone is not proven yet, so no code goes there.
        unproven = (await http.otp(tenant.slug, "request", {"identifier": PHONE})).json()
        assert await sent_to(db, unproven["challenge_id"]) == PHONE, "a stranger's number: a registration of its own"
        claimed = await http.auth("PUT", "contacts", token, json={"phone_number": PHONE})
        assert claimed.status_code == 202, claimed.text
        assert await sent_to(db, claimed.json()["challenge_id"]) == PHONE
        proof = {
            "challenge_id": claimed.json()["challenge_id"],
            "code": await current_code(db, ring, claimed.json()["challenge_id"]),
        }
        assert (await http.otp(tenant.slug, "verify", proof)).status_code == 410, "it signs nobody in"
        confirmed = await http.auth("POST", "contacts/confirm", token, json=proof)
        assert confirmed.json() == {"email": f"a***@{tenant.slug}.example", "phone_number": "+44*****0321"}

        clock.forward(hours=1)
        by_phone = (await http.otp(tenant.slug, "request", {"identifier": "+447700900321"})).json()
        assert await sent_to(db, by_phone["challenge_id"]) == PHONE
        by_email = (await http.otp(tenant.slug, "request", {"identifier": email})).json()
        assert await sent_to(db, by_email["challenge_id"]) == email
        code = await current_code(db, ring, by_email["challenge_id"])
        again = (await http.otp(tenant.slug, "verify", {"challenge_id": by_email["challenge_id"], "code": code})).json()
        assert again["subject"] == tokens["subject"]

        me = (await http.auth("GET", "me", again["access_token"])).json()
        assert me["subject"] == tokens["subject"]
        assert me["contacts"] == {"email": f"a***@{tenant.slug}.example", "phone_number": "+44*****0321"}
        events = (await http.auth("GET", "events", again["access_token"])).json()["events"]
        assert {"member.registered", "session.started"} <= {event["action"] for event in events}
        consents = (await http.auth("GET", "consents", again["access_token"])).json()["consents"]
        assert [(c["document"], c["version"], c["withdrawn_at"]) for c in consents] == [("terms", "2026-01", None)]
        gone = await http.auth("DELETE", f"consents/{consents[0]['id']}", again["access_token"])
        assert gone.status_code == 204
        consents = (await http.auth("GET", "consents", again["access_token"])).json()["consents"]
        assert consents[0]["withdrawn_at"] is not None

        renewed = (await http.auth("POST", "refresh", json={"refresh_token": again["refresh_token"]})).json()
        assert renewed["subject"] == tokens["subject"]
        assert (await http.auth("POST", "logout", renewed["access_token"])).status_code == 204
        assert (await http.auth("GET", "me", renewed["access_token"])).status_code == 401


async def test_wrong_codes_resend_and_expiry(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """Wrong codes count down, a new code voids the old one, an expired code says so; an expired claim is cleaned up."""
    tenant = await utility(db, clock)
    path = f"/api/v1/tenants/{tenant.slug}/members"
    async with serve(settings, clock) as http:
        challenge = (await http.post(path, {"name": "Bo", "email": "bo@home.example", "consent": CONSENT})).json()[
            "challenge_id"
        ]
        first = await current_code(db, ring, challenge)
        missed = await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": wrong(first)})
        assert (missed.status_code, missed.json()["attempts_left"]) == (401, 4)
        clock.forward(seconds=60)
        resent = await http.otp(tenant.slug, "resend", {"challenge_id": challenge})
        assert (resent.status_code, resent.json()["expires_in"]) == (202, 900)
        assert await sent_to(db, challenge) == "bo@home.example"
        old = await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": first})
        assert old.status_code == 401
        second = await current_code(db, ring, challenge)
        clock.forward(seconds=900)
        late = await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": second})
        assert (late.status_code, late.json()["detail"]) == (410, "The code has expired")
        clock.forward(seconds=1)
        async with db.every_tenant() as connection:
            await connection.execute("SELECT fn.cleanup($1, 1000)", clock())
        assert await count(db, "SELECT count(*) FROM claims WHERE tenant_id = $1", tenant.id) == 0
        assert await count(db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 0


async def test_the_fifth_wrong_code_ends_it(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """Each says how many are left; the last one and the right code after it find the challenge over. Staff see it."""
    tenant = await utility(db, clock)
    member = await add_member(db, clock(), tenant, email="ana@home.example")
    async with serve(settings, clock) as http:
        asked = (await http.otp(tenant.slug, "request", {"identifier": "ana@home.example"})).json()
        right = {
            "challenge_id": asked["challenge_id"],
            "code": await current_code(db, ring, asked["challenge_id"]),
        }
        tries = [await http.otp(tenant.slug, "verify", right | {"code": wrong(right["code"])}) for _ in range(5)]
        assert [(tried.status_code, tried.json().get("attempts_left")) for tried in tries[:4]] == [
            (401, 4),
            (401, 3),
            (401, 2),
            (401, 1),
        ]
        for over in (tries[4], await http.otp(tenant.slug, "verify", right)):
            assert (over.status_code, over.json()["detail"]) == (429, "Too many attempts")
        clock.forward(minutes=1)
        assert (await http.otp(tenant.slug, "resend", {"challenge_id": asked["challenge_id"]})).status_code == 429
        await sign_in(http, db, ring, tenant.slug, "ana@home.example")

        staff = await admin_api(http, db, clock, "viewer")
        day = (await staff("GET", f"/tenants/{tenant.slug}/members/stats")).json()
        day = next(span for span in day["spans"] if span["name"] == "24h")
        seen = {name: day[name] for name in ("requested", "wrong", "locked", "verified", "success_rate")}
        assert seen == {"requested": 2, "wrong": 5, "locked": 1, "verified": 1, "success_rate": 0.5}
        assert (await staff("GET", f"/tenants/{tenant.slug}/members/{member}")).status_code == 200


async def test_an_existing_address_answers_like_a_new_one(settings: Settings, clock: Clock, db: Database) -> None:
    """Same status, members and length; no code, but a word to the owner; what is typed differently is the same."""
    tenant = await utility(db, clock)
    path = f"/api/v1/tenants/{tenant.slug}/members"
    await add_member(db, clock(), tenant, email="here@home.example")
    async with serve(settings, clock) as http:
        taken = await http.post(path, {"name": "Eve", "email": "Here@Home.Example", "consent": CONSENT})
        free = await http.post(path, {"name": "Eve", "email": "free@home.example", "consent": CONSENT})
    assert taken.status_code == free.status_code == 202
    assert taken.json() | {"challenge_id": ""} == free.json() | {"challenge_id": ""}
    assert len(taken.content) == len(free.content)
    told = await count(
        db,
        "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'notice' AND destination = 'here@home.example' "
        "AND payload ->> 'template' = 'address_taken'",
        tenant.id,
    )
    assert told == 1
    assert await count(db, "SELECT count(*) FROM claims WHERE tenant_id = $1", tenant.id) == 1


async def test_default_tenant_asks_for_email_or_phone_only(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """With DEFAULT_TENANT, /login takes the customer's email or phone; the code leads to the dashboard, and out again.

    Forms without their token do nothing.
    """
    tenant = await utility(db, clock)
    await add_member(db, clock(), tenant, email="ana@home.example", phone_number=PHONE)
    serving = serve(settings, clock, default_tenant=tenant.slug, sms_enabled=True, sms_provider=("console",))
    async with serving as http, visitor(http) as person:
        for typed, address in (("ana@home.example", "ana@home.example"), ("+44 (0)7700 900321", PHONE)):
            await person.open("/login")
            assert 'name="identifier"' in person.page.text
            assert 'name="slug"' not in person.page.text
            forged = await person.send("/login", {"identifier": typed, "csrf_token": "forged"})
            assert forged.status_code == 403
            await person.submit("/login", {"identifier": typed})
            assert person.page.url.path == f"/t/{tenant.slug}/verify"
            challenge = challenge_of(person)
            assert await sent_to(db, challenge) == address
            code = await current_code(db, ring, challenge)
            assert (await person.send(person.page.url.path, {"code": code, "csrf_token": "forged"})).status_code == 403
            await person.submit(person.page.url.path, {"code": code})
            assert person.page.url.path == f"/t/{tenant.slug}/"
            assert "You are signed in as Ana Silva" in person.text
            await person.submit(f"/t/{tenant.slug}/logout")
            await person.open(f"/t/{tenant.slug}/")
            assert "You are signed in" not in person.text
            clock.forward(hours=1)
