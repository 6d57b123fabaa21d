"""What the outbox promises when the mail server refuses, is silent or slow. In full when marked long."""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import timedelta
from statistics import median
from typing import Any

import pytest

from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.delivery.routing import MAX_TRIES
from app.storage.db import Database
from tests.conftest import Clock
from tests.deliveries import (
    CLIENT,
    Works,
    ask,
    assert_copies_are_equal,
    copies,
    states,
    until_all_have_arrived,
)
from tests.faults.outbox.conftest import CONCURRENCY
from tests.mailserver import SILENCE, MailServer
from tests.people import add_tenant, count


@pytest.mark.parametrize("messages", [60, pytest.param(2_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_smtp_half_of_the_answers_4xx(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, messages: int
) -> None:
    """Each recipient is refused for now and then taken, as greylisting has it: all are delivered before expiry."""
    tenants = [(await ask(db, challenges, clock))[0] for _ in range(messages)]
    mail.greylisting = True
    async with works.running():
        await until_all_have_arrived(mail, messages)

    assert mail.count("RCPT") == 2 * messages
    assert await states(db) == {"sent": messages}
    assert {copy.recipients[0] for copy in mail.mails} == {tenant.email for tenant in tenants}
    assert await count(db, "SELECT count(*) FROM outbox WHERE updated_at >= expires_at") == 0


@pytest.mark.parametrize("messages", [60, pytest.param(2_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_smtp_a_random_half_of_the_answers_4xx(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, messages: int
) -> None:
    """Three tries of four fail, by the dice, for a recipient or a text: all are delivered before expiry, once each.

    Time goes on by two seconds whenever all is quiet, so the ten minutes of a code take seconds.
    """
    dice = random.Random(451)
    for command, later in (("RCPT", "450 4.2.1 Later"), ("DATA", "451 4.3.0 Later")):
        mail.answers[command].extend(later if dice.random() < 0.5 else "250 2.0.0 Ok" for _ in range(40 * messages))
    for _ in range(messages):
        await ask(db, challenges, clock)
    busy = "SELECT count(*) FROM outbox WHERE state = 'sending' OR state = 'queued' AND available_at <= $1"
    async with works.running(chance=dice.random, monotonic=lambda: clock().timestamp()) as dispatcher:
        while (await states(db)).get("sent", 0) < messages:
            # Nothing says that all is quiet, so it is asked for.
            await asyncio.sleep(0.01)
            if await count(db, busy, clock()) == 0:
                clock.forward(seconds=2)
                dispatcher.wake()

    assert await states(db) == {"sent": messages}
    assert max(copies(mail.mails).values()) == 1
    assert_copies_are_equal(mail.given)
    assert await count(db, "SELECT count(*) FROM outbox WHERE updated_at >= expires_at") == 0
    # Some needed more tries than poison gets.
    steps = "SELECT max(n) FROM (SELECT count(*) AS n FROM delivery_events WHERE at >= $1 GROUP BY outbox_id) AS story"
    assert await count(db, steps, clock() - timedelta(minutes=10)) > MAX_TRIES


async def test_smtp_5xx_is_not_retried_and_visible(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Told in the log, in the story, to a disclosed caller, and in the numbers; and never tried again."""
    counted = "SELECT coalesce(sum(count), 0)::bigint FROM delivery_counts WHERE provider = 'smtp' AND state = 'failed'"
    before = await count(db, counted)
    refused = [await ask(db, challenges, clock) for _ in range(20)]
    mail.answers["RCPT"].extend(["550 5.1.1 No such user"] * 20)
    async with works.running():
        await mail.asked("RCPT", 20)
        clock.forward(minutes=2)
        await ask(db, challenges, clock)
        await mail.next()

    assert mail.count("RCPT") == 21
    assert await states(db) == {"failed": 20, "sent": 1}
    assert [log["log_level"] for log in works.logs if log["event"] == "Delivery failed"] == ["error"] * 20
    for tenant, challenge_id in refused:
        told = await challenges.status(Realm.of(tenant.slug), challenge_id, disclose=True)
        assert (told.state, told.error) == ("failed", "550 5.1.1 No such user")
    assert await count(db, counted) - before == 20


async def test_smtp_silence_after_the_final_dot(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Each silence may have taken the mail: at most two copies, with one Message-ID, and then somebody is told."""
    for _ in range(2):
        await ask(db, challenges, clock)
    mail.answers["DATA"].extend([SILENCE] * 10)
    # Two messages, so that no breaker opens: what it keeps from being tried is no copy either.
    async with works.running(smtp_timeout=0.1):
        await mail.asked("DATA", 4)

    assert await states(db) == {"failed": 2}
    assert list(copies(mail.given).values()) == [2, 2]
    assert_copies_are_equal(mail.given)


async def test_smtp_tarpit_leaves_the_api_as_fast_as_ever(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Nobody who asks for a code waits for the mail server: it is not on their way."""
    tenants = [await add_tenant(db, clock()) for _ in range(3 * CONCURRENCY)]

    async def seconds(some: Sequence[Any]) -> float:
        """The median time of a request."""
        times = []
        for tenant in some:
            began = time.perf_counter()
            await challenges.request(Realm.of(tenant.slug), CLIENT)
            times.append(time.perf_counter() - began)
        return median(times)

    usual = await seconds(tenants[:CONCURRENCY])
    mail.answers["MAIL"].extend([SILENCE] * 3 * CONCURRENCY)
    async with works.running(drain_seconds=0.1):
        await mail.asked("MAIL", 8)
        stuck = await seconds(tenants[CONCURRENCY:])
        assert mail.mails == []
    # The same order of magnitude, however busy the machine is just now; the tarpit itself would be 5 seconds.
    assert stuck < 10 * usual + 0.05
    assert (await states(db)).keys() == {"queued"}
