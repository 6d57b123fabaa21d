"""The worker process: sends what the outbox holds, says that it lives, clears away what has had its time."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import structlog
import uvloop

from app import logs
from app.auth import codes
from app.delivery.dispatcher import Dispatcher
from app.delivery.message import Message
from app.delivery.outage import Outage
from app.delivery.outbox import Claimed, Outbox
from app.delivery.providers import providers_for
from app.delivery.render import Renderer
from app.errors import ConfigurationError, Unavailable
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator

_HEARTBEAT: Final = "SELECT fn.heartbeat($1, $2)"
_CONNECTIONS: Final = 8
_HEARTBEAT_SECONDS: Final = 5.0
_UPKEEP_SECONDS: Final = 30.0
_UPKEEP_BATCH: Final = 1000
# Two processes' clocks differ, and a statement takes its time: the next look begins a little before the last one.
_OVERLAP: Final = timedelta(minutes=1)
_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)


def main(settings: Settings) -> None:
    """The whole life of a worker process, until SIGTERM or SIGINT."""
    logs.configure(settings)
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
    dispatcher = Dispatcher(
        Outbox(database, name),
        accelerator,
        providers,
        Renderer(settings.public_url),
        clock=_now,
        derive=lambda claimed: derive(ring, claimed),
        reveal=_reveal(settings) if settings.environment == "development" else None,
        database_outage=outage,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, dispatcher.stop)
    await database.open()
    try:
        await _require_schema(database, name)
        log.info("Worker started", worker=name)
        async with asyncio.TaskGroup() as group:
            chores = [
                group.create_task(_beat(database, outage, name)),
                group.create_task(_keep_up(database, outage)),
            ]
            try:
                await dispatcher.run()
            finally:
                for chore in chores:
                    chore.cancel()
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
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError):
        raise ConfigurationError(
            ["DATABASE_URL leads to a database without our tables: run `gatehouse migrate`."]
        ) from None
    except Unavailable:
        # It will be back, and was migrated or not: the first claim tells.
        return


async def _beat(database: Database, outage: Outage, name: str) -> None:
    while True:
        try:
            await database.run(_HEARTBEAT, _now(), name)
            outage.over()
        except Unavailable:
            await outage.pause()
        else:
            await asyncio.sleep(_HEARTBEAT_SECONDS)


async def _keep_up(database: Database, outage: Outage) -> None:
    since = _LONG_AGO
    partitions: date | None = None
    while True:
        now = _now()
        try:
            if partitions != now.date():
                await database.run("SELECT fn.ensure_partitions($1)", now)
                partitions = now.date()
            await tidy(database, since=since, now=now)
            since = now - _OVERLAP
        except Unavailable:
            await outage.pause()
        else:
            await asyncio.sleep(_UPKEEP_SECONDS)


def _reveal(settings: Settings) -> Callable[[Message], None]:
    def reveal(message: Message) -> None:
        if message.code:
            logs.reveal_code_in_development_log(
                settings, message.code, tenant=message.tenant, channel=message.channel, contact=message.to
            )

    return reveal


def _now() -> datetime:
    return datetime.now(UTC)
