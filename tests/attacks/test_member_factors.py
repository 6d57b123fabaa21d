"""The attacks on what a member has: codes of every purpose, app, backup codes, and the half way between two factors."""

from base64 import b32decode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.attacks.test_members import EMAIL, PASSWORD, SHOP, at_once, same, with_password
from tests.conftest import Clock
from tests.factors import App
from tests.http import Http, serve
from tests.people import CONSENT, SomeTenant, add_member, add_tenant, count, current_code, wrong

EVE = "eve@home.example"


@dataclass(frozen=True, slots=True)
class House:
    """A tenant with members, told over HTTP."""

    http: Http
    db: Database
    ring: KeyRing
    clock: Clock
    tenant: SomeTenant

    async def member(self, email: str, password: str = PASSWORD) -> None:
        member = await add_member(self.db, self.clock(), self.tenant, email=email)
        await with_password(self.http, self.db, member, password)

    async def request(self, email: str, **body: str) -> httpx.Response:
        return await self.http.otp(self.tenant.slug, "request", {"identifier": email, **body})

    async def proof(self, asked: httpx.Response) -> dict[str, str]:
        """The challenge with its right code."""
        assert asked.status_code == 202, asked.text
        challenge = asked.json()["challenge_id"]
        return {"challenge_id": challenge, "code": await current_code(self.db, self.ring, challenge)}

    async def verify(self, proof: dict[str, str]) -> httpx.Response:
        return await self.http.otp(self.tenant.slug, "verify", proof)

    async def enter(self, email: str, **body: str) -> dict[str, Any]:
        """What password and code are answered with, or a reset's code; the hour's quota is given back before."""
        self.clock.forward(hours=1, seconds=1)
        body = body or {"password": PASSWORD}
        answer = await self.verify(await self.proof(await self.request(email, **body)))
        assert answer.status_code == 200, answer.text
        entered: dict[str, Any] = answer.json()
        return entered

    async def enrolled(self, email: str) -> tuple[App, list[str]]:
        """A member's app and backup codes."""
        await self.member(email)
        token = (await self.enter(email))["access_token"]
        shown = (await self.http.auth("POST", "totp", token, json={})).json()
        app = App(b32decode(shown["secret"]), self.clock)
        done = await self.http.auth("POST", "totp/confirm", token, json={"code": app.code()})
        assert done.status_code == 200, done.text
        spare: list[str] = (await self.http.auth("POST", "backup-codes", token)).json()["codes"]
        return app, spare

    async def finish(self, half: dict[str, Any], **code: str) -> httpx.Response:
        """The second step of a half sign-in: `totp` or `backup_code`."""
        return await self.http.auth("POST", "mfa", json={"mfa_token": half["mfa_token"], **code})


@pytest.fixture
async def house(settings: Settings, clock: Clock, db: Database, ring: KeyRing) -> AsyncIterator[House]:
    tenant = await add_tenant(db, clock(), policy=SHOP)
    async with serve(settings, clock) as http:
        yield House(http, db, ring, clock, tenant)


@pytest.mark.parametrize("purpose", ["sign_in", "reset", "register"])
async def test_200_wrong_codes(house: House, purpose: str) -> None:
    """Whatever a code is for: at most five are compared, then the right one fails too, and nobody is in."""
    if purpose == "register":
        async with house.db.every_tenant() as connection:
            await connection.execute(
                """UPDATE tenants SET policy = '{"registration": "open"}' WHERE id = $1""", house.tenant.id
            )
        asked = await house.http.post(
            f"/api/v1/tenants/{house.tenant.slug}/members",
            {"name": "Ana", "email": "new@home.example", "consent": CONSENT},
        )
    else:
        await house.member(EMAIL)
        asked = await house.request(EMAIL, **({"password": PASSWORD} if purpose == "sign_in" else {"purpose": "reset"}))
    proof = await house.proof(asked)
    guess = proof | {"code": wrong(proof["code"])}
    answers = await at_once(*(house.verify(guess) for _ in range(200)))
    assert [a.json()["code"] for a in answers].count("invalid-code") == 4
    assert {a.json()["code"] for a in answers} == {"invalid-code", "too-many-attempts"}
    assert (await house.verify(proof)).status_code == 429
    assert await count(house.db, "SELECT count(*) FROM sessions WHERE tenant_id = $1", house.tenant.id) == 0


@pytest.mark.parametrize("purpose", ["sign_in", "reset"])
async def test_a_code_is_used_once(house: House, purpose: str) -> None:
    """50 at once make one session, and nothing later makes another."""
    await house.member(EMAIL)
    more = {"password": PASSWORD} if purpose == "sign_in" else {"purpose": "reset"}
    proof = await house.proof(await house.request(EMAIL, **more))
    answers = await at_once(*(house.verify(proof) for _ in range(50)))
    assert [a.status_code for a in answers].count(200) == 1
    assert (await house.verify(proof)).json()["code"] == "code-expired"
    assert await count(house.db, "SELECT count(*) FROM sessions WHERE tenant_id = $1", house.tenant.id) == 1


async def test_a_proven_address_makes_one_member(house: House) -> None:
    """50 registrations at once with one token, and one more later: one member, one session."""
    async with house.db.every_tenant() as connection:
        await connection.execute(
            """UPDATE tenants SET policy = '{"registration": "open"}' WHERE id = $1""", house.tenant.id
        )
    proven = (await house.verify(await house.proof(await house.request("new@home.example")))).json()
    path = f"/api/v1/tenants/{house.tenant.slug}/members"
    told = {"name": "Ana", "consent": CONSENT, "registration_token": proven["registration_token"]}
    answers = await at_once(*(house.http.post(path, told) for _ in range(50)), house.http.post(path, told))
    assert sorted({a.status_code for a in answers}) == [200, 410]
    assert [a.status_code for a in answers].count(200) == 1
    for table in ("members", "sessions"):
        assert await count(house.db, f"SELECT count(*) FROM {table} WHERE tenant_id = $1", house.tenant.id) == 1


async def test_guesses_by_every_name_share_one_limit(house: House) -> None:
    """Passwords tried by email and by phone, however they are spelled, are those of one member: after 15 in the hour
    the right one is worth nothing by the other address either. That both are one member's shows in nothing.
    """
    member = await add_member(house.db, house.clock(), house.tenant, email=EMAIL, phone_number="+447700900777")
    await with_password(house.http, house.db, member)
    names = [EMAIL, EMAIL.upper()]
    answers = await at_once(*(house.request(names[n % 2], password="guess guess") for n in range(20)))
    assert [a.status_code for a in answers].count(401) == 15
    assert {a.status_code for a in answers} == {401, 429}
    for name in ("+447700900777", "+44 7700 900 777", "+447700900778"):
        assert (await house.request(name, password=PASSWORD)).status_code == 401
    house.clock.forward(hours=1, seconds=1)
    assert (await house.request("+447700900777", password=PASSWORD)).status_code == 202


async def test_one_members_password_is_nothing_to_another(house: House) -> None:
    """Nor is it in another tenant, and a right one alone signs nobody in."""
    await house.member(EMAIL)
    await house.member(EVE, "eve opens the door")
    assert (await house.request(EMAIL, password="eve opens the door")).status_code == 401
    other = await add_tenant(house.db, house.clock(), policy=SHOP)
    answer = await house.http.otp(other.slug, "request", {"identifier": EVE, "password": "eve opens the door"})
    assert answer.status_code == 401
    assert (await house.request(EVE, password="eve opens the door")).status_code == 202
    assert await count(house.db, "SELECT count(*) FROM sessions WHERE tenant_id = $1", house.tenant.id) == 0


async def test_no_way_goes_past_a_members_app(house: House) -> None:
    """Password and code, and a reset by who can read the mail: half a sign-in each, which changes no password."""
    app, _ = await house.enrolled(EMAIL)
    for more in ({"password": PASSWORD}, {"purpose": "reset"}):
        half = await house.enter(EMAIL, **more)
        assert half["next"] == "totp"
        assert "access_token" not in half
        for method, path, body in (
            ("GET", "me", {}),
            ("PUT", "password", {"password": "another good one"}),
            ("PUT", "contacts", {"email": "mine@home.example"}),
            ("POST", "totp", {}),
        ):
            answer = await house.http.auth(method, path, half["mfa_token"], json=body or None)
            assert answer.status_code == 401, path
        assert (await house.finish(half, totp=app.next())).status_code == 200


@pytest.mark.parametrize("method", ["totp", "backup_code"])
async def test_a_members_second_factor_under_fire(house: House, method: str) -> None:
    """200 wrong ones: five are compared, then right ones fail; 50 right ones: one session; used ones: never again."""
    app, spare = await house.enrolled(EMAIL)
    half = await house.enter(EMAIL)
    bad = app.wrong() if method == "totp" else "00000-00000"
    answers = await at_once(*(house.finish(half, **{method: bad}) for _ in range(200)))
    assert [a.json()["code"] for a in answers].count("invalid-code") == 4
    right = app.next() if method == "totp" else spare[0]
    assert (await house.finish(half, **{method: right})).json()["code"] == "too-many-attempts"

    half = await house.enter(EMAIL)
    right = app.next() if method == "totp" else spare[0]
    answers = await at_once(*(house.finish(half, **{method: right}) for _ in range(50)))
    assert [a.status_code for a in answers].count(200) == 1
    assert (await house.finish(half, **{method: right})).status_code == 410
    # The hour that `enter` waits is no matter to a backup code; the app shows another one by then.
    if method == "backup_code":
        assert (await house.finish(await house.enter(EMAIL), backup_code=right)).json()["code"] == "invalid-code"


async def test_factors_are_their_owners(house: House) -> None:
    """Eve's app, backup codes and half sign-in finish nothing of Ana's."""
    app, spare = await house.enrolled(EMAIL)
    eves, eves_spare = await house.enrolled(EVE)
    half = await house.enter(EMAIL)
    house.clock.forward(seconds=30)
    assert (await house.finish(half, totp=eves.code())).json()["code"] == "invalid-code"
    assert (await house.finish(half, backup_code=eves_spare[0])).json()["code"] == "invalid-code"
    eves_half = await house.enter(EVE)
    assert (await house.finish(eves_half, totp=app.next())).json()["code"] == "invalid-code"
    assert (await house.finish(eves_half, backup_code=spare[0])).json()["code"] == "invalid-code"
    assert (await house.finish(eves_half, backup_code=eves_spare[0])).status_code == 200


async def test_who_has_an_app_is_not_told(house: House) -> None:
    """Until both password and code are right, a member with an app is answered like one without, and like nobody."""
    await house.enrolled(EMAIL)
    await house.member("bo@home.example")
    house.clock.forward(hours=2)
    for more in ({"password": "guess guess"}, {"purpose": "reset"}, {}):
        answers = [await house.request(name, **more) for name in (EMAIL, "bo@home.example", "no@home.example")]
        for answer in answers[1:]:
            same(answers[0], answer)
        if answers[0].status_code == 202:
            guesses = [
                await house.verify(
                    {"challenge_id": a.json()["challenge_id"], "code": "00000000"[: a.json()["code_length"]]}
                )
                for a in answers
            ]
            for guess in guesses[1:]:
                same(guesses[0], guess)
