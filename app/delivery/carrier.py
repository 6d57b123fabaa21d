"""One pass of a message over the providers of its channel, in the configured order."""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.delivery.breaker import Breaker
from app.delivery.message import (
    EXPIRED,
    UNANSWERED,
    DeliveryError,
    Message,
    PermanentFailure,
    Provider,
    Receipt,
    TransientFailure,
    where,
)

# A provider has timeouts of its own; this one is for a provider that hasn't.
_SEND_SECONDS: Final = 120.0
_TOO_LATE: Final = "The message expired before the provider had taken it."


@dataclass(frozen=True, slots=True)
class Try:
    """One provider that did not take the message."""

    provider: str | None
    error: DeliveryError
    took_ms: int


@dataclass(slots=True)
class Pass:
    """What became of one pass. With a `receipt`, `provider` took the message `took_ms` after it was asked.

    `wait` is for a pass in which nobody could be asked: seconds until somebody can. `refused` are the providers that
    will never take it. `doubtful`: one copy may have arrived; `hopeless`: so may a second one, or nobody is left, or it
    is too late.
    """

    failed: list[Try] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    provider: str | None = None
    receipt: Receipt | None = None
    took_ms: int = 0
    wait: float | None = None
    doubtful: bool = False
    hopeless: bool = False

    @classmethod
    def failing(cls, error: DeliveryError) -> "Pass":
        """A pass that came to nothing before anybody was asked."""
        return cls(failed=[Try(None, error, 0)], hopeless=error.permanent)


class Carrier:
    """Hands messages to providers, each behind a circuit breaker of this process."""

    def __init__(
        self, providers: Mapping[str, Sequence[Provider]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._providers = providers
        self._breakers = {
            (channel, provider.name): Breaker(clock) for channel, ways in providers.items() for provider in ways
        }

    async def carry(
        self,
        message: Message,
        *,
        refused: Collection[str] = (),
        doubtful: bool = False,
        expires_in: float = math.inf,
    ) -> Pass:
        """Asks one provider after the other until one takes the message. Raises nothing but cancellation.

        `refused` are not asked. `doubtful`: an earlier try may have arrived, so one more silence is the last. After
        `expires_in` seconds nobody is asked any more, and who is being asked just then is hung up on.
        """
        deadline = asyncio.get_running_loop().time() + expires_in
        ways = self._providers.get(message.channel, ())
        made = Pass(refused=list(refused), doubtful=doubtful)
        waits = []
        for provider in ways:
            if provider.name in made.refused:
                continue
            breaker = self._breakers[message.channel, provider.name]
            if wait := breaker.wait():
                waits.append(wait)
                continue
            if await _ask(provider, breaker, message, made, deadline):
                return made
        if not made.failed and waits:
            made.wait = min(waits)
        elif not made.failed:
            nobody = PermanentFailure("no-provider", f"No provider for {message.channel} is switched on.")
            made.failed.append(Try(None, nobody, 0))
        made.hopeless = all(provider.name in made.refused for provider in ways)
        return made


async def _ask(provider: Provider, breaker: Breaker, message: Message, made: Pass, deadline: float) -> bool:
    """Asks one provider and notes how it went. Whether the pass is over: taken, possibly taken twice, or too late."""
    started = time.monotonic()
    try:
        made.receipt = await _send(provider, breaker, message, deadline)
    except DeliveryError as error:
        made.failed.append(Try(provider.name, error, _milliseconds_since(started)))
        if error.permanent:
            made.refused.append(provider.name)
        elif error.error_class == UNANSWERED:
            made.hopeless, made.doubtful = made.doubtful, True
        elif error.error_class == EXPIRED:
            made.hopeless = True
        return made.hopeless
    made.provider, made.took_ms = provider.name, _milliseconds_since(started)
    return True


async def _send(provider: Provider, breaker: Breaker, message: Message, deadline: float) -> Receipt:
    """Raises `DeliveryError` whatever goes wrong, so that the next provider gets its chance."""
    now = asyncio.get_running_loop().time()
    if now >= deadline:
        raise TransientFailure(EXPIRED, _TOO_LATE)
    patience = now + _SEND_SECONDS
    try:
        with breaker.asking():
            try:
                async with asyncio.timeout_at(min(patience, deadline)):
                    return await provider.send(message)
            except TimeoutError:
                # A code is good for minutes, so a provider may be asked seconds before the end: that we hung up then
                # says nothing about the provider.
                if deadline < patience:
                    raise TransientFailure(EXPIRED, _TOO_LATE) from None
                raise TransientFailure(UNANSWERED, "The provider did not answer in time.") from None
    except DeliveryError:
        raise
    except Exception as error:
        raise TransientFailure("internal", where(error)) from error


def _milliseconds_since(started: float) -> int:
    """Since a reading of the monotonic clock."""
    return round((time.monotonic() - started) * 1000)
