"""Many hands at once on one recipient: the caps are exact, because the database holds them."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from app.audit.log import Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.sessions import Sessions
from app.auth.signing_in import SignIn
from app.auth.tokens import RefreshToken
from app.errors import CodeExpired, InvalidCode, InvalidToken, RateLimited, TooManyAttempts
from app.keys import KeyRing
from app.storage.db import Database
from tests.conftest import Clock
from tests.people import add_tenant, challenge_row, count, current_code, whole, wrong

CLIENT = Client("api", "203.0.113.9", "test", "r")
T = TypeVar("T")


async def at_once(calls: list[Awaitable[T]]) -> list[T | BaseException]:
    """All at the same time; refusals come back as values."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_200_wrong_codes_are_compared_5_times(
    db: Database, challenges: Challenges, ring: KeyRing, clock: Clock
) -> None:
    """After 200 parallel guesses at most 5 were compared, and then the right code fails too."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    code = await current_code(db, ring, issued.challenge_id)

    outcomes = await at_once([challenges.verify(realm, issued.challenge_id, wrong(code), CLIENT) for _ in range(200)])

    compared = [o for o in outcomes if isinstance(o, InvalidCode)]
    assert sorted(o.attempts_left for o in compared) == [1, 2, 3, 4]
    assert sum(isinstance(o, TooManyAttempts) for o in outcomes) == 196
    evidence = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'code.wrong'"
    assert await count(db, evidence, tenant.id) == 5
    (last,) = await at_once([challenges.verify(realm, issued.challenge_id, code, CLIENT)])
    assert isinstance(last, TooManyAttempts)
    row = await challenge_row(db, issued.challenge_id)
    assert (row["attempts"], row["salt"], row["digest"]) == (5, None, None)


async def test_50_right_codes_give_one_session(
    db: Database, challenges: Challenges, ring: KeyRing, clock: Clock
) -> None:
    """A code works once, however many use it in the same moment."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    code = await current_code(db, ring, issued.challenge_id)

    outcomes = await at_once([challenges.verify(realm, issued.challenge_id, code, CLIENT) for _ in range(50)])

    assert sum(isinstance(o, SignIn) for o in outcomes) == 1
    assert all(isinstance(o, SignIn | CodeExpired | TooManyAttempts) for o in outcomes)
    assert await count(db, "SELECT count(*) FROM sessions WHERE tenant_id = $1", tenant.id) == 1


async def test_100_requests_send_3_codes(db: Database, challenges: Challenges, clock: Clock) -> None:
    """The hourly quota is exact under parallel calls, and each refusal says how long to wait."""
    tenant = await add_tenant(db, clock())
    outcomes = await at_once([challenges.request(Realm.of(tenant.slug), CLIENT) for _ in range(100)])
    refused = [o for o in outcomes if isinstance(o, RateLimited)]
    assert len(refused) == 97
    assert {o.retry_after for o in refused} == {3600}
    assert await count(db, "SELECT count(*) FROM outbox WHERE tenant_id = $1", tenant.id) == 3
    assert await count(db, "SELECT sum(count) FROM refusals WHERE tenant_id = $1", tenant.id) == 97
    assert await count(db, "SELECT count(*) FROM refusals WHERE tenant_id = $1", tenant.id) == 1


async def test_no_window_edge_admits_a_fourth(db: Database, challenges: Challenges, clock: Clock) -> None:
    """Asking every minute for three hours, no 60 minutes ever hold more than 3 codes, ends included."""
    tenant = await add_tenant(db, clock())
    sent = []
    for _ in range(180):
        (outcome,) = await at_once([challenges.request(Realm.of(tenant.slug), CLIENT)])
        if not isinstance(outcome, RateLimited):
            sent.append(clock())
        clock.forward(minutes=1)
    assert len(sent) > 6
    for first in sent:
        assert sum(0 <= (other - first).total_seconds() <= 3600 for other in sent) <= 3


async def test_a_clock_that_runs_back_frees_nothing(db: Database, challenges: Challenges, clock: Clock) -> None:
    """Within a recipient time never runs backwards: a process with a slow clock gets no extra codes."""
    tenant = await add_tenant(db, clock())
    for _ in range(3):
        await challenges.request(Realm.of(tenant.slug), CLIENT)
    clock.forward(hours=-2)
    (outcome,) = await at_once([challenges.request(Realm.of(tenant.slug), CLIENT)])
    assert isinstance(outcome, RateLimited)


async def test_50_resends_send_one_code(db: Database, challenges: Challenges, clock: Clock) -> None:
    """Parallel resends of one generation: the first wins, the others find its cooldown."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    clock.forward(seconds=61)
    outcomes = await at_once([challenges.resend(realm, issued.challenge_id, CLIENT) for _ in range(50)])
    assert sum(not isinstance(o, BaseException) for o in outcomes) == 1
    assert all(isinstance(o, RateLimited) for o in outcomes if isinstance(o, BaseException))
    assert (await challenge_row(db, issued.challenge_id))["generation"] == 2


async def test_a_foreign_door_does_not_open(db: Database, challenges: Challenges, ring: KeyRing, clock: Clock) -> None:
    """The right code under another tenant's slug is an unknown challenge, and costs nothing."""
    tenant, other = await add_tenant(db, clock()), await add_tenant(db, clock())
    issued = await challenges.request(Realm.of(tenant.slug), CLIENT)
    code = await current_code(db, ring, issued.challenge_id)
    for slug in (other.slug, "nobody-has-this-slug"):
        (outcome,) = await at_once([challenges.verify(Realm.of(slug), issued.challenge_id, code, CLIENT)])
        assert isinstance(outcome, CodeExpired)
    assert (await challenge_row(db, issued.challenge_id))["attempts"] == 0


async def test_a_decoy_never_opens(db: Database, challenges: Challenges, ring: KeyRing, clock: Clock) -> None:
    """Even the code that would follow from a decoy's own salt is wrong; attempts count down as for a real one."""
    realm = Realm.of(f"nobody-{clock().timestamp():.0f}")
    issued = await challenges.request(realm, CLIENT)
    code = await current_code(db, ring, issued.challenge_id)
    outcomes = [(await at_once([challenges.verify(realm, issued.challenge_id, code, CLIENT)]))[0] for _ in range(6)]
    assert [getattr(o, "attempts_left", 0) for o in outcomes] == [4, 3, 2, 1, 0, 0]
    assert isinstance(outcomes[-1], TooManyAttempts)


async def test_50_refreshes_agree(
    db: Database, challenges: Challenges, sessions: Sessions, ring: KeyRing, clock: Clock
) -> None:
    """Parallel refreshes of one token within the grace all get the same successor; afterwards it is theft."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    code = await current_code(db, ring, issued.challenge_id)
    signed_in = whole(await challenges.verify(realm, issued.challenge_id, code, CLIENT))
    assert signed_in.refresh_token

    outcomes = await at_once([sessions.refresh(signed_in.refresh_token, CLIENT) for _ in range(50)])
    successors = {o.refresh_token for o in outcomes if isinstance(o, SignIn)}
    assert len(successors) == 1
    assert not any(isinstance(o, BaseException) for o in outcomes)

    clock.forward(seconds=31)
    (late,) = await at_once([sessions.refresh(signed_in.refresh_token, CLIENT)])
    assert isinstance(late, InvalidToken)
    (successor,) = successors
    assert successor
    (ended,) = await at_once([sessions.refresh(successor, CLIENT)])
    assert isinstance(ended, InvalidToken)


async def test_an_imposter_cannot_end_a_family(
    db: Database, challenges: Challenges, sessions: Sessions, ring: KeyRing, clock: Clock
) -> None:
    """Knowing a session's id (it is in the access token) is not enough to have it revoked as reused."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    signed_in = whole(
        await challenges.verify(realm, issued.challenge_id, await current_code(db, ring, issued.challenge_id), CLIENT)
    )
    assert signed_in.refresh_token
    second = await sessions.refresh(signed_in.refresh_token, CLIENT)
    assert second.refresh_token
    third = await sessions.refresh(second.refresh_token, CLIENT)
    assert third.refresh_token
    real = RefreshToken.parse(signed_in.refresh_token)
    for n in (1, 2, 3, 4):
        fake = RefreshToken(real.tenant_id, real.session_id, real.key_id, n, bytes(32))
        (outcome,) = await at_once([sessions.refresh(fake.text(), CLIENT)])
        assert isinstance(outcome, InvalidToken)
    assert (await sessions.refresh(third.refresh_token, CLIENT)).refresh_token
