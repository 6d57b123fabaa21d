"""A worker at its work in tests: in this process on a clock of the test's, or as a process of its own."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from app.audit.log import Client
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.delivery.dispatcher import Dispatcher
from app.delivery.outbox import Claimed, Outbox
from app.delivery.providers.smtp import Smtp
from app.delivery.render import Renderer
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from app.worker import derive
from tests.mailserver import Mail, MailServer
from tests.people import SomeTenant, add_tenant
from tests.processes import WORKER, environment, running

CLIENT = Client("api", "203.0.113.9", "Firefox", "r")


class Works:
    """Dispatchers on real stores that send to one mail server, and what they wrote."""

    def __init__(self, settings: Settings, ring: KeyRing, clock: Callable[[], datetime], mail: MailServer) -> None:
        self.settings = settings
        self.ring = ring
        self.clock = clock
        self.mail = mail
        self.logs: list[Any] = []

    @asynccontextmanager
    async def running(
        self,
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        derive: Callable[[Claimed], str] | None = None,
        drain_seconds: float = 25.0,
        smtp_timeout: float = 5.0,
        chance: Callable[[], float] = lambda: 0.0,
        **options: Any,
    ) -> AsyncIterator[Dispatcher]:
        """A dispatcher at work; at the end it is stopped, and everything it did is in the database."""
        database = Database(database_url or self.settings.database_url or "", size=4)
        accelerator = Accelerator(redis_url or self.settings.redis_url or "")
        smtp = Smtp(
            host="127.0.0.1",
            port=self.mail.port,
            from_email="codes@gatehouse.example",
            from_name="Gatehouse",
            starttls=False,
            timeout=smtp_timeout,
        )
        await database.open()
        with capture_logs() as self.logs:
            dispatcher = Dispatcher(
                Outbox(database, "worker-under-test"),
                accelerator,
                {"email": [smtp]},
                Renderer("https://login.example"),
                clock=self.clock,
                derive=derive or self.derive,
                chance=chance,
                **options,
            )
            running = asyncio.create_task(dispatcher.run(drain_seconds=drain_seconds))
            try:
                yield dispatcher
            finally:
                dispatcher.stop()
                await asyncio.wait_for(running, 40)
                await smtp.close()
                await accelerator.close()
                await database.close()

    def derive(self, claimed: Claimed) -> str:
        return derive(self.ring, claimed)


async def ask(
    db: Database, challenges: Challenges, clock: Callable[[], datetime], **fields: Any
) -> tuple[SomeTenant, str]:
    """A tenant who asked for a code, and the challenge's id."""
    tenant = await add_tenant(db, clock(), **fields)
    return tenant, (await challenges.request(Realm.of(tenant.slug), CLIENT)).challenge_id


async def states(db: Database) -> dict[str, int]:
    """How many messages are in which state."""
    async with db.every_tenant() as connection:
        rows = await connection.fetch("SELECT state, count(*) FROM outbox GROUP BY state")
    return {row["state"]: row["count"] for row in rows}


def copies(mails: Sequence[Mail]) -> Counter[str]:
    """How many copies of each message there are."""
    return Counter(str(copy.read["Message-ID"]) for copy in mails)


def assert_copies_are_equal(mails: Sequence[Mail]) -> None:
    """Every copy of a message has its code, whoever sent it."""
    subjects = defaultdict(set)
    for copy in mails:
        subjects[str(copy.read["Message-ID"])].add(str(copy.read["Subject"]))
    assert [found for found in subjects.values() if len(found) > 1] == []


async def until_all_have_arrived(mail: MailServer, messages: int) -> None:
    """Waits for mails until there is at least one copy of so many messages."""
    seen: set[str] = set()
    looked_at = 0
    while True:
        seen.update(copies(mail.mails[looked_at:]))
        looked_at = len(mail.mails)
        if len(seen) >= messages:
            return
        await mail.next()


@asynccontextmanager
async def worker_process(
    settings: Settings, mail: MailServer, log: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`gatehouse worker` as a process of its own, on the tests' stores."""
    log = log or settings.data_dir / "worker.log"
    async with running(WORKER, log, environment(settings, SMTP_PORT=str(mail.port))) as process:
        yield process
