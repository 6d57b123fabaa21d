"""Reports on SMS that Amazon publishes to an SNS topic, to which our URL is subscribed.

Two kinds of reports are understood: the events of AWS End User Messaging SMS (`eventType`), and the delivery status
logs of SNS itself (`notification`, `delivery`, `status`), as forwarded from CloudWatch. The topic must sign with
SHA-256 (`SignatureVersion` 2). Sources: Amazon SNS developer guide "Verifying the signatures of messages" and "Parsing
message formats", AWS End User Messaging SMS user guide "Event types": which of TEXT_DELIVERED and TEXT_SUCCESSFUL comes
depends on the country.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import Certificate, load_pem_x509_certificate

from app.delivery.callbacks.posted import Posted, Report, read_json, refuse, require_recent, same
from app.delivery.faults import Fault
from app.errors import InvalidRequest, Unavailable

# Where Amazon keeps its signing certificates and takes confirmations; whatever else a message names is not fetched.
_HOST: Final = re.compile(r"sns\.[a-z0-9-]{3,40}\.amazonaws\.com(\.cn)?")
_SECONDS: Final = 5.0
_MOST_BYTES: Final = 65_536
_KEPT_CERTIFICATES: Final = 8

# What is signed, in this order, each name and value on a line of its own.
_SIGNED: Final = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_OPTIONAL: Final = "Subject"

_DELIVERED: Final = frozenset({"TEXT_DELIVERED"})
_FAULTS: Final[Mapping[str, Fault]] = {
    "TEXT_INVALID": Fault.RECIPIENT,
    "TEXT_BLOCKED": Fault.OPTED_OUT,
    "TEXT_UNREACHABLE": Fault.MAILBOX_OFF,
    "TEXT_CARRIER_UNREACHABLE": Fault.UNAVAILABLE,
    "TEXT_TTL_EXPIRED": Fault.UNAVAILABLE,
    "TEXT_UNKNOWN": Fault.UNAVAILABLE,
    "TEXT_CARRIER_BLOCKED": Fault.REFUSED,
    "TEXT_INVALID_MESSAGE": Fault.REFUSED,
    "TEXT_PROTECT_BLOCKED": Fault.REFUSED,
    "TEXT_SPAM": Fault.REFUSED,
}
# What the log's `providerResponse` says of the number itself.
_BY_WORD: Final = (
    ("opted out", Fault.OPTED_OUT),
    ("phone has blocked", Fault.OPTED_OUT),
    ("on a blocked list", Fault.OPTED_OUT),
    ("invalid phone", Fault.RECIPIENT),
    ("unknown phone", Fault.RECIPIENT),
    ("carrier is currently unreachable", Fault.UNAVAILABLE),
    ("unreachable", Fault.MAILBOX_OFF),
    ("max price", Fault.ACCOUNT),
    ("invalid", Fault.REFUSED),
    ("blocked", Fault.REFUSED),
)

Fetch = Callable[[str], Awaitable[bytes]]


class Sns:
    """One topic. `fetch` gets a document from Amazon by its URL and raises `Unavailable` where it can't."""

    def __init__(self, topic_arn: str, fetch: Fetch) -> None:
        self._topic = topic_arn
        self._fetch = fetch
        self._certificates: dict[str, Certificate] = {}

    async def read(self, posted: Posted, now: datetime) -> Sequence[Report]:
        """As `Reader` says. Confirms the subscription when it is asked to. Raises `Unavailable`: Amazon tries again."""
        try:
            told = posted.unproven_json()
        except InvalidRequest:
            raise refuse() from None
        message = told if isinstance(told, dict) else {}
        await self._check(message, now)
        if message["Type"] == "SubscriptionConfirmation":
            await self._fetch(_url(message.get("SubscribeURL")))
            structlog.get_logger().info("Subscribed to reports on SMS", provider="sns")
            return []
        report = _report(read_json(str(message["Message"])))
        return [report] if report else []

    async def _check(self, message: Mapping[str, Any], now: datetime) -> None:
        names = _SIGNED.get(str(message.get("Type")))
        if names is None or not same(str(message.get("TopicArn")), self._topic):
            raise refuse()
        values = [(name, message.get(name)) for name in names if name != _OPTIONAL or name in message]
        if message.get("SignatureVersion") != "2" or not all(isinstance(value, str) for _, value in values):
            raise refuse()
        text = "".join(f"{name}\n{value}\n" for name, value in values)
        certificate = await self._certificate(_url(message.get("SigningCertURL")), now)
        key = certificate.public_key()
        try:
            signature = b64decode(str(message.get("Signature")), validate=True)
            moment = datetime.fromisoformat(str(message["Timestamp"]))
            if not isinstance(key, RSAPublicKey) or moment.tzinfo is None:
                raise refuse()
            key.verify(signature, text.encode(), PKCS1v15(), SHA256())
        except (Base64Error, InvalidSignature, ValueError):
            raise refuse() from None
        require_recent(moment, now)

    async def _certificate(self, url: str, now: datetime) -> Certificate:
        known = self._certificates.get(url)
        if known is None:
            try:
                known = load_pem_x509_certificate(await self._fetch(url))
            except ValueError:
                raise refuse() from None
            if len(self._certificates) >= _KEPT_CERTIFICATES:
                self._certificates.clear()
            self._certificates[url] = known
        if not known.not_valid_before_utc <= now <= known.not_valid_after_utc:
            raise refuse()
        return known


async def fetch(url: str) -> bytes:
    """A small document from Amazon, over TLS, without following redirects. Raises `Unavailable`."""
    try:
        async with (
            httpx.AsyncClient(timeout=_SECONDS, follow_redirects=False) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            received = bytearray()
            async for chunk in answer.aiter_raw():
                received += chunk
                if len(received) > _MOST_BYTES:
                    raise Unavailable
            return bytes(received)
    except httpx.HTTPError:
        raise Unavailable from None


def _url(given: object) -> str:
    """A URL at Amazon. Raises `Forbidden` for any other."""
    try:
        parts = urlsplit(str(given))
        usual = parts.scheme == "https" and parts.port in {None, 443} and "@" not in parts.netloc
    except ValueError:
        raise refuse() from None
    if not usual or not _HOST.fullmatch(parts.hostname or ""):
        raise refuse()
    return str(given)


def _report(told: Any) -> Report | None:
    match told:
        case {"messageId": str(name), "eventType": str(kind)} if kind in _DELIVERED:
            return Report(name, "delivered")
        # "Taken by the carrier" is all that some countries ever tell; then it is marked as the last word.
        case {"messageId": str(name), "eventType": "TEXT_SUCCESSFUL", "isFinal": True}:
            return Report(name, "delivered")
        case {"messageId": str(name), "eventType": str(kind)} if kind in _FAULTS:
            words = told.get("messageStatusDescription") or kind
            return Report(name, "failed", _FAULTS[kind], f"Amazon SNS: {words}")
        case {"notification": {"messageId": str(name)}, "status": "SUCCESS"}:
            return Report(name, "delivered")
        case {"notification": {"messageId": str(name)}, "status": "FAILURE", "delivery": {"providerResponse": words}}:
            fault = next((fault for word, fault in _BY_WORD if word in str(words).lower()), Fault.UNAVAILABLE)
            return Report(name, "failed", fault, f"Amazon SNS: {words}")
        case _:
            return None
