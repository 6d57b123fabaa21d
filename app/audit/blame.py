"""Whose fault a failed delivery is, by its error class (see docs/delivery.md, "Whose fault it is"). Pure.

Every class that a provider or our own code can give stands here once, with the words that staff read and the one of
four kinds that decides what is done about it:

    contact    the address or number is wrong: it is marked, a new one is asked for
    mailbox    it is right, but takes nothing now: another channel may reach them
    ours       whoever runs this installation mends it: said once on the home page, never held against a contact
    passing    it passes by itself, or can't be told: tried again
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["contact", "mailbox", "ours", "passing"]

_BY_NUMBER: Final = frozenset({"sms", "whatsapp"})


@dataclass(frozen=True, slots=True)
class Blame:
    """The kind of a class, and its words; `by_number` are those for SMS and WhatsApp where they differ."""

    kind: Kind
    words: str
    by_number: str | None = None


CLASSES: Final = {
    "recipient": Blame(
        "contact", "there is no such address, or it takes no mail", "there is no such number, or it takes no messages"
    ),
    "address": Blame("contact", "this is no address that mail can go to"),
    "mailbox-full": Blame(
        "mailbox",
        "the mailbox is full: another channel may reach them",
        "the phone's memory is full: another channel may reach them",
    ),
    "mailbox-off": Blame(
        "mailbox",
        "the mailbox takes no mail: another channel may reach them",
        "the phone takes no messages at present: another channel may reach them",
    ),
    "opted-out": Blame("mailbox", "the recipient wants no messages"),
    "refused": Blame("ours", "the mail server refuses us", "the provider refuses us"),
    "sender": Blame("ours", "our sender address was refused", "our sender number or name was refused"),
    "credentials": Blame("ours", "the provider rejected our credentials"),
    "account": Blame("ours", "our account at the provider is blocked or out of credit"),
    "template": Blame("ours", "the registered template was refused"),
    "unroutable": Blame("ours", "our account may not send there"),
    "tls": Blame("ours", "the connection to the provider isn't safe"),
    "unsupported": Blame("ours", "the provider doesn't offer what we insist on"),
    "protocol": Blame("ours", "what answers there is not the provider"),
    "no-provider": Blame("ours", "no provider is switched on for it"),
    "later": Blame("passing", "the mail server asked us to come back", "the provider asked us to come back"),
    "throttled": Blame("passing", "the provider takes no more for now"),
    "unavailable": Blame("passing", "the provider is out of order"),
    "unreachable": Blame("passing", "the mail server can't be reached", "the provider can't be reached"),
    "unanswered": Blame("passing", "the provider didn't say whether it took it"),
    "timeout": Blame("passing", "the provider didn't answer"),
    "disconnected": Blame("passing", "the provider hung up"),
    "busy": Blame("passing", "the provider is busy"),
    "country": Blame("passing", "messages don't go to this country"),
    "limit": Blame("passing", "a limit on messages that cost money was reached"),
    "contact-missing": Blame("passing", "there is nowhere to send it"),
    "expired": Blame("passing", "its time had run out"),
    "poison": Blame("passing", "a fault on our side"),
    "internal": Blame("passing", "a fault on our side"),
}
_UNKNOWN: Final = Blame("passing", "it was refused")


def _of(*kinds: Kind) -> frozenset[str]:
    return frozenset(name for name, blame in CLASSES.items() if blame.kind in kinds)


# The only ones that mark a contact.
CONTACT: Final = _of("contact")
OURS: Final = _of("ours")
# A provider that says so works well: it speaks of one recipient.
OF_RECIPIENT: Final = _of("contact", "mailbox")


def kind_of(error_class: str | None) -> Kind:
    """Who has to act."""
    return CLASSES.get(error_class or "", _UNKNOWN).kind


def failure(error_class: str | None, channel: str | None = None) -> str:
    """Why a provider did not take a message, in words for who knows nothing of providers."""
    blame = CLASSES.get(error_class or "", _UNKNOWN)
    return blame.by_number if blame.by_number and channel in _BY_NUMBER else blame.words
