"""What happened to a tenant's codes, told in plain words. Pure: stored happenings in, lines of a story out."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from app.audit.blame import failure, kind_of
from app.masking import mask_email

# How a line looks: a key of the timeline's icons.
Look: TypeAlias = Literal[
    "asked", "queued", "sent", "delivered", "verified", "failed", "refused", "changed", "ended", "expired"
]

BY: Final = {"email": "by email", "sms": "by SMS", "whatsapp": "by WhatsApp", "push": "as a push notification"}
_SECOND: Final = 1000
CONTACT_OF: Final = {"email": "email", "sms": "phone_number", "whatsapp": "phone_number"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened, as it is stored. `what` is an audit action, `delivery.<state>` or `refused.<reason>`.

    `answer` is what a provider said, `number` milliseconds of a delivery or how often something was refused. `message`
    and `challenge` tell what belongs together; `subject` is whom it is about, as far as that is stored with it.
    """

    at: datetime
    ref: str = ""
    what: str
    kind: str | None = None
    channel: str | None = None
    provider: str | None = None
    answer: str | None = None
    error_class: str | None = None
    number: int | None = None
    message: UUID | None = None
    challenge: UUID | None = None
    subject: str | None = None
    actor_kind: str = "anonymous"
    actor: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the story. `notes` are details, `ip` and `user_agent` say whose call it was. A line that stands for
    several has the moment of the last, and `since` is that of the first.
    """

    at: datetime
    look: Look
    text: str
    notes: Sequence[str] = ()
    ip: str | None = None
    user_agent: str | None = None
    since: datetime | None = None


def tell(happenings: Iterable[Happening], contacts: Mapping[str, str | None]) -> list[Entry]:
    """The story, in the order of the happenings: newest first.

    `contacts` are the tenant's masked contacts by field name, as they are after the newest. Going back in time, each
    change of a contact gives the one that older codes went to.
    """
    known = dict(contacts)
    entries = []
    for happening in happenings:
        look, text, notes = _put(happening, known.get(CONTACT_OF.get(happening.channel or "", "")))
        told = tuple(note for note in notes if note)
        since = happening.data.get("since")
        first = since if isinstance(since, datetime) else None
        entries.append(Entry(happening.at, look, text, told, happening.ip, happening.user_agent, first))
        if happening.what == "tenant.changed":
            take_back(known, happening.data)
    return entries


def shown_actor(actor: str | None, *, sees_contacts: bool) -> str | None:
    """Who did something, for somebody who may (not) see contacts: admins are named by their address."""
    return mask_email(actor) if actor and "@" in actor and not sees_contacts else actor


def take_back(contacts: dict[str, str | None], data: Mapping[str, Any]) -> None:
    """Makes the contacts what they were before the change that `data` of its event describes."""
    for change in data.get("changes", ()):
        if change["field"] in contacts:
            contacts[change["field"]] = change["before"]


Line: TypeAlias = tuple[Look, str, Sequence[str | None]]

_WITHHELD: Final = {
    "tenant-suspended": "the tenant is suspended",
    "contact-missing": "there is no contact to send it to",
    "channel-unavailable": "this way of delivery is not available",
    "recipient-unknown": "what was typed belongs to nobody here",
    "password-missing": "the password comes first here, and was left out",
    "registration-closed": "nobody can register here by themselves",
    "address-taken": "the address is another member's, who was told",
    "identifier-missing": "the contact has to be named here, and wasn't",
    "recipient-limited": "the codes of this hour were used up, by another address or without naming one",
    "recipient-guessed": "too many wrong codes were entered today, by another address or a known device",
    "recipient-locked": "locked after too many wrong codes, by another address or without naming one",
}
_REFUSED: Final = {
    "hourly": "Not sent: the codes of this hour were used up",
    "cooldown": "Not sent again: it was too soon after the last one",
    "locked": "Not sent: locked after too many wrong codes",
}
_ENDED: Final = {
    "signed-out": "Signed out",
    "ended-by-user": "Session ended from another device",
    "refresh-token-reused": "Session ended: one of its tokens was used twice, it may have been copied",
    "contact-changed": "Session ended: the contact changed",
    "tenant-suspended": "Session ended: the tenant was suspended",
    "idle": "Session ended: not used for a while",
    "factor-changed": "Session ended: the second factor changed",
    "factor-due": "Session ended: a second factor is asked for by now",
    "member-suspended": "Session ended: the member was suspended",
    "password-changed": "Session ended: the password changed",
    "admin-suspended": "Session ended: the admin was suspended",
    "role-changed": "Session ended: the admin's role changed",
}
_MESSAGES: Final = {"test": "Test message", "notice": "Notice of the change"}


def _put(happening: Happening, contact: str | None) -> Line:
    if happening.what.startswith("delivery."):
        return _delivery(happening)
    if happening.what.startswith("refused."):
        times = happening.number or 1
        text = _REFUSED.get(happening.what.removeprefix("refused."), "Not sent: a limit was reached")
        return "refused", text, [f"{times} times within {_span(happening.data.get('seconds'))}" if times > 1 else None]
    tell_it = _AUDIT.get(happening.what)
    if tell_it is not None:
        return tell_it(happening, contact)
    return "changed", happening.what.replace(".", " ").replace("_", " ").capitalize(), [_by(happening)]


def _span(seconds: float | None) -> str:
    """How long it went on. Counters of older versions don't say."""
    if seconds is None:
        return "this minute"
    return "a second" if seconds <= 1 else f"{math.ceil(seconds)} seconds"


def _by(happening: Happening) -> str | None:
    if happening.actor_kind == "operator":
        return "by somebody at the command line"
    return f"by {happening.actor}" if happening.actor else None


def _way(happening: Happening, contact: str | None) -> str:
    way = BY.get(happening.channel or "", "")
    return f"goes to {contact} {way}" if contact else f"goes {way}"


def _asked(happening: Happening, contact: str | None) -> Line:
    again = happening.what == "code.resent"
    known = "a known device" if happening.data.get("known_device") else None
    text = "New code asked for; the one before is void" if again else "Code asked for"
    return "asked", text, [_way(happening, contact), _hour(happening.data), known]


def _hour(data: Mapping[str, Any]) -> str | None:
    """Which of the hour's codes it was. Events of older versions don't say out of how many."""
    if "this_hour" not in data:
        return None
    return (
        f"code {data['this_hour']} of {data['of']} this hour"
        if "of" in data
        else f"code {data['this_hour']} of this hour"
    )


def _withheld(happening: Happening, _: str | None) -> Line:
    reason = _WITHHELD.get(happening.data.get("reason") or "", "there was nobody to send it to")
    return "refused", f"Code asked for, but not sent: {reason}", []


def _wrong(happening: Happening, _: str | None) -> Line:
    left = happening.data.get("attempts_left", 0)
    if not left:
        return "refused", "Wrong code, and it was the last try: a new code is needed", [_older(happening)]
    return "refused", f"Wrong code, {left} {'tries' if left != 1 else 'try'} left", [_older(happening)]


def _older(happening: Happening) -> str | None:
    return "an older one: a newer code had been sent" if happening.data.get("earlier") else None


def _factor_wrong(happening: Happening, _: str | None) -> Line:
    left = happening.data.get("attempts_left", 0)
    which = "backup code" if happening.data.get("with") == "backup_code" else "code of the app"
    if not left:
        return "refused", f"Wrong {which}, and it was the last try: sign-in starts again", [_clock(happening)]
    return "refused", f"Wrong {which}, {left} {'tries' if left != 1 else 'try'} left", [_clock(happening)]


def _clock(happening: Happening) -> str | None:
    """How wrong the clock of a phone is, where a code told so."""
    seconds = happening.data.get("clock_off_by")
    if not seconds:
        return None
    minutes = max(1, round(abs(seconds) / 60))
    return (
        f"the phone's clock is about {minutes} minute{'s' if minutes > 1 else ''} {'slow' if seconds < 0 else 'fast'}"
    )


def _signed_in(happening: Happening, _: str | None) -> Line:
    by_link = "link" in happening.data.get("methods", ())
    return "verified", "Signed in by link" if by_link else "Signed in", [happening.data.get("device")]


def _session_ended(happening: Happening, _: str | None) -> Line:
    reason = happening.data.get("reason")
    if reason == "ended-by-admin":
        return "ended", "Session ended by an admin", [_by(happening)]
    return "ended", _ENDED.get(reason or "", "Session ended"), []


def _changed(happening: Happening, _: str | None) -> Line:
    changes = happening.data.get("changes", ())
    names = [_FIELDS.get(change["field"], change["field"]) for change in changes]
    contacts = [f"{c['before'] or 'none'} → {c['after'] or 'none'}" for c in changes if c["field"] in _CONTACTS]
    return "changed", f"Changed: {', '.join(dict.fromkeys(names))}", [*contacts, _by(happening)]


_FIELDS: Final = {
    "email": "email",
    "phone_number": "phone number",
    "otp_delivery_method": "the way codes go",
    "fallback_methods": "what is tried next",
    "name": "name",
    "locale": "language",
    "timezone": "time zone",
}
_CONTACTS: Final = frozenset({"email", "phone_number"})


def _fixed(look: Look, text: str) -> Callable[[Happening, str | None], Line]:
    def line(happening: Happening, _: str | None) -> Line:
        return look, text, [happening.data.get("reason"), _by(happening)]

    return line


def _cleared(happening: Happening, _: str | None) -> Line:
    ways = [BY.get(channel, channel) for channel in happening.data.get("channels", ())]
    return "changed", "Contact said to work again", [*ways, _by(happening)]


def _disowned(happening: Happening, _: str | None) -> Line:
    if happening.data.get("stood") == "used":
        return "failed", "Reported: somebody else signed in with this code", ["end the sessions and check the contact"]
    return "refused", "Reported: nobody there asked for this code", []


_AUDIT: Final[Mapping[str, Callable[[Happening, str | None], Line]]] = {
    "code.requested": _asked,
    "code.resent": _asked,
    "code.withheld": _withheld,
    "code.wrong": _wrong,
    "session.started": _signed_in,
    "session.ended": _session_ended,
    "tenant.changed": _changed,
    "tenant.created": _fixed("changed", "Tenant added"),
    "tenant.suspended": _fixed("refused", "Suspended: nobody can sign in"),
    "tenant.resumed": _fixed("changed", "Resumed: codes are sent again"),
    "tenant.unlocked": _fixed("changed", "Unlocked: limits and wrong codes forgotten"),
    "notice.told": lambda h, _: ("sent", "Told of the change", h.data["to"]),
    "message.tested": lambda h, contact: ("asked", "Test message asked for", [_way(h, contact), _by(h)]),
    "tenant.branded": _fixed("changed", "Look of messages changed"),
    "code.disowned": _disowned,
    "sign_in_link.created": _fixed("asked", "Sign-in link made"),
    "factor.asked": _fixed("asked", "Second factor asked for"),
    "factor.wrong": _factor_wrong,
    "factor.enrolled": _fixed("changed", "Authenticator app set up: every sign-in asks for it"),
    "factor.removed": _fixed("changed", "Authenticator app removed"),
    "factor.reset": _fixed("changed", "Second factor reset: signing in takes none any more"),
    "factor.backup_codes": _fixed("changed", "New backup codes made; older ones are void"),
    "password.wrong": _fixed("refused", "Wrong password"),
    "member.created": _fixed("changed", "Member added"),
    "member.invited": _fixed("asked", "Invitation to register sent"),
    "member.registered": _fixed("verified", "Somebody registered as a member"),
    "member.changed": _fixed("changed", "Member changed"),
    "member.suspended": _fixed("refused", "Member suspended"),
    "member.resumed": _fixed("changed", "Member resumed"),
    "member.unlocked": _fixed("changed", "Unlocked: limits and wrong codes forgotten"),
    "member.erased": _fixed("changed", "Member erased"),
    "tenant.contact_cleared": _cleared,
    "member.contact_cleared": _cleared,
    "attack.tenant": _fixed("refused", "Unusually many wrong codes: codes have 8 digits for now"),
}


def _delivery(happening: Happening) -> Line:
    message = _MESSAGES.get(happening.kind or "")
    state = happening.what.removeprefix("delivery.")
    took = None if happening.number is None else f"after {_seconds(happening.number)}"
    notes = [happening.provider, happening.answer, took]
    why = failure(_class_of(happening), happening.channel)
    match state:
        case "sent":
            taker = "the mail server" if happening.channel == "email" else "the provider"
            return "sent", f"{message}: accepted by {taker}" if message else f"Accepted by {taker}", notes
        case "delivered":
            return "delivered", f"{message} delivered" if message else "Delivered", notes
        case "queued" if happening.error_class == "fallback":
            return "queued", f"Now tried {BY.get(happening.channel or '', 'another way')}", notes
        case "queued":
            tries = happening.data.get("tries")
            notes = [happening.provider, happening.answer, f"{tries} tries" if tries else took]
            return "queued", f"{_lead(message, _standing(happening))}: {why}", notes
        case "failed":
            return "failed", f"{_lead(message, 'Not delivered')}: {why}", notes
        case "expired":
            return "expired", f"{_lead(message, 'Not sent')}: {failure('expired')}", notes
        case _:
            return "expired", "Not sent: a newer code or a change had made it void", notes


def _standing(happening: Happening) -> str:
    """A message that is settled by now is tried no more."""
    if not happening.data.get("over"):
        return "Still trying"
    return "Not taken" if kind_of(happening.error_class) in {"contact", "ours"} else "Put off"


def _class_of(happening: Happening) -> str | None:
    """Earlier versions kept an answer that meant "later" under what it was an answer to."""
    put_off = happening.what == "delivery.queued" and happening.channel == "email" and happening.provider
    if put_off and _PUT_OFF.match(happening.answer or "") and happening.error_class in _OF_EARLIER_VERSIONS:
        return "later"
    return happening.error_class


_PUT_OFF: Final = re.compile(r"4\d\d ")
_OF_EARLIER_VERSIONS: Final = frozenset({"recipient", "sender", "refused", "credentials"})


def _seconds(milliseconds: int) -> str:
    return f"{max(milliseconds / _SECOND, 0.1):.1f} s"


def _lead(message: str | None, words: str) -> str:
    return f"{message} {words[0].lower()}{words[1:]}" if message else words
