"""SMS and WhatsApp by Gupshup's enterprise gateway, which matches every text against the registered templates.

Its answers are 200 with a status and a code in the body. Gupshup's self-serve platform (api.gupshup.io), which has keys
instead of user and password, is another product. Sources: docs.gupshup.io, "Send Messages to Single Number" (SMS) and
"Enterprise Messaging APIs for WhatsApp Business" for the requests, "Error Codes" (from 100) and "Error and Status
Messages" (from 1001) for the codes below.
"""

import re
from collections.abc import Mapping
from typing import Final

from app.delivery.faults import Fault
from app.delivery.gsm import is_gsm
from app.delivery.message import Message, Receipt
from app.delivery.providers.rest import TIMEOUT_SECONDS, Rest, digits
from app.errors import ConfigurationError
from app.settings import Settings

_API: Final = {"sms": "https://enterprise.smsgupshup.com", "whatsapp": "https://mediaapi.smsgupshup.com"}
# Where the code goes: DLT's way to write a variable, and WhatsApp's.
_VARIABLE: Final = re.compile(r"\{#var#\}|\{\{1\}\}")

FAULTS: Final[Mapping[str, Fault]] = {
    "100": Fault.UNAVAILABLE,  # unknown error
    "101": Fault.REFUSED,  # a parameter is missing
    "102": Fault.CREDENTIALS,
    "103": Fault.CREDENTIALS,  # no such user
    "104": Fault.ACCOUNT,  # disabled
    "105": Fault.RECIPIENT,
    "106": Fault.ACCOUNT,  # a method the account doesn't have
    "107": Fault.REFUSED,
    "108": Fault.SENDER,  # the mask
    "175": Fault.ACCOUNT,  # a service the account doesn't have, such as numbers abroad
    "500": Fault.UNAVAILABLE,
    "1002": Fault.RECIPIENT,  # not on WhatsApp
    "1003": Fault.ACCOUNT,  # out of credit
    "1004": Fault.TEMPLATE,
    "1005": Fault.TEMPLATE,
    "1006": Fault.OPTED_OUT,  # never opted in
    "1007": Fault.OPTED_OUT,
    "1008": Fault.OPTED_OUT,
    "1012": Fault.OPTED_OUT,
    "4001": Fault.THROTTLED,
    "4002": Fault.UNAVAILABLE,
    "4003": Fault.TEMPLATE,
    "4005": Fault.TEMPLATE,  # paused
}


class Gupshup:
    """One account, for `sms` or `whatsapp`.

    `template` is the registered text, with `{#var#}` or `{{1}}` where the code goes; without it the text goes as it
    is. Raises `ConfigurationError` for a template that doesn't have exactly one such place.
    """

    name = "gupshup"

    def __init__(
        self,
        channel: str,
        *,
        user_id: str,
        password: str,
        template: str | None = None,
        api_url: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        if template is not None and len(_VARIABLE.findall(template)) != 1:
            raise ConfigurationError(["GUPSHUP_TEMPLATE must have {#var#} or {{1}} once, where the code goes."])
        self.channel = channel
        self._template = template
        self._fixed = {
            "method": "SendMessage",
            "userid": user_id,
            "password": password,
            "auth_scheme": "plain",
            "v": "1.1",
            "format": "json",
        }
        self._http = Rest("Gupshup", api_url or _API[channel], timeout=timeout)

    @classmethod
    def from_settings(cls, settings: Settings, channel: str) -> "Gupshup":
        """As `GUPSHUP_*` say; the loader has seen to it that they are complete."""
        known = settings.credentials
        return cls(
            channel,
            user_id=known["GUPSHUP_USER_ID"],
            password=known["GUPSHUP_PASSWORD"],
            template=known.get("GUPSHUP_TEMPLATE"),
            api_url=known.get("GUPSHUP_API_URL"),
        )

    async def send(self, message: Message) -> Receipt:
        """Hands one message over; the receipt has Gupshup's id for it. Raises as `Provider.send` says."""
        answer = await self._http.form(
            "/GatewayAPI/rest", {**self._fixed, "send_to": digits(message.to), **self._content(message)}
        )
        told = answer.json().get("response")
        if not isinstance(told, dict):
            raise self._http.unreadable() if answer.ok else self._http.refusal(answer.fault(), message)
        if told.get("status") != "success":
            fault = FAULTS.get(str(told.get("id")), answer.fault())
            raise self._http.refusal(fault, message, told.get("details"))
        return Receipt(str(told.get("id", "")))

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.close()

    def _content(self, message: Message) -> dict[str, str | None]:
        code = message.code
        # The code as a function's result: as a replacement string it would be searched for backslashes.
        text = _VARIABLE.sub(lambda _: code, self._template) if self._template and code else message.text
        if self.channel == "sms":
            return {"msg": text, "msg_type": "TEXT" if is_gsm(text) else "UNICODE_TEXT"}
        # The copy-code button is a URL button to WhatsApp, and the code its parameter.
        return {"msg": text, "msg_type": "TEXT", "isHSM": "true", "isTemplate": "true", "buttonUrlParam": code}
