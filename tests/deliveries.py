"""A worker at its work in tests: in this process on a clock of the test's, or as a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from app.audit.log import Client
from app.auth.challenges import Challenges, Realm
from app.delivery.dispatcher import Dispatcher
from app.delivery.outbox import Claimed, Outbox
from app.delivery.providers.smtp import Smtp
from app.delivery.render import Renderer
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from app.worker import derive
from tests.mailserver import MailServer
from tests.people import SomeTenant, add_tenant

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


WORKER = "import os; from app.settings import load; from app.worker import main; main(load(os.environ, dotenv=None))"


@asynccontextmanager
async def worker_process(settings: Settings, mail: MailServer) -> AsyncIterator[asyncio.subprocess.Process]:
    """`gatehouse worker` as a process of its own, on the tests' stores."""
    assert settings.database_url
    assert settings.redis_url
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WORKER,
        env={
            "PATH": os.environ["PATH"],
            "ENVIRONMENT": "test",
            "DATA_DIR": str(settings.data_dir),
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "SMTP_ENABLED": "true",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(mail.port),
            "SMTP_USE_TLS": "false",
            "SMTP_FROM_EMAIL": "codes@gatehouse.example",
        },
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
