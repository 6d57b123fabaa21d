"""When to try again. Pure: no SQL, no clock, no dice of its own."""

from datetime import datetime, timedelta
from typing import Final

from app.delivery.message import UNANSWERED, DeliveryError

MAX_TRIES: Final = 5
# 1, 4, 16, 64 seconds: a hiccup costs a second, a server that restarts is still met within the code's life.
_FIRST: Final = timedelta(seconds=1)
_FACTOR: Final = 4
_LONGEST: Final = timedelta(seconds=120)


def retry_at(
    error: DeliveryError,
    *,
    tries: int,
    last_error_class: str | None,
    now: datetime,
    expires_at: datetime,
    chance: float,
) -> datetime | None:
    """When a message that failed `tries` times is due again; None: it failed for good.

    Capped exponential backoff with full jitter (`chance` in [0, 1) is the dice), always before `expires_at`. After a
    second try whose fate is unknown there is no third: at most two copies.
    """
    if error.permanent or tries >= MAX_TRIES:
        return None
    if error.error_class == UNANSWERED == last_error_class:
        return None
    left = expires_at - now
    if left <= timedelta():
        return None
    backoff: timedelta = _FIRST * _FACTOR ** (tries - 1)
    return now + chance * min(backoff, _LONGEST, left)
