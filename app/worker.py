"""The worker process: sends what the outbox holds, says that it lives, clears away what has had its time."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
import uvloop

from app import logs
from app.audit.sealing import seal_once
from app.audit.stats import Stats
from app.auth import codes
from app.delivery.branding import Brandings
from app.delivery.callbacks import reporting
from app.delivery.dispatcher import Dispatcher
from app.delivery.message import Message
from app.delivery.outage import Outage
from app.delivery.outbox import Claimed, Outbox
from app.delivery.providers import providers_for
from app.delivery.render import Renderer
from app.delivery.safety import Safety
from app.errors import ConfigurationError, Unavailable
from app.keys import KeyRing
from app.members.stats import Hours
from app.settings import Settings
from app.storage import trouble
from app.storage.db import Database
from app.storage.redis import Accelerator

_HEARTBEAT: Final = "SELECT fn.heartbeat($1, $2)"
_CONNECTIONS: Final = 8
# No such schema, no such function in it.
_NO_SCHEMA: Final = frozenset({"3F000", "42883"})
_HEARTBEAT_SECONDS: Final = 5.0
_UPKEEP_SECONDS: Final = 30.0
_FOLLOW_UP_SECONDS: Final = 1.0
_SEAL_SECONDS: Final = 5.0
_ASSESS_SECONDS: Final = 10.0
_ASSESS_SMS_SECONDS: Final = 60.0
_ROLL_UP_SECONDS: Final = 300.0
_UPKEEP_BATCH: Final = 1000
# Two processes' clocks differ, and a statement takes its time: the next look begins a little before the last one.
_OVERLAP: Final = timedelta(minutes=1)
_ASSESS_ATTACKS: Final = "SELECT * FROM fn.assess_attacks($1) AS tenant_id"
_FLEET: Final = UUID(int=0)
_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)


def main(settings: Settings) -> None:
    """The whole life of a worker process, until SIGTERM or SIGINT."""
    logs.configure(settings)
    logs.tell_settings(settings)
    uvloop.run(run(settings))


async def run(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT, then finishes what is under way, within 25 seconds.

    Raises `ConfigurationError` when it is not told where the stores are or how to send, or when the schema is missing.
    That a store is away at the moment is no reason to stop.
    """
    if not (settings.database_url and settings.redis_url):
        raise ConfigurationError(
            ["DATABASE_URL and REDIS_URL are needed: `gatehouse run` starts both if they are unset."]
        )
    log = structlog.get_logger()
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    ring = KeyRing(settings.secret_keys)
    providers = providers_for(settings)
    database = Database(settings.database_url, size=_CONNECTIONS, application="gatehouse-worker")
    accelerator = Accelerator(settings.redis_url)
    outage = Outage("PostgreSQL")
    outbox = Outbox(database, name, settings.providers)
    safety = Safety(database, ring, settings)
    dispatcher = Dispatcher(
        outbox,
        accelerator,
        providers,
        Renderer(settings.public_url, ring=ring, brandings=Brandings(database)),
        clock=_now,
        derive=lambda claimed: derive(ring, claimed),
        reveal=_reveal(settings) if settings.environment == "development" else None,
        safety=safety,
        reporting=reporting(settings),
        fallback_after=timedelta(seconds=settings.fallback_after_seconds),
        database_outage=outage,
    )

    async def follow_up() -> None:
        if await outbox.follow_up(_now()):
            dispatcher.wake()

    chores = [
        (_HEARTBEAT_SECONDS, lambda: database.run(_HEARTBEAT, _now(), name)),
        (_FOLLOW_UP_SECONDS, follow_up),
        (_SEAL_SECONDS, lambda: seal_once(database, ring, _now())),
        (_ASSESS_SECONDS, lambda: assess_attacks(database, _now())),
        (_ASSESS_SMS_SECONDS, lambda: safety.assess(_now())),
        (_UPKEEP_SECONDS, Upkeep(database).once),
        (_ROLL_UP_SECONDS, Stats(database, _now).roll_up),
        (_ROLL_UP_SECONDS, Hours(database, _now).roll_up),
    ]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, dispatcher.stop)
    await database.open()
    try:
        await _require_schema(database, name)
        log.info("Worker started", worker=name)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_regularly(seconds, chore, outage)) for seconds, chore in chores]
            try:
                await dispatcher.run()
            finally:
                for task in tasks:
                    task.cancel()
        with suppress(Unavailable):
            await database.run("SELECT fn.goodbye($1)", name)
    finally:
        for channel in providers.values():
            for provider in channel:
                await provider.close()
        await accelerator.close()
        await database.close()
    log.info("Worker stopped", worker=name)


def derive(ring: KeyRing, claimed: Claimed) -> str:
    """The code of a claimed row. Raises `KeyMissing`."""
    match claimed:
        case Claimed(
            challenge_id=UUID() as challenge_id,
            generation=int() as generation,
            salt=bytes() as salt,
            key_id=str() as key_id,
            code_length=int() as length,
        ):
            return codes.derive(ring.get(key_id), challenge_id, generation, salt, length)
    raise ValueError("a code without its challenge")


async def tidy(database: Database, *, since: datetime, now: datetime, batch: int = _UPKEEP_BATCH) -> None:
    """Ends what expired after `since` and deletes what is old, in batches that never hold anybody up."""
    while await _count(database, "SELECT fn.end_expired($1, $2, $3) AS count", since, now, batch) >= batch:
        pass
    while await _count(database, "SELECT fn.cleanup($1, $2) AS count", now, batch) >= batch:
        pass


async def _count(database: Database, sql: str, *args: object) -> int:
    row = await database.row(sql, *args)
    return int(row["count"]) if row else 0


async def _require_schema(database: Database, name: str) -> None:
    try:
        await database.run(_HEARTBEAT, _now(), name)
    except Unavailable as error:
        if trouble.sqlstate(error) in _NO_SCHEMA:
            raise ConfigurationError(
                ["DATABASE_URL leads to a database without our tables: run `gatehouse migrate`."]
            ) from None
        # It will be back, and was migrated or not: the first claim tells.


async def assess_attacks(database: Database, now: datetime) -> None:
    """Looks whether somebody guesses codes, and warns of each tenant (or the fleet) that comes under attack."""
    log = structlog.get_logger()
    for row in await database.rows(_ASSESS_ATTACKS, now):
        log.warning(
            "Somebody guesses codes: unknown clients get eight digits",
            tenant_id=row["tenant_id"],
            detail="the whole installation" if row["tenant_id"] == _FLEET else "one tenant",
        )


class Upkeep:
    """Clears away, beginning where the last time ended; makes the months ahead once a day."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._since = _LONG_AGO
        self._partitions: date | None = None

    async def once(self) -> None:
        """Raises `Unavailable`; the next time does what was left."""
        now = _now()
        if self._partitions != now.date():
            await self._database.run("SELECT fn.ensure_partitions($1)", now)
            self._partitions = now.date()
        await tidy(self._database, since=self._since, now=now)
        self._since = now - _OVERLAP


async def _regularly(seconds: float, chore: Callable[[], Awaitable[object]], outage: Outage) -> None:
    """Does a chore again and again; while PostgreSQL is away it is tried on."""
    while True:
        try:
            await chore()
            outage.over()
        except Unavailable:
            await outage.pause()
            continue
        except Exception:  # noqa: BLE001 - a chore that stumbles must not keep codes from being sent
            structlog.get_logger().exception("A chore of the worker failed")
        await asyncio.sleep(seconds)


def _reveal(settings: Settings) -> Callable[[Message], None]:
    def reveal(message: Message) -> None:
        if message.code:
            logs.reveal_code_in_development_log(
                settings, message.code, tenant=message.tenant, channel=message.channel, contact=message.to
            )

    return reveal


def _now() -> datetime:
    return datetime.now(UTC)
