"""The worker under faults: refusals, silence, poison, stores that go away, signals. Nothing is lost, copies are few."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from app.auth.asking import Realm
from app.auth.challenges import Challenges
from app.delivery.message import Message
from app.delivery.outage import Outage
from app.delivery.outbox import WAKE_CHANNEL, Claimed
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database, Row
from app.storage.redis import Accelerator
from app.worker import derive
from tests.conftest import Clock
from tests.deliveries import CLIENT, Works, ask, states, worker_process
from tests.mailserver import SILENCE, Mail, MailServer, mail_server
from tests.people import SomeTenant, add_tenant, count, current_code
from tests.stores import StoresOfTests


@pytest.fixture(autouse=True)
async def _empty(db: Database) -> None:
    """Only this test's messages are due."""
    async with db.every_tenant() as connection:
        await connection.execute("DELETE FROM outbox; DELETE FROM workers")


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


@pytest.fixture
def works(settings: Settings, ring: KeyRing, clock: Clock, mail: MailServer) -> Works:
    return Works(settings, ring, clock, mail)


async def outbox_row(db: Database, tenant: SomeTenant) -> Row:
    async with db.every_tenant() as connection:
        row: Row = await connection.fetchrow("SELECT * FROM outbox WHERE tenant_id = $1", tenant.id)
    return row


async def history(db: Database, tenant: SomeTenant) -> list[tuple[str, str | None]]:
    async with db.every_tenant() as connection:
        rows = await connection.fetch(
            "SELECT state, error_class FROM delivery_events WHERE tenant_id = $1 ORDER BY id", tenant.id
        )
    return [(row["state"], row["error_class"]) for row in rows]


async def test_a_committed_code_arrives_and_signs_in(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """The whole way: asked for, claimed, derived, rendered, sent; and the code in the mail is the one."""
    tenant, challenge_id = await ask(db, challenges, clock)
    async with works.running():
        arrived = await mail.next()

    assert arrived.recipients == [tenant.email]
    code = str(arrived.read["Subject"]).split()[0]
    await challenges.verify(Realm.of(tenant.slug), challenge_id, code, CLIENT)
    assert await history(db, tenant) == [("sent", None)]
    row = await outbox_row(db, tenant)
    assert (row["provider"], row["provider_message_id"]) == ("smtp", "250 2.0.0 Ok: queued as 4F2A9C")


async def test_a_wake_up_beats_the_poll(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, settings: Settings
) -> None:
    """Whoever commits a message says so on Valkey, and the worker is there at once."""
    assert settings.redis_url
    caller = Accelerator(settings.redis_url)
    loop = asyncio.get_running_loop()
    waits = []
    async with works.running():
        for _ in range(6):
            await ask(db, challenges, clock)
            before = loop.time()
            await caller.publish(WAKE_CHANNEL)
            await mail.next()
            waits.append(loop.time() - before)
    await caller.close()

    # The first one finds the worker starting. A poll comes once a second: by chance it isn't early most of the time.
    assert sorted(waits[1:])[3] < 0.2


async def test_without_valkey_polling_delivers(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Valkey is an accelerator: its absence costs half a second, and one line in the log."""
    async with works.running(redis_url="redis://127.0.0.1:1/0"):
        await ask(db, challenges, clock)
        await mail.next()
        await ask(db, challenges, clock)
        await mail.next()

    assert [log["server"] for log in works.logs if "away" in log["event"]] == ["Valkey"]


async def test_a_busy_server_is_asked_again(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """4xx twice, then the mail arrives, with the same Message-ID had the server kept a copy."""
    mail.answers["RCPT"].extend(["450 4.2.1 Greylisted", "450 4.2.1 Greylisted"])
    tenant, _ = await ask(db, challenges, clock)
    async with works.running():
        await mail.next()

    assert await history(db, tenant) == [("queued", "later"), ("queued", "later"), ("sent", None)]
    assert len(mail.mails) == 1


async def test_a_refusal_is_final_and_seen(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """5xx is not tried again; the log and the history say why, without the address."""
    tenant = await add_tenant(db, clock())
    mail.answers["RCPT"].append(f"550 5.1.1 <{tenant.email}>: no such user")
    await challenges.request(Realm.of(tenant.slug), CLIENT)
    async with works.running():
        await mail.asked("RCPT")
        await ask(db, challenges, clock)
        await mail.next()

    assert await history(db, tenant) == [("failed", "recipient")]
    row = await outbox_row(db, tenant)
    assert (row["state"], row["error_text"]) == ("failed", "550 5.1.1 <[hidden]>: no such user")
    (failure,) = [log for log in works.logs if log["log_level"] == "error"]
    assert failure["event"] == "Delivery failed"
    assert (failure["tenant"], failure["error_class"]) == (tenant.slug, "recipient")


async def test_silence_after_the_text_makes_two_copies_at_most(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Each may have been taken, so after the second one there is no third; both have one Message-ID."""
    mail.answers["DATA"].extend([SILENCE] * 5)
    tenant, _ = await ask(db, challenges, clock)
    async with works.running(smtp_timeout=0.3):
        await mail.asked("DATA", 2)

    assert await history(db, tenant) == [("queued", "unanswered"), ("failed", "unanswered")]
    assert len({copy.read["Message-ID"] for copy in mail.given}) == 1
    assert len(mail.given) == 2


async def test_a_lease_that_runs_out_under_way_starts_no_second_send(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """A worker that finds its own message lost, because it could not renew it, goes on with the send it has begun."""
    mail.answers["MAIL"].append(SILENCE)
    tenant, _ = await ask(db, challenges, clock)
    async with works.running(smtp_timeout=1.0):
        await mail.asked("MAIL")
        clock.forward(seconds=16)
        await ask(db, challenges, clock)
        await mail.next()

    assert (await outbox_row(db, tenant))["attempts"] == 2
    assert mail.count("MAIL") == 2
    assert await history(db, tenant) == [("queued", "timeout")]


async def test_an_expired_code_is_an_error_somebody_sees(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Sending it would be of no use; being silent about it neither."""
    tenant, _ = await ask(db, challenges, clock)
    clock.forward(minutes=10)
    async with works.running():
        await ask(db, challenges, clock)
        await mail.next()

    assert await history(db, tenant) == [("expired", "expired")]
    assert [(log["tenant"], log["log_level"]) for log in works.logs if log.get("error_class") == "expired"] == [
        (tenant.slug, "error")
    ]
    assert len(mail.given) == 1


async def test_a_code_that_expires_under_way_is_not_sent(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """The server is asked in time but takes too long: we hang up when the code expires, and the text never leaves."""
    mail.answers["MAIL"].append(SILENCE)
    tenant, _ = await ask(db, challenges, clock)
    clock.forward(seconds=599.8)
    async with works.running():
        await mail.asked("MAIL")

    assert await history(db, tenant) == [("failed", "expired")]
    assert mail.given == []


async def test_decoys_and_old_generations_are_never_sent(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """Of a decoy, a superseded code and a good one exactly one mail goes out."""
    await challenges.request(Realm.of("nobody-has-this-slug"), CLIENT)
    tenant, challenge_id = await ask(db, challenges, clock)
    clock.forward(seconds=61)
    await challenges.resend(Realm.of(tenant.slug), challenge_id, CLIENT)
    async with works.running():
        arrived = await mail.next()

    assert len(mail.given) == 1
    code = str(arrived.read["Subject"]).split()[0]
    await challenges.verify(Realm.of(tenant.slug), challenge_id, code, CLIENT)
    assert await count(db, "SELECT count(*) FROM outbox WHERE state = 'void'") == 2


async def test_poison_is_set_aside(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, ring: KeyRing
) -> None:
    """A message our own code stumbles over is tried five times; the others don't notice."""
    bad, _ = await ask(db, challenges, clock)
    stumbles = 0
    enough = asyncio.Event()

    def stumbling(claimed: Claimed) -> str:
        nonlocal stumbles
        if claimed.tenant_id == bad.id:
            stumbles += 1
            if stumbles == 5:
                enough.set()
            raise ZeroDivisionError(f"{claimed.destination}")
        return derive(ring, claimed)

    async with works.running(derive=stumbling):
        for _ in range(3):
            await ask(db, challenges, clock)
            await mail.next()
        await asyncio.wait_for(enough.wait(), 30)

    assert await history(db, bad) == [("queued", "internal")] * 4 + [("failed", "poison")]
    text = (await outbox_row(db, bad))["error_text"]
    assert text.startswith("ZeroDivisionError in stumbling, line ")
    assert len(mail.mails) == 3


async def test_a_contact_that_is_gone_is_told(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """The admin took the address away between asking and sending."""
    tenant, _ = await ask(db, challenges, clock)
    async with db.every_tenant() as connection:
        await connection.execute("UPDATE tenants SET email = NULL WHERE id = $1", tenant.id)
    async with works.running():
        await ask(db, challenges, clock)
        await mail.next()

    assert await history(db, tenant) == [("failed", "contact-missing")]


async def test_in_development_a_failed_code_is_revealed_once(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, ring: KeyRing
) -> None:
    """A developer whose mail server is down can go on; who gives no `reveal`, as production, shows nothing."""
    revealed: list[Message] = []
    mail.answers["RCPT"].extend(["450 later", "450 later"])
    _, challenge_id = await ask(db, challenges, clock)
    async with works.running(reveal=revealed.append):
        await mail.next()

    code = await current_code(db, ring, challenge_id)
    assert [message.code for message in revealed] == [code]
    assert code not in str(works.logs)


async def test_stop_finishes_what_is_under_way(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """SIGTERM under load: every mail that was begun is sent and settled, nothing is left leased."""
    for _ in range(100):
        await ask(db, challenges, clock)
    async with works.running():
        await mail.next()

    found = await states(db)
    assert found.keys() <= {"sent", "queued"}
    assert found["sent"] == len(mail.mails)
    async with works.running():
        while len(mail.mails) < 100:
            await mail.next()
    assert await states(db) == {"sent": 100}
    assert len({m.read["Message-ID"] for m in mail.given}) == len(mail.given) == 100


async def test_stop_hands_back_what_does_not_finish(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer
) -> None:
    """A silent server doesn't keep a worker from stopping; the messages are free for others at once."""
    mail.answers["MAIL"].extend([SILENCE] * 8)
    for _ in range(20):
        await ask(db, challenges, clock)
    async with works.running(drain_seconds=0.1):
        await mail.asked("MAIL", 8)

    assert await states(db) == {"queued": 20}
    assert await count(db, "SELECT count(*) FROM outbox WHERE attempts = 0 AND lease_owner IS NULL") == 20


class Gate:
    """A way to PostgreSQL that can be shut: open connections are cut, new ones refused."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = parse_qs(parts.query).get("host", [parts.hostname or "127.0.0.1"])[0]
        port = parse_qs(parts.query).get("port", [str(parts.port or 5432)])[0]
        self._target = (host, int(port))
        # Short, because the path of a socket must be.
        self._directory = Path(tempfile.mkdtemp(prefix="gate-"))
        user = parts.netloc.rpartition("@")[0]
        self.url = f"postgresql://{user}@{parts.path}?host={self._directory}&port=5432"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._pass, self._directory / ".s.PGSQL.5432")

    async def shut(self) -> None:
        assert self._server
        self._server.close()
        (self._directory / ".s.PGSQL.5432").unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()

    def remove(self) -> None:
        shutil.rmtree(self._directory)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target
        if host.startswith("/"):
            there, back = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there, back = await asyncio.open_connection(host, port)
        self._writers |= {writer, back}
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._writers -= {writer, back}


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()


class WatchedOutage(Outage):
    """One whose beginning a test can wait for."""

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self._begun = asyncio.Event()

    async def pause(self) -> None:
        self._begun.set()
        await super().pause()

    async def noticed(self) -> None:
        """Until the next failed try."""
        self._begun.clear()
        await asyncio.wait_for(self._begun.wait(), 30)


async def test_postgres_goes_away_and_comes_back(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, settings: Settings
) -> None:
    """Its fall between sending and settling, ten times: each mail arrives once, and the log is calm."""
    assert settings.database_url
    gate = Gate(settings.database_url)
    await gate.open()
    outage = WatchedOutage("PostgreSQL")
    tenants = []
    async with works.running(database_url=gate.url, database_outage=outage):
        for _ in range(10):
            tenants.append((await ask(db, challenges, clock))[0])
            await mail.next()
            await gate.shut()
            await outage.noticed()
            # Longer than a lease: this very worker will claim its own message anew, and must not send it twice.
            clock.forward(seconds=16)
            await gate.open()
        tenants.append((await ask(db, challenges, clock))[0])
        await mail.next()
    await gate.shut()
    gate.remove()

    assert [await history(db, tenant) for tenant in tenants] == [[("sent", None)]] * 11
    assert len(mail.given) == 11
    assert sum("away" in log["event"] for log in works.logs) == 10


@pytest.mark.parametrize("lost", ["SELECT", "UPDATE"])
async def test_a_lost_right_does_not_end_the_worker(
    db: Database, challenges: Challenges, clock: Clock, works: Works, mail: MailServer, settings: Settings, lost: str
) -> None:
    """It tries on, says once which error it is, and sends when the right is back."""
    owner = await asyncpg.connect(settings.database_owner_url)
    outage = WatchedOutage("PostgreSQL")
    await owner.execute(f"REVOKE {lost} ON outbox FROM gatehouse_app")
    try:
        async with works.running(database_outage=outage):
            await outage.noticed()
            await outage.noticed()
            await owner.execute(f"GRANT {lost} ON outbox TO gatehouse_app")
            await ask(db, challenges, clock)
            await mail.next()
    finally:
        await owner.execute(f"GRANT {lost} ON outbox TO gatehouse_app")
        await owner.close()

    (told,) = [log for log in works.logs if log["log_level"] == "error"]
    assert told["detail"] == "permission denied for table outbox"


@pytest.fixture
def real_clock(clock: Clock) -> Clock:
    """Processes of their own read the real time, so the messages they get are of today."""
    clock.now = datetime.now(UTC)
    return clock


async def test_kill_9_between_sending_and_settling(
    db: Database,
    ring: KeyRing,
    settings: Settings,
    challenges: Challenges,
    real_clock: Clock,
    mail: MailServer,
) -> None:
    """The next worker sends it again when the lease has run out: the same code under the same Message-ID."""
    mail.answers["DATA"].append(SILENCE)
    tenant, challenge_id = await ask(db, challenges, real_clock)
    async with worker_process(settings, mail) as process:
        await mail.asked("DATA")
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    assert (await outbox_row(db, tenant))["state"] == "sending"
    async with db.every_tenant() as connection:
        # Time travel instead of waiting for the lease.
        await connection.execute("UPDATE outbox SET lease_until = now() - interval '1 second'")

    async with worker_process(settings, mail):
        second: Mail = await mail.next()

    first = mail.given[0]
    assert first.read["Message-ID"] == second.read["Message-ID"]
    assert first.read["Subject"] == second.read["Subject"]
    assert first.read["Date"] == second.read["Date"]
    code = str(second.read["Subject"]).split()[0]
    assert code == await current_code(db, ring, challenge_id)
    await challenges.verify(Realm.of(tenant.slug), challenge_id, code, CLIENT)


async def test_a_database_without_tables_is_one_clear_error(
    settings: Settings, stores: StoresOfTests, mail: MailServer, tmp_path: Path
) -> None:
    """Whoever forgot to migrate learns so at once, without a traceback of ours in the way."""
    name = "gatehouse_without_tables"
    await stores.create_database(name)
    log = tmp_path / "worker.log"
    async with worker_process(replace(settings, database_url=stores.app_url_for(name)), mail, log) as process:
        await asyncio.wait_for(process.wait(), 30)
    await stores.drop_database(name)

    assert process.returncode == 1
    assert "run `gatehouse migrate`" in log.read_text().splitlines()[-1]


async def test_sigterm_ends_the_process_in_good_order(
    db: Database, settings: Settings, challenges: Challenges, real_clock: Clock, mail: MailServer, tmp_path: Path
) -> None:
    """Exit code 0, the mail settled, the worker signed off; and its log names neither code nor address."""
    tenant, _ = await ask(db, challenges, real_clock)
    async with worker_process(settings, mail, tmp_path / "worker.log") as process:
        arrived = await mail.next()
        assert await count(db, "SELECT count(*) FROM workers") == 1
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)

    log = (tmp_path / "worker.log").read_text()
    assert process.returncode == 0, log
    assert (await outbox_row(db, tenant))["state"] == "sent"
    assert await count(db, "SELECT count(*) FROM workers") == 0
    assert "Worker stopped" in log
    assert str(arrived.read["Subject"]).split()[0] not in log
    assert str(tenant.email) not in log
