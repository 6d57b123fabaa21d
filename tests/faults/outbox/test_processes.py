"""What the outbox promises when a process of ours dies, stops or stumbles. In full when marked long."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from app.auth import codes
from app.auth.challenges import Challenges
from app.delivery.outbox import Claimed
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.worker import derive
from tests.conftest import Clock
from tests.deliveries import (
    Works,
    ask,
    assert_copies_are_equal,
    states,
    until_all_have_arrived,
    worker_process,
)
from tests.faults.outbox.conftest import CONCURRENCY, now
from tests.mailserver import MailServer
from tests.people import add_tenant, count
from tests.processes import WEB, environment, free_port, running, until_it_answers


@pytest.mark.parametrize(
    ("messages", "every"), [(200, 50), pytest.param(10_000, 500, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
)
async def test_kill_9_of_the_worker(
    db: Database,
    today: Challenges,
    settings: Settings,
    works_today: Works,
    mail: MailServer,
    messages: int,
    every: int,
) -> None:
    """None lost; copies at most kills x concurrency, each with the same code and Message-ID."""
    kills = 0
    for _ in range(messages // every):
        async with worker_process(settings, mail) as process:
            before = len(mail.mails)
            for _ in range(every):
                await ask(db, today, now)
            while len(mail.mails) < before + every // 2:
                await mail.next()
            process.kill()
            kills += await process.wait() == -signal.SIGKILL
    async with db.every_tenant() as connection:
        # Time travel instead of waiting for the leases of the dead.
        await connection.execute("UPDATE outbox SET lease_until = now() - interval '1 second' WHERE state = 'sending'")
    async with works_today.running():
        await until_all_have_arrived(mail, messages)

    assert kills == messages // every
    assert await states(db) == {"sent": messages}
    assert len(mail.mails) - messages <= kills * CONCURRENCY
    assert_copies_are_equal(mail.mails)


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_kill_9_of_the_web_process(
    db: Database, settings: Settings, works_today: Works, mail: MailServer, kills: int
) -> None:
    """Every 202 is delivered; of a challenge there is everything or nothing."""
    accepted: list[str] = []
    progress = asyncio.Condition()
    dice = random.Random(2)

    async def ask_on(client: httpx.AsyncClient, url: str, slugs: Iterator[str]) -> None:
        with suppress(httpx.TransportError):
            for slug in slugs:
                answer = await client.post(f"{url}/api/v1/tenants/{slug}/otp/request", json={})
                if answer.status_code == 202:
                    accepted.append(answer.json()["challenge_id"])
                    async with progress:
                        progress.notify_all()

    for _ in range(kills):
        slugs = iter([(await add_tenant(db, now())).slug for _ in range(300)])
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        here = environment(settings, PORT=str(port))
        async with (
            running(WEB, settings.data_dir / "web.log", here) as process,
            httpx.AsyncClient(timeout=30) as client,
        ):
            await until_it_answers(process, url)
            callers = [asyncio.create_task(ask_on(client, url, slugs)) for _ in range(16)]
            enough = len(accepted) + dice.randrange(20, 150)
            async with progress:
                await progress.wait_for(lambda: len(accepted) >= enough)  # noqa: B023 - awaited within the round
            process.kill()
            await asyncio.gather(*callers)

    orphans = "SELECT count(*) FROM challenges c LEFT JOIN {} WHERE o.tenant_id IS NULL"
    assert await count(db, orphans.format("outbox o ON o.tenant_id = c.tenant_id AND o.challenge_id = c.id")) == 0
    assert await count(db, orphans.format("audit_events o ON o.tenant_id = c.tenant_id AND o.challenge_id = c.id")) == 0
    assert await count(db, orphans.format("quota o ON o.tenant_id = c.tenant_id")) == 0
    messages = await count(db, "SELECT count(*) FROM challenges")
    assert await count(db, "SELECT count(*) FROM outbox WHERE kind = 'code'") == messages
    written = await count(
        db, "SELECT count(*) FROM challenges WHERE id = ANY ($1)", [codes.read_challenge_id(name) for name in accepted]
    )
    assert written == len(accepted) > 0
    async with works_today.running():
        await until_all_have_arrived(mail, messages)
    assert await states(db) == {"sent": messages}


async def test_three_poison_messages(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, ring: KeyRing
) -> None:
    """Set aside after five tries; forty others are unaffected, and nobody waits."""
    poison = {(await ask(db, challenges, clock))[0].id for _ in range(3)}
    stumbles: Counter[Any] = Counter()
    enough = asyncio.Event()

    def stumbling(claimed: Claimed) -> str:
        if claimed.tenant_id in poison:
            stumbles[claimed.tenant_id] += 1
            if stumbles.total() == 15:
                enough.set()
            raise ZeroDivisionError
        return derive(ring, claimed)

    async with works.running(derive=stumbling):
        for _ in range(40):
            await ask(db, challenges, clock)
        await until_all_have_arrived(mail, 40)
        await asyncio.wait_for(enough.wait(), 30)

    assert list(stumbles.values()) == [5, 5, 5]
    assert await states(db) == {"sent": 40, "failed": 3}
    assert await count(db, "SELECT count(*) FROM outbox WHERE error_class = 'poison'") == 3


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_sigterm_under_load(
    db: Database,
    today: Challenges,
    settings: Settings,
    works_today: Works,
    mail: MailServer,
    times: int,
) -> None:
    """Drained within 25 seconds or handed back: nothing lost, nothing sent twice, nothing left leased."""
    asked = 0
    for _ in range(times):
        async with worker_process(settings, mail) as process:
            before = len(mail.mails)
            for _ in range(60):
                await ask(db, today, now)
                asked += 1
            while len(mail.mails) < before + 10:
                await mail.next()
            process.terminate()
            async with asyncio.timeout(25):
                assert await process.wait() == 0
        assert (await states(db)).keys() <= {"sent", "queued"}
        assert await count(db, "SELECT count(*) FROM outbox WHERE lease_owner IS NOT NULL") == 0
    async with works_today.running():
        await until_all_have_arrived(mail, asked)

    assert await states(db) == {"sent": asked}
    assert len(mail.mails) == asked
