"""A repetition is its sender's: a planted cookie, a known challenge, a leaked code, another client get nothing."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from app.auth.repeats import Once, Repeats, Turn
from app.keys import KeyRing, base64url
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http
from tests.pages import Visitor, challenge_of, visitor
from tests.people import add_tenant, count, current_code, wrong

SESSIONS = "SELECT count(*) FROM sessions WHERE tenant_id = $1"
STARTED = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'session.started'"


def entered(person: Visitor) -> bool:
    """Whether a browser was given anything that signs in."""
    return any("session" in name or "device" in name or "half" in name for name in person.cookies)


async def test_a_planted_cookie_gains_nothing(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """The attacker chose the victim's pre-session cookie, knows the challenge, and sees the code right after it was
    used. What they lack is the number of the victim's page; with one of their own pages the code is used.
    """
    tenant, planted = await add_tenant(db, clock()), base64url(bytes(range(32)))
    path = f"/t/{tenant.slug}/verify"
    async with visitor(http) as victim, visitor(http) as attacker:
        for browser in (victim, attacker):
            browser.client.cookies.set("gh_pre", planted, domain="localhost.local")
        await victim.open(f"/t/{tenant.slug}/login")
        await victim.submit(f"/t/{tenant.slug}/login", {"identifier": ""})
        code = await current_code(db, ring, challenge_of(victim))
        for name, value in victim.cookies.items():
            if "challenge" in name:
                attacker.client.cookies.set(name, value, domain="localhost.local")
        await attacker.open(path)
        ready = attacker.page
        await victim.submit(path, {"code": code})
        assert victim.page.url.path == f"/t/{tenant.slug}/"
        for page in (ready, None):
            if page is None:
                await attacker.open(path)
            else:
                attacker.page = page
            answer = await attacker.send(path, {"code": code})
            assert "session" not in str(answer.headers.get_list("set-cookie"))
        assert not entered(attacker)
        await victim.open(f"/t/{tenant.slug}/")
        assert victim.page.url.path == f"/t/{tenant.slug}/", "and the victim stays signed in"
    assert await count(db, SESSIONS, tenant.id) == 1


async def test_a_form_from_before_sign_in_does_nothing_new(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Signed in, a token bound to the cookie from before repeats what was done with it, and does nothing else."""
    tenant = await add_tenant(db, clock())
    async with visitor(http) as person:
        await person.open(f"/t/{tenant.slug}/login")
        await person.submit(f"/t/{tenant.slug}/login", {"identifier": ""})
        before = person.token
        await person.submit(f"/t/{tenant.slug}/verify", {"code": await current_code(db, ring, challenge_of(person))})
        for what in ("logout", "sessions/end-others", "devices/forget-all"):
            answer = await person.send(f"/t/{tenant.slug}/{what}", {"csrf_token": before})
            assert answer.status_code == 403, what
        await person.open(f"/t/{tenant.slug}/")
        assert person.page.url.path == f"/t/{tenant.slug}/"


async def test_50_right_codes_of_one_page_are_one_session(
    http: Http, db: Database, ring: KeyRing, clock: Clock
) -> None:
    """All get the same cookie; the wrong ones among them still count, each other code once."""
    tenant = await add_tenant(db, clock())
    async with visitor(http) as person:
        path = f"/t/{tenant.slug}/verify"
        await person.open(f"/t/{tenant.slug}/login")
        await person.submit(f"/t/{tenant.slug}/login", {"identifier": ""})
        code = await current_code(db, ring, challenge_of(person))
        bad = wrong(code)
        for _ in range(3):
            assert "4 attempts left" in (await person.send(path, {"code": bad})).text
        token, jar = person.token, {**person.cookies}
        headers = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in jar.items()),
            "Origin": "http://localhost:8000",
        }
        sent = {"csrf_token": token, "code": code}
        answers = await asyncio.gather(*(http.client.post(path, data=sent, headers=headers) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {303}
    given = {c for a in answers for c in a.headers.get_list("set-cookie") if "gh_session" in c}
    assert len(given) == 1
    assert await count(db, STARTED, tenant.id) == 1


async def test_nothing_in_the_store_opens_an_answer(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """Neither cookie nor link is in the rows that are kept, and no key of the ring opens them: it takes the form."""
    tenant = await add_tenant(db, clock())
    async with visitor(http) as person:
        await person.open(f"/t/{tenant.slug}/login")
        await person.submit(f"/t/{tenant.slug}/login", {"identifier": ""})
        code = await current_code(db, ring, challenge_of(person))
        await person.submit(f"/t/{tenant.slug}/verify", {"code": code})
        cookie = str(person.session)
    async with db.every_tenant() as connection:
        rows = await connection.fetch("SELECT id, fingerprint, answer FROM repeats")
    assert rows
    for row in rows:
        for column in row.values():
            assert cookie.encode() not in (column or b"")
            assert b"set-cookie" not in (column or b"")


async def test_what_was_sent_cannot_be_tried_out(db: Database, ring: KeyRing, clock: Clock) -> None:
    """Two clients send the same: their rows have nothing in common, so what was sent (a password) can't be guessed by
    its hash, not even with the key ring; it takes the key that only the client has.
    """
    repeats, sent = Repeats(db, ring, clock), (b"", b"", b'{"password": "correct horse"}')
    for _ in range(2):
        assert isinstance(await repeats.begin(Once((b"call", uuid4().bytes), sent)), Turn)
    async with db.every_tenant() as connection:
        rows = await connection.fetch("SELECT fingerprint FROM repeats WHERE begun_at = $1", clock())
    assert len({row["fingerprint"] for row in rows}) == len(rows) >= 2


@pytest.fixture
def key() -> dict[str, str]:
    """The client's own randomness."""
    return {"Idempotency-Key": str(uuid4())}


async def test_an_api_client_that_lost_its_answer(
    http: Http, db: Database, ring: KeyRing, clock: Clock, key: dict[str, str]
) -> None:
    """The same call with its key gets the same answer: one code sent, one session begun, the same tokens."""
    tenant = await add_tenant(db, clock())
    asked = [await http.otp(tenant.slug, "request", {}, headers=key) for _ in range(2)]
    assert asked[0].json() == asked[1].json()
    assert "idempotency-replayed" not in asked[0].headers
    assert asked[1].headers["idempotency-replayed"] == "true"
    challenge = asked[0].json()["challenge_id"]
    code = await current_code(db, ring, challenge)
    body = {"challenge_id": challenge, "code": wrong(code)}
    assert {(await http.otp(tenant.slug, "verify", body, headers={"Idempotency-Key": f"{uuid4()}"})).status_code} == {
        401
    }
    wrong_key = {"Idempotency-Key": f"{uuid4()}"}
    left = [(await http.otp(tenant.slug, "verify", body, headers=wrong_key)).json()["attempts_left"] for _ in range(3)]
    assert left == [3, 3, 3]
    body = {"challenge_id": challenge, "code": code}
    second = {"Idempotency-Key": f"{uuid4()}"}
    tokens = await asyncio.gather(*(http.otp(tenant.slug, "verify", body, headers=second) for _ in range(10)))
    assert {answer.status_code for answer in tokens} == {200}
    assert len({answer.json()["refresh_token"] for answer in tokens}) == 1
    assert await count(db, STARTED, tenant.id) == 1
    sent = "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'code'"
    assert await count(db, sent, tenant.id) == 1


async def test_without_a_key_or_with_another_a_code_is_used(
    http: Http, db: Database, ring: KeyRing, clock: Clock, key: dict[str, str]
) -> None:
    """As ever: 410. And a thief who has challenge and code, but not the key, gets no tokens."""
    tenant = await add_tenant(db, clock())
    challenge = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
    body: dict[str, Any] = {"challenge_id": challenge, "code": await current_code(db, ring, challenge)}
    assert (await http.otp(tenant.slug, "verify", body, headers=key)).status_code == 200
    for headers in ({}, {"Idempotency-Key": f"{uuid4()}"}):
        assert (await http.otp(tenant.slug, "verify", body, headers=headers)).status_code == 410
    other = await http.otp(tenant.slug, "verify", {**body, "code": "000000"}, headers=key)
    assert other.status_code in {409, 422}, "the key belongs to another body"
    clock.forward(minutes=2)
    assert (await http.otp(tenant.slug, "verify", body, headers=key)).status_code == 410


@pytest.mark.parametrize("bad", ["", "1", "short", "x" * 256, "tab\tand more of it", "ü" * 20])
async def test_a_key_is_not_guessed(http: Http, db: Database, clock: Clock, bad: str) -> None:
    """One that others might have taken too is refused, before anything is done."""
    tenant = await add_tenant(db, clock())
    answer = await http.otp(tenant.slug, "request", {}, headers={"Idempotency-Key": bad.encode()})
    assert answer.status_code == 400
    assert "random UUID" in answer.text
    assert await count(db, "SELECT count(*) FROM challenges WHERE tenant_id = $1", tenant.id) == 0
