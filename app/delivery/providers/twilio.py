"""SMS and WhatsApp by Twilio: one `POST` to the Message resource.

Sources: Twilio docs "Message resource" for the request, "Error and Warning Dictionary" (twilio.com/docs/api/errors) for
the codes below; those from 30001 and 63001 on mostly come with a status callback, after the message was taken.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from app.delivery.faults import Fault
from app.delivery.message import Message, Receipt
from app.delivery.providers.rest import TIMEOUT_SECONDS, Rest, callback_url
from app.settings import Settings

_API: Final = "https://api.twilio.com"
# Twilio takes 1 to 36000 seconds, and advises against less than 5.
_SHORTEST_VALIDITY: Final = 5

FAULTS: Final[Mapping[int, Fault]] = {
    20003: Fault.CREDENTIALS,  # authentication error
    20006: Fault.CREDENTIALS,  # access denied
    20404: Fault.CREDENTIALS,  # there is no such account
    20005: Fault.ACCOUNT,  # not active
    20429: Fault.THROTTLED,
    20500: Fault.UNAVAILABLE,
    20503: Fault.UNAVAILABLE,
    21211: Fault.RECIPIENT,  # 'To' is no valid number
    21217: Fault.RECIPIENT,
    21614: Fault.RECIPIENT,  # no mobile number
    21610: Fault.OPTED_OUT,  # answered STOP
    21408: Fault.UNROUTABLE,  # the country is not enabled
    21608: Fault.UNROUTABLE,  # trial accounts write to verified numbers only
    21612: Fault.UNROUTABLE,
    21212: Fault.SENDER,  # 'From' is no valid number
    21603: Fault.SENDER,
    21606: Fault.SENDER,
    21657: Fault.SENDER,  # the name is not valid
    21659: Fault.SENDER,  # no number of Twilio's, or a short code of another country
    21660: Fault.SENDER,  # another account's number
    21701: Fault.SENDER,  # no such messaging service
    21702: Fault.SENDER,  # it is not available
    21703: Fault.SENDER,  # a messaging service without senders
    21704: Fault.SENDER,
    21705: Fault.SENDER,
    21654: Fault.TEMPLATE,  # ContentSid required
    21655: Fault.TEMPLATE,  # no such ContentSid
    21656: Fault.TEMPLATE,  # its variables don't fit
    21611: Fault.THROTTLED,  # the sender's queue is full
    30001: Fault.THROTTLED,  # likewise
    30022: Fault.THROTTLED,
    30017: Fault.UNAVAILABLE,  # the carrier's network is congested
    30410: Fault.UNAVAILABLE,  # the carrier did not answer in time
    30002: Fault.ACCOUNT,  # suspended
    30003: Fault.MAILBOX_OFF,  # handset unreachable
    30004: Fault.OPTED_OUT,  # blocked
    30005: Fault.RECIPIENT,  # unknown or inactive number
    30006: Fault.RECIPIENT,  # landline
    30007: Fault.REFUSED,  # filtered as spam
    30008: Fault.UNAVAILABLE,
    30018: Fault.SENDER,  # the country demands that senders are registered
    30024: Fault.SENDER,  # likewise
    30032: Fault.SENDER,  # unverified toll-free number
    30034: Fault.SENDER,  # unregistered US number
    30035: Fault.SENDER,  # a number that is still being set up
    30023: Fault.ACCOUNT,  # the day's messages are used up
    30027: Fault.ACCOUNT,  # likewise
    30033: Fault.ACCOUNT,  # campaign suspended
    63001: Fault.CREDENTIALS,
    63002: Fault.SENDER,
    63003: Fault.RECIPIENT,  # not on WhatsApp
    63007: Fault.SENDER,
    63008: Fault.SENDER,  # misconfigured
    63009: Fault.UNAVAILABLE,
    63010: Fault.UNAVAILABLE,
    63012: Fault.UNAVAILABLE,
    63013: Fault.REFUSED,  # against WhatsApp's policy
    63014: Fault.OPTED_OUT,  # blocked by the recipient
    63015: Fault.UNROUTABLE,  # the sandbox writes to who has joined it
    63016: Fault.TEMPLATE,  # outside the 24 hours only templates may be sent
    63017: Fault.THROTTLED,
    63018: Fault.THROTTLED,
    63020: Fault.ACCOUNT,
    63021: Fault.TEMPLATE,
    63024: Fault.RECIPIENT,
    63027: Fault.TEMPLATE,  # not in this language
    63028: Fault.TEMPLATE,
    63031: Fault.RECIPIENT,  # is the sender
    63032: Fault.MAILBOX_OFF,  # WhatsApp limits what this recipient gets
    63033: Fault.OPTED_OUT,
    63038: Fault.ACCOUNT,  # the day's messages are used up
    63040: Fault.TEMPLATE,  # rejected
    63041: Fault.TEMPLATE,  # paused
    63042: Fault.TEMPLATE,  # disabled
    63051: Fault.ACCOUNT,  # locked
}


class Twilio:
    """One sender of one account, for `sms` or `whatsapp`.

    `sender` is a number or a messaging service (`MG…`). `content_sid` (`HX…`) is WhatsApp's approved authentication
    template, whose one variable is the code; without it the text goes as it is.
    """

    name = "twilio"

    def __init__(
        self,
        channel: str,
        *,
        account_sid: str,
        auth_token: str,
        sender: str,
        content_sid: str | None = None,
        status_callback: str | None = None,
        api_url: str = _API,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.channel = channel
        self._prefix = "whatsapp:" if channel == "whatsapp" else ""
        self._content_sid = content_sid if channel == "whatsapp" else None
        self._fixed = {"StatusCallback": status_callback}
        if sender.startswith("MG"):
            self._fixed["MessagingServiceSid"] = sender
        else:
            self._fixed["From"] = self._prefix + sender.removeprefix(self._prefix)
        self._path = f"/2010-04-01/Accounts/{account_sid}/Messages.json"
        self._http = Rest("Twilio", api_url, auth=(account_sid, auth_token), timeout=timeout)

    @classmethod
    def from_settings(cls, settings: Settings, channel: str) -> "Twilio":
        """As `TWILIO_*` say; the loader has seen to it that they are complete."""
        known = settings.credentials
        return cls(
            channel,
            account_sid=known["TWILIO_ACCOUNT_SID"],
            auth_token=known["TWILIO_AUTH_TOKEN"],
            sender=known["TWILIO_WHATSAPP_FROM" if channel == "whatsapp" else "TWILIO_FROM"],
            content_sid=known.get("TWILIO_CONTENT_SID"),
            status_callback=callback_url(settings, cls.name),
            api_url=known.get("TWILIO_API_URL", _API),
        )

    async def send(self, message: Message) -> Receipt:
        """Queues one message at Twilio; the receipt has its SID. Raises as `Provider.send` says."""
        answer = await self._http.form(
            self._path, {"To": self._prefix + message.to, **self._fixed, **self._body(message)}
        )
        told = answer.json()
        if not answer.ok:
            code = told.get("code")
            fault = FAULTS.get(code) if isinstance(code, int) else None
            raise self._http.refusal(fault or answer.fault(), message, told.get("message"))
        if not told.get("sid"):
            raise self._http.unreadable()
        return Receipt(str(told["sid"]))

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.close()

    def _body(self, message: Message) -> dict[str, str | None]:
        if self._content_sid and message.code:
            variables = msgspec.json.encode({"1": message.code}).decode()
            return {"ContentSid": self._content_sid, "ContentVariables": variables}
        seconds = message.valid_seconds if self.channel == "sms" else None
        return {"Body": message.text, "ValidityPeriod": str(max(seconds, _SHORTEST_VALIDITY)) if seconds else None}
