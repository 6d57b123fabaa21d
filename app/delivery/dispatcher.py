"""The loop that empties the outbox: claim, render, send, settle.

Three things happen side by side: due messages are claimed as long as sends are free, each send is a task, and what
became of them is written down in batches. A message is held from its claim until its outcome is in the database, so
whatever is away in between, PostgreSQL included, it is neither lost nor sent again by this process. A process that
dies leaves leases that run out.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Final
from uuid import UUID

import structlog

from app.delivery.carrier import Carrier, Pass
from app.delivery.message import UNANSWERED, DeliveryError, Message, Provider, TransientFailure, where
from app.delivery.outage import Outage
from app.delivery.outbox import WAKE_CHANNEL, Claimed, Outbox, Outcome
from app.delivery.render import Renderer
from app.delivery.routing import MAX_TRIES
from app.delivery.safety import Safety
from app.delivery.verdict import judge
from app.errors import Unavailable
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
_DICE: Final = SystemRandom().random


class Dispatcher:
    """Sends the messages of the outbox through `providers` until `stop`.

    `derive` gives the code of a row; `reveal` shows it in the log when the delivery failed, and is given in
    development only. `safety` has the last word on what costs money. The providers named in `reporting` say later what
    became of a message; without a sign of delivery the next channel takes over `fallback_after`. `chance` is the dice
    of the backoff, in [0, 1); `monotonic` is what breakers go by, in seconds.
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
        safety: Safety | None = None,
        reporting: Collection[str] = (),
        fallback_after: timedelta = timedelta(seconds=30),
        chance: Callable[[], float] = _DICE,
        monotonic: Callable[[], float] = time.monotonic,
        database_outage: Outage | None = None,
    ) -> None:
        self._outbox = outbox
        self._accelerator = accelerator
        self._carrier = Carrier(providers, clock=monotonic)
        self._renderer = renderer
        self._clock = clock
        self._derive = derive
        self._reveal = reveal
        self._safety = safety
        self._reporting = frozenset(reporting)
        self._fallback_after = fallback_after
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

    def wake(self) -> None:
        """There is something in the outbox."""
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
        await self._renderer.prepare(rows)
        for claimed in rows:
            if claimed.state == "sending":
                self._start(claimed)
            elif claimed.state != "void":
                self._log.error("Delivery failed", **_facts(claimed), error_class=claimed.state)
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
        message: Message | None = None
        try:
            code = self._derive(claimed) if claimed.kind == "code" else None
            message = self._renderer.render(claimed, code, self._clock())
            if self._safety:
                await self._safety.check(claimed, self._clock())
            made = await self._carrier.carry(
                message,
                refused=claimed.refused,
                doubtful=claimed.last_error_class == UNANSWERED,
                expires_in=(claimed.expires_at - self._clock()).total_seconds(),
            )
        except DeliveryError as error:
            made = Pass.failing(error)
        except Unavailable:
            made = Pass(wait=1.0)
        except Exception as error:  # noqa: BLE001 - one message we can't handle must not stop the others
            made = Pass.failing(TransientFailure("internal", where(error)))
        outcome = judge(
            made,
            claimed,
            now=self._clock(),
            reporting=self._reporting,
            fallback_after=self._fallback_after,
            chance=self._chance(),
            code=message.code if message else None,
        )
        self._tell(claimed, outcome)
        if self._reveal and message and message.code and outcome.state != "sent" and claimed.last_error_class is None:
            self._reveal(message)
        self._outcomes.append(outcome)
        self._unsettled.set()

    def _tell(self, claimed: Claimed, outcome: Outcome) -> None:
        """A delivery that fails is an error somebody sees, even where the next provider takes it."""
        facts = _facts(claimed)
        for failed in outcome.earlier:
            self._log.warning(
                "Delivery failed, the next provider is asked",
                **facts,
                provider=failed.provider,
                error_class=failed.error_class,
                detail=failed.error_text,
            )
        if outcome.state == "sent" or not outcome.tried:
            return
        again = outcome.state == "queued"
        (self._log.warning if again else self._log.error)(
            "Delivery failed, to be tried again" if again else "Delivery failed",
            **facts,
            provider=outcome.provider,
            error_class=outcome.error_class,
            detail=outcome.error_text,
        )

    async def _settle_on(self) -> None:
        while True:
            await self._unsettled.wait()
            await asyncio.sleep(_LINGER_SECONDS)
            batch = self._outcomes[:_SETTLE_AT_MOST]
            try:
                settled = await self._outbox.settle(self._clock(), batch)
            except Unavailable:
                self._behind = True
                await self._database.pause()
                continue
            self._database.over()
            if self._behind or settled.followed:
                self._behind = False
                self._wake.set()
            if settled.written < len(batch):
                self._log.warning("Another worker took over messages", count=len(batch) - settled.written)
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


def _facts(claimed: Claimed) -> dict[str, object]:
    """What the log says of a message."""
    return {
        "tenant": claimed.tenant_slug,
        "channel": claimed.channel,
        "contact": claimed.destination,
        "kind": claimed.kind,
        "outbox_id": claimed.id,
        "attempts": claimed.attempts,
    }
