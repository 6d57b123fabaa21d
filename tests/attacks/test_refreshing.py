"""Refreshing: a made-up token costs one step however long a family is, and nobody refreshes without end."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from app.audit.log import Client
from app.auth import tokens
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.sessions import REFRESH_PACE, REFRESHES, Sessions
from app.auth.signing_in import SignIn
from app.auth.tokens import RefreshToken
from app.errors import InvalidToken, RateLimited
from app.keys import KeyRing, keyed_hash
from app.storage.db import Database
from tests.conftest import Clock
from tests.counting import counting
from tests.http import Http
from tests.people import add_tenant, count, current_code, whole

CLIENT = Client("api", "203.0.113.9", "test", "r")
_ALIVE = "SELECT count(*) FROM sessions WHERE id = $1 AND ended_at IS NULL"


async def signed_in(db: Database, challenges: Challenges, ring: KeyRing, now: datetime) -> SignIn:
    """Somebody with an API client."""
    realm = Realm.of((await add_tenant(db, now)).slug)
    issued = await challenges.request(realm, CLIENT)
    code = await current_code(db, ring, issued.challenge_id)
    return whole(await challenges.verify(realm, issued.challenge_id, code, CLIENT))


async def grow(db: Database, ring: KeyRing, token: RefreshToken, n: int) -> RefreshToken:
    """The family as it is after so many refreshes; the newest token."""
    newest = RefreshToken.nth(ring.current, token.tenant_id, token.session_id, n)
    prior = RefreshToken.nth(ring.current, token.tenant_id, token.session_id, n - 1)
    async with db.tenant(token.tenant_id) as connection:
        await connection.execute(
            "UPDATE sessions SET refresh_n = $2, refresh_hash = $3, refresh_prior_hash = $4, "
            "refresh_rotated_at = seen_at WHERE id = $1",
            *(token.session_id, n, newest.hash(), prior.hash()),
        )
    return newest


async def test_a_made_up_token_costs_one_step(
    db: Database,
    challenges: Challenges,
    sessions: Sessions,
    ring: KeyRing,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After 9,000 own refreshes as after none: the same keyed hashes, one statement; and it ends nothing."""
    entered = await signed_in(db, challenges, ring, clock())
    first = RefreshToken.parse(entered.refresh_token or "")
    costs: set[int] = set()
    steps: list[Any] = []
    for n in (2, 9_000, 60_000):
        newest = await grow(db, ring, first, n)
        for made_up in (
            replace(first, secret=bytes(32)),
            replace(first, n=n - 1, secret=bytes(32)),
            replace(first, n=n, secret=bytes(32)),
            replace(first, n=n + 5, secret=newest.secret),
            replace(first, n=2**31 - 2),
        ):
            steps.clear()
            with monkeypatch.context() as patched:
                patched.setattr(tokens, "keyed_hash", counting(keyed_hash, steps))
                patched.setattr(db, "row", counting(db.row, steps))
                with pytest.raises(InvalidToken):
                    await sessions.refresh(made_up.text(), CLIENT)
            costs.add(len(steps))
        assert await count(db, _ALIVE, first.session_id) == 1
    # The successor, whether it is ours, and the statement.
    assert costs == {3}
    assert (await sessions.refresh(newest.text(), CLIENT)).access_token


async def test_any_token_of_old_is_theft(
    db: Database, challenges: Challenges, sessions: Sessions, ring: KeyRing, clock: Clock
) -> None:
    """However old: whoever has one had the family's, and it ends."""
    for age in (2, 9_000, 20_000):
        first = RefreshToken.parse((await signed_in(db, challenges, ring, clock())).refresh_token or "")
        newest = await grow(db, ring, first, age + 2)
        with pytest.raises(InvalidToken):
            await sessions.refresh(first.text(), CLIENT)
        assert await count(db, _ALIVE, first.session_id) == 0
        with pytest.raises(InvalidToken):
            await sessions.refresh(newest.text(), CLIENT)


async def test_a_session_is_refreshed_60_times_at_once_and_then_slowly(
    db: Database, challenges: Challenges, sessions: Sessions, ring: KeyRing, clock: Clock
) -> None:
    """The 61st is told when to come back; the token it has stays the newest one, and a retry costs nothing."""
    entered = await signed_in(db, challenges, ring, clock())
    token = entered.refresh_token or ""
    for _ in range(REFRESHES):
        before, token = token, (await sessions.refresh(token, CLIENT)).refresh_token or ""
        assert (await sessions.refresh(before, CLIENT)).refresh_token == token
    for _ in range(2):
        with pytest.raises(RateLimited) as refused:
            await sessions.refresh(token, CLIENT)
        assert refused.value.retry_after == REFRESH_PACE.total_seconds()
    clock.forward(seconds=REFRESH_PACE.total_seconds())
    token = (await sessions.refresh(token, CLIENT)).refresh_token or ""
    with pytest.raises(RateLimited):
        await sessions.refresh(token, CLIENT)


async def test_no_honest_client_is_held_up(
    db: Database, challenges: Challenges, sessions: Sessions, ring: KeyRing, clock: Clock
) -> None:
    """Four windows that refresh every minute, for an hour."""
    token = (await signed_in(db, challenges, ring, clock())).refresh_token or ""
    for _ in range(60):
        for _ in range(4):
            token = (await sessions.refresh(token, CLIENT)).refresh_token or ""
        clock.now += timedelta(minutes=1)


async def test_the_limit_over_http(http: Http, db: Database, ring: KeyRing, clock: Clock) -> None:
    """429 with Retry-After, the policy, and the words."""
    tenant = await add_tenant(db, clock())
    asked = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
    code = await current_code(db, ring, asked)
    token = (await http.otp(tenant.slug, "verify", {"challenge_id": asked, "code": code})).json()["refresh_token"]
    async with db.tenant(tenant.id) as connection:
        ahead = clock() + REFRESHES * REFRESH_PACE
        await connection.execute("UPDATE sessions SET refresh_paced_at = $2 WHERE tenant_id = $1", tenant.id, ahead)
    refused = await http.auth("POST", "refresh", json={"refresh_token": token})
    assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
    assert refused.headers["Retry-After"] == "10"
    assert refused.headers["RateLimit-Policy"] == '"session-refresh";q=60;w=600'
    assert "renewed too often" in refused.json()["detail"]


@pytest.mark.parametrize("n", [0, 2**31 - 1, 2**31, 2**32 - 1])
async def test_a_number_beyond_all_counting_is_no_token(http: Http, ring: KeyRing, n: int) -> None:
    """401, not a mistake of ours."""
    made_up = RefreshToken(uuid4(), uuid4(), ring.current.id, n, bytes(32)).text()
    assert (await http.auth("POST", "refresh", json={"refresh_token": made_up})).status_code == 401
