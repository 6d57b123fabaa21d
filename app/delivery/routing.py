"""When to try again, and when somebody else. Pure: no SQL, no clock, no dice of its own."""

from datetime import datetime, timedelta
from typing import Final

from app.audit.blame import CONTACT

MAX_TRIES: Final = 5
# 1, 4, 16, 64 seconds: a hiccup costs a second, a server that restarts is still met within the code's life.
_FIRST: Final = timedelta(seconds=1)
_FACTOR: Final = 4
_LONGEST: Final = timedelta(seconds=120)
# Of a deferral, which costs nobody a copy: somebody is waiting for the code.
_LONGEST_DEFERRED: Final = timedelta(seconds=30)

# The error classes that mark a contact: there is no such address or number, whoever is asked.
UNHEALTHY: Final = CONTACT


def retry_at(*, tries: int, now: datetime, expires_at: datetime, chance: float) -> datetime | None:
    """When a message that failed `tries` times is due again; None: it failed for good.

    Capped exponential backoff with full jitter (`chance` in [0, 1) is the dice), always before `expires_at`.
    """
    left = expires_at - now
    if tries >= MAX_TRIES or left <= timedelta():
        return None
    backoff: timedelta = _FIRST * _FACTOR ** (tries - 1)
    return now + chance * min(backoff, _LONGEST, left)


def deferred_until(*, created_at: datetime, now: datetime, expires_at: datetime, chance: float) -> datetime | None:
    """When a message is due again that a provider put off in good order; None: it has expired.

    The same backoff by age instead of tries, which aren't counted here: on average it waits half as long again as it
    has waited already, at most 30 seconds.
    """
    left = expires_at - now
    if left <= timedelta():
        return None
    return now + chance * min(max(_FIRST, now - created_at), _LONGEST_DEFERRED, left)


def asked_again_at(wait: float, *, now: datetime, expires_at: datetime, chance: float) -> datetime:
    """When a message is due again for which no provider may be asked for another `wait` seconds.

    Up to that much later by the dice: not everything that waited needs to be there for the one that is the probe.
    """
    return min(now + timedelta(seconds=wait * (1 + chance)), expires_at)


def fallback_at(
    *, kind: str, state: str, reports: bool, created_at: datetime, now: datetime, after: timedelta
) -> datetime | None:
    """When the next channel takes over unless the message has arrived; None: it won't.

    Only codes are that urgent. One that is tried again has `after` from the moment it was put there; one that was taken
    has as much from now, where the provider `reports` what becomes of it.
    """
    if kind != "code":
        return None
    if state == "queued":
        return max(created_at + after, now)
    return now + after if state == "sent" and reports else None
