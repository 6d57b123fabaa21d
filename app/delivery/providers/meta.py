"""WhatsApp by Meta's Cloud API: the authentication template with a copy-code button.

Meta fixes the words of that template; the code goes in twice, into the text and into the button. Sources: Meta docs
"Copy code authentication templates" and Meta's OpenAPI description (facebook/openapi, Message) for the request,
"WhatsApp Business Platform: Error codes" (developers.facebook.com) for the codes below.
"""

from collections.abc import Mapping
from typing import Any, Final

from app.delivery.message import Message, Receipt
from app.delivery.providers.rest import (
    ACCOUNT,
    CREDENTIALS,
    RECIPIENT,
    REFUSED,
    SENDER,
    TEMPLATE,
    THROTTLED,
    TIMEOUT_SECONDS,
    UNAVAILABLE,
    UNROUTABLE,
    Fault,
    Rest,
    code_of,
)
from app.settings import Settings

_API: Final = "https://graph.facebook.com"
_VERSION: Final = "v23.0"
_NOT_TRANSLATED: Final = 132001
_DEFAULT: Final = ("en", "en_US")

FAULTS: Final[Mapping[int, Fault]] = {
    0: CREDENTIALS,
    3: CREDENTIALS,
    10: CREDENTIALS,
    104: CREDENTIALS,  # no token
    190: CREDENTIALS,  # expired token
    131005: CREDENTIALS,  # access denied
    1: UNAVAILABLE,
    2: UNAVAILABLE,
    131000: UNAVAILABLE,
    131016: UNAVAILABLE,
    131057: UNAVAILABLE,  # the account is in maintenance
    133004: UNAVAILABLE,
    4: THROTTLED,
    80007: THROTTLED,
    130429: THROTTLED,
    131048: THROTTLED,  # too many earlier messages were blocked
    131056: THROTTLED,  # too many to this recipient
    33: SENDER,  # there is no such sending number
    131037: SENDER,  # its name is not approved
    131045: SENDER,
    133010: SENDER,  # not registered
    131026: RECIPIENT,  # not on WhatsApp, most likely
    131021: RECIPIENT,  # is the sender
    131030: UNROUTABLE,  # test numbers write to listed numbers only
    130472: UNROUTABLE,  # in an experiment of Meta's
    131049: UNROUTABLE,  # enough of this kind already
    130497: UNROUTABLE,  # not into this country
    131050: TEMPLATE,  # wants no marketing: the template is of the wrong category
    131047: TEMPLATE,  # outside the 24 hours only templates may be sent
    132000: TEMPLATE,
    132001: TEMPLATE,
    132005: TEMPLATE,
    132007: TEMPLATE,
    132012: TEMPLATE,
    132015: TEMPLATE,  # paused
    132016: TEMPLATE,  # disabled
    368: ACCOUNT,  # blocked for violating policies
    131031: ACCOUNT,  # locked
    131042: ACCOUNT,  # payment
    100: REFUSED,  # a parameter
    131008: REFUSED,
    131009: REFUSED,
    131051: REFUSED,
    135000: REFUSED,  # an unknown error with the parameters
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
    return CREDENTIALS if code in range(200, 300) else FAULTS.get(code, otherwise)
