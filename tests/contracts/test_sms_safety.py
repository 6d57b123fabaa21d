"""Caps on messages that cost money: held by the database, exact under load, reported only where that is wanted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.audit.log import Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.limits import AddressLimiter
from app.auth.sessions import Sessions
from app.delivery.carrier import Pass
from app.delivery.message import DeliveryError
from app.delivery.outbox import Claimed, Outbox, Outcome
from app.delivery.safety import Safety, country_refused
from app.delivery.verdict import judge
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from app.worker import derive
from tests.conftest import Clock
from tests.people import add_tenant, count

CLIENT = Client("api", "203.0.113.9", "Firefox", "r")
LEASE = timedelta(seconds=15)


@pytest.fixture(autouse=True)
async def _empty(db: Database) -> None:
    """Only this test's messages count."""
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM outbox; DELETE FROM send_counts; DELETE FROM challenges")


@pytest.fixture
def sms(settings: Settings) -> Settings:
    """An installation that sends SMS, without a limit that this test doesn't set."""
    return replace(
        settings,
        sms_enabled=True,
        sms_provider=("a",),
        whatsapp_enabled=True,
        whatsapp_provider=("w",),
        sms_daily_cap=0,
        sms_minute_limit=0,
        sms_prefix_hourly_limit=0,
        sms_number_hourly_limit=0,
        whatsapp_daily_cap=0,
        otp_hourly_limit=100,
    )


class Sender:
    """Claims codes as the worker does and asks whether they may go."""

    def __init__(
        self,
        db: Database,
        ring: KeyRing,
        sessions: Sessions,
        limiter: AddressLimiter,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self.db, self.ring, self.clock = db, ring, clock
        self.safety = Safety(db, ring, settings)
        self.challenges = Challenges(db, ring, settings, sessions, limiter, clock, wake_worker=lambda: None)
        self.outbox = Outbox(db, "w", settings.providers)

    async def codes(self, numbers: Sequence[str], channel: str = "sms") -> list[Claimed]:
        """One claimed code for each number, each of a tenant of its own, in this order."""
        for number in numbers:
            self.clock.forward(seconds=0.001)
            tenant = await add_tenant(self.db, self.clock(), phone_number=number, otp_delivery_method=channel)
            await self.challenges.request(Realm.of(tenant.slug), CLIENT)
        claimed = await self.outbox.claim(self.clock(), limit=len(numbers), lease=LEASE, max_tries=5)
        # A worker sends what it has claimed in any order.
        return sorted(claimed, key=lambda one: one.created_at)

    async def may(self, claimed: Claimed) -> str | None:
        """Why not; None where it may go."""
        try:
            await self.safety.check(claimed, self.clock())
        except DeliveryError as refusal:
            return f"{refusal.error_class} for {'good' if refusal.permanent else 'now'}: {refusal.text}"
        return None

    async def send(self, numbers: Sequence[str], channel: str = "sms") -> list[str | None]:
        return [await self.may(claimed) for claimed in await self.codes(numbers, channel)]


@pytest.fixture
async def sender(
    db: Database, ring: KeyRing, sessions: Sessions, clock: Clock, sms: Settings
) -> AsyncIterator[Callable[..., Sender]]:
    """Makes senders with the limits that a test is about."""
    accelerator = Accelerator(sms.redis_url or "")
    limiter = AddressLimiter(accelerator, limit=100_000, processes=1)
    yield lambda **limits: Sender(db, ring, sessions, limiter, clock, replace(sms, **limits))
    await accelerator.close()


@pytest.mark.parametrize(
    ("allowed", "number", "refused"),
    [
        ((), "+447700900123", False),
        (("GB", "DE"), "+447700900123", False),
        (("DE",), "+447700900123", True),
        (("US",), "+14166161234", True),  # Canada shares America's country code
        (("GB",), "+441534440000", True),  # Jersey, Britain's
        (("GB",), "+9990000000", True),
        (("GB",), "nonsense", True),
    ],
)
def test_sms_go_to_the_countries_that_are_named(
    sms: Settings, allowed: tuple[str, ...], number: str, refused: bool
) -> None:
    """None named: to any. What has no country goes nowhere once there is a list. WhatsApp goes where SMS do."""
    listed = replace(sms, sms_allowed_countries=allowed)
    assert country_refused(listed, "sms", number) is refused
    assert country_refused(listed, "whatsapp", number) is refused
    assert country_refused(listed, "email", "bob@example.com") is False


async def test_a_country_that_is_not_named_is_refused_before_it_counts(
    sender: Callable[..., Sender], db: Database
) -> None:
    """For good: no provider is asked, no cap is spent."""
    (answer,) = await sender(sms_allowed_countries=("DE",), sms_daily_cap=5).send(["+447700900123"])
    assert answer == "country for good: SMS are not sent to this country."
    (answer,) = await sender(sms_allowed_countries=("DE",)).send(["+447700900123"], "whatsapp")
    assert answer == "country for good: WhatsApp messages are not sent to this country."
    assert await count(db, "SELECT count(*) FROM send_counts") == 0


async def test_the_day_has_an_end(sender: Callable[..., Sender], clock: Clock) -> None:
    """The cap admits exactly as many, whatever their numbers; midnight (UTC) opens it again."""
    here = sender(sms_daily_cap=2)
    numbers = [f"+4477009{n}0123" for n in range(3)]
    assert await here.send(numbers) == [None, None, "limit for good: The day's SMS are used up."]
    clock.forward(hours=15)
    assert await here.send(numbers[:1]) == [None]


async def test_each_channel_has_a_cap_of_its_own(sender: Callable[..., Sender]) -> None:
    """What SMS have used up is not WhatsApp's; email costs nothing and is never asked for."""
    here = sender(sms_daily_cap=1, whatsapp_daily_cap=1)
    assert [bool(answer) for answer in await here.send(["+447700900123"] * 2)] == [False, True]
    assert [bool(answer) for answer in await here.send(["+447700900123"] * 2, "whatsapp")] == [False, True]
    assert await here.send(["+447700900123"], "email") == [None]


async def test_a_full_minute_is_waited_for(sender: Callable[..., Sender], clock: Clock) -> None:
    """Pacing is no refusal: the message goes in the next minute."""
    here = sender(sms_minute_limit=1)
    first, second = await here.codes(["+447700900123", "+447700900124"])
    assert await here.may(first) is None
    assert await here.may(second) == "limit for now: This minute's SMS are used up."
    clock.forward(minutes=1)
    assert await here.may(second) is None


async def test_waiting_for_a_minute_is_no_try(sender: Callable[..., Sender], clock: Clock) -> None:
    """A burst of ten minutes' worth waits its turn: five tries would be over after one and a half."""
    here = sender(sms_minute_limit=1)
    first, second = await here.codes(["+447700900123", "+447700900124"])
    await here.safety.check(first, clock())
    with pytest.raises(DeliveryError) as refusal:
        await here.safety.check(second, clock())
    outcome = judge(
        Pass.failing(refusal.value),
        replace(second, attempts=5),
        now=clock(),
        reporting=(),
        fallback_after=timedelta(seconds=30),
        chance=0.5,
        code=None,
    )
    assert (outcome.state, outcome.counted) == ("queued", False)


@pytest.mark.parametrize("channel", ["sms", "whatsapp"])
async def test_neighbouring_numbers_share_a_limit(sender: Callable[..., Sender], channel: str) -> None:
    """Who is paid for messages has numbers in a row; somebody elsewhere doesn't notice."""
    here = sender(sms_prefix_hourly_limit=2)
    answers = await here.send(["+447700900001", "+447700900002", "+447700900003", "+447800900001"], channel)
    assert [bool(answer) for answer in answers] == [False, False, True, False]


@pytest.mark.parametrize("channel", ["sms", "whatsapp"])
async def test_a_number_has_a_limit_across_tenants(sender: Callable[..., Sender], db: Database, channel: str) -> None:
    """Three tenants with one number are one person's phone; and the number itself is not stored with the count."""
    here = sender(sms_number_hourly_limit=2)
    assert [bool(answer) for answer in await here.send(["+447700900123"] * 3, channel)] == [False, False, True]
    assert await count(db, "SELECT count(*) FROM send_counts WHERE name LIKE '%7700900123%'") == 0


async def test_refused_spends_nothing(sender: Callable[..., Sender]) -> None:
    """What one limit refuses leaves the others as they were."""
    here = sender(sms_daily_cap=2, sms_number_hourly_limit=1)
    answers = await here.send(["+447700900123", "+447700900123", "+447700900999", "+447700900888"])
    assert [bool(answer) for answer in answers] == [False, True, False, True]


async def test_a_message_counts_once_however_often_it_is_tried(sender: Callable[..., Sender], clock: Clock) -> None:
    """A provider's bad minute doesn't use up the day."""
    here = sender(sms_daily_cap=1)
    (claimed,) = await here.codes(["+447700900123"])
    for _ in range(3):
        assert await here.may(claimed) is None
        again = Outcome(claimed.tenant_id, claimed.id, "queued", retry_at=clock())
        await here.outbox.settle(clock(), [again])
        (claimed,) = await here.outbox.claim(clock(), limit=1, lease=LEASE, max_tries=9)


async def test_the_cap_is_exact_under_load(sender: Callable[..., Sender]) -> None:
    """Forty at the same moment on several connections: exactly ten go."""
    here = sender(sms_daily_cap=10, sms_prefix_hourly_limit=30, sms_number_hourly_limit=5)
    claimed = await here.codes([f"+44770090{n:04}" for n in range(40)])
    assert len(claimed) == 40
    answers = await asyncio.gather(*[here.may(one) for one in claimed])
    assert sum(answer is None for answer in answers) == 10


async def test_a_dry_run_only_reports(sender: Callable[..., Sender]) -> None:
    """Everything goes; the log says what would not have, without the number."""
    here = sender(sms_daily_cap=1, sms_allowed_countries=("DE",), sms_safety_dry_run=True)
    with capture_logs() as logs:
        assert await here.send(["+447700900123", "+447700900124"]) == [None, None]
    assert [log["error_class"] for log in logs] == ["country", "country", "limit"]
    assert "+4477" not in str(logs)


async def test_codes_that_nobody_enters_raise_the_alarm(
    sender: Callable[..., Sender], db: Database, ring: KeyRing, clock: Clock
) -> None:
    """Fifty sent and a tenth entered: a warning and an audit event, once an hour; nine in ten are no reason."""

    async def sent(entered: int) -> Sender:
        """Fifty codes, asked for a quarter of an hour ago."""
        here: Sender = sender(sms_entered_percent_alarm=20)
        async with db.every_tenant() as connection:
            await connection.execute("DELETE FROM outbox; DELETE FROM challenges")
        claimed = await here.codes([f"+4477009{n:05}" for n in range(50)])
        await here.outbox.settle(clock(), [Outcome(c.tenant_id, c.id, "sent", provider="a") for c in claimed])
        async with db.every_tenant() as connection:
            for one in claimed[:entered]:
                assert derive(ring, one)
                await connection.execute(
                    "UPDATE challenges SET ended_at = $3, end_reason = 'used', salt = NULL, digest = NULL "
                    "WHERE tenant_id = $1 AND id = $2",
                    one.tenant_id,
                    one.challenge_id,
                    clock(),
                )
        clock.forward(minutes=15)
        return here

    async def alarms(here: Sender) -> list[Any]:
        with capture_logs() as logs:
            await here.safety.assess(clock())
        return [log["count"] for log in logs]

    written = "SELECT count(*) FROM audit_events WHERE action = 'sms.rarely_entered' AND data @> '{\"sent\": 50}'"
    before = await count(db, written)
    assert await alarms(await sent(entered=45)) == []
    here = await sent(entered=5)
    assert await alarms(here) == [50]
    assert await alarms(here) == []
    assert await count(db, written) == before + 1
    assert await alarms(sender(sms_entered_percent_alarm=0)) == []
