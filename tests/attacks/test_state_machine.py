"""The auth service against a model of twenty lines a rule: hypothesis looks for a history in which they differ.

Time is injected, the stores are real. The model knows what the design promises and nothing of how it is kept.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from app.audit.log import Client
from app.auth.asking import Issued, Realm
from app.auth.challenges import Challenges
from app.auth.limits import AddressLimiter
from app.auth.sessions import Sessions
from app.auth.signing_in import SignIn
from app.errors import CodeExpired, GatehouseError, InvalidCode, InvalidToken, RateLimited, TooManyAttempts
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from tests.people import SomeTenant, add_tenant, current_code, wrong

T = TypeVar("T")
# A call without an address is not limited by address: that limit has its own tests.
CLIENT: Final = Client("cli")
# Later than any other test's clock, so that no attack mode of theirs is in force.
_BEGIN: Final = datetime(2033, 5, 18, 3, 33, 20, tzinfo=UTC)
_SPANS: Final = [0, 1, 29, 31, 59, 61, 300, 599, 600, 601, 900, 3599, 3601, 43_200, 86_401, 604_801]

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CODE_LIFE, COOLDOWN, GRACE = timedelta(minutes=10), timedelta(minutes=1), timedelta(seconds=30)
ACCESS_LIFE, FAMILY_LIFE = timedelta(minutes=15), timedelta(days=7)


@dataclass
class Recipient:
    """Somebody with a quota. `real` is False for a slug that nobody has."""

    realm: Realm
    real: bool
    suspended: bool = False
    sends: list[datetime] = field(default_factory=list)
    wrong: list[datetime] = field(default_factory=list)

    def retry_at(self, now: datetime) -> datetime | None:
        """When the next code may be asked for, if not now: three in any hour, both ends counted."""
        recent = [sent for sent in self.sends if sent >= now - HOUR]
        return recent[-3] + HOUR if len(recent) >= 3 else None

    def digits(self, now: datetime) -> int:
        return 8 if sum(guess >= now - DAY for guess in self.wrong) >= 10 else 6


@dataclass
class Challenge:
    """What was asked for, and the codes that came of it."""

    id: str
    to: Recipient
    decoy: bool
    sent_at: datetime
    code: str
    old_codes: list[str] = field(default_factory=list)
    attempts: int = 0
    used: bool = False

    def refusal(self, now: datetime) -> type[GatehouseError] | None:
        """Why nothing can be done with it any more."""
        if self.used or now >= self.sent_at + CODE_LIFE:
            return CodeExpired
        return TooManyAttempts if self.attempts >= 5 else None


@dataclass
class Family:
    """A session with all tokens it ever had."""

    to: Recipient
    began: datetime
    tokens: list[SignIn]
    rotated_at: datetime | None = None
    issued_at: datetime = _BEGIN
    over: bool = False

    def alive(self, now: datetime) -> bool:
        return not self.over and not self.to.suspended and now < self.began + FAMILY_LIFE


@dataclass(frozen=True)
class World:
    """The service, in an event loop of its own: hypothesis calls plain functions."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    db: Database
    ring: KeyRing
    settings: Settings
    limiter: AddressLimiter

    def sessions(self, clock: Callable[[], datetime]) -> Sessions:
        """As a process that has just started, with nothing remembered."""
        return Sessions(self.db, self.ring, self.settings, clock)

    def challenges(self, clock: Callable[[], datetime]) -> Challenges:
        return Challenges(
            self.db, self.ring, self.settings, self.sessions(clock), self.limiter, clock, wake_worker=lambda: None
        )


class Machine(RuleBasedStateMachine):
    """One tenant, one slug that nobody has, and everything a client can do, in any order and at any time."""

    recipients = Bundle("recipients")
    challenges = Bundle("challenges")
    families = Bundle("families")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.now = _BEGIN
        self.core = world.challenges(lambda: self.now)
        self.everybody: list[Recipient] = []
        self.known_families: list[Family] = []

    def attempt(self, call: Coroutine[Any, Any, T]) -> T | GatehouseError:
        """The outcome of a call, refusals as values."""
        try:
            outcome: T = self.world.run(call)
        except GatehouseError as refusal:
            return refusal
        return outcome

    @initialize(target=recipients)
    def a_tenant_and_nobody(self) -> Any:
        tenant: SomeTenant = self.world.run(add_tenant(self.world.db, self.now))
        self.everybody = [Recipient(Realm.of(tenant.slug), True), Recipient(Realm.of(f"no-{tenant.slug}"), False)]
        return multiple(*self.everybody)

    @rule(seconds=st.sampled_from(_SPANS))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(who=recipients, status=st.sampled_from(["suspended", "active"]))
    def set_status(self, who: Recipient, status: str) -> None:
        if who.real:
            self.world.run(self._set_status(who.realm.slug, status))
            who.suspended = status == "suspended"

    async def _set_status(self, slug: str, status: str) -> None:
        async with self.world.db.every_tenant() as connection:
            await connection.execute("UPDATE tenants SET status = $2 WHERE slug = $1", slug, status)

    @rule(target=challenges, who=recipients)
    def request(self, who: Recipient) -> Any:
        outcome = self.attempt(self.core.request(who.realm, CLIENT))
        retry_at = who.retry_at(self.now)
        if retry_at is not None:
            self.refused_until(outcome, retry_at)
            return multiple()
        self.accepted(outcome, who)
        assert isinstance(outcome, Issued)
        who.sends.append(self.now)
        decoy = who.suspended or not who.real
        return Challenge(outcome.challenge_id, who, decoy, self.now, self.code_of(outcome))

    @rule(challenge=challenges)
    def resend(self, challenge: Challenge) -> None:
        who = challenge.to
        outcome = self.attempt(self.core.resend(who.realm, challenge.id, CLIENT))
        expected, retry_at = challenge.refusal(self.now), who.retry_at(self.now)
        if expected is not None:
            assert type(outcome) is expected
        elif self.now < challenge.sent_at + COOLDOWN:
            self.refused_until(outcome, challenge.sent_at + COOLDOWN)
        elif retry_at is not None:
            self.refused_until(outcome, retry_at)
        else:
            self.accepted(outcome, who)
            assert isinstance(outcome, Issued)
            who.sends.append(self.now)
            challenge.decoy = challenge.decoy or who.suspended
            challenge.old_codes.append(challenge.code)
            challenge.sent_at, challenge.code = self.now, self.code_of(outcome)

    @rule(challenge=challenges, old=st.booleans())
    def verify_wrong(self, challenge: Challenge, old: bool) -> None:
        """Any other code, or the one that a resend has voided."""
        typed = challenge.old_codes[-1] if old and challenge.old_codes else wrong(challenge.code)
        if typed != challenge.code:
            self.fails(challenge, self.attempt(self.core.verify(challenge.to.realm, challenge.id, typed, CLIENT)))

    @rule(challenge=challenges)
    def guess_on(self, challenge: Challenge) -> None:
        for _ in range(5):
            self.verify_wrong(challenge, False)

    @rule(target=families, challenge=challenges)
    def verify_right(self, challenge: Challenge) -> Any:
        outcome = self.attempt(self.core.verify(challenge.to.realm, challenge.id, challenge.code, CLIENT))
        if challenge.decoy or challenge.refusal(self.now) is not None:
            self.fails(challenge, outcome)
            return multiple()
        challenge.attempts += 1
        if challenge.to.suspended:
            # It was asked for before: the attempt counts, and the door stays shut.
            assert type(outcome) is CodeExpired
            return multiple()
        assert isinstance(outcome, SignIn)
        challenge.used = True
        self.known_families.append(Family(challenge.to, self.now, [outcome], issued_at=self.now))
        return self.known_families[-1]

    @rule(challenge=challenges)
    def status(self, challenge: Challenge) -> None:
        status = self.world.run(self.core.status(challenge.to.realm, challenge.id))
        age = self.now - challenge.sent_at
        life = "queued" if age < timedelta(seconds=2) else "sent" if age < CODE_LIFE else "expired"
        assert status.state == ("used" if challenge.used else life)
        assert status.attempts_left == 5 - challenge.attempts

    @rule(family=families)
    def refresh(self, family: Family) -> None:
        outcome = self.renew(family.tokens[-1])
        if not family.alive(self.now):
            assert type(outcome) is InvalidToken
            return
        assert isinstance(outcome, SignIn)
        assert outcome.refresh_token not in {token.refresh_token for token in family.tokens}
        assert outcome.refresh_expires_in == (family.began + FAMILY_LIFE - self.now).total_seconds()
        family.tokens.append(outcome)
        family.rotated_at = family.issued_at = self.now

    @rule(family=families, back=st.integers(2, 5))
    def replay(self, family: Family, back: int) -> None:
        """A token that was rotated away: forgiven to a client that lost the answer, else the end of its family."""
        if len(family.tokens) < back:
            return
        outcome = self.renew(family.tokens[-back])
        if not family.alive(self.now):
            assert type(outcome) is InvalidToken
        elif back == 2 and family.rotated_at is not None and self.now < family.rotated_at + GRACE:
            assert isinstance(outcome, SignIn)
            assert outcome.refresh_token == family.tokens[-1].refresh_token
        else:
            assert type(outcome) is InvalidToken
            family.over = True

    @rule(family=consumes(families))
    def logout(self, family: Family) -> None:
        sessions = self.world.sessions(lambda: self.now)
        access = family.tokens[-1].access_token
        assert access
        live = self.attempt(sessions.authenticate(access))
        if self.signed_in(family):
            assert not isinstance(live, GatehouseError)
            self.world.run(sessions.logout(live, CLIENT))
            family.over = True
        else:
            assert type(live) is InvalidToken

    @invariant()
    def sessions_live_as_long_as_they_should(self) -> None:
        for family in self.known_families[-3:]:
            access = family.tokens[-1].access_token
            assert access
            outcome = self.attempt(self.world.sessions(lambda: self.now).authenticate(access))
            assert self.signed_in(family) == (not isinstance(outcome, GatehouseError))

    @invariant()
    def never_more_than_three_in_an_hour(self) -> None:
        for who in self.everybody:
            assert all(sum(first <= sent <= first + HOUR for sent in who.sends) <= 3 for first in who.sends)

    def signed_in(self, family: Family) -> bool:
        return family.alive(self.now) and self.now < family.issued_at + ACCESS_LIFE

    def renew(self, token: SignIn) -> SignIn | GatehouseError:
        assert token.refresh_token
        return self.attempt(self.world.sessions(lambda: self.now).refresh(token.refresh_token, CLIENT))

    def code_of(self, issued: Issued) -> str:
        code: str = self.world.run(current_code(self.world.db, self.world.ring, issued.challenge_id))
        return code

    def accepted(self, outcome: Issued | GatehouseError, who: Recipient) -> None:
        """Every answer is the same for real and made-up recipients."""
        assert isinstance(outcome, Issued), outcome
        assert (outcome.code_length, outcome.expires_in, outcome.resend_in) == (who.digits(self.now), 600, 60)

    def refused_until(self, outcome: object, moment: datetime) -> None:
        assert isinstance(outcome, RateLimited), outcome
        # At the very edge of the window a second is waited, not none.
        assert outcome.retry_after == max(1, ceil((moment - self.now).total_seconds()))

    def fails(self, challenge: Challenge, outcome: object) -> None:
        """A wrong code counts while the challenge lives, and the last one ends it."""
        expected = challenge.refusal(self.now)
        if expected is not None:
            assert type(outcome) is expected
            return
        challenge.attempts += 1
        challenge.to.wrong.append(self.now)
        if challenge.attempts == 5:
            assert type(outcome) is TooManyAttempts
        else:
            assert isinstance(outcome, InvalidCode)
            assert outcome.attempts_left == 5 - challenge.attempts


@contextmanager
def world_of(settings: Settings, ring: KeyRing) -> Iterator[World]:
    assert settings.database_url
    assert settings.redis_url
    with asyncio.Runner() as runner:
        db, accelerator = Database(settings.database_url, application="tests"), Accelerator(settings.redis_url)
        runner.run(db.open())
        try:
            yield World(runner.run, db, ring, settings, AddressLimiter(accelerator, limit=20, processes=1))
        finally:
            runner.run(accelerator.close())
            runner.run(db.close())


@pytest.mark.parametrize(
    ("histories", "steps"),
    [
        pytest.param(120, 40, id="short"),
        pytest.param(1000, 80, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_no_history_leads_astray(settings: Settings, ring: KeyRing, histories: int, steps: int) -> None:
    """Whatever is done in whatever order, the service answers as the model does."""
    with world_of(settings, ring) as world:
        run_state_machine_as_test(
            lambda: Machine(world),  # type: ignore[arg-type]  # any callable that makes one will do
            settings=hypothesis_settings(
                max_examples=histories,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                # The short run is the same every time; the long one looks elsewhere each time.
                derandomize=steps < 80,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            ),
        )
