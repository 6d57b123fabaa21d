"""Status webhooks of Meta's WhatsApp Cloud API.

Sources: Meta docs "Webhooks: getting started" (signature, verification request), "messages webhook: statuses".
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from app.delivery.callbacks.posted import TOLERANCE, Posted, Report, refuse, same
from app.delivery.faults import Fault
from app.delivery.providers.meta import FAULTS


class Meta:
    """One app. `verify_token` is what its owner typed in beside the callback's URL."""

    name: Final = "meta"

    def __init__(self, app_secret: str, verify_token: str | None = None) -> None:
        self._key = app_secret.encode()
        self._verify_token = verify_token

    def challenge(self, query: str) -> str:
        """The answer to the request by which Meta asks whether the URL is ours. Raises `Forbidden`."""
        asked = dict(parse_qsl(query))
        right = self._verify_token is not None and same(asked.get("hub.verify_token", ""), self._verify_token)
        if not right or asked.get("hub.mode") != "subscribe":
            raise refuse()
        return asked.get("hub.challenge", "")

    async def read(self, posted: Posted, now: datetime) -> Sequence[Report]:
        """As `Reader` says.

        The signature covers the body, in which each status has the time of its own: one outside the tolerance is left
        out, because the rest of the batch is as good as ever.
        """
        right = "sha256=" + hmac.digest(self._key, posted.body, hashlib.sha256).hex()
        if not same(posted.headers.get("x-hub-signature-256", ""), right):
            raise refuse()
        return [report for status in _statuses(posted.json()) if (report := _report(status, now))]


def _statuses(told: Any) -> Iterator[Any]:
    for entry in _list(told, "entry"):
        for change in _list(entry, "changes"):
            yield from _list(change.get("value") if isinstance(change, dict) else None, "statuses")


def _list(value: Any, name: str) -> list[Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _report(status: Any, now: datetime) -> Report | None:
    match status:
        case {"id": str(name), "status": "delivered" | "read", "timestamp": str(stamp)} if _recent(stamp, now):
            return Report(name, "delivered")
        case {"id": str(name), "status": "failed", "timestamp": str(stamp)} if _recent(stamp, now):
            error = next(iter(_list(status, "errors")), None)
            error = error if isinstance(error, dict) else {}
            code = error.get("code")
            fault = FAULTS.get(code, Fault.REFUSED) if isinstance(code, int) else Fault.REFUSED
            return Report(name, "failed", fault, f"Meta: {error.get('title') or 'failed'}")
        case _:
            return None


def _recent(stamp: str, now: datetime) -> bool:
    try:
        return abs(now - datetime.fromtimestamp(int(stamp), UTC)) <= TOLERANCE
    except (OverflowError, OSError, ValueError):
        return False
