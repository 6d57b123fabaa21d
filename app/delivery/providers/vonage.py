"""SMS by Vonage (once Nexmo), through its SMS API. The status of each part stands in the body of a 200.

Sources: Vonage docs "SMS API reference" for the request, "Troubleshooting SMS" and "API Errors: SMS API" for the
codes below.
"""

from collections.abc import Mapping
from typing import Final

from app.delivery.faults import Fault
from app.delivery.gsm import is_gsm
from app.delivery.message import Message, Receipt
from app.delivery.providers.rest import TIMEOUT_SECONDS, Rest, callback_url, digits
from app.settings import Settings

_API: Final = "https://rest.nexmo.com"
# Limits of the API: characters of a callback URL, and the least life of a message in milliseconds.
_LONGEST_CALLBACK: Final = 100
_SHORTEST_TTL: Final = 20_000
_TAKEN: Final = "0"

FAULTS: Final[Mapping[str, Fault]] = {
    "1": Fault.THROTTLED,
    "2": Fault.REFUSED,  # missing parameters
    "3": Fault.REFUSED,  # invalid parameters
    "4": Fault.CREDENTIALS,
    "5": Fault.UNAVAILABLE,  # internal error
    "6": Fault.RECIPIENT,  # such as an unknown prefix
    "7": Fault.OPTED_OUT,  # barred
    "8": Fault.ACCOUNT,  # suspended
    "9": Fault.ACCOUNT,  # out of credit
    "10": Fault.THROTTLED,  # too many binds
    "11": Fault.ACCOUNT,  # not enabled for HTTP
    "12": Fault.REFUSED,  # too long
    "14": Fault.CREDENTIALS,  # signature
    "15": Fault.SENDER,
    "22": Fault.UNROUTABLE,  # network code
    "23": Fault.REFUSED,  # callback URL
    "29": Fault.UNROUTABLE,  # trial accounts write to listed numbers only
    "32": Fault.CREDENTIALS,
    "33": Fault.RECIPIENT,  # deactivated number
}


class Vonage:
    """One sender of one account."""

    name = "vonage"
    channel = "sms"

    def __init__(
        self,
        *,
        api_key: str,
        api_secret: str,
        sender: str,
        status_callback: str | None = None,
        api_url: str = _API,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._sender = digits(sender)
        self._callback = status_callback if len(status_callback or "") <= _LONGEST_CALLBACK else None
        self._http = Rest("Vonage", api_url, auth=(api_key, api_secret), timeout=timeout)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Vonage":
        """As `VONAGE_*` say; the loader has seen to it that they are complete."""
        known = settings.credentials
        return cls(
            api_key=known["VONAGE_API_KEY"],
            api_secret=known["VONAGE_API_SECRET"],
            sender=known["VONAGE_FROM"],
            status_callback=callback_url(settings, cls.name),
            api_url=known.get("VONAGE_API_URL", _API),
        )

    async def send(self, message: Message) -> Receipt:
        """Queues one SMS at Vonage; the receipt has the id of its first part. Raises as `Provider.send` says."""
        seconds = message.valid_seconds
        answer = await self._http.form(
            "/sms/json",
            {
                "to": digits(message.to),
                "from": self._sender,
                "text": message.text,
                "type": "text" if is_gsm(message.text) else "unicode",
                "client-ref": message.id,
                "ttl": str(max(seconds * 1000, _SHORTEST_TTL)) if seconds else None,
                "callback": self._callback,
            },
        )
        if not answer.ok:
            raise self._http.refusal(answer.fault(), message, answer.json().get("title"))
        parts = answer.json().get("messages")
        if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
            raise self._http.unreadable()
        for part in parts:
            if (status := str(part.get("status"))) != _TAKEN:
                raise self._http.refusal(FAULTS.get(status, Fault.REFUSED), message, part.get("error-text"))
        return Receipt(str(parts[0].get("message-id", "")))

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.close()
