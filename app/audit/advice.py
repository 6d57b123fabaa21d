"""What an admin should do next about a tenant or a member whose codes don't arrive. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from app.audit.blame import failure, kind_of
from app.audit.story import CONTACT_OF, Happening

_ARRIVED: Final = frozenset({"delivery.sent", "delivery.delivered"})
_TRIED: Final = _ARRIVED | {"delivery.failed", "delivery.queued", "delivery.expired", "delivery.void"}
_SOMEBODY_CAME: Final = frozenset({"session.started", "code.wrong", "tenant.changed", "member.changed"})
_CHANGED: Final = frozenset({"tenant.changed", "member.changed"})
_CLEARED: Final = frozenset({"tenant.contact_cleared", "member.contact_cleared"})
_SUSPENDED: Final = {
    "tenant": "The tenant is suspended: nobody can sign in until somebody resumes it.",
    "member": "The member is suspended and can't sign in until somebody resumes them.",
}
# One unused code is somebody who changed their mind.
_SUSPICIOUS: Final = 2


@dataclass(frozen=True, slots=True)
class Advice:
    """A sentence or two, and which of the page's buttons help; `test` is the channel that a test should go by."""

    text: str
    edit: bool = False
    test: bool = False
    channel: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """How the tenant or the member stands. `next_code_at` is None where a code may be asked for now; `marked` are the
    channels whose contact is no good.
    """

    who: Literal["tenant", "member"] = "tenant"
    suspended: bool = False
    reachable: bool = True
    locked: bool = False
    next_code_at: datetime | None = None
    marked: Sequence[str] = ()


def advise(happenings: Sequence[Happening], situation: Situation) -> Advice | None:
    """What to do, judged by the newest happenings (newest first); None where nothing looks wrong.

    The first thing that stops a code wins. What concerned a contact that is no longer theirs, or was found to work
    since, is no matter for advice any more.
    """
    if situation.suspended:
        return Advice(_SUSPENDED[situation.who])
    if not situation.reachable:
        return Advice("There is no contact that codes could go to. Ask for one, save it, send a test.", edit=True)
    if situation.locked:
        return Advice("Too many wrong codes: unknown devices are locked out for a while. Unlock it if it was them.")
    if situation.marked:
        return _about_contact(situation.marked[0])
    own = [h for h in happenings if _is_own(h, happenings, situation.who)]
    newest = next((h for h in own if h.what in _TRIED and h.kind in {"code", "test"}), None)
    if newest is not None and newest.what == "delivery.failed" and not _mended(own, newest):
        return _about_failure(newest)
    if situation.next_code_at is not None:
        return Advice("The codes of this hour are used up. The newest one may still work; unlock it to allow more.")
    if newest is not None and newest.what == "delivery.queued":
        return _about_waiting(newest)
    if newest is not None and newest.what == "delivery.expired" and not _mended(own, newest):
        return Advice("The last message ran out of time before it was through. Ask for a new code.")
    return _about_unused(own)


def _is_own(happening: Happening, happenings: Sequence[Happening], who: str) -> bool:
    """Whether a line of a tenant's story is about the tenant's own codes, not about a member's."""
    if who != "tenant":
        return True
    if happening.subject is not None or happening.challenge is None:
        return happening.subject not in {"member", "admin"}
    return all(h.subject != "member" for h in happenings if h.challenge == happening.challenge)


def _mended(happenings: Sequence[Happening], failed: Happening) -> bool:
    """Whether the contact or the way codes go was changed since, or somebody said that it works again."""
    field = CONTACT_OF.get(failed.channel or "")
    for happening in happenings:
        if happening.at < failed.at:
            break
        if happening.what in _CLEARED and kind_of(failed.error_class) == "contact":
            return True
        changes = (
            {change["field"] for change in happening.data.get("changes", ())} if happening.what in _CHANGED else ()
        )
        if field in changes or "otp_delivery_method" in changes or "preferred_method" in changes:
            return True
    return False


def _about_contact(channel: str | None) -> Advice:
    text = f"The {_contact(channel)} bounced. Ask for a new one, save it, send a test."
    return Advice(text, edit=True, test=True, channel=channel)


def _about_failure(failed: Happening) -> Advice:
    why, channel = failure(failed.error_class, failed.channel), failed.channel
    match kind_of(failed.error_class):
        case "contact":
            return _about_contact(channel)
        case "mailbox" if failed.error_class == "opted-out":
            text = f"The last message got nowhere: {why}. Ask for another {_contact(channel)}, save it, send a test."
            return Advice(text, edit=True, test=True, channel=channel)
        case "mailbox":
            text = f"The last message got nowhere. {why[0].upper()}{why[1:]}."
            return Advice(text, edit=True, test=True, channel=channel)
        case "ours":
            text = (
                f"The last message was not delivered: {why}. It isn't their fault, and a new contact won't help: the "
                "home page says what to fix. Send a test once it is fixed."
            )
        case "passing":
            text = f"The last message was not delivered: {why}. A new contact won't help. Send a test."
    return Advice(text, test=True, channel=channel)


def _about_waiting(waiting: Happening) -> Advice:
    why = f": {failure(waiting.error_class, waiting.channel)}" if waiting.provider else ""
    return Advice(f"The last message isn't through yet{why}. It is tried again until its code expires.")


def _contact(channel: str | None) -> str:
    return "email address" if channel == "email" else "phone number"


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
