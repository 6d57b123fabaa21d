"""What the worker's statements promise: who gets which message, what is never sent, what a lost lease means."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.audit.log import Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.delivery.outbox import Claimed, Outbox, Outcome
from app.keys import KeyRing
from app.storage import SYSTEM_TENANT
from app.storage.db import Database, Row
from app.worker import derive, tidy
from tests.conftest import Clock
from tests.people import SomeTenant, add_tenant, count, current_code, wrong

CLIENT = Client("api", "203.0.113.9", "Firefox", "r")
LEASE = timedelta(seconds=15)


@pytest.fixture(autouse=True)
async def _empty(db: Database) -> None:
    """Only this test's messages are due."""
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM outbox; DELETE FROM challenges; DELETE FROM quota")


@pytest.fixture
def outbox(db: Database) -> Outbox:
    return Outbox(db, "worker-1")


@pytest.fixture
def other(db: Database) -> Outbox:
    return Outbox(db, "worker-2")


async def claim(outbox: Outbox, clock: Clock, *, limit: int = 64) -> list[Claimed]:
    return await outbox.claim(clock(), limit=limit, lease=LEASE, max_tries=5)


def outcome(claimed: Claimed, state: Any = "sent", **details: Any) -> Outcome:
    return Outcome(claimed.tenant_id, claimed.id, state, **{"provider": "smtp", "took_ms": 7, **details})


async def row(db: Database, tenant: SomeTenant) -> Row:
    """The newest message of a tenant."""
    async with db.every_tenant() as connection:
        found: Row = await connection.fetchrow(
            "SELECT * FROM outbox WHERE tenant_id = $1 ORDER BY created_at DESC, generation DESC LIMIT 1", tenant.id
        )
    return found


async def events(db: Database, tenant: SomeTenant) -> list[tuple[str, str | None]]:
    """The delivery history: state and error class, in order."""
    async with db.every_tenant() as connection:
        rows = await connection.fetch(
            "SELECT state, error_class FROM delivery_events WHERE tenant_id = $1 ORDER BY at, id", tenant.id
        )
    return [(r["state"], r["error_class"]) for r in rows]


async def notice(db: Database, clock: Clock, tenant: SomeTenant, destination: str = "old@a.example") -> UUID:
    """A notice, as a contact change writes it."""
    identity = uuid4()
    async with db.every_tenant() as connection:
        await connection.execute(
            "INSERT INTO outbox (tenant_id, id, kind, channel, destination, payload, available_at, expires_at,"
            " created_at, updated_at) VALUES ($1, $2, 'notice', 'email', $3, $4, $5, $6, $5, $5)",
            tenant.id,
            identity,
            destination,
            {"template": "contact_changed"},
            clock(),
            clock() + timedelta(days=1),
        )
    return identity


async def test_a_claim_has_all_a_sender_needs(
    db: Database, challenges: Challenges, outbox: Outbox, ring: KeyRing, clock: Clock
) -> None:
    """One round trip: the address, the code's ingredients and the words' facts; and the code is the right one."""
    tenant = await add_tenant(db, clock(), name="Acme", timezone="Europe/Berlin", locale="de")
    issued = await challenges.request(Realm.of(tenant.slug), CLIENT, locale="fr")

    (claimed,) = await claim(outbox, clock)

    assert (claimed.state, claimed.kind, claimed.channel, claimed.attempts) == ("sending", "code", "email", 1)
    assert claimed.destination == tenant.email
    assert (claimed.ip, claimed.user_agent, claimed.asked_at) == ("203.0.113.9", "Firefox", clock())
    assert (claimed.tenant_slug, claimed.tenant_name) == (tenant.slug, "Acme")
    assert (claimed.challenge_locale, claimed.tenant_locale, claimed.tenant_timezone) == ("fr", "de", "Europe/Berlin")
    assert derive(ring, claimed) == await current_code(db, ring, issued.challenge_id)
    stored = await row(db, tenant)
    assert (stored["destination"], stored["payload"]) == (None, None)
    assert await claim(outbox, clock) == []


@pytest.mark.parametrize(
    ("channel", "destination"), [("sms", "+447700900123"), ("whatsapp", "+447700900123"), ("email", "a@a.example")]
)
async def test_each_channel_has_its_contact(
    db: Database, challenges: Challenges, outbox: Outbox, clock: Clock, channel: str, destination: str
) -> None:
    """Read when it is claimed, so a contact that has just changed is the one that counts."""
    tenant = await add_tenant(db, clock(), email="a@a.example", phone_number="+447700900123")
    await challenges.request(Realm.of(tenant.slug), CLIENT)
    async with db.every_tenant() as connection:
        await connection.execute("UPDATE outbox SET channel = $1", channel)

    (claimed,) = await claim(outbox, clock)
    assert claimed.destination == destination


async def test_an_admins_code_goes_to_the_admin(
    db: Database, challenges: Challenges, outbox: Outbox, clock: Clock
) -> None:
    """Admins sign in under the system tenant, which has no contact of its own."""
    email = f"{uuid4().hex}@staff.example"
    async with db.every_tenant() as connection:
        await connection.execute(
            "INSERT INTO admins (tenant_id, id, email, name, role, created_at, updated_at)"
            " VALUES ($1, $2, $3, 'A', 'owner', $4, $4)",
            SYSTEM_TENANT,
            uuid4(),
            email,
            clock(),
        )
    await challenges.request(Realm.admins(), CLIENT, identifier=email)

    (claimed,) = await claim(outbox, clock)
    assert (claimed.destination, claimed.tenant_name) == (email, "Gatehouse")


async def test_workers_never_share_a_message(
    db: Database, challenges: Challenges, outbox: Outbox, other: Outbox, clock: Clock
) -> None:
    """Two workers that claim at once get 40 messages between them, each once."""
    for _ in range(40):
        tenant = await add_tenant(db, clock())
        await challenges.request(Realm.of(tenant.slug), CLIENT)

    batches = await asyncio.gather(*(claim(box, clock, limit=7) for _ in range(4) for box in (outbox, other)))

    ids = [claimed.id for batch in batches for claimed in batch]
    assert len(ids) == len(set(ids)) == 40


async def test_a_decoy_is_settled_unsent(db: Database, challenges: Challenges, outbox: Outbox, clock: Clock) -> None:
    """Nobody was ever to get it, so it leaves no history either."""
    await challenges.request(Realm.of("nobody-has-this-slug"), CLIENT)

    (claimed,) = await claim(outbox, clock)

    assert (claimed.state, claimed.kind, claimed.destination) == ("void", "decoy", None)
    assert await count(db, "SELECT count(*) FROM outbox WHERE state = 'void' AND attempts = 0") == 1
    assert await count(db, "SELECT count(*) FROM delivery_events WHERE tenant_id = $1", claimed.tenant_id) == 0
    assert await claim(outbox, clock) == []


async def test_only_the_newest_code_is_sent(db: Database, challenges: Challenges, outbox: Outbox, clock: Clock) -> None:
    """A resend while the first one was still queued: that one is void."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    clock.forward(seconds=61)
    await challenges.resend(realm, issued.challenge_id, CLIENT)

    first, second = sorted(await claim(outbox, clock), key=lambda c: c.generation or 0)

    assert (first.generation, first.state) == (1, "void")
    assert (second.generation, second.state) == (2, "sending")
    assert await events(db, tenant) == [("void", None)]


async def test_a_code_of_an_ended_challenge_is_void(
    db: Database, challenges: Challenges, outbox: Outbox, ring: KeyRing, clock: Clock
) -> None:
    """Its salt is erased; there is nothing left to send."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    code = await current_code(db, ring, issued.challenge_id)
    await challenges.verify(realm, issued.challenge_id, code, CLIENT)

    (claimed,) = await claim(outbox, clock)
    assert claimed.state == "void"


@pytest.mark.parametrize("tidied", [False, True])
async def test_an_expired_code_is_not_sent(
    db: Database, challenges: Challenges, outbox: Outbox, clock: Clock, tidied: bool
) -> None:
    """Whether its challenge was cleared already or not, the history says expired."""
    tenant = await add_tenant(db, clock())
    await challenges.request(Realm.of(tenant.slug), CLIENT)
    start = clock()
    clock.forward(minutes=10)
    if tidied:
        await tidy(db, since=start, now=clock())

    (claimed,) = await claim(outbox, clock)

    assert claimed.state == "expired"
    assert await events(db, tenant) == [("expired", "expired")]


async def test_a_lost_message_is_claimed_again(
    db: Database, challenges: Challenges, outbox: Outbox, other: Outbox, clock: Clock
) -> None:
    """A worker that died holds its messages for one lease, not longer, and not if it renews."""
    tenant = await add_tenant(db, clock())
    await challenges.request(Realm.of(tenant.slug), CLIENT)
    (claimed,) = await claim(outbox, clock)

    clock.forward(seconds=14)
    assert await claim(other, clock) == []
    await outbox.renew(clock(), [claimed], lease=LEASE)
    clock.forward(seconds=14)
    assert await claim(other, clock) == []
    clock.forward(seconds=2)
    (again,) = await claim(other, clock)
    assert (again.id, again.attempts) == (claimed.id, 2)


async def test_a_lost_lease_has_no_say(
    db: Database, challenges: Challenges, outbox: Outbox, other: Outbox, clock: Clock
) -> None:
    """In one batch: the message another worker took over stays as that one left it, the rest is written."""
    tenants = [await add_tenant(db, clock()) for _ in range(2)]
    for tenant in tenants:
        await challenges.request(Realm.of(tenant.slug), CLIENT)
    mine = await claim(outbox, clock)
    clock.forward(seconds=16)
    await outbox.renew(clock(), mine[:1], lease=LEASE)
    (taken,) = await claim(other, clock)
    assert (await other.settle(clock(), [outcome(taken, provider_message_id="theirs")])).written == 1

    settled = await outbox.settle(clock(), [outcome(c, "failed", provider_message_id="mine") for c in mine])
    assert settled.written == 1
    await outbox.renew(clock(), mine, lease=LEASE)

    stored = {t.id: await row(db, t) for t in tenants}
    assert stored[taken.tenant_id]["provider_message_id"] == "theirs"
    assert stored[taken.tenant_id]["state"] == "sent"
    assert stored[mine[0].tenant_id]["state"] == "failed"


async def test_a_batch_is_settled_in_one_statement(
    db: Database, challenges: Challenges, outbox: Outbox, clock: Clock
) -> None:
    """Sent, failed and queued again side by side; each leaves one step in its history."""
    tenants = [await add_tenant(db, clock()) for _ in range(3)]
    for tenant in tenants:
        await challenges.request(Realm.of(tenant.slug), CLIENT)
    by_tenant = {c.tenant_id: c for c in await claim(outbox, clock)}
    sent, failed, again = (by_tenant[t.id] for t in tenants)

    settled = await outbox.settle(
        clock(),
        [
            outcome(sent, provider_message_id="250 queued as 1"),
            outcome(failed, "failed", error_class="recipient", error_text="550 unknown"),
            outcome(again, "queued", error_class="refused", retry_at=clock() + timedelta(seconds=4)),
        ],
    )

    assert (settled.written, settled.followed) == (3, 0)
    states = [await row(db, t) for t in tenants]
    assert [(s["state"], s["error_class"]) for s in states] == [
        ("sent", None),
        ("failed", "recipient"),
        ("queued", "refused"),
    ]
    assert all(s["lease_owner"] is None and s["lease_until"] is None for s in states)
    assert [await events(db, t) for t in tenants] == [
        [("sent", None)],
        [("failed", "recipient")],
        [("queued", "refused")],
    ]
    assert await claim(outbox, clock) == []
    clock.forward(seconds=4)
    (due,) = await claim(outbox, clock)
    assert (due.id, due.attempts, due.last_error_class) == (again.id, 2, "refused")


async def test_nothing_settled_is_sent_or_changed_again(
    db: Database, challenges: Challenges, outbox: Outbox, clock: Clock
) -> None:
    """States never go backwards."""
    tenant = await add_tenant(db, clock())
    await challenges.request(Realm.of(tenant.slug), CLIENT)
    (claimed,) = await claim(outbox, clock)
    await outbox.settle(clock(), [outcome(claimed)])

    assert (await outbox.settle(clock(), [outcome(claimed, "queued", retry_at=clock())])).written == 0
    assert await outbox.release(clock()) == 0
    assert (await row(db, tenant))["state"] == "sent"
    assert await events(db, tenant) == [("sent", None)]


async def test_doubt_outlives_a_refusal(db: Database, challenges: Challenges, outbox: Outbox, clock: Clock) -> None:
    """Unanswered, then refused, then unanswered must not become a third copy: the first doubt is remembered."""
    tenant = await add_tenant(db, clock())
    await challenges.request(Realm.of(tenant.slug), CLIENT)
    for error_class in ("unanswered", "refused"):
        (claimed,) = await claim(outbox, clock)
        await outbox.settle(clock(), [outcome(claimed, "queued", error_class=error_class, retry_at=clock())])

    (claimed,) = await claim(outbox, clock)

    assert claimed.last_error_class == "unanswered"
    assert await events(db, tenant) == [("queued", "unanswered"), ("queued", "refused")]


async def test_a_message_that_takes_workers_down_is_set_aside(
    db: Database, challenges: Challenges, outbox: Outbox, clock: Clock
) -> None:
    """After five claims that nobody lived to settle it is failed, and somebody sees it."""
    tenant = await add_tenant(db, clock())
    await challenges.request(Realm.of(tenant.slug), CLIENT)
    for _ in range(5):
        (claimed,) = await claim(outbox, clock)
        assert claimed.state == "sending"
        clock.forward(seconds=16)

    (claimed,) = await claim(outbox, clock)

    assert claimed.state == "failed"
    assert await events(db, tenant) == [("failed", "poison")]
    assert await claim(outbox, clock) == []


async def test_what_is_handed_back_was_not_tried(
    db: Database, challenges: Challenges, outbox: Outbox, other: Outbox, clock: Clock
) -> None:
    """A stopping worker gives its messages back at once, and fifty restarts are no poison."""
    tenant = await add_tenant(db, clock())
    await challenges.request(Realm.of(tenant.slug), CLIENT)
    for _ in range(10):
        assert len(await claim(outbox, clock)) == 1
        assert await other.release(clock()) == 0
        assert await outbox.release(clock()) == 1

    (claimed,) = await claim(other, clock)
    assert claimed.attempts == 1


async def test_a_notice_keeps_its_address_only_until_it_is_settled(db: Database, outbox: Outbox, clock: Clock) -> None:
    """It may be an address that stands nowhere else any more."""
    tenant = await add_tenant(db, clock())
    await notice(db, clock, tenant)

    (claimed,) = await claim(outbox, clock)
    assert (claimed.destination, claimed.payload) == ("old@a.example", {"template": "contact_changed"})
    await outbox.settle(clock(), [outcome(claimed, "queued", retry_at=clock())])
    assert (await row(db, tenant))["destination"] == "old@a.example"
    (claimed,) = await claim(outbox, clock)
    await outbox.settle(clock(), [outcome(claimed)])

    stored = await row(db, tenant)
    assert (stored["destination"], stored["payload"]) == (None, None)


async def test_a_heartbeat_is_one_row(db: Database, clock: Clock) -> None:
    """Started once, seen again and again; whoever is silent for an hour is forgotten."""
    for name in ("silent", "alive"):
        await db.run("SELECT fn.heartbeat($1, $2)", clock(), name)
    started = clock()
    clock.forward(minutes=61)
    await db.run("SELECT fn.heartbeat($1, $2)", clock(), "alive")

    rows = await db.rows("SELECT * FROM workers WHERE id IN ('silent', 'alive')")
    assert [(r["id"], r["started_at"], r["seen_at"]) for r in rows] == [("alive", started, clock())]
    await db.run("SELECT fn.goodbye($1)", "alive")
    assert await db.rows("SELECT * FROM workers WHERE id = 'alive'") == []


async def test_expired_challenges_lose_their_secrets(
    db: Database, challenges: Challenges, ring: KeyRing, clock: Clock
) -> None:
    """In batches, and only those: an open one keeps working."""
    start = clock()
    old = [await add_tenant(db, clock()) for _ in range(5)]
    for tenant in old:
        await challenges.request(Realm.of(tenant.slug), CLIENT)
    clock.forward(minutes=9)
    young = await add_tenant(db, clock())
    issued = await challenges.request(Realm.of(young.slug), CLIENT)
    clock.forward(minutes=1)

    await tidy(db, since=start, now=clock(), batch=2)

    ended = "SELECT count(*) FROM challenges WHERE end_reason = 'expired' AND salt IS NULL AND ended_at = expires_at"
    assert await count(db, ended) == 5
    code = await current_code(db, ring, issued.challenge_id)
    await challenges.verify(Realm.of(young.slug), issued.challenge_id, code, CLIENT)


async def test_what_has_had_its_time_is_deleted(
    db: Database, challenges: Challenges, outbox: Outbox, ring: KeyRing, clock: Clock
) -> None:
    """Each kind after its own time: challenges within the hour; messages and counted guesses after a day."""
    tenant = await add_tenant(db, clock())
    realm = Realm.of(tenant.slug)
    issued = await challenges.request(realm, CLIENT)
    code = await current_code(db, ring, issued.challenge_id)
    with pytest.raises(Exception, match="Wrong code"):
        await challenges.verify(realm, issued.challenge_id, wrong(code), CLIENT)
    (claimed,) = await claim(outbox, clock)
    await outbox.settle(clock(), [outcome(claimed)])
    unsent = await add_tenant(db, clock())
    await notice(db, clock, unsent)
    tables = ("challenges", "quota", "outbox")

    async def left() -> list[int]:
        return [
            await count(db, f"SELECT count(*) FROM {table} WHERE tenant_id = ANY($1)", [tenant.id, unsent.id])
            for table in tables
        ]

    start = clock()
    clock.forward(minutes=54)
    await tidy(db, since=start, now=clock(), batch=1)
    # The quota of the door, and the tenant's own.
    assert await left() == [1, 2, 2]
    clock.forward(minutes=1, seconds=1)
    await tidy(db, since=start, now=clock(), batch=1)
    assert await left() == [0, 2, 2]
    clock.forward(minutes=5)
    await tidy(db, since=start, now=clock(), batch=1)
    # A wrong guess counts for 24 hours, so it is remembered as long.
    assert await left() == [0, 2, 2]
    clock.forward(hours=24)
    await tidy(db, since=start, now=clock(), batch=1)
    # The notice is older than a day, too, but nobody has settled it yet.
    assert await left() == [0, 0, 1]


async def test_the_worker_sees_all_tenants_by_name_only(db: Database, clock: Clock) -> None:
    """The scope is local to each function: the connection it ran on sees nothing afterwards."""
    tenant = await add_tenant(db, clock())
    await notice(db, clock, tenant)
    async with db.connection() as connection:
        await connection.fetch("SELECT * FROM fn.claim_outbox($1, 'w', 1, '15 s', 5)", clock())
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 0
