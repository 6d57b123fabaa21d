"""Guessing gets harder instead of locking people out."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from app.audit.log import Actor, Client
from app.auth.asking import Issued, Realm
from app.auth.challenges import Challenges
from app.auth.links import Links
from app.auth.sessions import Sessions
from app.auth.signing_in import SignIn
from app.errors import CodeExpired, InvalidCode, NotFound, RateLimited, TooManyAttempts
from app.keys import KeyRing
from app.storage.db import Database
from tests.conftest import Clock
from tests.people import SomeTenant, add_tenant, challenge_row, count, current_code, whole, wrong

STRANGER = Client("api", "198.51.100.66", "attacker", "r")
OWNER = Client("api", "203.0.113.9", "owner", "r")
FLEET = UUID(int=0)


class Desk:
    """Everything a test of this file does at a door."""

    def __init__(self, db: Database, challenges: Challenges, ring: KeyRing, clock: Clock) -> None:
        self.db, self.challenges, self.ring, self.clock = db, challenges, ring, clock

    async def guess(self, realm: Realm, issued: Issued, times: int = 5) -> int:
        """Wrong codes for one challenge; how many were really compared."""
        code = wrong(await current_code(self.db, self.ring, issued.challenge_id))
        compared = 0
        for _ in range(times):
            try:
                await self.challenges.verify(realm, issued.challenge_id, code, STRANGER)
            except InvalidCode:
                compared += 1
            except TooManyAttempts:
                return compared + 1
        return compared

    async def sign_in(self, realm: Realm, device_token: str | None = None) -> SignIn:
        """The owner asks for a code and enters it."""
        issued = await self.challenges.request(realm, OWNER, device_token=device_token)
        code = await current_code(self.db, self.ring, issued.challenge_id)
        return whole(await self.challenges.verify(realm, issued.challenge_id, code, OWNER))

    async def burn(self, realm: Realm) -> None:
        """A stranger spends all codes of the hour."""
        for _ in range(20):
            try:
                await self.challenges.request(realm, STRANGER)
            except RateLimited:
                return
        pytest.fail("20 codes in an hour")

    async def assess(self) -> list[UUID]:
        """What the worker does every few seconds."""
        return [row["tenant"] for row in await self.db.rows("SELECT fn.assess_attacks($1) AS tenant", self.clock())]


@pytest.fixture
async def desk(db: Database, challenges: Challenges, ring: KeyRing, clock: Clock) -> Desk:
    # Tests of one process share a database, and the fleet is all of it.
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM activity")
        await connection.execute("DELETE FROM attack_modes")
    return Desk(db, challenges, ring, clock)


async def tenant_for(desk: Desk, **fields: object) -> tuple[SomeTenant, Realm]:
    tenant = await add_tenant(desk.db, desk.clock(), **fields)
    return tenant, Realm.of(tenant.slug)


@pytest.mark.parametrize("exists", [True, False], ids=["a tenant", "nobody"])
async def test_a_day_of_guessing_has_a_chance_below_one_in_ten_thousand(desk: Desk, exists: bool) -> None:
    """Guessing as fast as the limits allow for 24 hours: 15 guesses at 1e-6, the rest at 1e-8."""
    realm = (await tenant_for(desk))[1] if exists else Realm.of("nobody-at-all")
    guesses = {6: 0, 8: 0}
    for _ in range(24 * 4):
        for _ in range(4):
            try:
                issued = await desk.challenges.request(realm, STRANGER)
            except RateLimited:
                break
            guesses[issued.code_length] += await desk.guess(realm, issued)
        desk.clock.forward(minutes=15, seconds=1)
    assert guesses[6] <= 15
    assert guesses[8] > 200
    assert guesses[6] * 1e-6 + guesses[8] * 1e-8 <= 1e-4


async def test_guesses_are_forgotten_after_a_day(desk: Desk) -> None:
    """24 quiet hours later codes have six digits again."""
    _, realm = await tenant_for(desk)
    for _ in range(2):
        await desk.guess(realm, await desk.challenges.request(realm, STRANGER))
    assert (await desk.challenges.request(realm, STRANGER)).code_length == 8
    desk.clock.forward(hours=24, seconds=1)
    assert (await desk.challenges.request(realm, STRANGER)).code_length == 6


async def test_success_buys_no_new_guesses(desk: Desk) -> None:
    """The owner's sign-in in between doesn't reset the day's count of wrong guesses."""
    _, realm = await tenant_for(desk)
    for _ in range(2):
        await desk.guess(realm, await desk.challenges.request(realm, STRANGER))
    await desk.sign_in(realm)
    desk.clock.forward(hours=1, seconds=1)
    assert (await desk.challenges.request(realm, STRANGER)).code_length == 8


async def test_known_devices_sign_in_while_strangers_burn_the_quota(desk: Desk) -> None:
    """100 tenants, one try each: every known device gets its code in its own lane, with six digits."""
    realms = [(await tenant_for(desk))[1] for _ in range(100)]
    first = await asyncio.gather(*(desk.sign_in(realm) for realm in realms))
    await asyncio.gather(*(desk.burn(realm) for realm in realms))
    again = await asyncio.gather(
        *(desk.sign_in(realm, signed_in.device_token) for realm, signed_in in zip(realms, first, strict=True))
    )
    assert len({signed_in.session_id for signed_in in again}) == 100
    assert all(one.device_token == other.device_token for one, other in zip(first, again, strict=True))


async def test_a_lane_has_its_own_limit(desk: Desk) -> None:
    """A known device's hour holds 3 codes too, and another device's token opens no lane at all."""
    _, realm = await tenant_for(desk)
    _, foreign = await tenant_for(desk)
    device = (await desk.sign_in(realm)).device_token
    stranger = (await desk.sign_in(foreign)).device_token
    await desk.burn(realm)
    for _ in range(3):
        await desk.challenges.request(realm, OWNER, device_token=device)
    for token in (device, stranger, "ghd_" + "A" * 94, "nonsense", ""):
        with pytest.raises(RateLimited):
            await desk.challenges.request(realm, OWNER, device_token=token)


async def test_a_revoked_device_is_a_stranger(desk: Desk, sessions: Sessions) -> None:
    """Listed and revocable; nobody can revoke somebody else's; 180 days are the end of every one."""
    _, realm = await tenant_for(desk)
    signed_in = await desk.sign_in(realm)
    assert signed_in.access_token
    live = await sessions.authenticate(signed_in.access_token)
    (device,) = await sessions.devices(live)
    other = await desk.sign_in((await tenant_for(desk))[1])
    assert other.access_token
    with pytest.raises(NotFound):
        await sessions.revoke_device(await sessions.authenticate(other.access_token), device["id"])
    assert device["expires_at"] - device["created_at"] == timedelta(days=180)
    await sessions.revoke_device(live, device["id"])
    await desk.burn(realm)
    with pytest.raises(RateLimited):
        await desk.challenges.request(realm, OWNER, device_token=signed_in.device_token)


async def test_the_lock_is_temporary_and_doubles(desk: Desk) -> None:
    """`lock_after_failures` wrong codes in a row: 15 minutes, then 30; a known device passes meanwhile."""
    _, realm = await tenant_for(desk, policy={"lock_after_failures": 5})
    device = (await desk.sign_in(realm)).device_token
    desk.clock.forward(hours=1, seconds=1)
    for minutes in (15, 30):
        await desk.guess(realm, await desk.challenges.request(realm, STRANGER))
        with pytest.raises(RateLimited) as refusal:
            await desk.challenges.request(realm, STRANGER)
        assert refusal.value.retry_after == minutes * 60
        assert (await desk.sign_in(realm, device)).device_token == device
        desk.clock.forward(minutes=minutes, seconds=1)
    # Open again; after ten wrong guesses with eight digits.
    assert (await desk.challenges.request(realm, STRANGER)).code_length == 8


async def test_an_unlock_forgets_everything(desk: Desk) -> None:
    """An admin's unlock ends lock, quota and the longer codes at once."""
    tenant, realm = await tenant_for(desk, policy={"lock_after_failures": 5})
    for _ in range(2):
        await desk.guess(realm, await desk.challenges.request(realm, STRANGER))
        desk.clock.forward(minutes=31)
    row = await desk.db.row("SELECT fn.unlock_recipient($1, $1) AS done", tenant.id)
    assert row is not None
    assert row["done"]
    assert [(await desk.challenges.request(realm, STRANGER)).code_length for _ in range(3)] == [6, 6, 6]


async def test_a_tenant_under_attack_gets_eight_digits(desk: Desk) -> None:
    """Over 100 wrong guesses an hour at made-up members: the tenant's codes grow and open short ones are void."""
    tenant, realm = await tenant_for(desk)
    _, elsewhere = await tenant_for(desk)
    device = (await desk.sign_in(realm)).device_token
    open_before = await desk.challenges.request(realm, OWNER)
    known_before = await desk.challenges.request(realm, OWNER, device_token=device)
    assert await desk.assess() == []
    for n in range(21):
        issued = await desk.challenges.request(realm, STRANGER, identifier=f"guess{n}@example.com")
        await desk.guess(realm, issued)

    assert tenant.id in await desk.assess()
    assert await desk.assess() == []
    with pytest.raises(CodeExpired):
        await desk.challenges.verify(realm, open_before.challenge_id, "123456", OWNER)
    code = await current_code(desk.db, desk.ring, known_before.challenge_id)
    assert whole(await desk.challenges.verify(realm, known_before.challenge_id, code, OWNER)).tenant_id == tenant.id
    assert (await desk.challenges.request(realm, OWNER)).code_length == 8
    assert (await desk.challenges.request(realm, OWNER, device_token=device)).code_length == 6
    # 105 wrong guesses are an attack on the fleet too, in a database this quiet: look past it.
    async with desk.db.every_tenant() as connection:
        await connection.execute("DELETE FROM attack_modes WHERE tenant_id = $1", FLEET)
    assert (await desk.challenges.request(elsewhere, OWNER)).code_length == 6

    desk.clock.forward(hours=1, minutes=20)
    assert await desk.assess() == []
    assert (await desk.challenges.request(realm, OWNER)).code_length == 6


async def test_an_attack_on_the_whole_fleet(desk: Desk) -> None:
    """Few guesses at each of many slugs, known or not: everybody unknown gets eight digits."""
    trail = "SELECT count(*) FROM audit_events WHERE action = 'attack.fleet'"
    before = await count(desk.db, trail)
    _, untouched = await tenant_for(desk)
    for n in range(21):
        realm = Realm.of(f"guessed-slug-{n}")
        await desk.guess(realm, await desk.challenges.request(realm, STRANGER))
    assert await desk.assess() == [FLEET]
    assert (await desk.challenges.request(untouched, OWNER)).code_length == 8
    assert (await desk.challenges.request(Realm.of("another-slug"), OWNER)).code_length == 8
    assert await count(desk.db, trail) == before + 1


async def test_a_crowd_at_the_door_is_no_attack(desk: Desk) -> None:
    """300 people who ask in the same minute keep their codes; 300 codes that nobody ever enters are an attack."""
    tenant, realm = await tenant_for(desk)
    for n in range(300):
        await desk.challenges.request(realm, OWNER, identifier=f"person{n}@example.com")
    for _ in range(9):
        assert tenant.id not in await desk.assess()
        desk.clock.forward(minutes=1)
    desk.clock.forward(minutes=12)
    assert tenant.id in await desk.assess()


async def test_usual_traffic_is_no_attack(desk: Desk) -> None:
    """A tenant that always has 200 unverified requests an hour is not under attack at 300, but is at 1,001."""
    tenant, _ = await tenant_for(desk)
    async with desk.db.every_tenant() as connection:
        for hours in range(1, 336):
            await connection.execute(
                "INSERT INTO activity (tenant_id, slot, shard, requested) VALUES ($1, $2, 0, 200)",
                tenant.id,
                (desk.clock() - timedelta(hours=hours + 1)).replace(minute=0, second=0),
            )
        slot = desk.clock().replace(minute=0, second=0)
        await connection.execute(
            "INSERT INTO activity (tenant_id, slot, shard, requested) VALUES ($1, $2, 0, 300)", tenant.id, slot
        )
    assert tenant.id not in await desk.assess()
    async with desk.db.every_tenant() as connection:
        await connection.execute(
            "UPDATE activity SET requested = 1001 WHERE tenant_id = $1 AND slot = $2", tenant.id, slot
        )
    assert tenant.id in await desk.assess()


async def test_a_sign_in_link_works_once_for_ten_minutes(desk: Desk, sessions: Sessions) -> None:
    """50 parallel uses give one session; late, twice or changed by a character it gives none."""
    tenant, _ = await tenant_for(desk)
    links = Links(desk.db, sessions, desk.clock)
    token = await links.create(tenant.id, ("tenant", tenant.id), Actor("operator"), Client("cli"))
    outcomes = await asyncio.gather(*(links.use(token, OWNER) for _ in range(50)), return_exceptions=True)
    (signed_in,) = [o for o in outcomes if isinstance(o, SignIn)]
    assert signed_in.cookie
    live = await sessions.authenticate_cookie(signed_in.cookie)
    assert live is not None
    assert live.subject.id == tenant.id

    late = await links.create(tenant.id, ("tenant", tenant.id), Actor("operator"), Client("cli"))
    desk.clock.forward(minutes=10)
    for bad in (token, late, "A" + token[1:], token[:-1], "", "é"):
        with pytest.raises(CodeExpired):
            await links.use(bad, OWNER)
    trail = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action = 'sign_in_link.created'"
    assert await count(desk.db, trail, tenant.id) == 2


async def test_a_tenant_that_wants_its_contact_named(desk: Desk) -> None:
    """With `require_contact` the slug alone gets a decoy; slug and contact together get the code."""
    tenant, realm = await tenant_for(desk, policy={"require_contact": True})
    decoy = await desk.challenges.request(realm, OWNER)
    assert (await challenge_row(desk.db, decoy.challenge_id))["decoy"]
    real = await desk.challenges.request(realm, OWNER, identifier=tenant.email)
    assert not (await challenge_row(desk.db, real.challenge_id))["decoy"]
