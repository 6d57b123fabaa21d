"""What a refusal means, whoever refused: the classes that statistics, stories and contact health go by. Pure.

What each class means to staff, and which of them mark a contact, stands in `app.audit.blame`.
"""

from enum import Enum


class Fault(Enum):
    """A kind of refusal. The value is the stable word that is stored."""

    # The address or number itself is wrong, or gone.
    RECIPIENT = "recipient"
    # It is right, but the mailbox (of a phone: its memory) is full.
    MAILBOX_FULL = "mailbox-full"
    # It is right, but switched off: a disabled mailbox, a phone out of reach.
    MAILBOX_OFF = "mailbox-off"
    # Whoever has the number, or a register, wants no messages.
    OPTED_OUT = "opted-out"
    # A mail server gave up on the way, though the address may be good.
    UNREACHABLE = "unreachable"
    # Good number, but our account may not send there: a country that is not enabled, a trial account.
    UNROUTABLE = "unroutable"
    SENDER = "sender"
    # The template is unknown, paused, not approved, or doesn't fit what was sent.
    TEMPLATE = "template"
    CREDENTIALS = "credentials"
    # Out of money, suspended, not entitled.
    ACCOUNT = "account"
    # Whatever else is ours to mend: a blocklist, a relay, a policy, the content.
    REFUSED = "refused"
    # An answer in good order: not now.
    LATER = "later"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"

    @property
    def permanent(self) -> bool:
        """Whether another try by the same vendor changes nothing."""
        return self not in {Fault.LATER, Fault.THROTTLED, Fault.UNAVAILABLE}
