"""The loop that empties the outbox: claim, render, send, settle.

Three things happen side by side: due messages are claimed as long as sends are free, each send is a task, and what
became of them is written down in batches. A message is held from its claim until its outcome is in the database, so
whatever is away in between, PostgreSQL included, it is neither lost nor sent again by this process. A process that
dies leaves leases that run out.
"""

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Final
from uuid import UUID

import structlog

from app.delivery.message import (
    MAX_TEXT,
    UNANSWERED,
    DeliveryError,
    Message,
    PermanentFailure,
    Provider,
    TransientFailure,
    harmless,
    one_line,
)
from app.delivery.outage import Outage
from app.delivery.outbox import WAKE_CHANNEL, Claimed, Outbox, Outcome
from app.delivery.render import Renderer
from app.delivery.routing import MAX_TRIES, retry_at
from app.errors import GatehouseError, Unavailable
from app.storage.redis import Accelerator, AcceleratorDown

_SENDS_AT_ONCE: Final = 64
# Under load the next claim waits for so many free sends: few large batches instead of many small ones.
_CLAIM_AT_LEAST: Final = 16
_SETTLE_AT_MOST: Final = 256
# Outcomes that come in together are written together.
_LINGER_SECONDS: Final = 0.005
# A worker that was killed is missed for so long. Whoever lives renews what it holds, three times a lease.
_LEASE: Final = timedelta(seconds=15)
_RENEW_SECONDS: Final = 5.0
# Wake-ups may get lost; with none at all this is the latency.
_POLL_SECONDS: Final = 0.5
_POLL_SECONDS_LISTENING: Final = 1.0
# A provider has timeouts of its own; this one is for a provider that hasn't.
_SEND_SECONDS: Final = 120.0
_DICE: Final = SystemRandom().random


class Dispatcher:
    """Sends the messages of the outbox through `providers` until `stop`.

    `derive` gives the code of a row; `reveal` shows it in the log when the delivery failed, and is given in
    development only. `chance` is the dice of the backoff, in [0, 1).
    """

    def __init__(
        self,
        outbox: Outbox,
        accelerator: Accelerator,
        providers: Mapping[str, Sequence[Provider]],
        renderer: Renderer,
        *,
        clock: Callable[[], datetime],
        derive: Callable[[Claimed], str],
        reveal: Callable[[Message], None] | None = None,
        chance: Callable[[], float] = _DICE,
        database_outage: Outage | None = None,
    ) -> None:
        self._outbox = outbox
        self._accelerator = accelerator
        self._providers = providers
        self._renderer = renderer
        self._clock = clock
        self._derive = derive
        self._reveal = reveal
        self._chance = chance
        self._database = database_outage or Outage("PostgreSQL")
        self._valkey = Outage("Valkey")
        self._log = structlog.get_logger()

        self._wake = asyncio.Event()
        self._stopping = False
        self._listening = False
        self._backlog = False
        self._behind = False
        self._sends: set[asyncio.Task[None]] = set()
        self._held: dict[tuple[UUID, UUID], Claimed] = {}
        self._outcomes: list[Outcome] = []
        self._unsettled = asyncio.Event()
        self._settled = asyncio.Event()

    async def run(self, *, drain_seconds: float = 25.0) -> None:
        """Works until `stop`, then finishes what is under way, for `drain_seconds` at most, and hands back the rest."""
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(work()) for work in (self._listen, self._settle_on, self._renew_on)]
            try:
                await self._claim_on()
                with suppress(TimeoutError):
                    async with asyncio.timeout(drain_seconds):
                        await self._drain()
            finally:
                for task in (*helpers, *self._sends):
                    task.cancel()
        await asyncio.gather(*self._sends, return_exceptions=True)
        # If PostgreSQL is away, the leases hand the rest back.
        with suppress(Unavailable):
            await self._outbox.release(self._clock())

    def stop(self) -> None:
        """Lets `run` come to its end. May be called from a signal handler of the event loop."""
        self._stopping = True
        self._wake.set()

    async def _claim_on(self) -> None:
        while not self._stopping:
            self._wake.clear()
            self._backlog = await self._claim()
            if not self._backlog or self._free() < _CLAIM_AT_LEAST:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_SECONDS_LISTENING if self._listening else _POLL_SECONDS):
                        await self._wake.wait()

    def _free(self) -> int:
        return _SENDS_AT_ONCE - len(self._sends)

    async def _claim(self) -> bool:
        """Starts sending what is due. Whether there may be more than there were free sends."""
        limit = self._free()
        if limit < _CLAIM_AT_LEAST:
            return True
        if self._behind:
            # What was sent must be written down before anything is claimed: its leases may have run out.
            return False
        try:
            rows = await self._outbox.claim(self._clock(), limit=limit, lease=_LEASE, max_tries=MAX_TRIES)
        except Unavailable:
            await self._database.pause()
            return False
        self._database.over()
        for claimed in rows:
            if claimed.state == "sending":
                self._start(claimed)
            elif claimed.state != "void":
                self._tell(claimed, claimed.state, error_class=claimed.state)
        return len(rows) == limit

    def _start(self, claimed: Claimed) -> None:
        key = (claimed.tenant_id, claimed.id)
        if key in self._held:
            # We lost the lease while PostgreSQL was away, and have just got it back.
            return
        self._held[key] = claimed
        task = asyncio.create_task(self._send(claimed))
        self._sends.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        if self._backlog and self._free() >= _CLAIM_AT_LEAST:
            self._wake.set()

    async def _send(self, claimed: Claimed) -> None:
        started = time.monotonic()
        provider: Provider | None = None
        message: Message | None = None
        try:
            code = self._derive(claimed) if claimed.kind == "code" else None
            message = self._renderer.render(claimed, code, self._clock())
            provider = self._provider(claimed.channel)
            async with asyncio.timeout(_SEND_SECONDS):
                receipt = await provider.send(message)
        except DeliveryError as error:
            outcome = self._failure(error, claimed, provider, message, _milliseconds_since(started))
        except TimeoutError:
            late = TransientFailure(UNANSWERED, "The provider did not answer in time.")
            outcome = self._failure(late, claimed, provider, message, _milliseconds_since(started))
        except Exception as error:  # noqa: BLE001 - one message we can't handle must not stop the others
            fault = TransientFailure("internal", _where(error))
            outcome = self._failure(fault, claimed, provider, message, _milliseconds_since(started))
        else:
            outcome = Outcome(
                claimed.tenant_id,
                claimed.id,
                "sent",
                provider=provider.name,
                provider_message_id=one_line(receipt.provider_message_id)[:MAX_TEXT],
                took_ms=_milliseconds_since(started),
            )
        self._outcomes.append(outcome)
        self._unsettled.set()

    def _provider(self, channel: str) -> Provider:
        providers = self._providers.get(channel)
        if not providers:
            raise PermanentFailure("no-provider", f"No provider for {channel} is switched on.")
        return providers[0]

    def _failure(
        self,
        error: DeliveryError,
        claimed: Claimed,
        provider: Provider | None,
        message: Message | None,
        took_ms: int,
    ) -> Outcome:
        again = retry_at(
            error,
            tries=claimed.attempts,
            last_error_class=claimed.last_error_class,
            now=self._clock(),
            expires_at=claimed.expires_at,
            chance=self._chance(),
        )
        error_class = "poison" if error.error_class == "internal" and again is None else error.error_class
        text = harmless(error.text, claimed.destination, message.code if message else None)
        state: Final = "queued" if again else "failed"
        name = provider.name if provider else None
        self._tell(claimed, state, error_class=error_class, detail=text, provider=name)
        if self._reveal and message and message.code and claimed.attempts == 1:
            self._reveal(message)
        return Outcome(
            claimed.tenant_id,
            claimed.id,
            state,
            provider=name,
            error_class=error_class,
            error_text=text,
            retry_at=again,
            took_ms=took_ms,
        )

    def _tell(self, claimed: Claimed, state: str, **details: str | None) -> None:
        """A delivery that fails is an error somebody sees."""
        log = self._log.warning if state == "queued" else self._log.error
        log(
            "Delivery failed, to be tried again" if state == "queued" else "Delivery failed",
            tenant=claimed.tenant_slug,
            channel=claimed.channel,
            contact=claimed.destination,
            kind=claimed.kind,
            outbox_id=claimed.id,
            attempts=claimed.attempts,
            **details,
        )

    async def _settle_on(self) -> None:
        while True:
            await self._unsettled.wait()
            await asyncio.sleep(_LINGER_SECONDS)
            batch = self._outcomes[:_SETTLE_AT_MOST]
            try:
                written = await self._outbox.settle(self._clock(), batch)
            except Unavailable:
                self._behind = True
                await self._database.pause()
                continue
            self._database.over()
            if self._behind:
                self._behind = False
                self._wake.set()
            if written < len(batch):
                self._log.warning("Another worker took over messages", count=len(batch) - written)
            del self._outcomes[: len(batch)]
            for outcome in batch:
                del self._held[outcome.tenant_id, outcome.id]
            if not self._outcomes:
                self._unsettled.clear()
            self._settled.set()

    async def _renew_on(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            if self._held:
                try:
                    await self._outbox.renew(self._clock(), self._held.values(), lease=_LEASE)
                except Unavailable:
                    await self._database.pause()

    async def _listen(self) -> None:
        while True:
            with suppress(AcceleratorDown):
                async for _ in self._accelerator.subscribe(WAKE_CHANNEL):
                    self._valkey.over()
                    self._listening = True
                    self._wake.set()
            self._listening = False
            await self._valkey.pause()

    async def _drain(self) -> None:
        while self._held:
            self._settled.clear()
            await self._settled.wait()


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _where(error: Exception) -> str:
    """What went wrong in our own code, without the values involved: they may be a code or an address."""
    if isinstance(error, GatehouseError):
        return error.detail
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, line {frame.lineno}"
