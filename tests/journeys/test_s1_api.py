"""S1, organisation portal, as a developer lives it who has nothing but the API and a slug."""

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import serve
from tests.people import add_tenant, count, current_code, wrong


async def test_from_a_slug_to_tokens_and_out_again(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Ask, sign in, look around, renew, sign out: the whole way, with every answer to the letter."""
    tenant = await add_tenant(db, clock(), name="Acme Water")
    async with serve(settings, clock) as http:
        asked = await http.otp(tenant.slug, "request")
        assert asked.status_code == 202
        assert list(asked.json()) == ["challenge_id", "message", "code_length", "expires_in", "resend_in"]
        challenge = asked.json()["challenge_id"]
        assert asked.json() | {"challenge_id": "", "message": ""} == {
            "challenge_id": "",
            "message": "",
            "code_length": 6,
            "expires_in": 600,
            "resend_in": 60,
        }
        code = await current_code(db, ring, challenge)
        assert code not in asked.text

        signed_in = await http.otp(
            tenant.slug,
            "verify",
            {"challenge_id": challenge, "code": f"{code[:3]} {code[3:]}", "device_name": "Ana's laptop"},
        )
        assert signed_in.status_code == 200
        tokens = signed_in.json()
        assert tokens["token_type"] == "Bearer"
        assert (tokens["expires_in"], tokens["refresh_expires_in"]) == (900, 604_800)
        assert tokens["tenant"] == {"slug": tenant.slug, "name": "Acme Water"}
        assert tokens["subject"] == {"kind": "tenant", "id": str(tenant.id), "name": "Acme Water"}

        me = (await http.auth("GET", "me", tokens["access_token"])).json()
        assert me["tenant"] == tokens["tenant"]
        assert me["subject"] == tokens["subject"]
        assert me["contacts"] == {"email": f"o***@{tenant.slug}.example", "phone_number": None}
        assert me["session"]["device_name"] == "Ana's laptop"
        assert me["factors"] == ["otp:email"]

        renewed = (await http.auth("POST", "refresh", json={"refresh_token": tokens["refresh_token"]})).json()
        assert renewed["refresh_token"] != tokens["refresh_token"]

        history = (await http.auth("GET", "events", renewed["access_token"], params={"limit": 1})).json()
        assert [event["action"] for event in history["events"]] == ["session.started"]
        older = await http.auth("GET", "events", renewed["access_token"], params={"cursor": history["next"]})
        assert [event["action"] for event in older.json()["events"]] == ["code.requested"]
        assert older.json()["next"] is None

        assert (await http.auth("POST", "logout", renewed["access_token"])).status_code == 204
        for token in (tokens["access_token"], renewed["access_token"]):
            assert (await http.auth("GET", "me", token)).json()["code"] == "invalid-token"
        gone = await http.auth("POST", "refresh", json={"refresh_token": renewed["refresh_token"]})
        assert (gone.status_code, gone.json()["code"]) == (401, "invalid-token")


async def test_the_fourth_code_within_an_hour_is_refused(settings: Settings, clock: Clock, db: Database) -> None:
    """Three codes an hour, resends counted; the refusal says when to come back, and then it is true."""
    tenant = await add_tenant(db, clock())
    async with serve(settings, clock) as http:
        first = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        clock.forward(seconds=60)
        assert (await http.otp(tenant.slug, "resend", {"challenge_id": first})).status_code == 202
        assert (await http.otp(tenant.slug, "request")).status_code == 202

        refused = await http.otp(tenant.slug, "request")

        assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
        wait = int(refused.headers["Retry-After"])
        assert 3500 < wait <= 3600
        assert refused.headers["RateLimit-Policy"] == '"hourly";q=3;w=3600'
        assert refused.headers["RateLimit"] == f'"hourly";r=0;t={wait}'
        clock.forward(seconds=wait + 1)
        assert (await http.otp(tenant.slug, "request")).status_code == 202


async def test_wrong_codes_count_down_and_the_fifth_ends_it(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Each wrong code says how many are left; the fifth is 429, and then even the right one is."""
    tenant = await add_tenant(db, clock())
    async with serve(settings, clock) as http:
        challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        code = await current_code(db, ring, challenge)
        tries = [
            await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": wrong(code)}) for _ in range(5)
        ]
        assert [answer.status_code for answer in tries] == [401, 401, 401, 401, 429]
        assert [answer.json()["attempts_left"] for answer in tries] == [4, 3, 2, 1, 0]
        assert tries[0].json()["detail"] == "Wrong code"
        assert tries[4].json()["code"] == "too-many-attempts"

        late = await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})

        assert (late.status_code, late.json()["detail"]) == (429, "Too many attempts")
        assert int(late.headers["Retry-After"]) == 600
    assert await count(db, "SELECT count(*) FROM sessions WHERE tenant_id = $1", tenant.id) == 0


async def test_resend_voids_the_old_code(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """A new code for the same challenge, not before the cooldown; the old one is just a wrong one then."""
    tenant = await add_tenant(db, clock())
    async with serve(settings, clock) as http:
        challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        old = await current_code(db, ring, challenge)
        early = await http.otp(tenant.slug, "resend", {"challenge_id": challenge})
        assert (early.status_code, early.headers["Retry-After"]) == (429, "60")
        clock.forward(seconds=60)
        assert (await http.otp(tenant.slug, "resend", {"challenge_id": challenge})).json()["challenge_id"] == challenge
        new = await current_code(db, ring, challenge)

        assert new != old
        refused = await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": old})
        assert (refused.status_code, refused.json()["attempts_left"]) == (401, 4)
        assert (await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": new})).status_code == 200


async def test_expired_used_and_foreign_challenges_are_one_answer(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Too late, a second time, at another tenant's door, or never heard of: 410 all the same."""
    tenant, neighbour = await add_tenant(db, clock()), await add_tenant(db, clock())
    async with serve(settings, clock) as http:
        used = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        code = await current_code(db, ring, used)
        foreign = await http.otp(neighbour.slug, "verify", {"challenge_id": used, "code": code})
        assert (await http.otp(tenant.slug, "verify", {"challenge_id": used, "code": code})).status_code == 200
        again = await http.otp(tenant.slug, "verify", {"challenge_id": used, "code": code})
        unknown = await http.otp(tenant.slug, "verify", {"challenge_id": "A" * 22, "code": code})
        late = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        late_code = await current_code(db, ring, late)
        clock.forward(minutes=10)
        expired = await http.otp(tenant.slug, "verify", {"challenge_id": late, "code": late_code})

        answers = [foreign, again, unknown, expired]
        assert [answer.status_code for answer in answers] == [410] * 4
        bodies = [answer.json() | {"request_id": ""} for answer in answers]
        assert bodies == [bodies[0]] * 4
        assert bodies[0]["detail"] == "The code has expired"


async def test_a_stranger_cannot_tell_an_unknown_slug(settings: Settings, clock: Clock, db: Database) -> None:
    """Unknown, suspended, contactless and real tenants: same status, same headers, same body but for the id."""
    real = await add_tenant(db, clock())
    suspended = await add_tenant(db, clock(), status="suspended")
    contactless = await add_tenant(db, clock(), email=None)
    async with serve(settings, clock) as http:
        answers = [await http.otp(slug, "request") for slug in (real.slug, suspended.slug, contactless.slug, "nobody")]
        for answer in answers:
            assert answer.status_code == 202
            assert answer.json() | {"challenge_id": ""} == answers[0].json() | {"challenge_id": ""}
            assert len(answer.content) == len(answers[0].content)
            assert set(answer.headers.items()) ^ set(answers[0].headers.items()) <= {
                ("x-request-id", answer.headers["x-request-id"]),
                ("x-request-id", answers[0].headers["x-request-id"]),
            }


async def test_disclosed_callers_learn_why(settings: Settings, clock: Clock, db: Database) -> None:
    """With OTP_DISCLOSE_ERRORS each reason has its own code."""
    suspended = await add_tenant(db, clock(), status="suspended")
    contactless = await add_tenant(db, clock(), email=None)
    no_sms = await add_tenant(db, clock(), phone_number="+447700900123")
    async with serve(settings, clock, otp_disclose_errors=True) as http:
        asked = [
            await http.otp("nobody-at-all", "request"),
            await http.otp(suspended.slug, "request"),
            await http.otp(contactless.slug, "request"),
            await http.otp(no_sms.slug, "request", {"channel": "sms"}),
        ]
        assert [(answer.status_code, answer.json()["code"]) for answer in asked] == [
            (404, "tenant-not-found"),
            (403, "tenant-suspended"),
            (422, "contact-missing"),
            (422, "channel-unavailable"),
        ]
        assert asked[2].json()["detail"] == "Tenant contact information missing"


async def test_sessions_are_listed_and_ended(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """Two devices: one ends the other, and somebody else's session isn't there to be ended."""
    tenant, neighbour = await add_tenant(db, clock()), await add_tenant(db, clock())
    async with serve(settings, clock) as http:

        async def sign_in(slug: str, device: str) -> str:
            challenge = (await http.otp(slug, "request")).json()["challenge_id"]
            body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge), "device_name": device}
            token: str = (await http.otp(slug, "verify", body)).json()["access_token"]
            return token

        phone = await sign_in(tenant.slug, "phone")
        clock.forward(seconds=1)
        laptop = await sign_in(tenant.slug, "laptop")
        stranger = await sign_in(neighbour.slug, "stranger")
        listed = (await http.auth("GET", "sessions", laptop)).json()["sessions"]
        assert [(entry["device_name"], entry["current"]) for entry in listed] == [("laptop", True), ("phone", False)]

        theirs = f"sessions/{listed[1]['id']}"
        assert (await http.auth("DELETE", theirs, stranger)).status_code == 404
        assert (await http.auth("GET", "me", phone)).status_code == 200
        assert (await http.auth("DELETE", theirs, laptop)).status_code == 204
        assert (await http.auth("GET", "me", phone)).status_code == 401

        tablet = await sign_in(tenant.slug, "tablet")
        assert (await http.auth("DELETE", "sessions", laptop)).status_code == 204
        assert (await http.auth("GET", "me", tablet)).status_code == 401
        assert (await http.auth("GET", "me", laptop)).status_code == 200


async def test_a_known_device_has_a_quota_of_its_own(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Whoever signed in before is let in while a stranger burns the tenant's quota."""
    tenant = await add_tenant(db, clock())
    async with serve(settings, clock) as http:
        challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
        known = {"X-Device-Token": (await http.otp(tenant.slug, "verify", body)).json()["device_token"]}
        assert [(await http.otp(tenant.slug, "request")).status_code for _ in range(3)] == [202, 202, 429]
        assert (await http.otp(tenant.slug, "request", headers={"X-Device-Token": "made-up"})).status_code == 429
        assert (await http.otp(tenant.slug, "request", headers=known)).status_code == 202
