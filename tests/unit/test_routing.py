"""When a failed message is tried again."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.delivery.message import UNANSWERED, DeliveryError, PermanentFailure, TransientFailure
from app.delivery.routing import MAX_TRIES, retry_at

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
BUSY = TransientFailure("refused", "451 later")
SILENT = TransientFailure(UNANSWERED, "silence")


def delay(
    error: DeliveryError = BUSY, *, tries: int = 1, last: str | None = None, left: float = 600, chance: float = 1.0
) -> float | None:
    """Seconds until the next try, or None; `chance=1.0` shows the upper edge."""
    again = retry_at(
        error,
        tries=tries,
        last_error_class=last,
        now=NOW,
        expires_at=NOW + timedelta(seconds=left),
        chance=chance,
    )
    return None if again is None else (again - NOW).total_seconds()


def test_delays_grow_and_there_are_five_tries() -> None:
    """A hiccup costs a second, a restart a minute; then it is enough."""
    assert [delay(tries=n) for n in range(1, MAX_TRIES + 1)] == [1, 4, 16, 64, None]


def test_a_permanent_failure_is_not_tried_again() -> None:
    """Asking again about a bad address changes nothing and hurts the sender's name."""
    assert delay(PermanentFailure("recipient", "550 unknown")) is None


def test_full_jitter() -> None:
    """Messages that failed together don't come back together."""
    assert delay(tries=4, chance=0.0) == 0
    assert delay(tries=4, chance=0.5) == 32


def test_a_second_silence_is_the_last() -> None:
    """Each unanswered try may have been delivered: two copies at most."""
    assert delay(SILENT) == 1
    assert delay(SILENT, tries=2, last=UNANSWERED) is None
    assert delay(BUSY, tries=2, last=UNANSWERED) == 4


def test_nothing_is_tried_after_expiry() -> None:
    """A code that has expired is of no use to anybody."""
    assert delay(left=0) is None
    assert delay(left=-5) is None


@given(
    tries=st.integers(1, MAX_TRIES - 1),
    left=st.integers(1, 600),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_the_next_try_is_always_before_expiry(tries: int, left: float, chance: float) -> None:
    """Whatever the dice say."""
    wait = delay(tries=tries, left=left, chance=chance)
    assert wait is not None
    assert 0 <= wait <= left
