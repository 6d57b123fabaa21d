"""Twilio's status callbacks.

Sources: Twilio docs "Security: validating requests", "Message resource: status callback".
"""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from app.delivery.callbacks.posted import Posted, Report, refuse, same
from app.delivery.faults import Fault
from app.delivery.providers.twilio import FAULTS
from app.errors import InvalidRequest

_DELIVERED: Final = frozenset({"delivered", "read"})
_FAILED: Final = frozenset({"failed", "undelivered", "canceled"})


class Twilio:
    """`url` is the one that Twilio was given: it signs it together with the fields, but no time."""

    def __init__(self, auth_token: str, url: str) -> None:
        self._key = auth_token.encode()
        self._url = url

    async def read(self, posted: Posted, now: datetime) -> Sequence[Report]:  # noqa: ARG002 - Twilio signs no time
        """As `Reader` says."""
        try:
            fields = posted.form()
        except InvalidRequest:
            raise refuse() from None
        if not same(posted.headers.get("x-twilio-signature", ""), self._signature(posted.query, fields)):
            raise refuse()
        told = dict(fields)
        status, sid = told.get("MessageStatus") or told.get("SmsStatus"), told.get("MessageSid") or told.get("SmsSid")
        if not sid:
            return []
        if status in _DELIVERED:
            return [Report(sid, "delivered")]
        if status in _FAILED:
            number = told.get("ErrorCode", "")
            fault = FAULTS.get(int(number), Fault.REFUSED) if number.isdecimal() else Fault.REFUSED
            return [Report(sid, "failed", fault, f"Twilio: {status} {number}".rstrip())]
        return []

    def _signature(self, query: str, fields: list[tuple[str, str]]) -> str:
        url = f"{self._url}?{query}" if query else self._url
        text = url + "".join(name + value for name, value in sorted(set(fields)))
        return b64encode(hmac.digest(self._key, text.encode(), hashlib.sha1)).decode()
