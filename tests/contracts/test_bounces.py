"""A bounce comes back as mail and is piped to `gatehouse bounce`, as a mail server does it: told on real stores."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.audit.log import Client
from app.auth import codes
from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.auth.limits import AddressLimiter
from app.auth.sessions import Sessions
from app.delivery.dispatcher import Dispatcher
from app.delivery.health import DeliveryHealth
from app.delivery.outbox import Outbox
from app.delivery.providers.smtp import Smtp
from app.delivery.render import Renderer
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from app.worker import derive
from tests.conftest import Clock
from tests.mailserver import Mail, MailServer, mail_server
from tests.people import SomeTenant, add_tenant
from tests.ways import Way

CLIENT = Client("api", "203.0.113.9", "Firefox", "r")
# Sent, then refused by the next server, and what follows.
FELL_BACK = [
    ("email", "smtp", "sent", None),
    ("email", "smtp", "failed", "recipient"),
    ("sms", None, "queued", "fallback"),
]


def notification(message_id: str, action: str = "failed", status: str = "5.1.1") -> bytes:
    """As a server writes it whose next one answered at last."""
    return f"""\
From: MAILER-DAEMON@mail.example.com
To: codes@gatehouse.example
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.com

Final-Recipient: rfc822; bob@example.org
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 5.1.1 <bob@example.org>: no such user

--b
Content-Type: text/rfc822-headers

Message-ID: {message_id}

--b--
""".encode()


@dataclass
class Installation:
    """Email by a real server, SMS by a played one, and the command beside them."""

    db: Database
    ring: KeyRing
    settings: Settings
    challenges: Challenges
    clock: Clock
    mail: MailServer
    directory: Path
    sms: Way

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker's dispatcher; what it did is in the database at the end."""
        accelerator = Accelerator(self.settings.redis_url or "")
        smtp = Smtp(
            host="127.0.0.1",
            port=self.mail.port,
            from_email="codes@gatehouse.example",
            from_name="Gatehouse",
            starttls=False,
        )
        dispatcher = Dispatcher(
            Outbox(self.db, "worker-1", self.settings.providers),
            accelerator,
            {"email": [smtp], "sms": [self.sms]},
            Renderer("https://login.example"),
            clock=self.clock,
            derive=lambda claimed: derive(self.ring, claimed),
        )
        running = asyncio.create_task(dispatcher.run())
        try:
            yield
        finally:
            dispatcher.stop()
            await asyncio.wait_for(running, 40)
            await smtp.close()
            await accelerator.close()

    async def sent(self, **fields: Any) -> tuple[SomeTenant, str, Mail]:
        """A tenant whose code went out by email: it, the challenge's id, and the mail."""
        usual = {"phone_number": "+447700900123", "fallback_methods": ["sms"]}
        tenant = await add_tenant(self.db, self.clock(), **{**usual, **fields})
        challenge = await self.challenges.request(Realm.of(tenant.slug), CLIENT)
        async with self.working():
            mail = await self.mail.next()
        return tenant, challenge.challenge_id, mail

    async def bounce(self, mail: bytes, **environment: str) -> tuple[int, str]:
        """Pipes a mail to the command. Answers its exit code and what it said on stderr."""
        assert self.settings.database_url
        assert self.settings.redis_url
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("gatehouse")),
            "bounce",
            env={
                "PATH": os.environ["PATH"],
                "ENVIRONMENT": "test",
                "DATA_DIR": str(self.settings.data_dir),
                "DATABASE_URL": self.settings.database_url,
                "REDIS_URL": self.settings.redis_url,
                "SMTP_ENABLED": "true",
                "SMTP_HOST": "127.0.0.1",
                "SMTP_FROM_EMAIL": "codes@gatehouse.example",
                "SMS_ENABLED": "true",
                **environment,
            },
            cwd=self.directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(process.communicate(mail), 60)
        self.clock.now = datetime.now(UTC)
        return process.returncode or 0, said.decode()

    async def story(self, tenant: SomeTenant) -> list[tuple[str, str | None, str, str | None]]:
        """Channel, provider, state and error class of every step."""
        async with self.db.every_tenant() as connection:
            rows = await connection.fetch(
                "SELECT channel, provider, state, error_class FROM delivery_events WHERE tenant_id = $1 ORDER BY id",
                tenant.id,
            )
        return [tuple(row) for row in rows]

    async def states(self, tenant: SomeTenant) -> dict[str, str]:
        """The state of the tenant's row, by channel."""
        async with self.db.every_tenant() as connection:
            rows = await connection.fetch("SELECT channel, state FROM outbox WHERE tenant_id = $1", tenant.id)
        return {row["channel"]: row["state"] for row in rows}


@pytest.fixture
async def here(
    db: Database,
    ring: KeyRing,
    settings: Settings,
    sessions: Sessions,
    limiter: AddressLimiter,
    clock: Clock,
    tmp_path: Path,
) -> AsyncIterator[Installation]:
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM outbox; DELETE FROM provider_reports; DELETE FROM contact_health")
    # The command is a process of its own, so the time is its time.
    clock.now = datetime.now(UTC)
    settings = replace(settings, sms_enabled=True)
    challenges = Challenges(db, ring, settings, sessions, limiter, clock, wake_worker=lambda: None)
    async with mail_server() as mail:
        yield Installation(db, ring, settings, challenges, clock, mail, tmp_path, Way("console"))


async def test_a_bounced_code_goes_on_by_the_next_channel(here: Installation) -> None:
    """The row has failed, the contact is no good, the same code goes out by SMS; the address is nowhere in it."""
    tenant, _, mail = await here.sent()
    code, said = await here.bounce(notification(mail.read["Message-ID"]))

    assert code == 0, said
    assert await here.story(tenant) == FELL_BACK
    (contact,) = await DeliveryHealth(here.db).unhealthy(tenant.id)
    assert (contact.subject_id, contact.channel, contact.error_class) == (tenant.id, "email", "recipient")
    assert contact.error_text is not None
    assert contact.error_text.startswith("5.1.1 smtp; 550 5.1.1")
    assert "bob@example.org" not in contact.error_text + said

    async with here.working():
        message = await here.sms.next()
    assert message.code is not None
    assert message.code in str(mail.read["Subject"])
    assert await here.states(tenant) == {"email": "failed", "sms": "sent"}


async def test_the_same_bounce_counts_once(here: Installation) -> None:
    """Servers repeat themselves, and what has failed is not delivered by a later notification."""
    tenant, _, mail = await here.sent()
    for action in ("failed", "failed", "delivered"):
        assert (await here.bounce(notification(mail.read["Message-ID"], action)))[0] == 0
    assert await here.story(tenant) == FELL_BACK


async def test_an_arrival_is_final(here: Installation) -> None:
    """A delay changes nothing, an arrival does, and no failure that comes after it."""
    tenant, _, mail = await here.sent()
    name = mail.read["Message-ID"]
    assert await here.bounce(notification(name, "delayed", "4.4.1")) == (0, "")
    assert await here.states(tenant) == {"email": "sent"}
    for action in ("delivered", "failed"):
        assert (await here.bounce(notification(name, action)))[0] == 0
    assert await here.story(tenant) == [("email", "smtp", "sent", None), ("email", "smtp", "delivered", None)]


async def test_a_policy_is_not_the_contacts_fault(here: Installation) -> None:
    """Taken for spam there: the code goes on, and the contact stays good."""
    tenant, _, mail = await here.sent()
    assert (await here.bounce(notification(mail.read["Message-ID"], status="5.7.1")))[0] == 0
    assert await here.states(tenant) == {"email": "failed", "sms": "queued"}
    assert await DeliveryHealth(here.db).unhealthy(tenant.id) == []


async def test_a_stranger_can_bounce_nothing(here: Installation) -> None:
    """Who asks for somebody's code knows the challenge's id; nothing that follows from it names the mail."""
    tenant, challenge_id, mail = await here.sent()
    known = codes.read_challenge_id(challenge_id)
    assert known is not None
    guess = hashlib.sha256(b"message-id" + known.bytes + (1).to_bytes(4, "big")).hexdigest()[:32]
    assert guess not in str(mail.read["Message-ID"])
    for name in (f"<{guess}@gatehouse.example>", f"<{'0' * 32}@gatehouse.example>"):
        assert (await here.bounce(notification(name)))[0] == 0
    assert await here.story(tenant) == [("email", "smtp", "sent", None)]
    async with here.working():
        assert await Outbox(here.db, "worker-2", here.settings.providers).follow_up(here.clock()) == 0
    assert await here.states(tenant) == {"email": "sent"}


@pytest.mark.parametrize(
    "mail", [b"", b"Subject: hello\n\nAre you there?\n", b"\xff\x00" * 400_000, notification("<hello@example.org>")]
)
async def test_any_other_mail_is_taken_and_ignored(here: Installation, mail: bytes) -> None:
    """One line says so; it asks no database, and the mail server hears of no fault."""
    code, said = await here.bounce(mail, DATABASE_URL="postgresql://u:p@127.0.0.1:9/none")
    assert code == 0
    assert said.startswith("gatehouse: The mail is ignored: ")
    assert said.count("\n") == 1


async def test_without_its_database_the_mail_server_keeps_the_bounce(here: Installation) -> None:
    """EX_TEMPFAIL: it comes again, and counts then."""
    tenant, _, mail = await here.sent()
    bounced = notification(mail.read["Message-ID"])
    code, said = await here.bounce(bounced, DATABASE_URL="postgresql://u:p@127.0.0.1:9/none")
    assert (code, "to be tried again" in said, "Traceback" in said) == (75, True, False)
    assert (await here.bounce(bounced))[0] == 0
    assert await here.story(tenant) == FELL_BACK
