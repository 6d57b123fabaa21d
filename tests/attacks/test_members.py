"""The attacks on codes and sessions, on members and passwords: in parallel, by guessing, by telling people apart."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import CONSENT, add_member, add_tenant, count, current_code, sent_to, wrong

EMAIL = "ana@home.example"
PASSWORD = "a window left ajar"
SHOP = {"first_factor": "password"}
OPEN = {"registration": "open"}


async def with_password(http: Http, db: Database, member: Any, password: str = PASSWORD) -> None:
    """Gives a member a password, as `Passwords` stores it."""
    hashed = await http.app.state.services.entrance._passwords.hash(password)
    async with db.every_tenant() as connection:
        await connection.execute("UPDATE members SET password_hash = $1 WHERE id = $2", hashed, member)


async def at_once(*calls: Any) -> list[httpx.Response]:
    return list(await asyncio.gather(*calls))


def same(one: httpx.Response, other: httpx.Response) -> None:
    """Nothing in two answers tells which is whose."""
    volatile = {"x-request-id", "date"}
    assert one.status_code == other.status_code
    assert len(one.content) == len(other.content)
    assert [(k, v) for k, v in one.headers.items() if k not in volatile] == [
        (k, v) for k, v in other.headers.items() if k not in volatile
    ]
    hidden = {"challenge_id": "", "request_id": ""}
    assert one.json() | hidden == other.json() | hidden


async def test_parallel_codes_of_a_member(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """50 right codes at once make one session; a registration's make one member."""
    tenant = await add_tenant(db, clock(), policy=OPEN)
    await add_member(db, clock(), tenant, email=EMAIL)
    async with serve(settings, clock) as http:
        asked = await http.otp(tenant.slug, "request", {"identifier": EMAIL})
        newcomer = {"name": "Bo", "email": "bo@home.example", "consent": CONSENT}
        registered = await http.post(f"/api/v1/tenants/{tenant.slug}/members", newcomer)
        for challenge in (asked.json()["challenge_id"], registered.json()["challenge_id"]):
            body = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
            answers = await at_once(*(http.otp(tenant.slug, "verify", body) for _ in range(50)))
            assert [a.status_code for a in answers].count(200) == 1
            assert {a.status_code for a in answers} <= {200, 410, 429}
    assert await count(db, "SELECT count(*) FROM sessions WHERE tenant_id = $1", tenant.id) == 2
    assert await count(db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 2


async def test_two_register_the_same_address(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """Both have a right code; one becomes the member."""
    tenant = await add_tenant(db, clock(), policy=OPEN)
    async with serve(settings, clock) as http:
        bodies = []
        for name in ("One", "Two"):
            body = {"name": name, "email": EMAIL, "consent": CONSENT}
            asked = await http.post(f"/api/v1/tenants/{tenant.slug}/members", body)
            challenge = asked.json()["challenge_id"]
            bodies.append({"challenge_id": challenge, "code": await current_code(db, ring, challenge)})
        answers = await at_once(*(http.otp(tenant.slug, "verify", body) for body in bodies))
    assert sorted(a.status_code for a in answers) == [200, 410]
    assert await count(db, "SELECT count(*) FROM members WHERE tenant_id = $1", tenant.id) == 1


async def test_one_quota_for_a_member(settings: Settings, clock: Clock, db: Database) -> None:
    """Three codes an hour, by whichever address and however it is spelled; 40 requests at once send three as well.

    Each address is answered as if it were all there is: that both are one person's shows in nothing.
    """
    tenant = await add_tenant(db, clock())
    await add_member(db, clock(), tenant, email=EMAIL, phone_number="+447700900777")
    names = [EMAIL, EMAIL.upper(), "+447700900777", "+44 7700 900 777"]
    async with serve(settings, clock, sms_enabled=True, sms_provider=("console",)) as http:
        answers = await at_once(*(http.otp(tenant.slug, "request", {"identifier": names[n % 4]}) for n in range(40)))
    assert [a.status_code for a in answers].count(202) == 6
    assert {a.status_code for a in answers} == {202, 429}
    assert await count(db, "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'code'", tenant.id) == 3
    withheld = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND data ->> 'reason' = 'recipient-limited'"
    assert await count(db, withheld, tenant.id) == 3


async def test_60_passwords_20_at_once(settings: Settings, clock: Clock, db: Database) -> None:
    """At most as many are compared as codes could be guessed at in an hour; then the right one is refused too."""
    tenant = await add_tenant(db, clock(), policy=SHOP)
    member = await add_member(db, clock(), tenant, email=EMAIL)
    async with serve(settings, clock) as http:
        await with_password(http, db, member)
        body = {"identifier": EMAIL, "password": "guess guess"}
        # As many at once as have a place in the line.
        answers = []
        for _ in range(3):
            answers += await at_once(*(http.otp(tenant.slug, "request", body) for _ in range(20)))
        right = await http.otp(tenant.slug, "request", body | {"password": PASSWORD})
        clock.forward(hours=1, seconds=1)
        later = await http.otp(tenant.slug, "request", body | {"password": PASSWORD})
    assert [a.status_code for a in answers].count(401) == 15
    assert [a.status_code for a in answers].count(429) == 45
    assert right.status_code == 429
    assert later.status_code == 202
    wrong_ones = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'password.wrong'"
    assert await count(db, wrong_ones, tenant.id) == 15


async def test_who_has_a_password_is_not_told(settings: Settings, clock: Clock, db: Database) -> None:
    """A wrong password, a member without one, nobody, a suspended one, no such tenant: one answer."""
    tenant = await add_tenant(db, clock(), policy=SHOP)
    async with serve(settings, clock) as http:
        with_one = await add_member(db, clock(), tenant, email=EMAIL)
        await with_password(http, db, with_one)
        suspended = await add_member(db, clock(), tenant, email="gone@home.example", status="suspended")
        await with_password(http, db, suspended)
        await add_member(db, clock(), tenant, email="none@home.example")
        reference = await http.otp(tenant.slug, "request", {"identifier": EMAIL, "password": "guess guess"})
        assert (reference.status_code, reference.json()["code"]) == (401, "invalid-credentials")
        for slug, identifier, password in (
            (tenant.slug, "none@home.example", PASSWORD),
            (tenant.slug, "gone@home.example", PASSWORD),
            (tenant.slug, "who@home.example", PASSWORD),
            (tenant.slug, "who@home.example", "x" * 10_000),
            (f"no-{uuid4().hex}", EMAIL, PASSWORD),
        ):
            same(reference, await http.otp(slug, "request", {"identifier": identifier, "password": password}))


@pytest.mark.parametrize("policy", [{}, OPEN, SHOP, {"registration": "invite"}])
async def test_who_is_a_member_is_not_told(
    settings: Settings, clock: Clock, db: Database, policy: dict[str, Any]
) -> None:
    """A member, nobody, a suspended one, one who is invited: the same answer to a code, a reset and a registration."""
    tenant = await add_tenant(db, clock(), policy=policy)
    await add_member(db, clock(), tenant, email="member@home.example")
    await add_member(db, clock(), tenant, email="gone@home.example", status="suspended")
    await add_member(db, clock(), tenant, email="guest@home.example", status="pending")
    who = ["member@home.example", "gone@home.example", "guest@home.example", "nobody@home.example"]
    async with serve(settings, clock) as http:
        bodies: list[dict[str, Any]] = [{}, {"purpose": "reset"}]
        for more in bodies:
            answers = [await http.otp(tenant.slug, "request", {"identifier": name} | more) for name in who]
            for answer in answers[1:]:
                same(answers[0], answer)
            statuses = [
                await http.otp(tenant.slug, "status", {"challenge_id": a.json()["challenge_id"]}) for a in answers
            ]
            for status in statuses[1:]:
                same(statuses[0], status)
        path = f"/api/v1/tenants/{tenant.slug}/members"
        # Whoever asks for a password wants one of newcomers too, which shows; who has an address does not.
        eve = {"name": "Eve", "password": "six long words nobody will guess", "consent": CONSENT}
        answers = [await http.post(path, eve | {"email": name}) for name in who]
        unknown = await http.post(f"/api/v1/tenants/no-{uuid4().hex}/members", eve | {"email": who[0]})
        for answer in [*answers[1:], unknown]:
            same(answers[0], answer)


async def test_an_address_is_not_squatted(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> None:
    """Somebody else's phone beside one's own email is worth nothing, and goes to its owner when that one proves it."""
    tenant = await add_tenant(db, clock(), policy=OPEN)
    phone = "+447700900888"
    async with serve(settings, clock, sms_enabled=True, sms_provider=("console",)) as http:
        path = f"/api/v1/tenants/{tenant.slug}/members"
        for body in ({"name": "Eve", "email": EMAIL, "phone_number": phone}, {"name": "Ana", "phone_number": phone}):
            asked = await http.post(path, body | {"consent": CONSENT})
            challenge = asked.json()["challenge_id"]
            assert await sent_to(db, challenge) == body.get("email", phone)
            code = await current_code(db, ring, challenge)
            done = await http.otp(tenant.slug, "verify", {"challenge_id": challenge, "code": code})
            assert done.status_code == 200
    async with db.every_tenant() as connection:
        rows = await connection.fetch("SELECT name, phone_number FROM members WHERE tenant_id = $1", tenant.id)
    assert {row["name"]: row["phone_number"] for row in rows} == {"Eve": None, "Ana": phone}


async def test_a_members_code_is_worth_nothing_elsewhere(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Another tenant's door, another member's account, a suspended member: refused."""
    tenant, other = await add_tenant(db, clock()), await add_tenant(db, clock())
    ana = await add_member(db, clock(), tenant, email=EMAIL)
    await add_member(db, clock(), other, email=EMAIL)
    await add_member(db, clock(), tenant, email="bo@home.example", name="Bo")
    async with serve(settings, clock) as http:

        async def ask(email: str) -> dict[str, str]:
            asked = (await http.otp(tenant.slug, "request", {"identifier": email})).json()
            return {"challenge_id": asked["challenge_id"], "code": await current_code(db, ring, asked["challenge_id"])}

        proof = await ask(EMAIL)
        assert (await http.otp(other.slug, "verify", proof)).status_code == 410
        token = (await http.otp(tenant.slug, "verify", proof)).json()["access_token"]
        bos = (await http.otp(tenant.slug, "verify", await ask("bo@home.example"))).json()["access_token"]
        claimed = (await http.auth("PUT", "contacts", token, json={"email": "new@home.example"})).json()
        claim = {
            "challenge_id": claimed["challenge_id"],
            "code": await current_code(db, ring, claimed["challenge_id"]),
        }
        assert (await http.auth("POST", "contacts/confirm", bos, json=claim)).status_code == 410
        guess = claim | {"code": wrong(claim["code"])}
        assert (await http.auth("POST", "contacts/confirm", token, json=guess)).json()["code"] == "invalid-code"

        open_one = await ask(EMAIL)
        async with db.tenant(tenant.id) as connection:
            await connection.execute("UPDATE members SET status = 'suspended' WHERE id = $1", ana)
        assert (await http.otp(tenant.slug, "verify", open_one)).status_code == 410
        clock.forward(seconds=4)
        assert (await http.auth("GET", "me", token)).status_code == 401
        assert (await http.auth("GET", "me", bos)).status_code == 200


async def test_taken_addresses_are_not_told_to_members(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Who claims another member's address gets the same answer as for a free one, no code, and its owner a word."""
    tenant = await add_tenant(db, clock())
    await add_member(db, clock(), tenant, email=EMAIL)
    await add_member(db, clock(), tenant, email="bo@home.example")
    async with serve(settings, clock) as http:
        asked = (await http.otp(tenant.slug, "request", {"identifier": EMAIL})).json()
        proof = {"challenge_id": asked["challenge_id"], "code": await current_code(db, ring, asked["challenge_id"])}
        token = (await http.otp(tenant.slug, "verify", proof)).json()["access_token"]
        taken = await http.auth("PUT", "contacts", token, json={"email": "bo@home.example"})
        free = await http.auth("PUT", "contacts", token, json={"email": "fr@home.example"})
        same(taken, free)
        clock.forward(minutes=11)
        assert (await http.auth("PUT", "contacts", token, json={"email": "x@home.example"})).status_code == 403
    told = "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'notice' AND destination = 'bo@home.example'"
    assert await count(db, told, tenant.id) == 1


async def test_own_history_does_not_tell_a_taken_address(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """After a claim, a resend and a wrong code the claimer's history reads the same for a taken and a free address, and
    nothing of it stands in the history of whoever has the address.
    """
    tenant = await add_tenant(db, clock())
    await add_member(db, clock(), tenant, email=EMAIL)
    holder = await add_member(db, clock(), tenant, email="bo@home.example")
    histories = []
    async with serve(settings, clock) as http:
        asked = (await http.otp(tenant.slug, "request", {"identifier": EMAIL})).json()
        proof = {"challenge_id": asked["challenge_id"], "code": await current_code(db, ring, asked["challenge_id"])}
        token = (await http.otp(tenant.slug, "verify", proof)).json()["access_token"]
        known = len((await http.auth("GET", "events", token)).json()["events"])
        for address in ("bo@home.example", "fr@home.example"):
            claim = (await http.auth("PUT", "contacts", token, json={"email": address})).json()
            clock.forward(seconds=61)
            sent = await http.otp(tenant.slug, "resend", {"challenge_id": claim["challenge_id"]})
            assert sent.status_code == 202
            guess = {"challenge_id": claim["challenge_id"], "code": "0" * claim["code_length"]}
            assert (await http.auth("POST", "contacts/confirm", token, json=guess)).status_code == 401
            events = (await http.auth("GET", "events", token)).json()["events"]
            for event in events:
                event["at"] = ""
                event["data"].pop("this_hour", None)  # how many addresses were claimed, taken or not
            histories.append(events[: len(events) - known])
            known = len(events)
    taken, free = histories
    assert [event["action"] for event in free] == ["code.wrong", "code.resent", "code.requested"]
    assert taken == free
    assert await count(db, "SELECT count(*) FROM audit_events WHERE subject_id = $1", holder) == 0
