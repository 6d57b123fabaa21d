"""What every provider is given and what it answers. Pure values.

DeliveryError
├── TransientFailure    worth another try: busy, unreachable, silent
│   └── Deferral        an answer in good order: not now
└── PermanentFailure    another try changes nothing: bad address, bad credentials
"""

import re
import traceback
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Final, Protocol

from app.errors import GatehouseError
from app.logs import scrub

# The server took the message but never said so. At most one more try: it may have arrived.
UNANSWERED: Final = "unanswered"
# The code's life ended first; nothing is sent after that.
EXPIRED: Final = "expired"

# What is stored of a server's words.
MAX_TEXT: Final = 200


class DeliveryError(Exception):
    """A provider did not take a message.

    `error_class` is a stable word for statistics, `text` a sentence for an admin. Neither may hold an address or a
    code; what a server says is cleaned by `harmless` before it is stored. `of_one` says that the answer was about one
    recipient, which tells nothing of how the provider is.
    """

    permanent: ClassVar[bool]

    def __init__(self, error_class: str, text: str, *, of_one: bool = False) -> None:
        self.error_class = error_class
        self.text = text
        self.of_one = of_one
        super().__init__(f"{error_class}: {text}")


class TransientFailure(DeliveryError):
    """Another try may succeed."""

    permanent = False


class Deferral(TransientFailure):
    """The provider is well, answered in good order and took nothing, such as SMTP's 4xx: "come back later".

    So asking again makes no second copy, and is no sign of poison: it goes on until the message expires.
    """


class PermanentFailure(DeliveryError):
    """Another try of the same provider can't succeed."""

    permanent = True


@dataclass(frozen=True, slots=True)
class Message:
    """A rendered message to one recipient. A channel without subjects or markup leaves those None.

    `id` is the same for every copy of one message, so a receiver can tell a duplicate after a crash. `tenant` is a
    slug. `date` is when the message was asked for.
    """

    id: str
    channel: str
    tenant: str
    to: str = field(repr=False)
    text: str = field(repr=False)
    date: datetime
    subject: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)
    # For channels that fill in a template of the provider's own.
    code: str | None = field(default=None, repr=False)
    # A BCP 47 tag: the language of `text`, for a template's translation.
    locale: str | None = None
    # How long the code is good for, so that no vendor delivers it from a queue of its own after that.
    valid_seconds: int | None = None
    # For email: whom it seems to come from and who gets the answers, where the tenant has its own.
    sender_name: str | None = None
    reply_to: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A provider took the message. `provider_message_id` is its own name for it, or its answer.

    `bounces_as` is what a bounce would call it, where word may come later but nobody should wait for it.
    """

    provider_message_id: str = ""
    bounces_as: str | None = None


class Provider(Protocol):
    """One way to send on one channel. Safe to use from many tasks at once."""

    name: str
    channel: str

    async def send(self, message: Message) -> Receipt:
        """Hands the message over. Raises `TransientFailure` or `PermanentFailure`, nothing else."""
        ...

    async def close(self) -> None:
        """Gives back connections. Sends that are still running may fail."""
        ...


def harmless(text: str, *private: str | None) -> str:
    """A server's words without addresses, codes or the `private` strings: one line, at most 200 characters.

    Servers like to repeat the address, and a filter may quote the subject with the code in it.
    """
    for word in filter(None, private):
        text = re.sub(re.escape(word), "[hidden]", text, flags=re.IGNORECASE)
    return one_line(scrub(text))[:MAX_TEXT]


def one_line(text: str) -> str:
    """Without line breaks, control characters and runs of blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def where(error: Exception) -> str:
    """What went wrong in our own code, without the values involved: they may be a code or an address."""
    if isinstance(error, GatehouseError):
        return error.detail
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, line {frame.lineno}"
