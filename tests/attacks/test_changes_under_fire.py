"""Signing in while somebody takes the way in away: whichever commits first, the old way opens nothing afterwards."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.audit.log import Actor, Client
from app.auth import codes
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.entrance import Entrance
from app.auth.links import Links
from app.auth.passwords import Passwords
from app.auth.sessions import Sessions
from app.errors import CodeExpired, InvalidCredentials
from app.keys import KeyRing
from app.members import effects as member_effects
from app.settings import Settings
from app.storage.db import Database
from app.tenants import effects
from tests.conftest import Clock
from tests.people import add_member, add_tenant, count, current_code, whole

CLIENT = Client("api", "203.0.113.9", "browser", "r")
STAFF = Actor("operator")
EMAIL, PASSWORD = "ana@home.example", "a window left ajar"
REMEMBERING = {"remember_device_days": 30}
SHOP = {"first_factor": "password"}
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"
_ALIVE = "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL"
_HALVES = "SELECT count(*) FROM half_sign_ins WHERE tenant_id = $1 AND ended_at IS NULL"
_HALF = """
INSERT INTO half_sign_ins (tenant_id, id, secret_hash, subject_kind, subject_id, next, kind, methods, created_at,
                           expires_at)
VALUES ($1, $2, $3, 'tenant', $1, 'enrol', 'api', '{otp:email}', $4, $5)
"""


@pytest.fixture
def entrance(
    db: Database, ring: KeyRing, settings: Settings, challenges: Challenges, sessions: Sessions, clock: Clock
) -> Entrance:
    return Entrance(db, ring, settings, challenges, sessions, Passwords(), clock)


@asynccontextmanager
async def waiting(db: Database, connection: asyncpg.Connection, call: Coroutine[Any, Any, Any]) -> AsyncIterator[Any]:
    """A call that has got as far as something this connection's transaction holds."""
    task = asyncio.create_task(call)
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    while not await count(db, _BLOCKED, pid):
        assert not task.done(), "it did not wait"
    yield task


async def change_contact(db: Database, clock: Clock, tenant: UUID) -> None:
    """What a change of a tenant's contact does to sign-ins."""
    async with db.tenant(tenant) as connection:
        await effects.void_codes(connection, clock(), tenant, everybody=False)
        await effects.end_sessions(connection, clock(), tenant, everybody=False, actor=STAFF, client=CLIENT)


async def test_half_a_sign_in_does_not_outlive_the_contact(db: Database, challenges: Challenges, clock: Clock) -> None:
    """Whoever held the old mailbox and has just proven its code can't go on to set an app of their own up."""
    tenant = await add_tenant(db, clock(), policy={"second_factor": "required"})
    issued = await challenges.request(Realm.of(tenant.slug), CLIENT)
    async with db.tenant(tenant.id) as proving:
        await proving.execute(
            "UPDATE challenges SET ended_at = $3, end_reason = 'used', salt = NULL, digest = NULL "
            "WHERE tenant_id = $1 AND id = $2",
            tenant.id,
            codes.read_challenge_id(issued.challenge_id),
            clock(),
        )
        await proving.execute(_HALF, tenant.id, uuid4(), bytes(32), clock(), clock() + timedelta(minutes=10))
        async with waiting(db, proving, change_contact(db, clock, tenant.id)) as changing:
            pass
    await changing
    assert await count(db, _HALVES, tenant.id) == 0


async def test_a_remembered_device_does_not_outlive_the_contact(
    db: Database, ring: KeyRing, challenges: Challenges, entrance: Entrance, clock: Clock
) -> None:
    """A device that is being forgotten opens nothing, also for a sign-in that began before."""
    tenant = await add_tenant(db, clock(), policy=REMEMBERING)
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    code = await current_code(db, ring, issued.challenge_id)
    known = whole(await challenges.verify(realm, issued.challenge_id, code, CLIENT, remember=True)).device_token
    again = entrance.ask(realm, CLIENT, device_token=known)
    async with db.tenant(tenant.id) as changing:
        await effects.void_codes(changing, clock(), tenant.id, everybody=False)
        await effects.end_sessions(changing, clock(), tenant.id, everybody=False, actor=STAFF, client=CLIENT)
        async with waiting(db, changing, again) as signing_in:
            pass
    with pytest.raises(InvalidCredentials):
        await signing_in
    assert await count(db, _ALIVE, tenant.id) == 0


async def test_an_old_password_does_not_outlive_its_change(db: Database, entrance: Entrance, clock: Clock) -> None:
    """A sign-in that compared the old password and then waits for the change is refused."""
    tenant = await add_tenant(db, clock(), policy=SHOP)
    old, new = [await Passwords().hash(text) for text in (PASSWORD, "another window")]
    member = await add_member(db, clock(), tenant, email=EMAIL, password_hash=old, codes_enabled=False)
    again = entrance.ask(Realm.of(tenant.slug), CLIENT, identifier=EMAIL, password=PASSWORD)
    async with db.tenant(tenant.id) as changing:
        await member_effects.lock(changing, member)
        await changing.execute("UPDATE members SET password_hash = $2 WHERE id = $1", member, new)
        async with waiting(db, changing, again) as signing_in:
            pass
    with pytest.raises(InvalidCredentials):
        await signing_in
    assert await count(db, _ALIVE, tenant.id) == 0


@pytest.mark.parametrize("by", ["code", "link"])
async def test_a_member_and_a_change_never_wait_for_each_other(
    db: Database, ring: KeyRing, challenges: Challenges, sessions: Sessions, clock: Clock, by: str
) -> None:
    """A sign-in that arrives in the middle of a change waits for it and is refused; neither breaks off."""
    tenant = await add_tenant(db, clock())
    member = await add_member(db, clock(), tenant, email=EMAIL)
    realm = Realm.of(tenant.slug)
    if by == "code":
        issued = await challenges.request(realm, CLIENT, identifier=EMAIL)
        code = await current_code(db, ring, issued.challenge_id)
        arriving: Coroutine[Any, Any, Any] = challenges.verify(realm, issued.challenge_id, code, CLIENT)
    else:
        links = Links(db, sessions, clock)
        link = await links.create(tenant.id, ("member", member), Actor("operator"), CLIENT)
        arriving = links.use(link, CLIENT)
    async with db.tenant(tenant.id) as changing:
        await member_effects.lock(changing, member)
        async with waiting(db, changing, arriving) as signing_in:
            await member_effects.void_codes(changing, clock(), tenant.id, member)
            await member_effects.end_sessions(
                changing, clock(), tenant.id, member, "contact-changed", actor=STAFF, client=CLIENT
            )
    with pytest.raises(CodeExpired):
        await signing_in
    assert await count(db, _ALIVE, tenant.id) == 0
