"""A device token helps its own person's requests and nobody else's: everybody else's address pays."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from argon2 import PasswordHasher

from app.audit.log import Actor, Client
from app.auth import passwords
from app.auth.devices import LIFETIME, device_token, new_device_id, read_device_token
from app.auth.limits import AddressLimiter
from app.auth.links import Links
from app.errors import RateLimited
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from tests.attacks.test_addresses import some_address
from tests.conftest import Clock
from tests.http import Http, serve
from tests.people import CONSENT, SomeTenant, add_member, add_tenant, count, current_code

LIMIT: Final = 20
ANA, BEN = "ana@home.example", "ben@home.example"
PASSWORD: Final = "a window left ajar"
_HASHER: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_CODES: Final = "SELECT count(*) FROM audit_events WHERE tenant_id = $1 AND action LIKE 'code.%'"


@dataclass
class Town:
    """A tenant with open registration, Ana and Ben, and an address that gets 20 codes an hour."""

    http: Http
    db: Database
    ring: KeyRing
    clock: Clock
    tenant: SomeTenant
    ana: UUID
    ben: UUID

    async def sign_in(self, email: str, slug: str | None = None) -> str:
        """The device token of a sign-in from another address, or of the command line."""
        http, slug = self.http, slug or self.tenant.slug
        asked = (await http.otp(slug, "request", {"identifier": email})).json()["challenge_id"]
        body = {"challenge_id": asked, "code": await current_code(self.db, self.ring, asked)}
        token: str = (await http.otp(slug, "verify", body)).json()["device_token"]
        return token

    async def ask(self, email: str, token: str | None = None, **more: str) -> tuple[int, str | None]:
        """The answer to a request: its status and the limit it names."""
        headers = {"X-Device-Token": token} if token else {}
        answer = await self.http.otp(self.tenant.slug, "request", {"identifier": email, **more}, headers=headers)
        return answer.status_code, answer.headers.get("RateLimit-Policy", "").partition(";")[0].strip('"') or None

    async def left(self) -> int:
        """How many codes the address may still ask for; it has none left then."""
        spent = 0
        while (await self.ask(f"nobody-{uuid4().hex}@home.example"))[0] == 202:
            spent += 1
        return spent


@pytest.fixture
async def town(settings: Settings, clock: Clock, db: Database, ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(passwords, "_HASHER", _HASHER)
    monkeypatch.setattr(passwords, "_NOBODYS", _HASHER.hash("of nobody"))
    tenant = await add_tenant(db, clock(), policy={"registration": "open"})
    ana = await add_member(db, clock(), tenant, email=ANA, password_hash=_HASHER.hash(PASSWORD))
    ben = await add_member(db, clock(), tenant, email=BEN, password_hash=_HASHER.hash(PASSWORD))
    async with serve(settings, clock, client_address=some_address(), otp_ip_hourly_limit=LIMIT) as http:
        yield Town(http, db, ring, clock, tenant, ana, ben)


async def anas(town: Town) -> str:
    """Known, but to somebody else."""
    return await town.sign_in(ANA)


async def erased(town: Town) -> str:
    token = await town.sign_in(BEN)
    async with town.db.every_tenant() as connection:
        await connection.execute("DELETE FROM devices WHERE subject_id = $1", town.ben)
    return token


async def revoked(town: Town) -> str:
    token = await town.sign_in(BEN)
    async with town.db.every_tenant() as connection:
        await connection.execute("UPDATE devices SET revoked_at = $2 WHERE subject_id = $1", town.ben, town.clock())
    return token


async def expired(town: Town) -> str:
    token = await town.sign_in(BEN)
    town.clock.forward(days=180)
    return token


async def of_another_slug(town: Town) -> str:
    other = await add_tenant(town.db, town.clock(), slug=f"other-{uuid4().hex[:8]}")
    await add_member(town.db, town.clock(), other, email=BEN)
    return await town.sign_in(BEN, other.slug)


async def made_up(town: Town) -> str:
    """Signed by us for this slug, of a device that never was."""
    return device_token(town.ring.current, town.tenant.slug, town.tenant.id, new_device_id(town.clock()))


async def of_before(town: Town) -> str:
    """As tokens were before they had an end: believed as long as the row says, which isn't there."""
    return device_token(town.ring.current, town.tenant.slug, town.tenant.id, uuid4())


STRANGERS: Final[dict[str, Callable[[Town], Awaitable[str]]]] = {
    "another person's": anas,
    "erased": erased,
    "revoked": revoked,
    "expired": expired,
    "of another slug": of_another_slug,
    "made up": made_up,
    "of before": of_before,
}


@pytest.mark.parametrize(
    "more", [{}, {"purpose": "reset"}, {"password": "guess guess"}], ids=["code", "reset", "password"]
)
@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_strangers_token_lifts_no_limit(town: Town, kind: str, more: dict[str, str]) -> None:
    """Whoever's it was: the address pays for every request, and once it has nothing left nothing happens any more."""
    token = await STRANGERS[kind](town)
    town.clock.forward(hours=1, minutes=2)
    passed = 0
    for n in range(LIMIT + 5):
        # Ben's own, and then many others'.
        status, policy = await town.ask(BEN if n < 2 else f"somebody-{n}@home.example", token, **more)
        assert status in {202, 401} if n < LIMIT else (status, policy) == (429, "address"), n
        passed += status != 429
    assert passed == LIMIT
    before = await count(town.db, _CODES, town.tenant.id)
    assert await town.ask(BEN, token, **more) == (429, "address")
    assert await count(town.db, _CODES, town.tenant.id) == before


async def test_ten_accounts_of_one_address_add_nothing(town: Town) -> None:
    """Ten newcomers registered from one address: their ten devices let it ask for none more than without."""
    tokens = []
    for n in range(10):
        newcomer = {"name": "Eve", "email": f"eve{n}@home.example", "consent": CONSENT}
        asked = (await town.http.post(f"/api/v1/tenants/{town.tenant.slug}/members", newcomer)).json()["challenge_id"]
        body = {"challenge_id": asked, "code": await current_code(town.db, town.ring, asked)}
        tokens.append((await town.http.otp(town.tenant.slug, "verify", body)).json()["device_token"])
    answers = [await town.ask(f"victim{n}-{m}@home.example", tokens[n]) for n in range(10) for m in range(20)]
    assert answers.count((202, None)) + answers.count((202, "hourly")) == LIMIT - 10
    assert {status for status, _ in answers} == {202, 429}


async def test_a_known_device_pays_for_itself(town: Town) -> None:
    """By code, by password and asked again, in front of a full address and an empty one: the address pays nothing."""
    token = await town.sign_in(ANA)
    assert (await town.ask(ANA, token))[0] == 202
    assert (await town.ask(ANA, token, password="guess guess"))[0] == 401
    assert (await town.ask(ANA, token, password=PASSWORD))[0] == 202
    assert await town.left() == LIMIT - 1
    known = {"X-Device-Token": token}
    asked = await town.http.otp(town.tenant.slug, "request", {"identifier": ANA}, headers=known)
    assert asked.status_code == 202
    assert (await town.ask(ANA, token, password="guess guess"))[0] == 401
    town.clock.forward(seconds=61)
    again = {"challenge_id": asked.json()["challenge_id"]}
    refused = await town.http.otp(town.tenant.slug, "resend", again, headers=known)
    # The device's own lane is full by now, and says so; the address would have said something else.
    assert refused.headers["RateLimit-Policy"].startswith('"hourly"')
    assert (await town.http.otp(town.tenant.slug, "resend", again)).headers["RateLimit-Policy"].startswith('"address"')


async def test_only_the_device_that_asked_asks_again_behind_a_full_address(town: Town) -> None:
    """Another person's device may not have somebody's code sent anew where the address has nothing left."""
    ana, ben = await town.sign_in(ANA), await town.sign_in(BEN)
    asked = await town.http.otp(town.tenant.slug, "request", {"identifier": ANA}, headers={"X-Device-Token": ana})
    await town.left()
    town.clock.forward(seconds=61)
    body = {"challenge_id": asked.json()["challenge_id"]}
    answers = [
        (await town.http.otp(town.tenant.slug, "resend", body, headers={"X-Device-Token": token})).status_code
        for token in (ben, ana)
    ]
    assert answers == [429, 202]


async def test_few_strangers_devices_reach_the_database(settings: Settings, clock: Clock) -> None:
    """Behind a full address each device may try as often as the limit, all of them ten times as often; known ones go on
    for ever, because they are given back.
    """
    assert settings.redis_url
    accelerator = Accelerator(settings.redis_url, timeout=10)
    for stores in (accelerator, Accelerator("redis://127.0.0.1:1")):
        limiter, address = AddressLimiter(stores, limit=LIMIT, processes=1), some_address()
        for _ in range(LIMIT):
            await limiter.spend(clock(), address)
        refused, devices = 0, [uuid4() for _ in range(15)]
        for n in range(15 * LIMIT):
            try:
                admission = await limiter.admit(clock(), address, devices[n % 15])
            except RateLimited:
                refused += 1
                continue
            assert admission.known_only
            with pytest.raises(RateLimited):
                await admission.settle(known=False)
        assert refused == 5 * LIMIT
        other, device = some_address(), uuid4()
        for _ in range(LIMIT):
            await limiter.spend(clock(), other)
        for _ in range(LIMIT):
            await (await limiter.admit(clock(), other, device)).settle(known=True)
        with pytest.raises(RateLimited):
            await limiter.admit(clock(), other, device)
        await stores.close()


async def test_a_token_ends_with_its_device(ring: KeyRing, clock: Clock) -> None:
    """180 days after it was made, to the millisecond; one without an end of its own is the database's to judge."""
    tenant, device = uuid4(), new_device_id(clock())
    assert (device.version, len({new_device_id(clock()) for _ in range(100)})) == (7, 100)
    token = device_token(ring.current, "acme", tenant, device)
    for moment, known in ((LIFETIME - timedelta(milliseconds=1), True), (LIFETIME, False)):
        assert (read_device_token(ring, "acme", token, clock() + moment) is not None) == known
    old = device_token(ring.current, "acme", tenant, uuid4())
    assert read_device_token(ring, "acme", old, clock() + 10 * LIFETIME) is not None


async def devices_of(town: Town, member: UUID) -> int:
    return await count(town.db, "SELECT count(*) FROM devices WHERE subject_id = $1 AND revoked_at IS NULL", member)


async def test_ten_devices_a_person(town: Town) -> None:
    """The one that was not used for longest is forgotten, which the log says; whoever has it is a stranger."""
    tokens, moment = [], town.clock()
    for n in range(12):
        tokens.append(await town.sign_in(ANA))
        town.clock.forward(hours=1, minutes=2)
        if n == 5:
            # Used meanwhile, so it is not the oldest any more.
            asked = await town.http.otp(
                town.tenant.slug, "request", {"identifier": ANA}, headers={"X-Device-Token": tokens[0]}
            )
            code = await current_code(town.db, town.ring, asked.json()["challenge_id"])
            body = {"challenge_id": asked.json()["challenge_id"], "code": code}
            assert (await town.http.otp(town.tenant.slug, "verify", body)).json()["device_token"] == tokens[0]
    assert await devices_of(town, town.ana) == 10
    forgotten = "SELECT count(*) FROM audit_events WHERE subject_id = $1 AND action = 'device.forgotten' AND at > $2"
    assert await count(town.db, forgotten, town.ana, moment) == 2
    await town.left()
    known = [(await town.ask(ANA, token))[0] for token in tokens]
    assert [n for n, status in enumerate(known) if status == 429][:2] == [1, 2]


async def test_ten_devices_however_many_sign_in_at_once(town: Town, clock: Clock) -> None:
    """Twelve links used at the same moment leave ten devices."""
    core = town.http.app.state.services
    links = Links(town.db, core.sessions, clock)
    made = [
        await links.create(town.tenant.id, ("tenant", town.tenant.id), Actor("operator"), Client("cli"))
        for _ in range(12)
    ]
    await asyncio.gather(*(links.use(link, Client("cli")) for link in made))
    assert await devices_of(town, town.tenant.id) == 10
