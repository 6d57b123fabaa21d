"""Bounces that come back as mail: delivery status notifications (RFC 3464, RFC 6522). Pure.

Anybody can write such a mail, so one is believed for what only the readers of ours know: its Message-ID.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from email import message_from_bytes
from email.message import Message
from email.policy import compat32
from typing import Final

from app.delivery.callbacks.posted import Report
from app.delivery.faults import Fault
from app.delivery.smtp_replies import fault_of

# Ours are small, and servers return no more than the mail itself.
MAX_BYTES: Final = 256 * 1024

_ARRIVED: Final = "delivered"
_ON_THE_WAY: Final = frozenset({"delayed", "relayed", "expanded"})
_ACTIONS: Final = _ON_THE_WAY | {_ARRIVED, "failed"}
# As `app.delivery.render` makes them.
_MESSAGE_ID: Final = re.compile(r"<([0-9a-f]{32})@[^<>@\s]{1,255}>")
# What the next server answered to ours: "smtp; 550-5.1.1 No such user".
_ANSWER: Final = re.compile(r"smtp\s*;\s*([245]\d\d)[ -]+(.*)", re.IGNORECASE)
# A refused recipient's code, where the notification names none.
_NO_CODE: Final = 550


class NotABounce(ValueError):
    """The mail is not a delivery status notification about a mail of ours; the text says why."""


def read(raw: bytes) -> Report | None:
    """What a notification says of our mail; None: it is still on its way. Raises `NotABounce`.

    Final is what the server calls failed, even with a 4.x.x status: it has given up. Where one address stands for
    several mailboxes, one arrival is an arrival.
    """
    if len(raw) > MAX_BYTES:
        raise NotABounce(f"it is larger than {MAX_BYTES // 1024} KiB")
    try:
        return _read(message_from_bytes(raw, policy=compat32))
    except RecursionError:
        raise NotABounce("its parts are nested too deeply") from None


def _read(mail: Message) -> Report | None:
    if mail.get_content_type() != "multipart/report":
        raise NotABounce("it is no multipart/report")
    status = next((part for part in mail.walk() if part.get_content_type() == "message/delivery-status"), None)
    blocks = status.get_payload() if status else None
    if not isinstance(blocks, list):
        raise NotABounce("it has no delivery status")
    fields = [block for block in blocks if isinstance(block, Message)]
    told = [(action, one) for one in fields if (action := _field(one, "Action").lower()) in _ACTIONS]
    if not told:
        raise NotABounce("its delivery status names no action")
    message_id = next(_message_ids(mail, fields), None)
    if message_id is None:
        raise NotABounce("it returns no Message-ID of ours")
    actions = {action for action, _ in told}
    if _ARRIVED in actions:
        return Report(message_id, "delivered")
    if actions & _ON_THE_WAY:
        return None
    fault, text = _fault(one for _, one in told)
    return Report(message_id, "failed", fault, text)


def _message_ids(mail: Message, fields: Sequence[Message]) -> Iterator[str]:
    """From the mail that is returned, or its headers; Gmail names it among the fields, Exchange as what it answers."""
    texts = [_field(one, "X-Original-Message-ID") for one in fields]
    for part in mail.walk():
        match part.get_content_type(), part.get_payload():
            case "message/rfc822", [Message() as original]:
                texts.insert(0, _field(original, "Message-ID"))
            case "text/rfc822-headers", str():
                headers = part.get_payload(decode=True)
                if isinstance(headers, bytes):
                    texts.insert(0, _field(message_from_bytes(headers, policy=compat32), "Message-ID"))
    for text in (*texts, _field(mail, "In-Reply-To")):
        if found := _MESSAGE_ID.fullmatch(text):
            yield found[1]


def _fault(failed: Iterable[Message]) -> tuple[Fault, str]:
    """Why, by the first recipient's status and by what the next server answered.

    Where neither says anything the address is to blame: that is what most bounces are. The server has given up, so
    nothing comes later.
    """
    first = next(iter(failed))
    status, told = _field(first, "Status"), _field(first, "Diagnostic-Code")
    answer = _ANSWER.search(told)
    code, words = (int(answer[1]), answer[2]) if answer else (_NO_CODE, told.partition(";")[2])
    fault = fault_of("rcpt", code, f"{status}\n{words}")
    return Fault.UNREACHABLE if not fault.permanent else fault, f"{status} {told}".strip()


def _field(message: Message, name: str) -> str:
    """A field's text on one line; empty where there is none."""
    return " ".join(str(message.get(name, "")).split())
