"""Vonage's delivery receipts, signed with the account's signature secret.

By `sig` among the fields (SMS API; HMAC of SHA-256 or SHA-512, chosen in the dashboard: MD5 and SHA-1 are not
believed), or by a JWT in the Authorization header, which holds a hash of the body. Sources: Vonage docs "Signing
messages", "Delivery receipts", "Decoding signed webhooks"; "Vonage SMS Delivery Error Codes and Descriptions" for the
codes below.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import jwt

from app.delivery.callbacks.posted import TOLERANCE, Posted, Report, refuse, require_recent, same
from app.delivery.faults import Fault
from app.errors import InvalidRequest

_FAILED: Final = frozenset({"expired", "failed", "rejected"})
# By `err-code`.
_FAULTS: Final[Mapping[str, Fault]] = {
    "1": Fault.UNAVAILABLE,  # unknown
    "2": Fault.MAILBOX_OFF,  # absent for now
    "3": Fault.RECIPIENT,  # absent for good
    "4": Fault.OPTED_OUT,  # barred by the user
    "5": Fault.UNAVAILABLE,  # portability error
    "6": Fault.REFUSED,  # spam
    "7": Fault.MAILBOX_OFF,  # handset busy
    "8": Fault.UNAVAILABLE,  # network
    "9": Fault.OPTED_OUT,  # "illegal number": wants nothing from such senders
    "10": Fault.REFUSED,  # illegal message
    "11": Fault.UNROUTABLE,  # Vonage has no way there
    "12": Fault.MAILBOX_OFF,  # unreachable
    "13": Fault.REFUSED,  # age restriction
    "14": Fault.OPTED_OUT,  # blocked by the carrier
    "15": Fault.MAILBOX_OFF,  # the recipient's prepaid card is empty
    "39": Fault.SENDER,
    # India's register, and the like: what must be registered there isn't.
    "50": Fault.TEMPLATE,
    "51": Fault.SENDER,
    "52": Fault.TEMPLATE,
    "53": Fault.OPTED_OUT,  # no consent
    "99": Fault.UNAVAILABLE,  # general
}
_BY_LENGTH: Final = {64: "sha256", 128: "sha512"}


class Vonage:
    """One account."""

    def __init__(self, signature_secret: str) -> None:
        self._key = signature_secret.encode()

    async def read(self, posted: Posted, now: datetime) -> Sequence[Report]:
        """As `Reader` says."""
        told = self._fields(posted)
        bearer, _, token = posted.headers.get("authorization", "").partition(" ")
        if bearer.lower() == "bearer":
            self._check_token(token.strip(), posted.body, now)
        else:
            self._check_signature(told, now)
        name, status = told.get("messageId"), told.get("status")
        if not name:
            return []
        if status == "delivered":
            return [Report(name, "delivered")]
        if status in _FAILED:
            number = told.get("err-code", "")
            return [Report(name, "failed", _FAULTS.get(number, Fault.REFUSED), f"Vonage: {status} {number}".rstrip())]
        return []

    def _fields(self, posted: Posted) -> dict[str, str]:
        """The fields, as text. Who sends something else is not Vonage."""
        try:
            told = dict(posted.form()) if posted.is_form else posted.unproven_json()
        except InvalidRequest:
            raise refuse() from None
        if not isinstance(told, dict):
            raise refuse()
        return {name: str(value) for name, value in told.items()}

    def _check_signature(self, told: Mapping[str, str], now: datetime) -> None:
        given = told.get("sig", "").lower()
        algorithm = _BY_LENGTH.get(len(given))
        if algorithm is None:
            raise refuse()
        # What separates the fields can't stand in one.
        safe = {name: value.replace("&", "_").replace("=", "_") for name, value in told.items() if name != "sig"}
        text = "".join(f"&{name}={safe[name]}" for name in sorted(safe))
        if not same(given, hmac.digest(self._key, text.encode(), algorithm).hex()):
            raise refuse()
        stamp = told.get("timestamp", "")
        if not stamp.isdecimal():
            raise refuse()
        require_recent(_moment(int(stamp)), now)

    def _check_token(self, token: str, body: bytes, now: datetime) -> None:
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                # Our own clock decides, below.
                options={
                    "require": ["iat", "payload_hash"],
                    "verify_iat": False,
                    "verify_exp": False,
                    "verify_nbf": False,
                },
                leeway=TOLERANCE,
            )
            require_recent(_moment(int(claims["iat"])), now)
        except (jwt.InvalidTokenError, TypeError, ValueError):
            raise refuse() from None
        if not same(str(claims["payload_hash"]).lower(), hashlib.sha256(body).hexdigest()):
            raise refuse()


def _moment(seconds: int) -> datetime:
    """Raises `Forbidden` for a number that is no time."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        raise refuse() from None
