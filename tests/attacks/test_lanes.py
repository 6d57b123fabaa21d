"""Over all lanes of a person: a ceiling on codes, 1e-4 a day for a guess, and no stranger keeps a known device out.

The state machine knows what each door and each lane is told (exactly), and what all of them may come to (at most).
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from app.audit.log import Actor
from app.auth.asking import Issued, Realm
from app.auth.challenges import Challenges
from app.auth.entrance import Entrance
from app.auth.limits import AddressLimiter
from app.auth.passwords import Passwords
from app.auth.sessions import Sessions
from app.auth.signing_in import SignIn
from app.auth.unlocking import Unlocking
from app.errors import CodeExpired, GatehouseError, InvalidCode, RateLimited, TooManyAttempts
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from tests.attacks.test_guessing import OWNER, STRANGER, Desk
from tests.attacks.test_state_machine import _BEGIN, CLIENT, World, world_of
from tests.conftest import Clock
from tests.people import add_member, add_tenant, challenge_row, count, current_code, wrong

EMAIL, PHONE = "ana@home.example", "+447700900777"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# What a person's strangers get in an hour, each known device, and all of them together.
STRANGERS, EACH, ALL = 3, 3, 6
_SENT: Final = "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND kind = 'code' AND created_at >= $2"


@pytest.fixture
def desk(db: Database, challenges: Challenges, ring: KeyRing, clock: Clock) -> Desk:
    return Desk(db, challenges, ring, clock)


async def known_devices(desk: Desk, realm: Realm, number: int) -> list[str]:
    """Tokens of devices that signed in, each in an hour of its own where it has to."""
    tokens = []
    for n in range(number):
        tokens.append((await desk.sign_in(realm)).device_token or "")
        if n % 3 == 2:
            desk.clock.forward(hours=1, seconds=1)
    desk.clock.forward(hours=1, seconds=1)
    return tokens


async def burn(desk: Desk, realm: Realm, token: str | None, tries: int = 5) -> list[Issued]:
    """All codes somebody gets at this moment."""
    got = []
    for _ in range(tries):
        try:
            client = STRANGER if token is None else OWNER
            got.append(await desk.challenges.request(realm, client, device_token=token))
        except RateLimited:
            break
    return got


@pytest.mark.parametrize("number", [1, 2, 6, 10])
async def test_a_ceiling_over_all_lanes(desk: Desk, number: int) -> None:
    """However many devices are known: 3 codes for strangers and 6 for all of them, at most 3 for each, an hour."""
    tenant = await add_tenant(desk.db, desk.clock())
    realm = Realm.of(tenant.slug)
    tokens = await known_devices(desk, realm, number)
    began = desk.clock()
    mine = [len(await burn(desk, realm, token)) for token in tokens]
    assert max(mine) == EACH
    assert sum(mine) == min(EACH * number, ALL)
    assert len(await burn(desk, realm, None)) == STRANGERS
    assert await count(desk.db, _SENT, tenant.id, began) == min(EACH * number, ALL) + STRANGERS
    desk.clock.forward(hours=1, seconds=1)
    assert len(await burn(desk, realm, tokens[-1])) == EACH


@pytest.mark.parametrize("guesser", ["strangers", "a device", "both"])
async def test_wrong_guesses_of_any_lane_lengthen_all(desk: Desk, guesser: str) -> None:
    """Ten of a day, by whomever: eight digits for strangers and for every device; a day later six again."""
    realm = Realm.of((await add_tenant(desk.db, desk.clock())).slug)
    first, second = await known_devices(desk, realm, 2)
    by: list[str | None] = [*{"strangers": (None, None), "a device": (first, first), "both": (None, first)}[guesser]]
    for token in by:
        issued = await desk.challenges.request(realm, OWNER, device_token=token)
        assert issued.code_length == 6
        assert await desk.guess(realm, issued) == 5
    lengths = [
        (await desk.challenges.request(realm, OWNER, device_token=token)).code_length for token in (None, first, second)
    ]
    assert lengths == [8, 8, 8]
    desk.clock.forward(hours=24, seconds=1)
    assert (await desk.challenges.request(realm, OWNER, device_token=second)).code_length == 6


@pytest.mark.parametrize(
    ("doors", "most", "hours"),
    [
        # The first hours hold all guesses at six digits; those that follow have as many at eight as they may.
        pytest.param(1, STRANGERS, 5, id="one door"),
        pytest.param(3, STRANGERS, 8, id="three doors"),
        pytest.param(3, 10, 3, id="as many as may be set"),
    ],
)
async def test_a_day_of_guessing_in_all_lanes(
    db: Database,
    settings: Settings,
    ring: KeyRing,
    clock: Clock,
    limiter: AddressLimiter,
    doors: int,
    most: int,
    hours: int,
) -> None:
    """Strangers at every door of a tenant and ten known devices guess all day as fast as they may: below 1e-4."""
    limits = replace(settings, otp_hourly_limit=most, otp_known_device_hourly_limit=most)
    core = Challenges(db, ring, limits, Sessions(db, ring, limits, clock), limiter, clock, wake_worker=lambda: None)
    desk = Desk(db, core, ring, clock)
    tenant = await add_tenant(desk.db, desk.clock(), email=EMAIL, phone_number=PHONE)
    realm = Realm.of(tenant.slug)
    tokens = await known_devices(desk, realm, 10)
    names = [None, EMAIL, PHONE][:doors]
    guesses = {6: 0, 8: 0}
    for hour in range(hours):
        # All the codes there are, at each door in turn, then all the guesses; of the first hours no more than nine.
        issued = []
        for name in names[hour // 2 % doors :] + names[: hour // 2 % doors]:
            for _ in range(most):
                try:
                    issued.append(await desk.challenges.request(realm, STRANGER, identifier=name))
                except RateLimited:
                    break
        for token in tokens if hour else []:
            issued += await burn(desk, realm, token, most)
        real = [one for one in issued if not (await challenge_row(desk.db, one.challenge_id))["decoy"]]
        assert len(real) <= 3 * most
        for one in issued if hour else issued[:3]:
            compared = await desk.guess(realm, one, 5 if hour else 3)
            if one in real:
                guesses[one.code_length] += compared
        desk.clock.forward(hours=1, seconds=1)
    assert 15 < guesses[6] <= 60
    assert guesses[8] > 50
    at_most = guesses[8] + (24 - hours) * 3 * most * 5
    assert guesses[6] * 1e-6 + at_most * 1e-8 <= 1e-4


async def test_a_lock_of_a_person_is_unseen_at_another_door(desk: Desk) -> None:
    """Locked by wrong codes at one address: refused there; the other one is answered, and sends nothing."""
    tenant = await add_tenant(desk.db, desk.clock(), policy={"lock_after_failures": 5})
    await add_member(desk.db, desk.clock(), tenant, email=EMAIL, phone_number=PHONE)
    realm = Realm.of(tenant.slug)
    await desk.guess(realm, await desk.challenges.request(realm, STRANGER, identifier=EMAIL))
    with pytest.raises(RateLimited):
        await desk.challenges.request(realm, STRANGER, identifier=EMAIL)
    there = await desk.challenges.request(realm, STRANGER, identifier=PHONE)
    assert (await challenge_row(desk.db, there.challenge_id))["decoy"]
    with pytest.raises(RateLimited):
        await desk.challenges.request(realm, STRANGER, identifier=PHONE, disclose=True)


async def test_decoys_use_nobody_up(desk: Desk) -> None:
    """Asked three times for what can't be sent, a person still gets their codes by the other address."""
    tenant = await add_tenant(desk.db, desk.clock())
    await add_member(desk.db, desk.clock(), tenant, email=EMAIL, phone_number=PHONE)
    realm = Realm.of(tenant.slug)
    for _ in range(3):
        await desk.challenges.request(realm, STRANGER, identifier=PHONE, channel="whatsapp")
    real = await desk.challenges.request(realm, OWNER, identifier=EMAIL)
    assert not (await challenge_row(desk.db, real.challenge_id))["decoy"]


@dataclass
class Door:
    """An address that strangers type, with what they are told."""

    name: str
    sends: list[datetime] = field(default_factory=list)
    wrong: list[datetime] = field(default_factory=list)
    failures: int = 0


@dataclass
class Lane:
    """A known device, or all of them together."""

    token: str = ""
    sends: list[datetime] = field(default_factory=list)


@dataclass
class Asked:
    """A challenge, and what was guessed at it."""

    id: str
    door: Door
    lane: Lane | None
    purpose: str
    decoy: bool
    sent_at: datetime
    digits: int
    attempts: int = 0
    over: bool = False

    def dead(self, now: datetime) -> type[GatehouseError] | None:
        if self.over or now >= self.sent_at + timedelta(minutes=10):
            return CodeExpired
        return TooManyAttempts if self.attempts >= 5 else None


class Lanes(RuleBasedStateMachine):
    """A member with an email and a phone, strangers who know both, and devices the member signed in with."""

    asked = Bundle("asked")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.clock = world, Clock()
        self.clock.now = _BEGIN
        db, ring, settings = world.db, world.ring, world.settings
        self.sessions: Sessions = world.sessions(self.clock)
        self.core = world.challenges(self.clock)
        self.entrance = Entrance(db, ring, settings, self.core, self.sessions, Passwords(), self.clock)
        self.unlocking = Unlocking(db, ring, self.clock)
        self.doors = [Door(EMAIL), Door(PHONE)]
        self.person, self.short = Door(""), Door("")
        self.pool, self.lanes = Lane(), list[Lane]()
        self.real: list[tuple[datetime, bool]] = []
        self.guesses: list[tuple[datetime, int]] = []

    @initialize()
    def move_in(self) -> None:
        self.world.run(self._move_in())

    async def _move_in(self) -> None:
        self.tenant = await add_tenant(self.world.db, self.now)
        self.realm = Realm.of(self.tenant.slug)
        self.member: UUID = await add_member(self.world.db, self.now, self.tenant, email=EMAIL, phone_number=PHONE)

    @property
    def now(self) -> datetime:
        return self.clock.now

    @rule(seconds=st.sampled_from([1, 59, 61, 599, 601, 3599, 3601, 43_200, 86_401]))
    def wait(self, seconds: int) -> None:
        self.clock.forward(seconds=seconds)

    @rule(
        target=asked,
        door=st.integers(0, 1),
        lane=st.integers(-3, 9),
        purpose=st.sampled_from(["sign_in", "sign_in", "reset"]),
        channel=st.sampled_from([None, None, None, "whatsapp"]),
    )
    def ask(self, door: int, lane: int, purpose: Any, channel: str | None) -> Any:
        """A stranger or a known device asks. By WhatsApp, which is off, there is nothing to be sent."""
        there, mine = self.doors[door], self.lanes[lane] if 0 <= lane < len(self.lanes) else None
        call = self.entrance.ask(
            self.realm,
            CLIENT,
            identifier=there.name,
            channel=channel,
            purpose=purpose,
            device_token=mine.token if mine else None,
        )
        sendable = channel is None
        known = mine if sendable else None
        outcome = self.attempt(call)
        sent = self.told(outcome, there, known, sendable)
        if sent is None:
            return multiple()
        digits, decoy = sent
        challenge = Asked(outcome.challenge_id, there, known, purpose, decoy, self.now, digits)
        assert self.stored(challenge) == decoy
        return challenge

    @rule(challenge=asked)
    def resend(self, challenge: Asked) -> None:
        outcome = self.attempt(self.core.resend(self.realm, challenge.id, CLIENT))
        if dead := challenge.dead(self.now):
            assert type(outcome) is dead
            return
        if self.now < challenge.sent_at + timedelta(minutes=1):
            assert isinstance(outcome, RateLimited)
            return
        sent = self.told(outcome, challenge.door, challenge.lane, not challenge.decoy)
        if sent is None:
            return
        challenge.digits, challenge.decoy = sent
        challenge.sent_at = self.now
        assert self.stored(challenge) == challenge.decoy

    @precondition(lambda self: self.person.failures < 90)
    @rule(challenge=asked, times=st.sampled_from([1, 4, 5]))
    def guess(self, challenge: Asked, times: int) -> None:
        code = (
            self.world.run(current_code(self.world.db, self.world.ring, challenge.id))
            if not challenge.dead(self.now)
            else "1" * challenge.digits
        )
        for _ in range(times):
            outcome = self.attempt(self.core.verify(self.realm, challenge.id, wrong(code), CLIENT))
            if dead := challenge.dead(self.now):
                assert type(outcome) is dead
                continue
            challenge.attempts += 1
            assert type(outcome) is (TooManyAttempts if challenge.attempts == 5 else InvalidCode)
            for counted in (challenge.door, self.person):
                counted.wrong.append(self.now)
                counted.failures += challenge.lane is None
            if challenge.digits == 6:
                self.short.wrong.append(self.now)
            if not challenge.decoy:
                self.guesses.append((self.now, challenge.digits))

    @rule(challenge=asked)
    def enter(self, challenge: Asked) -> None:
        """The member's own code: it makes the client a known device, unless it is one."""
        if challenge.decoy or challenge.dead(self.now) or len(self.lanes) >= 9:
            return
        code = self.world.run(current_code(self.world.db, self.world.ring, challenge.id))
        outcome = self.attempt(self.core.verify(self.realm, challenge.id, code, CLIENT))
        assert isinstance(outcome, SignIn)
        challenge.over = True
        if challenge.lane is None:
            challenge.door.failures = self.person.failures = 0
            self.lanes.append(Lane(outcome.device_token or ""))
        else:
            assert outcome.device_token == challenge.lane.token

    @rule()
    def unlock(self) -> None:
        """Staff forget all of it, whichever door and lane it counted for."""
        spent = self.pool.sends or any(door.sends or door.wrong for door in self.doors)
        done = self.unlocking.unlock(self.tenant.id, self.member, actor=Actor("operator"), client=CLIENT)
        assert self.world.run(done) or not spent
        for door in (*self.doors, self.person, self.short):
            door.sends, door.wrong, door.failures = [], [], 0
        for lane in (self.pool, *self.lanes):
            lane.sends = []
        self.real, self.guesses = [], []

    def told(
        self, outcome: Issued | GatehouseError, door: Door, lane: Lane | None, sendable: bool
    ) -> tuple[int, bool] | None:
        """What the caller has to see, by the door's own history or the device's; and whether anything was sent."""
        spent = [(lane.sends, EACH), (self.pool.sends, ALL)] if lane else [(door.sends, STRANGERS)]
        waits = [self.recent(sends)[-most] + HOUR for sends, most in spent if len(self.recent(sends)) >= most]
        if waits:
            assert isinstance(outcome, RateLimited), outcome
            # Who has to wait for two things is told of the first that is in the way.
            left = [max(1, ceil((wait - self.now).total_seconds())) for wait in waits]
            assert outcome.retry_after in left
            return None
        assert isinstance(outcome, Issued), outcome
        for sends, _ in spent:
            sends.append(self.now)
        long = self.today(self.person) >= 10 if lane else self.today(door) >= 10
        real = sendable and (lane is not None or len(self.recent(self.person.sends)) < STRANGERS)
        if real and not long:
            # What was guessed at six digits, and may yet be, this one included.
            outstanding = len(self.recent(self.person.sends)) + len(self.recent(self.pool.sends)) + (lane is None)
            if self.today(self.short) + 5 * outstanding > 60:
                long, real = lane is not None, lane is not None
        if real:
            self.real.append((self.now, lane is not None))
            if lane is None:
                self.person.sends.append(self.now)
        assert outcome.code_length == (8 if long else 6)
        return outcome.code_length, not real

    @invariant()
    def never_more_than_the_ceiling(self) -> None:
        for first, _ in self.real:
            within = [known for moment, known in self.real if first <= moment <= first + HOUR]
            assert len(within) <= STRANGERS + ALL
            assert within.count(False) <= STRANGERS
            assert within.count(True) <= ALL

    @invariant()
    def a_guess_has_a_chance_below_one_in_ten_thousand(self) -> None:
        for first, _ in self.guesses:
            digits = [digits for moment, digits in self.guesses if first <= moment <= first + DAY]
            assert sum(10.0**-one for one in digits) <= 1e-4

    def recent(self, moments: list[datetime]) -> list[datetime]:
        return [moment for moment in moments if moment >= self.now - HOUR]

    def today(self, door: Door) -> int:
        return sum(moment >= self.now - DAY for moment in door.wrong)

    def stored(self, challenge: Asked) -> bool:
        decoy: bool = self.world.run(challenge_row(self.world.db, challenge.id))["decoy"]
        return decoy

    def attempt(self, call: Any) -> Any:
        """The outcome of a call, refusals as values."""
        try:
            return self.world.run(call)
        except GatehouseError as refusal:
            return refusal


@pytest.mark.parametrize(
    ("histories", "steps"),
    [
        pytest.param(40, 40, id="short"),
        pytest.param(1000, 80, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_no_history_goes_past_the_ceiling(settings: Settings, ring: KeyRing, histories: int, steps: int) -> None:
    """Whatever strangers and known devices do, in whatever order: each is told its own, and all keep the bounds."""
    with world_of(settings, ring) as world:
        run_machine(
            lambda: Lanes(world),  # type: ignore[arg-type]  # any callable that makes one will do
            settings=hypothesis_settings(
                max_examples=histories,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                derandomize=steps < 80,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            ),
        )
