"""One address gets so many codes an hour, whoever it asks for; a /64 of IPv6 is one address."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.auth.limits import AddressLimiter, network_of
from app.errors import RateLimited
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from tests.conftest import Clock
from tests.http import serve
from tests.people import add_tenant, current_code

LIMIT = 20


@pytest.fixture
async def accelerator(settings: Settings) -> AsyncIterator[Accelerator]:
    assert settings.redis_url
    # Patient: on a busy machine the usual 50 ms would make this a test of the fallback.
    client = Accelerator(settings.redis_url, timeout=10)
    yield client
    await client.close()


def some_address() -> str:
    """An address nobody else in this run calls from."""
    return "2001:db8:" + ":".join(f"{int.from_bytes(uuid4().bytes[n : n + 2], 'big'):x}" for n in (0, 2)) + "::1"


async def test_100_parallel_calls_spend_exactly_the_limit(accelerator: Accelerator, clock: Clock) -> None:
    """Two processes, one address, 100 calls at once: 20 pass; a second address is not touched."""
    one, two = (AddressLimiter(accelerator, limit=LIMIT, processes=2) for _ in range(2))
    address = some_address()
    calls = [limiter.spend(clock(), address) for limiter in (one, two) for _ in range(50)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [o for o in outcomes if isinstance(o, RateLimited)]
    assert len(refused) == 80
    assert {o.policy for o in refused} == {"address"}
    assert all(3540 <= o.retry_after <= 3660 for o in refused)
    await one.spend(clock(), some_address())


async def test_the_window_slides(accelerator: Accelerator, clock: Clock) -> None:
    """One call every two minutes for five hours: no 60 minutes hold more than the limit, and each refusal is true."""
    limiter = AddressLimiter(accelerator, limit=LIMIT, processes=1)
    address, passed = some_address(), []
    for _ in range(150):
        try:
            await limiter.spend(clock(), address)
            passed.append(clock())
        except RateLimited as refusal:
            clock.forward(seconds=refusal.retry_after)
            await limiter.spend(clock(), address)
            passed.append(clock())
        clock.forward(minutes=2)
    for first in passed:
        assert sum(0 <= (other - first).total_seconds() < 3600 for other in passed) <= LIMIT


async def test_a_device_is_counted_by_itself(accelerator: Accelerator, clock: Clock) -> None:
    """Whoever shares an address with a flood gets in on a known device; the device has the same limit."""
    limiter = AddressLimiter(accelerator, limit=LIMIT, processes=1)
    address, device = some_address(), uuid4()
    for _ in range(LIMIT):
        await limiter.spend(clock(), address)
        await limiter.spend(clock(), address, device)
    for known in (None, device):
        with pytest.raises(RateLimited):
            await limiter.spend(clock(), address, known)


async def test_without_valkey_each_process_admits_its_share(clock: Clock) -> None:
    """Four processes and no Valkey: each counts by itself and all together keep the limit."""
    away = Accelerator("redis://127.0.0.1:1")
    limiters = [AddressLimiter(away, limit=LIMIT, processes=4) for _ in range(4)]
    address, passed = some_address(), 0
    for limiter in limiters:
        for _ in range(LIMIT):
            try:
                await limiter.spend(clock(), address)
                passed += 1
            except RateLimited:
                continue
    assert passed == LIMIT
    clock.forward(minutes=61, seconds=1)
    await limiters[0].spend(clock(), address)
    await away.close()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("203.0.113.9", "::ffff:203.0.113.9", True),
        ("203.0.113.9", "203.0.113.10", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    """A /64 is what a home or a phone has; an IPv4 address written as IPv6 is itself."""
    assert (network_of(one) == network_of(other)) is same


async def test_over_http_all_slugs_count_together(settings: Settings, clock: Clock) -> None:
    """Known or unknown, asking or asking again: the 21st call of an address is refused, with the policy's name."""
    async with serve(settings, clock, client_address=some_address(), otp_ip_hourly_limit=LIMIT) as http:
        for n in range(LIMIT):
            assert (await http.otp(f"slug-{n}", "request")).status_code == 202
        refused = await http.otp("another-slug", "request")
    assert refused.status_code == 429
    assert refused.json()["code"] == "rate-limited"
    assert refused.headers["RateLimit-Policy"] == f'"address";q={LIMIT};w=3600'
    assert int(refused.headers["Retry-After"]) > 3000


async def test_a_device_counts_by_itself_only_where_it_is_known(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Whoever collects devices at one tenant doesn't lift the limit of their address for all the others with them."""
    tenant = await add_tenant(db, clock())
    async with serve(settings, clock, client_address=some_address(), otp_ip_hourly_limit=LIMIT) as http:
        asked = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        code = await current_code(db, ring, asked)
        signed_in = await http.otp(tenant.slug, "verify", {"challenge_id": asked, "code": code})
        known = {"X-Device-Token": signed_in.json()["device_token"]}
        answers = [(await http.otp(f"slug-{n}", "request", headers=known)).status_code for n in range(LIMIT)]
        at_home = await http.otp(tenant.slug, "request", headers=known)
    assert answers == [202] * (LIMIT - 1) + [429]
    assert at_home.status_code == 202


async def test_a_flood_next_door_keeps_no_device_from_a_new_code(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Behind an address that has spent its limit a known device still gets its code sent again; a stranger doesn't."""
    tenant = await add_tenant(db, clock())
    async with serve(settings, clock, client_address=some_address(), otp_ip_hourly_limit=LIMIT) as http:
        asked = (await http.otp(tenant.slug, "request")).json()["challenge_id"]
        code = await current_code(db, ring, asked)
        signed_in = await http.otp(tenant.slug, "verify", {"challenge_id": asked, "code": code})
        known = {"X-Device-Token": signed_in.json()["device_token"]}
        waits = {"challenge_id": (await http.otp(tenant.slug, "request", headers=known)).json()["challenge_id"]}
        for n in range(LIMIT - 1):
            assert (await http.otp(f"slug-{n}", "request")).status_code == 202
        clock.forward(seconds=60)
        assert (await http.otp(tenant.slug, "resend", waits)).json()["code"] == "rate-limited"
        assert (await http.otp(tenant.slug, "resend", waits, headers=known)).status_code == 202
