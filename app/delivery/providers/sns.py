"""SMS by Amazon SNS: `Publish` to a phone number (Query protocol, version 2010-03-31), signed with Signature V4.

botocore signs, and finds the credentials of a machine's role where none are set; its clients and their models are not
used. Sources: Amazon SNS API reference "Publish" (request, errors) and "Common Error Types".
"""

import asyncio
import html
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from app.delivery.faults import Fault
from app.delivery.message import Message, PermanentFailure, Receipt, TransientFailure
from app.delivery.providers.rest import TIMEOUT_SECONDS, Rest
from app.errors import ConfigurationError
from app.settings import Settings

FAULTS: Final[Mapping[str, Fault]] = {
    "InvalidParameter": Fault.REFUSED,  # or the number, see _fault
    "ParameterValueInvalid": Fault.REFUSED,
    "ValidationException": Fault.REFUSED,
    "NotFound": Fault.REFUSED,
    "OptedOut": Fault.OPTED_OUT,
    "InternalError": Fault.UNAVAILABLE,
    "InternalFailure": Fault.UNAVAILABLE,
    "ServiceUnavailable": Fault.UNAVAILABLE,
    "Throttled": Fault.THROTTLED,
    "Throttling": Fault.THROTTLED,
    "ThrottlingException": Fault.THROTTLED,
    "AuthorizationError": Fault.CREDENTIALS,
    "AccessDenied": Fault.CREDENTIALS,
    "AccessDeniedException": Fault.CREDENTIALS,
    "NotAuthorized": Fault.CREDENTIALS,
    "InvalidSecurity": Fault.CREDENTIALS,
    "InvalidClientTokenId": Fault.CREDENTIALS,
    "SignatureDoesNotMatch": Fault.CREDENTIALS,
    "IncompleteSignature": Fault.CREDENTIALS,
    "MissingAuthenticationToken": Fault.CREDENTIALS,
    "ExpiredToken": Fault.CREDENTIALS,
    "ExpiredTokenException": Fault.CREDENTIALS,
    "OptInRequired": Fault.CREDENTIALS,
    "RequestExpired": Fault.CREDENTIALS,  # our clock is wrong
}


class Sns:
    """One region of one AWS account. Without keys, those of the machine's role are used and renewed.

    `sender_id` is the name shown as sender, in countries that allow one.
    """

    name = "sns"
    channel = "sms"

    def __init__(
        self,
        *,
        region: str,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        sender_id: str | None = None,
        api_url: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._region = region
        self._url = api_url or f"https://sns.{region}.amazonaws.com"
        self._credentials: Any = (
            ReadOnlyCredentials(access_key_id, secret_access_key, session_token)
            if access_key_id and secret_access_key
            else None
        )
        attributes = {"AWS.SNS.SMS.SMSType": "Transactional"}
        if sender_id:
            attributes["AWS.SNS.SMS.SenderID"] = sender_id
        self._fixed = {"Action": "Publish", "Version": "2010-03-31", **_encoded(attributes)}
        self._http = Rest("Amazon SNS", self._url, timeout=timeout)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Sns":
        """As `AWS_*` and `SNS_*` say. Raises `ConfigurationError` without a region."""
        known = settings.credentials
        if "AWS_REGION" not in known:
            raise ConfigurationError(["AWS_REGION is missing: the provider sns needs it."])
        return cls(
            region=known["AWS_REGION"],
            access_key_id=known.get("AWS_ACCESS_KEY_ID"),
            secret_access_key=known.get("AWS_SECRET_ACCESS_KEY"),
            session_token=known.get("AWS_SESSION_TOKEN"),
            sender_id=known.get("SNS_SENDER_ID"),
            api_url=known.get("SNS_API_URL"),
        )

    async def send(self, message: Message) -> Receipt:
        """Publishes one SMS; the receipt has its MessageId. Raises as `Provider.send` says."""
        body = urlencode({**self._fixed, "PhoneNumber": message.to, "Message": message.text}).encode()
        answer = await self._http.post("/", body, self._signed(body, await self._keys()))
        text = answer.body.decode(errors="replace")
        if not answer.ok:
            code, words = _element(text, "Code"), _element(text, "Message")
            raise self._http.refusal(_fault(code, words, answer.fault()), message, words)
        if not (name := _element(text, "MessageId")):
            raise self._http.unreadable()
        return Receipt(name)

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.close()

    def _signed(self, body: bytes, keys: ReadOnlyCredentials) -> dict[str, str]:
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        request = AWSRequest("POST", f"{self._url}/", headers=headers, data=body)
        SigV4Auth(keys, "sns", self._region).add_auth(request)
        return dict(request.headers.items())

    async def _keys(self) -> ReadOnlyCredentials:
        if isinstance(self._credentials, ReadOnlyCredentials):
            return self._credentials
        try:
            # Finding and renewing a role's credentials reads files and asks the machine's metadata service.
            if self._credentials is None:
                self._credentials = await asyncio.to_thread(Session().get_credentials)
            if self._credentials is None:
                sentence = "There are no AWS credentials: set AWS_ACCESS_KEY_ID, or give the machine a role."
                raise PermanentFailure(Fault.CREDENTIALS.value, sentence)
            return await asyncio.to_thread(self._credentials.get_frozen_credentials)
        except BotoCoreError as error:
            raise TransientFailure(Fault.UNAVAILABLE.value, f"No AWS credentials at the moment: {error}") from error


def _encoded(attributes: Mapping[str, str]) -> dict[str, str]:
    """Message attributes as the Query protocol writes a map."""
    fields: dict[str, str] = {}
    for number, (name, value) in enumerate(attributes.items(), start=1):
        entry = f"MessageAttributes.entry.{number}"
        fields |= {f"{entry}.Name": name, f"{entry}.Value.DataType": "String", f"{entry}.Value.StringValue": value}
    return fields


def _element(text: str, name: str) -> str:
    """The text of the first such element: the answers are flat, so there is no need to trust them with a parser."""
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return html.unescape(found[1]) if found else ""


def _fault(code: str, words: str, by_status: Fault) -> Fault:
    if code in {"InvalidParameter", "ParameterValueInvalid"} and "phone" in words.lower():
        return Fault.RECIPIENT
    return FAULTS.get(code, by_status)
