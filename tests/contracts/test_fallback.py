"""A code that doesn't arrive finds another way: the next provider, then the next channel. Told on real stores."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from app.audit.log import Actor, Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.limits import AddressLimiter
from app.auth.sessions import Sessions
from app.delivery.dispatcher import Dispatcher
from app.delivery.health import DeliveryHealth
from app.delivery.message import Message, PermanentFailure, TransientFailure
from app.delivery.outbox import Outbox
from app.delivery.render import Renderer
from app.errors import CodeExpired
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from app.tenants.service import Tenants
from app.worker import derive
from tests.conftest import Clock
from tests.people import SomeTenant, add_member, add_tenant, count, whole
from tests.ways import Way

CLIENT = Client("api", "203.0.113.9", "Firefox", "r")
PHONE = "+447700900123"
AWAY = TransientFailure("unavailable", "the gateway is down")
ANA, ANAS_PHONE = "ana@home.example", "+447700900456"
GONE = PermanentFailure("recipient", "no such number")


@pytest.fixture(autouse=True)
async def _empty(db: Database) -> None:
    """Only this test's messages are due."""
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM outbox; DELETE FROM provider_reports; DELETE FROM contact_health")


class Installation:
    """Two SMS providers, WhatsApp and email, a dispatcher over them and the services that ask for codes."""

    def __init__(
        self,
        db: Database,
        ring: KeyRing,
        settings: Settings,
        sessions: Sessions,
        limiter: AddressLimiter,
        clock: Clock,
    ) -> None:
        self.settings = replace(
            settings, sms_enabled=True, sms_provider=("a", "b"), whatsapp_enabled=True, whatsapp_provider=("w",)
        )
        self.db, self.ring, self.clock = db, ring, clock
        self.a, self.b = Way("a"), Way("b")
        self.whatsapp = Way("w", channel="whatsapp")
        self.email = Way("smtp", channel="email")
        self.challenges = Challenges(db, ring, self.settings, sessions, limiter, clock, wake_worker=lambda: None)
        self.outbox = Outbox(db, "worker-1", self.settings.providers)
        self.logs: Sequence[Any] = []

    @asynccontextmanager
    async def working(self, *, reporting: frozenset[str] = frozenset()) -> AsyncIterator[Dispatcher]:
        """A dispatcher at work; what it did is in the database at the end."""
        accelerator = Accelerator(self.settings.redis_url or "")
        dispatcher = Dispatcher(
            self.outbox,
            accelerator,
            {"sms": [self.a, self.b], "whatsapp": [self.whatsapp], "email": [self.email]},
            Renderer("https://login.example"),
            clock=self.clock,
            derive=lambda claimed: derive(self.ring, claimed),
            reporting=reporting,
            chance=lambda: 0.0,
        )
        with capture_logs() as self.logs:
            running = asyncio.create_task(dispatcher.run())
            try:
                yield dispatcher
            finally:
                dispatcher.stop()
                await asyncio.wait_for(running, 40)
                await accelerator.close()

    async def tenant(self, **fields: Any) -> SomeTenant:
        """One that prefers SMS and falls back on email."""
        usual = {"phone_number": PHONE, "otp_delivery_method": "sms", "fallback_methods": ["email"]}
        return await add_tenant(self.db, self.clock(), **{**usual, **fields})

    async def ask(self, tenant: SomeTenant, channel: str | None = None, identifier: str | None = None) -> str:
        realm = Realm.of(tenant.slug)
        return (await self.challenges.request(realm, CLIENT, channel=channel, identifier=identifier)).challenge_id

    async def member(self, tenant: SomeTenant, **fields: Any) -> UUID:
        """Somebody with both addresses, who prefers SMS."""
        usual = {"email": ANA, "phone_number": ANAS_PHONE, "preferred_method": "sms"}
        return await add_member(self.db, self.clock(), tenant, **{**usual, **fields})

    async def proven(self, member_id: UUID) -> list[str]:
        """Which addresses of a member are known to be theirs."""
        async with self.db.every_tenant() as connection:
            row = await connection.fetchrow(
                "SELECT email_verified_at AS email, phone_verified_at AS phone FROM members WHERE id = $1", member_id
            )
        assert row is not None
        return [name for name, at in row.items() if at]

    async def status(self, tenant: SomeTenant, challenge_id: str) -> tuple[str, str | None, str | None]:
        """What a disclosed caller is told: state, channel, error."""
        told = await self.challenges.status(Realm.of(tenant.slug), challenge_id, disclose=True)
        return told.state, told.channel, told.error

    async def story(self, tenant: SomeTenant) -> list[tuple[str, str | None, str, str | None]]:
        """Channel, provider, state and error class of every step."""
        async with self.db.every_tenant() as connection:
            rows = await connection.fetch(
                "SELECT channel, provider, state, error_class FROM delivery_events WHERE tenant_id = $1 ORDER BY id",
                tenant.id,
            )
        return [tuple(row) for row in rows]

    async def report(self, key: str, state: str, error_class: str | None = None) -> str:
        """What a provider's callback brings."""
        row = await self.db.row(
            "SELECT fn.take_report($1, $2, $3, $4, NULL, $5, $6) AS outcome",
            self.clock(),
            key,
            state,
            error_class,
            error_class == "recipient",
            self.settings.providers,
        )
        assert row is not None
        return str(row["outcome"])

    async def rows(self, tenant: SomeTenant) -> list[tuple[str, str]]:
        """Channel and state of each row of the outbox, oldest first."""
        async with self.db.every_tenant() as connection:
            rows = await connection.fetch(
                "SELECT channel, state FROM outbox o WHERE tenant_id = $1 ORDER BY"
                " (SELECT min(id) FROM delivery_events e WHERE e.tenant_id = o.tenant_id AND e.outbox_id = o.id)",
                tenant.id,
            )
        return [tuple(row) for row in rows]


@pytest.fixture
def here(
    db: Database, ring: KeyRing, settings: Settings, sessions: Sessions, limiter: AddressLimiter, clock: Clock
) -> Installation:
    return Installation(db, ring, settings, sessions, limiter, clock)


def code_in(message: Message) -> str:
    assert message.code is not None
    assert message.code in (message.text + (message.subject or ""))
    return message.code


async def test_the_second_provider_takes_what_the_first_does_not(here: Installation) -> None:
    """At once, in the same try; each step stands in the story, and the log names who failed."""
    here.a.answers = [AWAY]
    tenant = await here.tenant()
    challenge_id = await here.ask(tenant)
    async with here.working():
        await here.b.next()

    assert await here.story(tenant) == [("sms", "a", "queued", "unavailable"), ("sms", "b", "sent", None)]
    assert await here.status(tenant, challenge_id) == ("sent", "sms", None)
    assert await here.rows(tenant) == [("sms", "sent")]
    assert [log["provider"] for log in here.logs if "next provider" in log["event"]] == ["a"]


async def test_a_bad_number_goes_on_by_email_with_the_same_code(here: Installation) -> None:
    """Both providers refuse for good: the next channel takes over at once, and the admin learns about the number."""
    here.a.answers, here.b.answers = [GONE], [GONE]
    tenant = await here.tenant()
    challenge_id = await here.ask(tenant)
    async with here.working():
        mail = await here.email.next()

    assert await here.story(tenant) == [
        ("sms", "a", "queued", "recipient"),
        ("sms", "b", "failed", "recipient"),
        ("email", None, "queued", "fallback"),
        ("email", "smtp", "sent", None),
    ]
    assert await here.status(tenant, challenge_id) == ("sent", "email", None)
    signed_in = await here.challenges.verify(Realm.of(tenant.slug), challenge_id, code_in(mail), CLIENT)
    assert signed_in is not None
    (contact,) = await DeliveryHealth(here.db).unhealthy(tenant.id)
    assert (contact.subject_id, contact.channel, contact.error_class) == (tenant.id, "sms", "recipient")
    assert contact.since == here.clock()


async def test_without_another_channel_failed_is_told_to_a_disclosed_caller(here: Installation) -> None:
    """Nothing is left to try: the state says so, in the provider's words."""
    here.a.answers, here.b.answers = [GONE], [GONE]
    tenant = await here.tenant(fallback_methods=[])
    challenge_id = await here.ask(tenant)
    async with here.working():
        other = await here.tenant()
        await here.ask(other)
        await here.a.next()

    assert await here.status(tenant, challenge_id) == ("failed", "sms", "no such number")


@pytest.mark.parametrize(
    ("fields", "channel"),
    [
        ({"fallback_methods": ["push", "email"]}, "email"),
        ({"fallback_methods": ["whatsapp", "email"]}, "whatsapp"),
        ({"fallback_methods": ["sms", "email"]}, "email"),
        ({"fallback_methods": ["email", "whatsapp"], "email": None}, "whatsapp"),
    ],
)
async def test_a_fallback_needs_a_contact_and_a_provider(
    here: Installation, fields: dict[str, Any], channel: str
) -> None:
    """In the tenant's order, leaving out what can't be and what was tried."""
    here.a.answers, here.b.answers = [GONE], [GONE]
    tenant = await here.tenant(**fields)
    await here.ask(tenant)
    async with here.working():
        await (here.email if channel == "email" else here.whatsapp).next()
    assert await here.rows(tenant) == [("sms", "failed"), (channel, "sent")]


async def test_a_members_code_finds_another_way_to_the_member(here: Installation) -> None:
    """By the tenant's methods, to the member's own address and not to the tenant's; what it proves isn't known."""
    here.a.answers, here.b.answers = [GONE], [GONE]
    tenant = await here.tenant()
    member_id = await here.member(tenant)
    challenge_id = await here.ask(tenant, identifier=ANA)
    async with here.working():
        mail = await here.email.next()
    assert mail.to == ANA
    assert await here.rows(tenant) == [("sms", "failed"), ("email", "sent")]
    outcome = await here.challenges.verify(Realm.of(tenant.slug), challenge_id, code_in(mail), CLIENT)
    assert whole(outcome).subject.id == member_id
    assert await here.proven(member_id) == []
    (contact,) = await DeliveryHealth(here.db).unhealthy(tenant.id)
    assert (contact.subject_id, contact.channel) == (member_id, "sms")


async def test_two_ways_to_one_number_prove_it(here: Installation) -> None:
    """SMS, then WhatsApp: whoever has the code has the phone."""
    here.a.answers, here.b.answers = [GONE], [GONE]
    tenant = await here.tenant(fallback_methods=["whatsapp", "email"])
    member_id = await here.member(tenant)
    challenge_id = await here.ask(tenant, identifier=ANAS_PHONE)
    async with here.working():
        message = await here.whatsapp.next()
    await here.challenges.verify(Realm.of(tenant.slug), challenge_id, code_in(message), CLIENT)
    assert await here.proven(member_id) == ["phone"]


@pytest.mark.parametrize(
    ("fields", "goes_on"),
    [
        ({"must_verify": True}, True),
        ({"must_verify": True, "phone_verified_at": True}, False),
        ({"must_verify": True, "phone_verified_at": True, "email_verified_at": True}, True),
        ({"email": None}, False),
    ],
)
async def test_a_members_code_goes_only_where_it_counts(
    here: Installation, fields: dict[str, Any], goes_on: bool
) -> None:
    """An address that somebody else may have typed gets nobody's code; nor does the tenant's own."""
    here.a.answers, here.b.answers = [GONE], [GONE]
    tenant = await here.tenant()
    times = {name: here.clock() for name in fields if name.endswith("_at")}
    await here.member(tenant, **fields | times)
    await here.ask(tenant, identifier=ANAS_PHONE)
    async with here.working():
        await (here.email.next() if goes_on else here.b.asked_times(1))
    assert await here.rows(tenant) == [("sms", "failed"), *([("email", "sent")] if goes_on else [])]


async def test_a_suspended_members_code_goes_no_further(here: Installation) -> None:
    """Whoever was suspended while a code was on its way gets none by another."""
    tenant = await here.tenant()
    member_id = await here.member(tenant)
    await here.ask(tenant, identifier=ANA)
    async with here.working(reporting=frozenset({"a"})):
        await here.a.next()
    async with here.db.tenant(tenant.id) as connection:
        await connection.execute("UPDATE members SET status = 'suspended' WHERE id = $1", member_id)
    here.clock.forward(seconds=31)
    assert await here.outbox.follow_up(here.clock()) == 0
    assert await here.rows(tenant) == [("sms", "sent")]


async def test_an_address_that_is_to_be_proven_has_no_other(here: Installation) -> None:
    """A newcomer's code goes the way it was asked for, whatever the tenant falls back on."""
    here.a.answers, here.b.answers = [GONE], [GONE]
    tenant = await here.tenant(fallback_methods=["whatsapp", "email"], policy={"registration": "open"})
    await here.ask(tenant, identifier=ANAS_PHONE)
    async with here.working():
        await here.b.asked_times(1)
    assert await here.rows(tenant) == [("sms", "failed")]


async def test_a_channel_that_was_asked_for_falls_back_too(here: Installation) -> None:
    """Whoever chose WhatsApp waits for a code as much as anybody."""
    here.whatsapp.answers = [GONE]
    tenant = await here.tenant(otp_delivery_method="email", fallback_methods=["whatsapp", "sms"])
    await here.ask(tenant, "whatsapp")
    async with here.working():
        await here.a.next()
    assert await here.rows(tenant) == [("whatsapp", "failed"), ("sms", "sent")]


async def test_silence_of_a_reporting_provider_lets_the_next_channel_take_over(here: Installation) -> None:
    """After FALLBACK_AFTER_SECONDS, once; a report that comes later is welcome all the same."""
    tenant = await here.tenant()
    challenge_id = await here.ask(tenant)
    async with here.working(reporting=frozenset({"a"})):
        sms = await here.a.next()
    here.clock.forward(seconds=29)
    assert await here.outbox.follow_up(here.clock()) == 0
    here.clock.forward(seconds=1)
    assert await here.outbox.follow_up(here.clock()) == 1
    assert await here.outbox.follow_up(here.clock()) == 0
    assert await here.status(tenant, challenge_id) == ("sent", "sms", None)
    async with here.working():
        assert code_in(await here.email.next()) == code_in(sms)

    assert await here.report("a:a-1", "delivered") == "written"
    assert await here.rows(tenant) == [("sms", "delivered"), ("email", "sent")]
    assert await here.status(tenant, challenge_id) == ("delivered", "sms", None)


async def test_a_delivered_code_stays_where_it_is(here: Installation) -> None:
    """A sign of delivery in time ends the wait; a provider that never reports is not waited for."""
    tenant, quiet = await here.tenant(), await here.tenant()
    await here.ask(tenant)
    async with here.working(reporting=frozenset({"a"})):
        await here.a.next()
        here.a.answers = [AWAY]
        await here.ask(quiet)
        await here.b.next()
    await here.report("a:a-1", "delivered")
    here.clock.forward(minutes=5)
    assert await here.outbox.follow_up(here.clock()) == 0


async def test_a_code_that_is_tried_for_too_long_goes_by_the_next_channel_too(here: Installation) -> None:
    """Both SMS providers are down: nobody waits for the end of the backoff."""
    here.a.answers, here.b.answers = [AWAY] * 9, [AWAY] * 9
    tenant = await here.tenant()
    await here.ask(tenant)
    async with here.working():
        await here.b.asked_times(1)
    here.clock.forward(seconds=30)
    assert await here.outbox.follow_up(here.clock()) == 1
    async with here.working():
        await here.email.next()
    assert ("email", "sent") in await here.rows(tenant)


async def test_a_reported_failure_goes_to_the_next_provider_then_to_the_next_channel(here: Installation) -> None:
    """Taken, and then it came back: never by the same provider again, and each row is followed once."""
    tenant = await here.tenant()
    challenge_id = await here.ask(tenant)
    async with here.working(reporting=frozenset({"a", "b"})):
        await here.a.next()
    assert await here.report("a:a-1", "failed", "unavailable") == "followed"
    assert await here.report("a:a-1", "failed", "unavailable") == "known"
    async with here.working(reporting=frozenset({"a", "b"})):
        await here.b.next()
    assert len(here.a.taken) == 1
    assert await here.report("b:b-1", "failed", "recipient") == "followed"
    async with here.working():
        await here.email.next()

    assert await here.rows(tenant) == [("sms", "failed"), ("sms", "failed"), ("email", "sent")]
    assert await here.status(tenant, challenge_id) == ("sent", "email", None)
    assert len(await DeliveryHealth(here.db).unhealthy(tenant.id)) == 1


async def test_late_and_failed_is_followed_once(here: Installation) -> None:
    """First no sign of delivery, then a failure, both at once on several workers: one row takes over."""
    tenant = await here.tenant()
    await here.ask(tenant)
    async with here.working(reporting=frozenset({"a"})):
        await here.a.next()
    here.clock.forward(seconds=31)
    followed = await asyncio.gather(*[here.outbox.follow_up(here.clock()) for _ in range(8)])
    assert sum(followed) == 1
    assert await here.report("a:a-1", "failed", "unavailable") == "written"
    assert len(await here.rows(tenant)) == 2


async def test_a_report_that_is_faster_than_we_are_waits(here: Installation) -> None:
    """It came before the sending was written down: it counts a moment later, and once."""
    tenant = await here.tenant()
    await here.ask(tenant)
    assert await here.report("a:a-1", "delivered") == "unknown"
    assert await here.report("a:a-1", "delivered") == "unknown"
    async with here.working(reporting=frozenset({"a"})):
        await here.a.next()
    assert await here.rows(tenant) == [("sms", "sent")]
    await here.outbox.follow_up(here.clock())
    assert await here.rows(tenant) == [("sms", "delivered")]
    assert await here.story(tenant) == [("sms", "a", "sent", None), ("sms", "a", "delivered", None)]
    assert await count(here.db, "SELECT count(*) FROM provider_reports") == 0


async def test_states_never_go_back(here: Installation) -> None:
    """Delivered and failed are final, whatever comes after."""
    tenant = await here.tenant()
    await here.ask(tenant)
    async with here.working(reporting=frozenset({"a"})):
        await here.a.next()
    assert await here.report("a:a-1", "delivered") == "written"
    assert await here.report("a:a-1", "failed", "recipient") == "known"
    assert await here.rows(tenant) == [("sms", "delivered")]
    assert await DeliveryHealth(here.db).unhealthy(tenant.id) == []


@pytest.mark.parametrize("end", ["expired", "used", "resent"])
async def test_nothing_takes_over_once_it_is_over(here: Installation, end: str) -> None:
    """A code that has expired, was used or replaced is sent by nobody."""
    tenant = await here.tenant()
    challenge_id = await here.ask(tenant)
    async with here.working(reporting=frozenset({"a"})):
        sms = await here.a.next()
    realm = Realm.of(tenant.slug)
    match end:
        case "expired":
            here.clock.forward(minutes=10)
        case "used":
            await here.challenges.verify(realm, challenge_id, code_in(sms), CLIENT)
        case "resent":
            here.clock.forward(seconds=60)
            await here.challenges.resend(realm, challenge_id, CLIENT)
    here.clock.forward(seconds=31)

    assert await here.outbox.follow_up(here.clock()) == 0
    assert await here.report("a:a-1", "failed", "recipient") == "written"
    assert {channel for channel, _ in await here.rows(tenant)} == {"sms"}


async def test_strangers_see_nothing_of_it(here: Installation) -> None:
    """A code that failed, fell back and failed again looks, step by step, like the decoy of a slug nobody has."""
    here.a.answers, here.b.answers, here.email.answers = [GONE], [GONE], [GONE]
    tenant = await here.tenant()
    realms = (Realm.of(tenant.slug), Realm.of("nobody-at-all"))
    ids = [(await here.challenges.request(realm, CLIENT, channel="sms")).challenge_id for realm in realms]

    async def look() -> list[Any]:
        return [await here.challenges.status(realm, name) for realm, name in zip(realms, ids, strict=True)]

    seen = [await look()]
    async with here.working():
        await here.email.asked_times(1)
    for seconds in (2, 40, 600):
        here.clock.forward(seconds=seconds)
        await here.outbox.follow_up(here.clock())
        seen.append(await look())

    assert [real == decoy for real, decoy in seen] == [True] * 4
    assert {real.channel for real, _ in seen} == {"sms"}
    assert await here.rows(tenant) == [("sms", "failed"), ("email", "failed")]
    with pytest.raises(CodeExpired):
        await here.challenges.resend(realms[0], ids[0], CLIENT)


async def test_a_contact_is_healthy_again_once_something_arrives(here: Installation) -> None:
    """Accepted is enough where nobody reports, otherwise it takes a report; another channel's success is none."""
    tenant = await here.tenant()

    async def unhealthy() -> list[str]:
        return [contact.channel for contact in await DeliveryHealth(here.db).unhealthy(tenant.id)]

    async def send(answers: Sequence[Exception], *, reporting: frozenset[str] = frozenset()) -> None:
        here.a.answers, here.b.answers = list(answers), list(answers)
        here.clock.forward(minutes=61)
        await here.ask(tenant)
        async with here.working(reporting=reporting):
            await (here.email if answers else here.a).next()

    await send([GONE])
    assert await unhealthy() == ["sms"]
    await send([], reporting=frozenset({"a"}))
    assert await unhealthy() == ["sms"]
    await here.report(f"a:a-{here.a.asked}", "delivered")
    assert await unhealthy() == []
    await send([GONE])
    await send([])
    assert await unhealthy() == []


async def test_a_new_contact_starts_without_a_past(here: Installation) -> None:
    """The admin changed the number; what was said of the address stands."""
    tenant = await here.tenant()
    tenants = Tenants(here.db, here.settings, here.clock, lambda: None)
    async with here.db.every_tenant() as connection:
        for channel in ("sms", "whatsapp", "email"):
            await connection.execute(
                "INSERT INTO contact_health VALUES ($1, $1, $2, $3, 'recipient', 'no')",
                tenant.id,
                channel,
                here.clock(),
            )
    await tenants.update(tenant.slug, {"phone_number": "+447700900999"}, actor=Actor("operator"), client=Client("cli"))
    assert [contact.channel for contact in await DeliveryHealth(here.db).unhealthy(tenant.id)] == ["email"]


async def test_a_test_message_tries_every_provider_but_no_other_channel(here: Installation) -> None:
    """It is the channel that is tested."""
    here.a.answers, here.b.answers = [GONE], [GONE]
    tenant = await here.tenant()
    tenants = Tenants(here.db, here.settings, here.clock, lambda: None)
    await tenants.send_test(tenant.slug, channel="sms", actor=Actor("operator"), client=Client("cli"))
    async with here.working():
        await here.ask(await here.tenant())
        await here.a.next()
    assert await here.rows(tenant) == [("sms", "failed")]
    assert len(await DeliveryHealth(here.db).unhealthy(tenant.id)) == 1


async def test_every_step_is_counted(here: Installation) -> None:
    """By channel, provider and state, whoever wrote it."""

    async def counted() -> dict[tuple[str, str, str], int]:
        return {(c.channel, c.provider, c.state): c.count for c in await DeliveryHealth(here.db).counts()}

    before = await counted()
    here.a.answers = [AWAY]
    await here.ask(await here.tenant())
    await here.ask(await here.tenant())
    async with here.working(reporting=frozenset({"b"})):
        await here.b.next()
        await here.a.next()
    await here.report("b:b-1", "delivered")

    after = await counted()
    grown = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    assert grown == {
        ("sms", "a", "queued"): 1,
        ("sms", "a", "sent"): 1,
        ("sms", "b", "sent"): 1,
        ("sms", "b", "delivered"): 1,
    }
