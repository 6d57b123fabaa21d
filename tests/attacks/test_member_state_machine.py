"""Password, code, app and backup codes of one member against a model: no history begins a session it shouldn't.

As in `test_state_machine`: time is injected, the stores are real, and the model knows what is promised, not how it is
kept. What a session does once it has begun is that one's business.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from app.audit.log import Actor
from app.auth import passwords
from app.auth.asking import Issued, Realm
from app.auth.entrance import Entrance
from app.auth.factors.second_steps import GUESSES_A_DAY, SecondSteps
from app.auth.factors.service import Factors, Holder
from app.auth.factors.totp import step_at
from app.auth.passwords import Passwords
from app.auth.signing_in import HalfSignIn, SignIn
from app.errors import CodeExpired, GatehouseError, InvalidCode, InvalidCredentials, RateLimited, TooManyAttempts
from app.keys import KeyRing
from app.members.service import Members
from app.settings import Settings
from tests.attacks.test_state_machine import _BEGIN, CLIENT, CODE_LIFE, DAY, HOUR, World, world_of
from tests.conftest import Clock
from tests.factors import TENANTS, App
from tests.people import add_member, add_tenant, count, current_code, whole, wrong

EMAIL: Final = "ana@home.example"
PASSWORD: Final = "a window left ajar"
HALF_LIFE: Final = timedelta(minutes=10)
SENDS_AN_HOUR: Final = 3
PASSWORDS_AN_HOUR: Final = 15
_SPANS: Final = [0, 1, 29, 31, 61, 599, 601, 3599, 3601, 86_401]


@dataclass
class Open:
    """A code or a half sign-in that waits for its proof, which may be tried five times."""

    token: str
    ends: datetime
    code: str = ""
    decoy: bool = False
    attempts: int = 0
    used: bool = False

    def refusal(self, now: datetime) -> type[GatehouseError] | None:
        if self.used or now >= self.ends:
            return CodeExpired
        return TooManyAttempts if self.attempts >= 5 else None


class MemberMachine(RuleBasedStateMachine):
    """A member with a password and perhaps an app, and everything that can be done at the door."""

    challenges = Bundle("challenges")
    halves = Bundle("halves")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.clock = world, Clock()
        self.clock.now = _BEGIN
        db, ring, settings, sessions = world.db, world.ring, world.settings, world.sessions(self.clock)
        challenges, secrets = world.challenges(self.clock), Passwords()
        self.entrance = Entrance(db, ring, settings, challenges, sessions, secrets, self.clock)
        self.core, self.sessions = challenges, sessions
        self.factors = Factors(db, ring, settings, sessions, self.clock, lambda: None)
        self.second_steps = SecondSteps(db, ring, settings, sessions, self.clock, lambda: None)
        self.members = Members(db, settings, self.clock)
        self.suspended = False
        self.open: list[Open] = []
        self.sends: list[datetime] = []
        self.tries: list[datetime] = []
        self.guesses: list[datetime] = []
        self.app: App | None = None
        self.spare: list[str] = []
        self.spent: list[str] = []
        self.last_step = 0
        self.begun = 0

    @initialize(with_app=st.booleans())
    def a_member(self, with_app: bool) -> None:
        self.world.run(self._move_in(with_app))

    async def _move_in(self, with_app: bool) -> None:
        self.tenant = await add_tenant(self.world.db, self.now, policy={"first_factor": "password"})
        self.realm = Realm.of(self.tenant.slug)
        hashed = await Passwords().hash(PASSWORD)
        self.member = await add_member(self.world.db, self.now, self.tenant, email=EMAIL, password_hash=hashed)
        if not with_app:
            return
        issued = await self.entrance.ask(self.realm, CLIENT, identifier=EMAIL, password=PASSWORD)
        assert isinstance(issued, Issued)
        code = await current_code(self.world.db, self.world.ring, issued.challenge_id)
        first = whole(await self.core.verify(self.realm, issued.challenge_id, code, CLIENT))
        session = await self.sessions.authenticate(first.access_token or "")
        self.app = App.scan(await self.factors.enrol(Holder.of(session)), self.clock)
        await self.factors.confirm(session, self.app.code(), CLIENT)
        self.spare = list(await self.factors.new_backup_codes(session, CLIENT))
        self.sends, self.begun = [self.now], 1
        self.last_step = step_at(self.now)

    @property
    def now(self) -> datetime:
        return self.clock.now

    def attempt(self, call: Any) -> Any:
        """The outcome of a call, refusals as values."""
        try:
            return self.world.run(call)
        except GatehouseError as refusal:
            return refusal

    @rule(seconds=st.sampled_from(_SPANS))
    def wait(self, seconds: int) -> None:
        self.clock.forward(seconds=seconds)

    @rule(suspended=st.booleans())
    def set_status(self, suspended: bool) -> None:
        """Suspending ends all that was open; resuming brings none of it back."""
        values = {"status": "suspended" if suspended else "active"}
        change = self.members.update(self.tenant.slug, self.member, values, actor=Actor("operator"), client=CLIENT)
        self.world.run(change)
        if suspended and not self.suspended:
            for one in self.open:
                one.used = one.used or one.attempts < 5
        self.suspended = suspended

    @rule(target=challenges, how=st.sampled_from(["right", "right", "wrong", "none", "reset"]))
    def ask(self, how: str) -> Any:
        """A code follows a right password or is for a reset; all others get one that is worth nothing, or a refusal."""
        more: dict[str, Any] = {}
        if how in {"right", "wrong"}:
            more = {"password": PASSWORD if how == "right" else "a window left shut"}
        elif how == "reset":
            more = {"purpose": "reset"}
        outcome = self.attempt(self.entrance.ask(self.realm, CLIENT, identifier=EMAIL, **more))
        if "password" in more:
            if self._within(self.tries, HOUR) >= PASSWORDS_AN_HOUR:
                assert isinstance(outcome, RateLimited)
                return multiple()
            self.tries.append(self.now)
            if how == "wrong" or self.suspended:
                assert isinstance(outcome, InvalidCredentials)
                return multiple()
        if self._within(self.sends, HOUR) >= SENDS_AN_HOUR:
            assert isinstance(outcome, RateLimited)
            return multiple()
        assert isinstance(outcome, Issued), outcome
        self.sends.append(self.now)
        if how == "right":
            # Whoever knows the password is not counted as guessing it.
            self.tries.pop()
        code = self.world.run(current_code(self.world.db, self.world.ring, outcome.challenge_id))
        decoy = how == "none" or self.suspended
        self.open.append(Open(outcome.challenge_id, self.now + CODE_LIFE, code, decoy))
        return self.open[-1]

    @rule(challenge=challenges, times=st.sampled_from([1, 1, 5]))
    def enter_wrong(self, challenge: Open, times: int) -> None:
        for _ in range(times):
            outcome = self.attempt(self.core.verify(self.realm, challenge.token, wrong(challenge.code), CLIENT))
            self.fails(challenge, outcome)

    @rule(target=halves, challenge=challenges)
    def enter_right(self, challenge: Open) -> Any:
        outcome = self.attempt(self.core.verify(self.realm, challenge.token, challenge.code, CLIENT))
        if challenge.decoy or challenge.refusal(self.now):
            self.fails(challenge, outcome)
            return multiple()
        challenge.used = True
        if self.app is None:
            assert isinstance(outcome, SignIn)
            self.begun += 1
            return multiple()
        assert isinstance(outcome, HalfSignIn)
        self.open.append(Open(outcome.mfa_token, self.now + HALF_LIFE))
        return self.open[-1]

    @rule(half=halves, proof=st.sampled_from(["shown", "shown", "wrong", "spare", "spent", "made up"]))
    def finish(self, half: Open, proof: str) -> None:
        """A code of the app or of the sheet: right once, and only in time."""
        assert self.app is not None
        by_app = proof in {"shown", "wrong"}
        if (proof == "spare" and not self.spare) or (proof == "spent" and not self.spent):
            return
        match proof:
            case "shown":
                code = self.app.code()
            case "wrong":
                code = self.app.wrong()
            case "spare" | "spent":
                code = (self.spare if proof == "spare" else self.spent)[0]
            case _:
                code = "00000-00000"
        outcome = self.attempt(
            self.second_steps.finish(
                half.token, code, CLIENT, using="totp" if by_app else "backup_code", kind="api", subjects=TENANTS
            )
        )
        if half.refusal(self.now):
            self.fails(half, outcome)
            return
        if by_app and self._within(self.guesses, DAY) >= GUESSES_A_DAY:
            half.attempts += 1
            assert isinstance(outcome, RateLimited)
            return
        if by_app:
            self.guesses.append(self.now)
        right = proof == "spare" or (proof == "shown" and step_at(self.now) > self.last_step)
        if not right:
            self.fails(half, outcome)
            return
        assert isinstance(outcome, SignIn), outcome
        half.used, self.begun = True, self.begun + 1
        if by_app:
            self.guesses.pop()
            self.last_step = step_at(self.now)
        else:
            self.spent.append(self.spare.pop(0))

    @invariant()
    def as_many_sessions_as_proofs(self) -> None:
        if hasattr(self, "tenant"):
            begun = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'session.started'"
            assert self.world.run(count(self.world.db, begun, self.tenant.id)) == self.begun

    def _within(self, moments: list[datetime], span: timedelta) -> int:
        return sum(moment >= self.now - span for moment in moments)

    def fails(self, what: Open, outcome: object) -> None:
        """A wrong proof counts while what it is for lives, and the last one ends it."""
        if expected := what.refusal(self.now):
            assert type(outcome) is expected, outcome
            return
        what.attempts += 1
        if what.attempts == 5:
            assert type(outcome) is TooManyAttempts
        else:
            assert isinstance(outcome, InvalidCode), outcome
            assert outcome.attempts_left == 5 - what.attempts


@pytest.mark.parametrize(
    ("histories", "steps"),
    [
        pytest.param(25, 40, id="short"),
        pytest.param(1000, 80, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_no_history_lets_a_member_in_without_proof(
    settings: Settings, ring: KeyRing, monkeypatch: pytest.MonkeyPatch, histories: int, steps: int
) -> None:
    """Whatever is done in whatever order, the door opens as often as the model says."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_HASHER", cheap)
    monkeypatch.setattr(passwords, "_NOBODYS", cheap.hash("of nobody"))
    with world_of(settings, ring) as world:
        run_machine(
            lambda: MemberMachine(world),  # type: ignore[arg-type]  # any callable that makes one will do
            settings=hypothesis_settings(
                max_examples=histories,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                derandomize=steps < 80,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            ),
        )
