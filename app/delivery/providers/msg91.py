"""SMS by MSG91: its registered template, filled in with the code (India's DLT rules allow nothing else).

The "Send SMS" (flow) API takes the code in the body. The OTP API would do as well, but takes it in the URL, where
access logs keep it. Sources: MSG91 docs "Send SMS" (docs.msg91.com/sms/send-sms) for the request, "Send SMS via FLOW"
(api.msg91.com/apidoc) and the vendor's own client for Node for the names in it, "Error Codes" for the numbers below;
newer answers have a sentence only, which is read for the thing it complains about.
"""

from collections.abc import Mapping
from typing import Any, Final

from app.delivery.faults import Fault
from app.delivery.message import Message, Receipt
from app.delivery.providers.rest import TIMEOUT_SECONDS, Rest, code_of, digits
from app.settings import Settings

_API: Final = "https://control.msg91.com"
# What templates call the code. A variable that isn't given is left blank without a word, so all usual names are.
_VARIABLES: Final = ("otp", "OTP", "var1", "VAR1")
# The same request within ten seconds: the first one was taken after all.
_DUPLICATE: Final = "311"

FAULTS: Final[Mapping[str, Fault]] = {
    "101": Fault.RECIPIENT,
    "202": Fault.RECIPIENT,
    "103": Fault.SENDER,
    "203": Fault.SENDER,
    "106": Fault.CREDENTIALS,
    "207": Fault.CREDENTIALS,
    "208": Fault.CREDENTIALS,  # this IP address is blocked
    "418": Fault.CREDENTIALS,  # this IP address is not on the list
    "401": Fault.CREDENTIALS,
    "209": Fault.ACCOUNT,  # no route
    "210": Fault.ACCOUNT,
    "301": Fault.ACCOUNT,  # out of credit
    "302": Fault.ACCOUNT,  # expired
    "303": Fault.ACCOUNT,  # banned
    "505": Fault.ACCOUNT,  # demo
    "506": Fault.ACCOUNT,  # the day's small campaigns are used up
    "102": Fault.REFUSED,
    "306": Fault.REFUSED,  # a route that sleeps at night
    "310": Fault.REFUSED,  # too long
    "001": Fault.UNAVAILABLE,
    "002": Fault.UNAVAILABLE,
    "601": Fault.UNAVAILABLE,
}
_BY_WORD: Final = (
    ("auth", Fault.CREDENTIALS),
    ("whitelist", Fault.CREDENTIALS),
    ("template", Fault.TEMPLATE),
    ("flow", Fault.TEMPLATE),
    ("sender", Fault.SENDER),
    ("mobile", Fault.RECIPIENT),
    ("balance", Fault.ACCOUNT),
)


class Msg91:
    """One template of one account. `sender` is for templates that leave it open."""

    name = "msg91"
    channel = "sms"

    def __init__(
        self,
        *,
        auth_key: str,
        template_id: str,
        sender: str | None = None,
        api_url: str = _API,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._fixed = {"template_id": template_id, "short_url": "0", **({"sender": sender} if sender else {})}
        self._http = Rest("MSG91", api_url, headers={"authkey": auth_key}, timeout=timeout)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Msg91":
        """As `MSG91_*` say; the loader has seen to it that they are complete."""
        known = settings.credentials
        return cls(
            auth_key=known["MSG91_AUTH_KEY"],
            template_id=known["MSG91_TEMPLATE_ID"],
            sender=known.get("MSG91_SENDER_ID"),
            api_url=known.get("MSG91_API_URL", _API),
        )

    async def send(self, message: Message) -> Receipt:
        """Queues one SMS at MSG91; the receipt has the request id.

        Raises as `Provider.send` says; `template` for a message without a code.
        """
        recipient = {"mobiles": digits(message.to), **dict.fromkeys(_VARIABLES, code_of(message, "MSG91"))}
        answer = await self._http.json("/api/v5/flow", {**self._fixed, "recipients": [recipient]})
        told = answer.json()
        if answer.ok and told.get("type") == "success":
            return Receipt(str(told.get("message", "")))
        if str(told.get("code")) == _DUPLICATE:
            return Receipt()
        if answer.ok and not (told.get("type") == "error" or told.get("hasError")):
            raise self._http.unreadable()
        text = told.get("message") or told.get("errors")
        raise self._http.refusal(_fault(told, str(text), answer.fault()), message, text)

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.close()


def _fault(told: dict[str, Any], text: str, by_status: Fault) -> Fault:
    """By number, else by status where that tells more than "refused", else by word."""
    if numbered := FAULTS.get(str(told.get("code"))):
        return numbered
    if by_status is not Fault.REFUSED:
        return by_status
    return next((fault for word, fault in _BY_WORD if word in text.lower()), Fault.REFUSED)
