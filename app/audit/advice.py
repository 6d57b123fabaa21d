"""What an admin should do next about a tenant whose codes don't arrive. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.audit.story import Happening, failure

_TRIED: Final = frozenset({"delivery.sent", "delivery.delivered", "delivery.failed", "delivery.queued"})
_ARRIVED: Final = frozenset({"delivery.sent", "delivery.delivered"})
_SOMEBODY_CAME: Final = frozenset({"session.started", "code.wrong", "tenant.changed"})
# One unused code is somebody who changed their mind.
_SUSPICIOUS: Final = 2
# These lie with the contact; whatever else goes wrong, a new contact won't help.
_BAD_CONTACT: Final = frozenset({"recipient", "address", "contact-missing", "opted-out"})
_BOUNCED: Final = frozenset({"recipient", "address"})


@dataclass(frozen=True, slots=True)
class Advice:
    """A sentence or two, and which of the page's buttons help."""

    text: str
    edit: bool = False
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """How the tenant stands. `next_code_at` is None where a code may be asked for now."""

    suspended: bool = False
    reachable: bool = True
    locked: bool = False
    next_code_at: datetime | None = None


def advise(happenings: Sequence[Happening], situation: Situation) -> Advice | None:
    """What to do, judged by the newest happenings (newest first); None where nothing looks wrong.

    The first thing that stops a code wins.
    """
    if situation.suspended:
        return Advice("The tenant is suspended: nobody can sign in until somebody resumes it.")
    if not situation.reachable:
        return Advice("There is no contact that codes could go to. Ask for one, save it, send a test.", edit=True)
    if situation.locked:
        return Advice("Too many wrong codes: unknown devices are locked out for a while. Unlock it if it was them.")
    newest = next((h for h in happenings if h.what in _TRIED and h.kind in {"code", "test"}), None)
    if newest is not None and newest.what == "delivery.failed" and not _mended(happenings, newest):
        return _about_failure(newest)
    if situation.next_code_at is not None:
        return Advice("The codes of this hour are used up. The newest one may still work; unlock it to allow more.")
    if newest is not None and newest.what == "delivery.queued":
        return Advice("The last message isn't through yet. It is tried again until its code expires.")
    return _about_unused(happenings)


def _mended(happenings: Sequence[Happening], failed: Happening) -> bool:
    """Whether somebody changed the tenant since."""
    return any(h.what == "tenant.changed" and h.at > failed.at for h in happenings)


def _about_failure(failed: Happening) -> Advice:
    why = failure(failed.error_class, failed.channel)
    if failed.error_class in _BAD_CONTACT:
        contact = "email address" if failed.channel == "email" else "phone number"
        if failed.error_class in _BOUNCED:
            problem = f"The {contact} bounced. Ask for a new one"
        else:
            problem = f"The last message got nowhere: {why}. Ask for another {contact}"
        return Advice(f"{problem}, save it, send a test.", edit=True, test=True)
    return Advice(
        f"The last message was not delivered: {why}. This is not the tenant's doing: tell "
        "whoever runs this installation, and send a test once it is mended.",
        test=True,
    )


def _about_unused(happenings: Sequence[Happening]) -> Advice | None:
    """Sent, but nobody came: the messages lie where they don't look."""
    sent = 0
    for happening in happenings:
        if happening.what in _SOMEBODY_CAME:
            break
        sent += happening.what in _ARRIVED and happening.kind == "code"
    if sent < _SUSPICIOUS:
        return None
    return Advice(
        f"The last {sent} codes were sent and none was entered. Ask them to look into the spam folder, and whether the "
        "contact is right.",
        edit=True,
        test=True,
    )
