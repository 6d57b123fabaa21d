"""One pass over the providers of a channel, and the circuit breaker of each."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from app.delivery.breaker import Breaker
from app.delivery.carrier import Carrier, Pass
from app.delivery.message import (
    EXPIRED,
    UNANSWERED,
    Deferral,
    DeliveryError,
    Message,
    PermanentFailure,
    Receipt,
    TransientFailure,
)
from tests.ways import Way

MESSAGE = Message(
    id="m1",
    channel="sms",
    tenant="acme",
    to="+447700900123",
    text="hello",
    date=datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC),
)
AWAY = TransientFailure("unreachable", "no route")
SILENT = TransientFailure(UNANSWERED, "silence")
GONE = PermanentFailure("recipient", "no such number")


class Seconds:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Slow:
    """A provider that never comes to an end by itself."""

    name = "slow"
    channel = "sms"

    def __init__(self) -> None:
        self.asked = self.finished = 0

    async def send(self, message: Message) -> Receipt:  # noqa: ARG002 - as in the contract
        self.asked += 1
        await asyncio.Event().wait()
        self.finished += 1
        return Receipt()

    async def close(self) -> None:
        """Holds nothing."""


def carrier(*ways: Way, clock: Callable[[], float] | None = None) -> Carrier:
    return Carrier({"sms": ways}, clock=clock or Seconds())


def classes(made: Pass) -> list[tuple[str | None, str]]:
    return [(failed.provider, failed.error.error_class) for failed in made.failed]


async def test_the_first_provider_that_takes_it_is_the_last_asked() -> None:
    """In the configured order."""
    first, second = Way("a"), Way("b")
    made = await carrier(first, second).carry(MESSAGE)
    assert (made.provider, made.receipt, made.failed) == ("a", Receipt("a-1"), [])
    assert second.asked == 0


@pytest.mark.parametrize("error", [AWAY, GONE, ZeroDivisionError("oops")])
async def test_the_next_provider_is_asked_at_once(error: Exception) -> None:
    """Busy, refused, or a fault of our own in the first one's code."""
    made = await carrier(Way("a", error), Way("b")).carry(MESSAGE)
    assert made.provider == "b"
    assert [provider for provider, _ in classes(made)] == ["a"]


async def test_who_has_refused_for_good_is_not_asked_again() -> None:
    """Neither in the next pass, nor counted as hope."""
    first, second = Way("a", GONE, GONE), Way("b", AWAY, GONE)
    both = carrier(first, second)
    made = await both.carry(MESSAGE)
    assert (made.refused, made.hopeless) == (["a"], False)
    made = await both.carry(MESSAGE, refused=made.refused)
    assert (sorted(made.refused), made.hopeless) == (["a", "b"], True)
    assert first.asked == 1


async def test_two_silences_are_two_copies_and_the_end() -> None:
    """Each may have been taken, whoever was silent: a third provider is not asked, nor is there another pass."""
    third = Way("c")
    made = await carrier(Way("a", SILENT), Way("b", SILENT), third).carry(MESSAGE)
    assert (made.hopeless, third.asked) == (True, 0)

    made = await carrier(Way("a", SILENT), Way("b", AWAY)).carry(MESSAGE)
    assert (made.doubtful, made.hopeless) == (True, False)
    made = await carrier(Way("a", SILENT), third).carry(MESSAGE, doubtful=made.doubtful)
    assert (made.hopeless, third.asked) == (True, 0)


async def test_a_channel_without_providers_is_hopeless() -> None:
    """Somebody switched it off between asking and sending."""
    made = await Carrier({}).carry(MESSAGE)
    assert (classes(made), made.hopeless) == ([(None, "no-provider")], True)


async def test_a_breaker_opens_after_five_failures_in_a_row_and_probes_once() -> None:
    """The others take its messages meanwhile; after ten seconds one message finds out whether it is back."""
    clock = Seconds()
    first, second = Way("a", *[AWAY] * 6), Way("b")
    both = carrier(first, second, clock=clock)
    for _ in range(8):
        assert (await both.carry(MESSAGE)).provider == "b"
    assert first.asked == 5

    clock.now += 10
    assert (await both.carry(MESSAGE)).provider == "b"
    assert first.asked == 6
    assert (await both.carry(MESSAGE)).failed == []
    assert first.asked == 6
    clock.now += 10
    assert (await both.carry(MESSAGE)).provider == "a"
    assert (await both.carry(MESSAGE)).provider == "a"


async def test_when_all_breakers_are_open_the_message_waits_for_the_first() -> None:
    """Nobody is asked, so nothing has failed."""
    clock = Seconds()
    alone = carrier(Way("a", *[AWAY] * 5), clock=clock)
    for _ in range(5):
        await alone.carry(MESSAGE)
    clock.now += 4
    made = await alone.carry(MESSAGE)
    assert (made.failed, made.wait, made.hopeless) == ([], 6.0, False)


async def test_one_probe_at_a_time() -> None:
    """While one message finds out, the others don't."""
    clock = Seconds()
    released = asyncio.Event()

    class Slow(Way):
        async def send(self, message: Message) -> Receipt:
            if self.asked >= 5:
                await released.wait()
            return await super().send(message)

    slow = Slow("a", *[AWAY] * 5)
    alone = carrier(slow, clock=clock)
    for _ in range(5):
        await alone.carry(MESSAGE)
    clock.now += 10
    probe = asyncio.create_task(alone.carry(MESSAGE))
    await asyncio.sleep(0)
    assert (await alone.carry(MESSAGE)).wait == 1.0
    released.set()
    assert (await probe).provider == "a"
    assert (await alone.carry(MESSAGE)).provider == "a"


async def test_a_cancelled_probe_is_no_answer() -> None:
    """The worker stops: whoever asks next may probe."""
    breaker = Breaker(clock := Seconds())
    for _ in range(5):
        with pytest.raises(TransientFailure), breaker.asking():
            raise AWAY
    clock.now += 10
    with pytest.raises(asyncio.CancelledError), breaker.asking():
        raise asyncio.CancelledError
    assert breaker.wait() == 0.0


async def test_a_probe_that_was_hung_up_on_is_no_answer() -> None:
    """The code expired while the provider was asked: whether it is back is still to be found out."""
    clock = Seconds()
    alone = carrier(Way("a", *[AWAY] * 5, TransientFailure(EXPIRED, "too late"), AWAY), clock=clock)
    for _ in range(5):
        await alone.carry(MESSAGE)
    clock.now += 10
    for error_class in ("expired", "unreachable"):
        assert classes(await alone.carry(MESSAGE)) == [("a", error_class)]
    assert (await alone.carry(MESSAGE)).wait == 10.0


@pytest.mark.parametrize(
    "error", [GONE, PermanentFailure("credentials", "401"), Deferral("later", "450 greylisted", of_one=True)]
)
async def test_a_refused_recipient_says_that_the_provider_is_there(error: DeliveryError) -> None:
    """Only what speaks of the provider itself counts towards its breaker."""
    first = Way("a", *[AWAY] * 4, error, *[AWAY] * 4)
    both = carrier(first, Way("b"))
    for _ in range(10):
        await both.carry(MESSAGE)
    assert first.asked == 10


async def test_who_is_too_slow_for_the_code_is_hung_up_on() -> None:
    """No code is sent after its expiry: not by this provider, nor by the next. That is no fault of theirs."""
    slow, next_one = Slow(), Way("b")
    here = Carrier({"sms": (slow, next_one)}, clock=Seconds())
    for _ in range(6):
        made = await here.carry(MESSAGE, expires_in=0.01)
        assert (classes(made), made.hopeless, made.receipt) == ([("slow", "expired")], True, None)
    assert (slow.asked, slow.finished, next_one.asked) == (6, 0, 0)


async def test_nobody_is_asked_too_late() -> None:
    """A code that expired between its claim and its turn goes nowhere."""
    way = Way("a")
    made = await carrier(way).carry(MESSAGE, expires_in=0)
    assert (classes(made), way.asked) == ([("a", "expired")], 0)
