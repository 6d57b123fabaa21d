"""Staff shut somebody out who is just signing in: whoever comes first, both get an answer, and nobody stays in.

The moments are made by a third transaction that holds the challenge's row: both callers wait, in the order that the
test says, and then go on at once. Before there was one order of locks, that broke off as a deadlock.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import pytest

from app.audit.log import Actor, Client
from app.auth.admins import Admins
from app.auth.asking import Issued, Realm
from app.auth.challenges import Challenges, Proof
from app.auth.entrance import Entrance, Newcomer
from app.auth.passwords import Passwords
from app.auth.sessions import Sessions
from app.auth.signing_in import SignIn
from app.auth.tenant_sessions import TenantSessions
from app.errors import GatehouseError
from app.keys import KeyRing
from app.members.service import Members
from app.settings import Settings
from app.storage import SYSTEM_TENANT
from app.storage.db import Database
from app.tenants.removal import Removal
from app.tenants.service import Tenants
from tests.admins import add_admin
from tests.conftest import Clock
from tests.people import CONSENT, SomeTenant, add_member, add_tenant, count, current_code, whole

CLIENT, STAFF = Client("api", "203.0.113.9", "browser", "r"), Actor("operator")
EMAIL: Final = "ana@home.example"
_WAITING: Final = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
_HOLD: Final = "SELECT FROM challenges WHERE id = $1 FOR UPDATE"
_ALIVE: Final = "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL AND subject_id = $2"
_ENDED: Final = """
SELECT e.actor_kind, e.data ->> 'reason' AS reason, e.data ->> 'session' AS session FROM audit_events e
WHERE e.tenant_id = $1 AND e.subject_id = $2 AND e.action = 'session.ended' ORDER BY e.id
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Somebody with a proven code, and what staff are about to do to them."""

    tenant_id: UUID
    subject: UUID
    realm: Realm
    identifier: str | None
    shut_out: Callable[[], Awaitable[Any]]
    reason: str | None
    """What the log says of a session that ends by it; None where no log is left, or no session."""


class House:
    """The services of both sides."""

    def __init__(
        self, db: Database, ring: KeyRing, settings: Settings, clock: Clock, challenges: Challenges, sessions: Sessions
    ) -> None:
        self.db, self.ring, self.clock, self.challenges, self.sessions = db, ring, clock, challenges, sessions
        self.admins = Admins(db, clock)
        self.members = Members(db, settings, clock, lambda: None)
        self.tenants = Tenants(db, settings, clock, lambda: None)
        self.removal = Removal(db, clock)
        self.tenant_sessions = TenantSessions(db, clock)
        self.entrance = Entrance(db, ring, settings, challenges, sessions, Passwords(), clock)

    async def admin(self, change: dict[str, Any], reason: str) -> Scene:
        """An admin; another owner stays."""
        await add_admin(self.db, self.clock)
        admin = await add_admin(self.db, self.clock, "manager")
        shut_out = lambda: self.admins.change(admin.id, **change, actor=STAFF, client=CLIENT)  # noqa: E731
        return Scene(SYSTEM_TENANT, admin.id, Realm.admins(), admin.email, shut_out, reason)

    async def member(self, shut_out: Callable[[SomeTenant, UUID], Awaitable[Any]], reason: str | None) -> Scene:
        """A member of a tenant."""
        tenant = await add_tenant(self.db, self.clock())
        member = await add_member(self.db, self.clock(), tenant, email=EMAIL)
        realm = Realm.of(tenant.slug)
        return Scene(tenant.id, member, realm, EMAIL, lambda: shut_out(tenant, member), reason)

    async def contact(self, shut_out: Callable[[SomeTenant], Awaitable[Any]], reason: str | None) -> Scene:
        """Whoever has the tenant's contact."""
        tenant = await add_tenant(self.db, self.clock())
        return Scene(tenant.id, tenant.id, Realm.of(tenant.slug), None, lambda: shut_out(tenant), reason)

    async def prove(self, scene: Scene) -> Proof:
        """The code is right; the session hasn't begun."""
        issued = await self.challenges.request(scene.realm, CLIENT, identifier=scene.identifier)
        code = await current_code(self.db, self.ring, issued.challenge_id)
        return await self.challenges.prove(scene.realm, issued.challenge_id, code, CLIENT)

    async def enter(self, proof: Proof) -> Any:
        """What is left of the sign-in."""
        return await self.sessions.begin(
            proof.at, proof.counted, challenge_id=proof.challenge_id, kind="api", device_name=None, client=CLIENT
        )


SCENES: Final[dict[str, Callable[[House], Awaitable[Scene]]]] = {
    "admin suspended": lambda h: h.admin({"status": "suspended"}, "admin-suspended"),
    "admin raised": lambda h: h.admin({"role": "owner"}, "role-changed"),
    "admin lowered": lambda h: h.admin({"role": "viewer"}, "role-changed"),
    "member suspended": lambda h: h.member(
        lambda t, m: h.members.update(t.slug, m, {"status": "suspended"}, actor=STAFF, client=CLIENT),
        "member-suspended",
    ),
    "member's address changed": lambda h: h.member(
        lambda t, m: h.members.update(t.slug, m, {"email": "new@home.example"}, actor=STAFF, client=CLIENT),
        "contact-changed",
    ),
    "member erased": lambda h: h.member(lambda t, m: h.members.erase(t.slug, m, actor=STAFF, client=CLIENT), None),
    "member's sessions ended": lambda h: h.member(
        lambda t, m: h.tenant_sessions.end_all(t.id, m, actor=STAFF, client=CLIENT), "ended-by-admin"
    ),
    "member's tenant suspended": lambda h: h.member(
        lambda t, _: h.tenants.suspend(t.slug, actor=STAFF, client=CLIENT), "tenant-suspended"
    ),
    "member's tenant removed": lambda h: h.member(
        lambda t, _: h.removal.remove(t.slug, actor=STAFF, client=CLIENT), None
    ),
    "tenant suspended": lambda h: h.contact(
        lambda t: h.tenants.suspend(t.slug, actor=STAFF, client=CLIENT), "tenant-suspended"
    ),
    "tenant's contact changed": lambda h: h.contact(
        lambda t: h.tenants.update(t.slug, {"email": "new@home.example"}, actor=STAFF, client=CLIENT),
        "contact-changed",
    ),
    "tenant removed": lambda h: h.contact(lambda t: h.removal.remove(t.slug, actor=STAFF, client=CLIENT), None),
}


@pytest.fixture
def house(
    db: Database, ring: KeyRing, settings: Settings, clock: Clock, challenges: Challenges, sessions: Sessions
) -> House:
    return House(db, ring, settings, clock, challenges, sessions)


async def waiting(db: Database, tasks: list[asyncio.Task[Any]]) -> None:
    """Until each of the calls waits for a lock."""
    while await count(db, _WAITING) < len(tasks):
        assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]


async def meet(house: House, scene: Scene, proof: Proof, *, staff_first: bool) -> tuple[Any, Any]:
    """Both at the same challenge, in this order. Answers what became of the sign-in and of the staff's call."""

    async def shut_out() -> Any:
        return await scene.shut_out()

    calls = [("enter", house.enter(proof)), ("shut out", shut_out())]
    tasks: dict[str, asyncio.Task[Any]] = {}
    async with house.db.every_tenant() as holding:
        await holding.execute(_HOLD, proof.challenge_id)
        for name, call in reversed(calls) if staff_first else calls:
            tasks[name] = asyncio.create_task(call)
            await waiting(house.db, list(tasks.values()))
    outcomes = await asyncio.gather(tasks["enter"], tasks["shut out"], return_exceptions=True)
    return outcomes[0], outcomes[1]


# What doesn't touch the challenge isn't held up by its row.
_MEETING: Final = sorted({*SCENES} - {"admin raised", "admin lowered", "member's sessions ended"})


@pytest.mark.parametrize("staff_first", [False, True])
@pytest.mark.parametrize("what", _MEETING)
async def test_neither_breaks_off(house: House, what: str, staff_first: bool) -> None:
    """The second waits for the first; then the session is over, or never began."""
    scene = await SCENES[what](house)
    proof = await house.prove(scene)
    entered, shut = await meet(house, scene, proof, staff_first=staff_first)
    assert not isinstance(shut, BaseException), shut
    # None: another was first, and the code is void.
    assert isinstance(entered, SignIn) != staff_first, entered
    assert entered is None or isinstance(entered, SignIn)
    assert await count(house.db, _ALIVE, scene.tenant_id, scene.subject) == 0


@pytest.mark.parametrize("what", sorted(SCENES))
async def test_many_at_once(house: House, what: str) -> None:
    """Without anybody's arranging it, many times: each gets an answer of ours, and at the end nobody is in."""
    for _ in range(6):
        scene = await SCENES[what](house)
        proofs = [await house.prove(scene) for _ in range(2)]

        async def shut_out(scene: Scene = scene) -> Any:
            return await scene.shut_out()

        outcomes = await asyncio.gather(
            house.enter(proofs[0]), shut_out(), house.enter(proofs[1]), return_exceptions=True
        )
        broken = [o for o in outcomes if isinstance(o, BaseException) and not isinstance(o, GatehouseError)]
        assert broken == []
        if scene.reason in {"role-changed", "ended-by-admin"}:
            # These shut nobody out who signs in afterwards.
            continue
        assert await count(house.db, _ALIVE, scene.tenant_id, scene.subject) == 0


@pytest.mark.parametrize("what", sorted(SCENES))
async def test_every_session_that_ends_leaves_its_event(house: House, what: str) -> None:
    """With who ended it and why, so that the story can tell; the person's own history has it too."""
    scene = await SCENES[what](house)
    begun = [str(whole(await house.enter(await house.prove(scene))).session_id) for _ in range(2)]
    await scene.shut_out()
    assert await count(house.db, _ALIVE, scene.tenant_id, scene.subject) == 0
    async with house.db.every_tenant() as connection:
        rows = await connection.fetch(_ENDED, scene.tenant_id, scene.subject)
    expected = [("operator", scene.reason, session) for session in begun] if scene.reason else []
    assert sorted(map(tuple, rows)) == sorted(expected)


async def test_a_registration_and_a_suspension(house: House) -> None:
    """Whoever becomes a member writes a row that refers to the tenant's, which the suspension holds."""
    for staff_first in (False, True):
        tenant = await add_tenant(house.db, house.clock(), policy={"registration": "open"})
        realm = Realm.of(tenant.slug)
        newcomer = Newcomer("Ana", EMAIL, document=CONSENT["document"], document_version=CONSENT["version"])
        issued = await house.entrance.register(realm, newcomer, CLIENT)
        assert isinstance(issued, Issued)
        code = await current_code(house.db, house.ring, issued.challenge_id)
        proof = await house.challenges.prove(realm, issued.challenge_id, code, CLIENT)
        scene = Scene(
            tenant.id,
            tenant.id,
            realm,
            EMAIL,
            lambda slug=tenant.slug: house.tenants.suspend(slug, actor=STAFF, client=CLIENT),  # type: ignore[misc]
            None,
        )
        entered, shut = await meet(house, scene, proof, staff_first=staff_first)
        assert not isinstance(shut, BaseException), shut
        assert isinstance(entered, SignIn) != staff_first, entered
        alive = "SELECT count(*) FROM sessions WHERE tenant_id = $1 AND ended_at IS NULL"
        assert await count(house.db, alive, tenant.id) == 0


async def test_those_who_end_many_sessions_dont_cross(house: House) -> None:
    """A member who ends all others, staff who end all, a password and a suspension: in any order, many at once."""
    for _ in range(4):
        tenant = await add_tenant(house.db, house.clock())
        member = await add_member(house.db, house.clock(), tenant, email=EMAIL)
        scene = Scene(tenant.id, member, Realm.of(tenant.slug), EMAIL, lambda: asyncio.sleep(0), None)
        tokens = [whole(await house.enter(await house.prove(scene))).access_token or "" for _ in range(3)]
        live = [await house.sessions.authenticate(token) for token in tokens]
        outcomes = await asyncio.gather(
            house.sessions.end_others(live[0], CLIENT),
            house.tenant_sessions.end_all(tenant.id, actor=STAFF, client=CLIENT),
            house.sessions.end_others(live[1], CLIENT),
            house.tenants.suspend(tenant.slug, actor=STAFF, client=CLIENT),
            house.members.update(tenant.slug, member, {"email": "b@home.example"}, actor=STAFF, client=CLIENT),
            house.sessions.end_others(live[2], CLIENT),
            return_exceptions=True,
        )
        assert [o for o in outcomes if isinstance(o, BaseException)] == []
        async with house.db.every_tenant() as connection:
            ended = [row["session"] for row in await connection.fetch(_ENDED, tenant.id, member)]
        assert sorted(ended) == sorted(str(session.session_id) for session in live)


async def test_a_suspended_admin_is_a_stranger_afterwards(house: House) -> None:
    """Their devices are forgotten too: whoever comes back later gets no lane of their own by one."""
    scene = await SCENES["admin suspended"](house)
    await house.enter(await house.prove(scene))
    known = "SELECT count(*) FROM devices WHERE tenant_id = $1 AND subject_id = $2 AND revoked_at IS NULL"
    assert await count(house.db, known, scene.tenant_id, scene.subject) == 1
    await scene.shut_out()
    assert await count(house.db, known, scene.tenant_id, scene.subject) == 0
