"""What a pass over the providers means for its message: sent, tried again, or failed. Pure."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from app.delivery.carrier import Pass
from app.delivery.message import MAX_TEXT, Deferral, harmless, one_line
from app.delivery.outbox import Claimed, EarlierTry, Outcome
from app.delivery.routing import UNHEALTHY, asked_again_at, deferred_until, fallback_at, retry_at

_AHEAD: Final = "Every provider of this channel fails at present; it is asked again soon."


def judge(
    made: Pass,
    claimed: Claimed,
    *,
    now: datetime,
    reporting: Collection[str],
    fallback_after: timedelta,
    chance: float,
    code: str | None,
) -> Outcome:
    """The outcome to be written down. `code` and the address are taken out of what providers said."""
    told = [
        EarlierTry(
            failed.provider,
            failed.error.error_class,
            harmless(failed.error.text, claimed.destination, code),
            failed.took_ms,
        )
        for failed in made.failed
    ]
    details: dict[str, Any] = {"refused": made.refused, "doubtful": made.doubtful}
    if bad := next((f for f in made.failed if f.error.permanent and f.error.error_class in UNHEALTHY), None):
        details |= {
            "unhealthy_class": bad.error.error_class,
            "unhealthy_text": told[made.failed.index(bad)].error_text,
        }

    def outcome(state: Literal["queued", "sent", "failed"], *, reports: bool = False, **rest: Any) -> Outcome:
        due = fallback_at(
            kind=claimed.kind,
            state=state,
            reports=reports,
            created_at=claimed.created_at,
            now=now,
            after=fallback_after,
        )
        return Outcome(claimed.tenant_id, claimed.id, state, reports=reports, fallback_at=due, **details, **rest)

    if made.receipt is not None:
        name = one_line(made.receipt.provider_message_id)[:MAX_TEXT]
        return outcome(
            "sent",
            reports=bool(name) and made.provider in reporting,
            provider=made.provider,
            provider_message_id=name,
            bounces_as=made.receipt.bounces_as,
            took_ms=made.took_ms,
            earlier=told,
        )
    if made.wait is not None:
        again = asked_again_at(made.wait, now=now, expires_at=claimed.expires_at, chance=chance)
        return outcome("queued", retry_at=again, tried=False, error_class="unavailable", error_text=_AHEAD)
    # Whoever refused for good is not asked again; all others have said "later".
    later = [failed.error for failed in made.failed if not failed.error.permanent]
    deferred = bool(later) and all(isinstance(error, Deferral) for error in later)
    due: datetime | None = None
    if not made.hopeless and deferred:
        due = deferred_until(created_at=claimed.created_at, now=now, expires_at=claimed.expires_at, chance=chance)
    elif not made.hopeless:
        due = retry_at(tries=claimed.attempts, now=now, expires_at=claimed.expires_at, chance=chance)
    last = told[-1]
    poison = due is None and last.error_class == "internal"
    return outcome(
        "queued" if due else "failed",
        retry_at=due,
        counted=not deferred,
        provider=last.provider,
        error_class="poison" if poison else last.error_class,
        error_text=last.error_text,
        took_ms=last.took_ms,
        earlier=told[:-1],
    )
