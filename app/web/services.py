"""What the faces work with: one of each a process, built from the settings and reached from any request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, cast

from litestar import Litestar, Request

from app.auth.api_keys import ApiKeys
from app.auth.challenges import Challenges
from app.auth.door import DoorLog
from app.auth.entrance import Entrance
from app.auth.factors.second_steps import SecondSteps
from app.auth.factors.service import Factors
from app.auth.limits import AddressLimiter
from app.auth.own_account import OwnAccount
from app.auth.passwords import Passwords
from app.auth.rooms import Rooms
from app.auth.sessions import Sessions
from app.errors import ConfigurationError
from app.keys import KeyRing
from app.settings import Settings
from app.storage.db import Database
from app.storage.redis import Accelerator
from app.web.wakeup import Wakeup

Clock: TypeAlias = Callable[[], datetime]
Sleep: TypeAlias = Callable[[float], Awaitable[None]]
AnyRequest: TypeAlias = Request[Any, Any, Any]

# Sign-in sends lone statements that take under a millisecond: more connections a process would only queue inside
# PostgreSQL instead of here.
_POOL_SIZE: Final = 10


def utc_now() -> datetime:
    """The clock of every process that isn't a test."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """The core, wired. `sleep` is injected where a caller waits for something, so tests need not."""

    settings: Settings
    clock: Clock
    sleep: Sleep
    db: Database
    accelerator: Accelerator
    ring: KeyRing
    wakeup: Wakeup
    sessions: Sessions
    challenges: Challenges
    entrance: Entrance
    own_account: OwnAccount
    factors: Factors
    second_steps: SecondSteps
    api_keys: ApiKeys
    rooms: Rooms
    door: DoorLog

    @classmethod
    def build(cls, settings: Settings, clock: Clock = utc_now, sleep: Sleep = asyncio.sleep) -> "Services":
        """Wires everything and connects to nothing. Raises `ConfigurationError` unless both stores are named."""
        if settings.database_url is None or settings.redis_url is None:
            missing = [name for name in ("database_url", "redis_url") if getattr(settings, name) is None]
            raise ConfigurationError(
                [f"{name.upper()} is not set; `gatehouse run` starts a server of its own." for name in missing]
            )
        db = Database(settings.database_url, size=_POOL_SIZE, application="gatehouse web")
        accelerator = Accelerator(settings.redis_url)
        ring = KeyRing(settings.secret_keys)
        wakeup = Wakeup(accelerator)
        sessions = Sessions(db, ring, settings, clock)
        limiter = AddressLimiter(accelerator, limit=settings.otp_ip_hourly_limit, processes=settings.web_workers)
        challenges = Challenges(db, ring, settings, sessions, limiter, clock, wakeup)
        passwords = Passwords()
        return cls(
            settings,
            clock,
            sleep,
            db,
            accelerator,
            ring,
            wakeup,
            sessions,
            challenges,
            Entrance(db, ring, settings, challenges, sessions, passwords, clock),
            OwnAccount(db, settings, challenges, sessions, passwords, clock, wakeup),
            Factors(db, ring, settings, sessions, clock, wakeup),
            SecondSteps(db, ring, settings, sessions, clock, wakeup),
            ApiKeys(db, clock),
            Rooms(accelerator, least=settings.otp_ip_hourly_limit, processes=settings.web_workers),
            DoorLog(db, clock),
        )

    @asynccontextmanager
    async def running(self, _: Litestar) -> AsyncIterator[None]:
        """Opens the stores for the life of the application; neither has to be up for it to start."""
        await self.db.open()
        writing = asyncio.create_task(self.door.keep_writing())
        try:
            yield
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
            await self.wakeup.close()
            await self.accelerator.close()
            await self.db.close()


def services(request: AnyRequest) -> Services:
    """The services of the application that answers this request."""
    return cast("Services", request.app.state.services)
