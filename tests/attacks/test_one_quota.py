"""One quota a person and one a door: used up one way and asked for another, nothing is told and nothing more is sent.

A door is what was typed, whoever has it. Whoever knows two addresses doesn't learn whether they are one person's.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from argon2 import PasswordHasher

from app.audit.log import Actor, Client
from app.auth import passwords
from app.auth.unlocking import Unlocking
from app.keys import KeyRing
from app.members.service import Members
from app.settings import Settings
from app.storage.db import Database
from tests.conftest import Clock
from tests.http import Http, bearer, serve
from tests.pages import looks, visitor
from tests.people import CONSENT, SomeTenant, add_member, add_tenant, count, current_code

EMAIL, PHONE = "ana@home.example", "+447700900777"
PASSWORD: Final = "a window left ajar"
_IGNORED: Final = {"date", "x-request-id"}
_IDS: Final = {"challenge_id", "request_id"}
# Messages that may reach whoever is behind EMAIL and PHONE, in the hour: three a person.
_MESSAGES: Final = (
    "SELECT count(*) FROM outbox o LEFT JOIN challenges c ON c.tenant_id = o.tenant_id AND c.id = o.challenge_id "
    "WHERE o.tenant_id = $1 AND o.kind IN ('code', 'notice') AND o.created_at >= $2"
)


@dataclass
class Asker:
    """Somebody who asks at the door of one tenant in every way there is, and writes down what could tell."""

    http: Http
    clock: Clock
    slug: str
    claimants: list[str] = field(default_factory=list)
    challenge: str = ""
    seen: list[Any] = field(default_factory=list)

    async def post(self, path: str, body: object, method: str = "POST", **options: Any) -> httpx.Response:
        answer = await self.http.client.request(method, path, json=body, **options)
        headers = sorted((name, value) for name, value in answer.headers.items() if name not in _IGNORED)
        shape = {name: value if name not in _IDS else len(value) for name, value in answer.json().items()}
        self.seen.append((answer.status_code, shape.get("code"), headers, shape, len(answer.content)))
        self.challenge = answer.json().get("challenge_id", self.challenge)
        return answer

    async def request(self, address: str, **more: str) -> None:
        await self.post(f"/api/v1/tenants/{self.slug}/otp/request", {"identifier": address, **more})

    async def register(self, address: str) -> None:
        kind = "email" if "@" in address else "phone_number"
        body = {"name": "Eve", kind: address, "consent": CONSENT}
        await self.post(f"/api/v1/tenants/{self.slug}/members", body)

    async def claim(self, address: str, token: str) -> None:
        kind = "email" if "@" in address else "phone_number"
        await self.post("/api/v1/auth/contacts", {kind: address}, "PUT", headers=bearer(token))

    async def page(self, address: str) -> None:
        async with visitor(self.http) as person:
            await person.open(f"/t/{self.slug}/login")
            await person.submit(f"/t/{self.slug}/login", {"identifier": address})
            self.seen.append(looks(person, self.slug))

    async def guess(self, address: str) -> None:
        """A code and five wrong ones."""
        await self.request(address)
        for _ in range(5):
            await self.post(
                f"/api/v1/tenants/{self.slug}/otp/verify", {"challenge_id": self.challenge, "code": "0" * 6}
            )

    async def resend(self, address: str) -> None:
        """A code, and once the cooldown is over another."""
        await self.request(address)
        self.clock.forward(seconds=61)
        await self.post(f"/api/v1/tenants/{self.slug}/otp/resend", {"challenge_id": self.challenge})


Way = Callable[[Asker, str], Awaitable[None]]


def spelled(address: str) -> str:
    return address.upper() if "@" in address else f"{address[:3]} {address[3:7]} {address[7:]}"


WAYS: Final[dict[str, Way]] = {
    "sign in": lambda actor, address: actor.request(address),
    "spelled differently": lambda actor, address: actor.request(spelled(address)),
    "by sms": lambda actor, address: actor.request(address, channel="sms"),
    "by a channel that is off": lambda actor, address: actor.request(address, channel="whatsapp"),
    "reset": lambda actor, address: actor.request(address, purpose="reset"),
    "register": lambda actor, address: actor.register(address),
    "change of address": lambda actor, address: actor.claim(address, actor.claimants[0]),
    "page": lambda actor, address: actor.page(address),
    "password": lambda actor, address: actor.request(address, password="a window left shut"),
    "wrong codes": lambda actor, address: actor.guess(address),
    "resend": lambda actor, address: actor.resend(address),
}
# How often it takes each to use up what it uses up.
_TIMES: Final = {"password": 16, "wrong codes": 2, "resend": 2}

Kind = Callable[[Database, Clock, SomeTenant], Awaitable[object]]


def member(**fields: Any) -> Kind:
    return lambda db, clock, tenant: add_member(
        db, clock(), tenant, **{"email": EMAIL, "phone_number": PHONE, "name": "Ana", **fields}
    )


async def nobody(*_: object) -> None:
    """Nobody has either address."""


async def two(db: Database, clock: Clock, tenant: SomeTenant) -> None:
    """Each address is another member's."""
    await add_member(db, clock(), tenant, email=EMAIL)
    await add_member(db, clock(), tenant, phone_number=PHONE)


async def contact(db: Database, clock: Clock, tenant: SomeTenant) -> None:
    """Both are the tenant's own."""
    async with db.every_tenant() as connection:
        await connection.execute(
            "UPDATE tenants SET email = $2, phone_number = $3 WHERE id = $1", tenant.id, EMAIL, PHONE
        )


async def unproven(db: Database, clock: Clock, tenant: SomeTenant) -> None:
    """The first is a claim as long as no code proved it."""
    await add_member(db, clock(), tenant, email=EMAIL, phone_number=PHONE, must_verify=True, phone_verified_at=clock())


async def suspended_tenant(db: Database, clock: Clock, tenant: SomeTenant) -> None:
    await add_member(db, clock(), tenant, email=EMAIL, phone_number=PHONE)
    async with db.every_tenant() as connection:
        await connection.execute("UPDATE tenants SET status = 'suspended' WHERE id = $1", tenant.id)


# Who has the two addresses, and how many messages they may get in all.
KINDS: Final[dict[str, tuple[Kind, int]]] = {
    "nobody": (nobody, 6),
    "member": (member(), 3),
    "two members": (two, 6),
    "suspended": (member(status="suspended"), 3),
    "invited": (member(status="pending"), 3),
    "contact": (contact, 3),
    "one address unproven": (unproven, 6),
    "suspended tenant": (suspended_tenant, 0),
}


async def tokens_of(http: Http, db: Database, ring: KeyRing, slug: str, email: str) -> str:
    asked = (await http.otp(slug, "request", {"identifier": email})).json()["challenge_id"]
    done = await http.otp(slug, "verify", {"challenge_id": asked, "code": await current_code(db, ring, asked)})
    token: str = done.json()["access_token"]
    return token


@pytest.mark.parametrize("policy", [{}, {"registration": "open"}], ids=["closed", "open"])
@pytest.mark.parametrize("first", WAYS)
async def test_every_pair_of_ways_answers_alike(
    settings: Settings,
    clock: Clock,
    db: Database,
    ring: KeyRing,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    policy: dict[str, str],
) -> None:
    """Used up at one address by the first way, then asked for there and at another by every way: one story for all."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_HASHER", cheap)
    monkeypatch.setattr(passwords, "_NOBODYS", cheap.hash("of nobody"))
    run, began, stories = uuid4().hex[:8], clock(), {}
    async with serve(settings, clock, sms_enabled=True, sms_provider=("console",)) as http:
        for number, (kind, (people, most)) in enumerate(KINDS.items()):
            clock.now = began
            tenant = await add_tenant(db, clock(), slug=f"slug-{run}-{number}", policy=policy)
            actor = Asker(http, clock, tenant.slug)
            for name in ("eve", "bob"):
                await add_member(db, clock(), tenant, email=f"{name}@home.example", name="Eve")
                actor.claimants.append(await tokens_of(http, db, ring, tenant.slug, f"{name}@home.example"))
            await people(db, clock, tenant)
            clock.forward(seconds=5)
            asked_since = clock()
            gone = kind == "suspended tenant"
            ways = {name: way for name, way in WAYS.items() if name not in {"wrong codes", "resend"}}
            if gone and first == "change of address":
                continue
            for _ in range(_TIMES.get(first, 4)):
                await WAYS[first](actor, EMAIL)
            actor.claimants.reverse()
            steps = []
            for address in (EMAIL, PHONE):
                for name, way in ways.items():
                    before = len(actor.seen)
                    if not (gone and name == "change of address"):
                        await way(actor, address)
                    steps.append((address, name, actor.seen[before:]))
            stories[kind] = [("first", actor.seen[: len(actor.seen) - sum(len(s[2]) for s in steps)]), *steps]
            sent = await count(db, _MESSAGES, tenant.id, asked_since)
            assert sent <= most, kind
            assert clock() - began < timedelta(minutes=10)

    for kind, story in stories.items():
        for here, there in zip(story, stories["nobody"], strict=True):
            # Nobody is signed in at a suspended tenant.
            if kind != "suspended tenant" or "change of address" not in here:
                assert here == there, (kind, here[:2])


async def ask(http: Http, slug: str, identifier: str | None, **more: str) -> int:
    body = {"identifier": identifier, **more} if identifier else more
    return (await http.otp(slug, "request", body)).status_code


@pytest.mark.parametrize("policy", [{}, {"require_contact": True}], ids=["slug is enough", "contact must be named"])
async def test_a_guessed_contact_is_not_confirmed(
    settings: Settings, clock: Clock, db: Database, policy: dict[str, Any]
) -> None:
    """After the slug alone, by every purpose, the right contact answers as a wrong one; where it must be named, the
    slug alone uses nothing up and the contact still gets its code.
    """
    tenant = await add_tenant(db, clock(), email=EMAIL, phone_number=PHONE, policy=policy)
    names = [EMAIL, "eve@home.example"], [PHONE, "+447700900778"]
    async with serve(settings, clock) as http:
        assert [await ask(http, tenant.slug, None) for _ in range(4)] == [202, 202, 202, 429]
        sent = await count(db, _MESSAGES, tenant.id, clock())
        assert sent == (0 if policy else 3)
        for right, other in names:
            for more in ({}, {"purpose": "reset"}):
                assert [await ask(http, tenant.slug, name, **more) for name in (right, other)] == [202, 202], more
        for right, other in names:
            both = [[await ask(http, tenant.slug, name) for _ in range(3)] for name in (right, other)]
            assert both[0] == both[1] == [202, 429, 429]
    assert await count(db, _MESSAGES, tenant.id, clock()) == (2 if policy else 3)


@pytest.mark.parametrize("subject", ["tenant", "member", "invited"])
async def test_unlocking_clears_every_door_and_lane(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing, subject: str
) -> None:
    """Codes and wrong codes, at both addresses and by the slug, also from before the person was here: nothing of it is
    left, and the next code comes at once.
    """
    tenant = await add_tenant(db, clock(), policy={"lock_after_failures": 5})
    async with serve(settings, clock, sms_enabled=True, sms_provider=("console",)) as http:
        for name in (EMAIL, PHONE):
            for _ in range(4):
                await ask(http, tenant.slug, name)
        member_id = None
        if subject == "tenant":
            await contact(db, clock, tenant)
            for _ in range(4):
                await ask(http, tenant.slug, None)
        else:
            status = "active" if subject == "member" else "pending"
            member_id = await add_member(db, clock(), tenant, email=EMAIL, phone_number=PHONE, status=status)
        who = member_id or tenant.id
        unlocking = Unlocking(db, ring, clock)
        assert len((await unlocking.standing(tenant.id, who)).sends) == 3
        assert await ask(http, tenant.slug, EMAIL) == 429
        assert await unlocking.unlock(tenant.id, member_id, actor=Actor("operator"), client=Client("cli"))
        left = "SELECT count(*) FROM quota WHERE tenant_id = $1 AND cardinality(sends) > 0"
        assert await count(db, left, tenant.id) == 0

        actor = Asker(http, clock, tenant.slug)
        await actor.guess(EMAIL)
        assert await ask(http, tenant.slug, EMAIL) == 429
        standing = await unlocking.standing(tenant.id, who)
        assert (standing.wrong_today, standing.locked_until is not None) == (5, True)
        assert await unlocking.unlock(tenant.id, member_id, actor=Actor("operator"), client=Client("cli"))
        before = await count(db, _MESSAGES, tenant.id, clock())
        assert [await ask(http, tenant.slug, name) for name in (EMAIL, PHONE)] == [202, 202]
        sent = await count(db, _MESSAGES, tenant.id, clock()) - before
        assert sent == (0 if subject == "invited" else 2)


async def test_nothing_of_an_erased_members_quota_is_left(
    settings: Settings, clock: Clock, db: Database, ring: KeyRing
) -> None:
    """Under no address they were asked for at, no device and no claim."""
    tenant = await add_tenant(db, clock())
    member_id = await add_member(db, clock(), tenant, email=EMAIL, phone_number=PHONE)
    async with serve(settings, clock, sms_enabled=True, sms_provider=("console",)) as http:
        token = await tokens_of(http, db, ring, tenant.slug, EMAIL)
        await ask(http, tenant.slug, PHONE)
        await http.auth("PUT", "contacts", token, json={"email": "new@home.example"})
        await ask(http, tenant.slug, "eve@home.example")
        quota = "SELECT count(*) FROM quota WHERE tenant_id = $1"
        assert await count(db, quota, tenant.id) == 4 + 2 + 2
        await Members(db, settings, clock).erase(tenant.slug, member_id, actor=Actor("operator"), client=Client("cli"))
    # What was typed of others': the address that was claimed, and Eve's.
    assert await count(db, quota, tenant.id) == 2 + 2
