"""Where a challenge stands, and why one is refused, in the words of whoever asks. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from app.auth.passwords import password_wanted
from app.errors import (
    AlreadyExists,
    ChannelUnavailable,
    CodeExpired,
    ContactMissing,
    FieldError,
    Forbidden,
    GatehouseError,
    InvalidRequest,
    TenantNotFound,
    TenantSuspended,
    TooManyAttempts,
)

State = Literal["queued", "sent", "delivered", "failed", "expired", "used"]

# A stranger sees "sent" this long after asking, whatever really happened.
_CONCEALED_QUEUED_SECONDS: Final = 2
_DELIVERY_STATES: Final[dict[str, State]] = {
    "queued": "queued",
    "sending": "queued",
    "sent": "sent",
    "delivered": "delivered",
    "failed": "failed",
    "expired": "expired",
}

_REFUSALS: Final[dict[str, Callable[[], GatehouseError]]] = {
    "tenant-not-found": TenantNotFound,
    "tenant-suspended": TenantSuspended,
    "contact-missing": ContactMissing,
    "channel-unavailable": ChannelUnavailable,
    "recipient-unknown": lambda: ContactMissing("Nobody here has this email address or phone number."),
    "password-missing": lambda: InvalidRequest(FieldError("/password", "This organisation asks for a password first.")),
    "password-wanted": password_wanted,
    "registration-closed": lambda: Forbidden("Nobody can register here by themselves."),
    "address-taken": lambda: AlreadyExists("Somebody here has this email address or phone number already."),
    "identifier-missing": lambda: InvalidRequest(
        FieldError("/identifier", "This organisation asks for the email address or phone number of its contact.")
    ),
}


@dataclass(frozen=True, slots=True)
class Status:
    """Where a challenge stands. `error` is for disclosed callers only."""

    state: State
    channel: str | None
    expires_in: int
    attempts_left: int
    error: str | None = None


def seconds_until(moment: datetime, now: datetime) -> int:
    """Whole seconds from `now`, rounded up, never negative."""
    return max(0, math.ceil((moment - now).total_seconds()))


def concealed_state(now: datetime, sent_at: datetime, expires_at: datetime, end_reason: str | None) -> State:
    """What a stranger is told: a function of the challenge's own life, so a decoy lives the same one."""
    if end_reason == "used":
        return "used"
    if expires_at <= now or end_reason in {"void", "expired"}:
        return "expired"
    return "sent" if (now - sent_at).total_seconds() >= _CONCEALED_QUEUED_SECONDS else "queued"


def disclosed_state(now: datetime, expires_at: datetime, end_reason: str | None, delivery: str | None) -> State:
    """What really happened to the latest code."""
    if end_reason == "used":
        return "used"
    if expires_at <= now or end_reason in {"void", "expired"}:
        return "expired"
    return _DELIVERY_STATES.get(delivery or "queued", "expired")


def ended(outcome: str, expires_at: datetime | None, now: datetime) -> GatehouseError:
    """Why a challenge takes no code any more."""
    if outcome == "too-many-attempts" and expires_at is not None:
        return TooManyAttempts(seconds_until(expires_at, now))
    return CodeExpired()


def refusal(outcome: str, expires_at: datetime | None, now: datetime) -> GatehouseError:
    """Why no code was sent, to somebody who may know."""
    made = _REFUSALS.get(outcome)
    return made() if made is not None else ended(outcome, expires_at, now)
