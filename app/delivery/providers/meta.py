"""WhatsApp by Meta's Cloud API: the authentication template with a copy-code button.

Meta fixes the words of that template; the code goes in twice, into the text and into the button. Sources: Meta docs
"Copy code authentication templates" and Meta's OpenAPI description (facebook/openapi, Message) for the request,
"WhatsApp Business Platform: Error codes" (developers.facebook.com) for the codes below.
"""

from collections.abc import Mapping
from typing import Any, Final

from app.delivery.faults import Fault
from app.delivery.message import Message, Receipt
from app.delivery.providers.rest import TIMEOUT_SECONDS, Rest, code_of
from app.settings import Settings

_API: Final = "https://graph.facebook.com"
_VERSION: Final = "v23.0"
_NOT_TRANSLATED: Final = 132001
_DEFAULT: Final = ("en", "en_US")

FAULTS: Final[Mapping[int, Fault]] = {
    0: Fault.CREDENTIALS,
    3: Fault.CREDENTIALS,
    10: Fault.CREDENTIALS,
    104: Fault.CREDENTIALS,  # no token
    190: Fault.CREDENTIALS,  # expired token
    131005: Fault.CREDENTIALS,  # access denied
    1: Fault.UNAVAILABLE,
    2: Fault.UNAVAILABLE,
    131000: Fault.UNAVAILABLE,
    131016: Fault.UNAVAILABLE,
    131057: Fault.UNAVAILABLE,  # the account is in maintenance
    133004: Fault.UNAVAILABLE,
    4: Fault.THROTTLED,
    80007: Fault.THROTTLED,
    130429: Fault.THROTTLED,
    131048: Fault.THROTTLED,  # too many earlier messages were blocked
    131056: Fault.THROTTLED,  # too many to this recipient
    33: Fault.SENDER,  # there is no such sending number
    131037: Fault.SENDER,  # its name is not approved
    131045: Fault.SENDER,
    133010: Fault.SENDER,  # not registered
    131026: Fault.RECIPIENT,  # not on WhatsApp, most likely
    131021: Fault.RECIPIENT,  # is the sender
    131030: Fault.UNROUTABLE,  # test numbers write to listed numbers only
    130472: Fault.MAILBOX_OFF,  # in an experiment of Meta's
    131049: Fault.MAILBOX_OFF,  # enough of this kind already
    130497: Fault.UNROUTABLE,  # not into this country
    131050: Fault.TEMPLATE,  # wants no marketing: the template is of the wrong category
    131047: Fault.TEMPLATE,  # outside the 24 hours only templates may be sent
    132000: Fault.TEMPLATE,
    132001: Fault.TEMPLATE,
    132005: Fault.TEMPLATE,
    132007: Fault.TEMPLATE,
    132012: Fault.TEMPLATE,
    132015: Fault.TEMPLATE,  # paused
    132016: Fault.TEMPLATE,  # disabled
    368: Fault.ACCOUNT,  # blocked for violating policies
    131031: Fault.ACCOUNT,  # locked
    131042: Fault.ACCOUNT,  # payment
    100: Fault.REFUSED,  # a parameter
    131008: Fault.REFUSED,
    131009: Fault.REFUSED,
    131051: Fault.REFUSED,
    135000: Fault.REFUSED,  # an unknown error with the parameters
}


class Meta:
    """One sending number with one template, in as many languages as Meta has approved it in."""

    name = "meta"
    channel = "whatsapp"

    def __init__(
        self,
        *,
        access_token: str,
        phone_number_id: str,
        template: str,
        api_url: str = _API,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._template = template
        self._path = f"/{_VERSION}/{phone_number_id}/messages"
        self._http = Rest("Meta", api_url, headers={"Authorization": f"Bearer {access_token}"}, timeout=timeout)
        # Only Meta knows which translations are approved; what it has told is remembered.
        self._translations: dict[str, str] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> "Meta":
        """As `META_*` say; the loader has seen to it that they are complete."""
        known = settings.credentials
        return cls(
            access_token=known["META_ACCESS_TOKEN"],
            phone_number_id=known["META_PHONE_NUMBER_ID"],
            template=known["META_TEMPLATE"],
            api_url=known.get("META_API_URL", _API),
        )

    async def send(self, message: Message) -> Receipt:
        """Sends the template in the language of the message, else in English; the receipt has the `wamid`.

        Raises as `Provider.send` says; `template` for a message without a code.
        """
        code = code_of(message, "Meta")
        wanted = (message.locale or _DEFAULT[0]).replace("-", "_")
        known = self._translations.get(wanted, wanted)
        for language in dict.fromkeys((known, wanted.partition("_")[0], *_DEFAULT)):
            answer = await self._http.json(self._path, self._body(message.to, code, language))
            told = answer.json()
            if answer.ok:
                self._translations[wanted] = language
                return Receipt(self._id(told))
            error = _object(told.get("error"))
            if error.get("code") != _NOT_TRANSLATED:
                break
        details = _object(error.get("error_data")).get("details")
        raise self._http.refusal(_fault(error.get("code"), answer.fault()), message, details or error.get("message"))

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.close()

    def _body(self, to: str, code: str, language: str) -> dict[str, object]:
        parameters = [{"type": "text", "text": code}]
        return {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": to,
            "type": "template",
            "template": {
                "name": self._template,
                "language": {"policy": "deterministic", "code": language},
                "components": [
                    {"type": "body", "parameters": parameters},
                    {"type": "button", "sub_type": "url", "index": "0", "parameters": parameters},
                ],
            },
        }

    def _id(self, told: dict[str, Any]) -> str:
        match told:
            case {"messages": [{"id": str(name)}, *_]}:
                return name
            case _:
                raise self._http.unreadable()


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _fault(code: object, otherwise: Fault) -> Fault:
    if not isinstance(code, int):
        return otherwise
    # 200 to 299 are permissions that were not granted, or taken away.
    return Fault.CREDENTIALS if code in range(200, 300) else FAULTS.get(code, otherwise)
