"""Gupshup's real-time delivery reports: not signed, so the URL it was given holds a secret.

One at a time by GET, in the query; or up to 20 at a time by POST, where Gupshup's support has set that up. Source:
Gupshup docs "Real Time Delivery Reports" (SMS and WhatsApp) with the states and causes below.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from app.delivery.callbacks.posted import Posted, Report, read_json, require_token
from app.delivery.faults import Fault
from app.errors import InvalidRequest

_DELIVERED: Final = frozenset({"DELIVERED", "READ", "SUCCESS"})
_FAILED: Final = frozenset({"FAILED", "FAIL", "FAILURE", "UNDELIVERED", "EXPIRED", "REJECTED"})
_FAULTS: Final[Mapping[str, Fault]] = {
    "UNKNOWN_SUBSCRIBER": Fault.RECIPIENT,
    "INVALID_NUMBER": Fault.RECIPIENT,
    "UNSUPPORTED": Fault.RECIPIENT,
    "ABSENT_SUBSCRIBER": Fault.MAILBOX_OFF,
    "SERVICE_DOWN": Fault.UNAVAILABLE,
    "SYSTEM_FAILURE": Fault.UNAVAILABLE,
    "DND_FAIL": Fault.OPTED_OUT,
    "BLOCKED": Fault.OPTED_OUT,
    "BLOCKED_FOR_USER": Fault.OPTED_OUT,
    "OPT_OUT": Fault.OPTED_OUT,
    "NOT_OPT_IN": Fault.OPTED_OUT,
}


class Gupshup:
    """One account, for SMS and WhatsApp."""

    name: Final = "gupshup"

    def __init__(self, token: str) -> None:
        self._token = token

    async def read(self, posted: Posted, now: datetime) -> Sequence[Report]:  # noqa: ARG002 - nothing signs a time
        """As `Reader` says."""
        require_token(posted, self._token)
        if posted.body:
            told = read_json(dict(posted.form()).get("response", "")) if posted.is_form else posted.json()
        else:
            told = _in_query(posted.query)
        events = told if isinstance(told, list) else [told]
        return [report for event in events if (report := _report(event))]


def _in_query(query: str) -> Mapping[str, str]:
    """A report by GET as the event it would be by POST. Raises `InvalidRequest` for a query that is none."""
    told = dict(parse_qsl(query))
    if not (told.get("externalId") and told.get("status")):
        raise InvalidRequest(detail="The query has no externalId or no status.")
    return {"externalId": told["externalId"], "eventType": told["status"], "cause": told.get("cause", "")}


def _report(event: Any) -> Report | None:
    match event:
        # Ids were seen as numbers, too.
        case {"externalId": str() | int() as name, "eventType": str(kind)} if kind.upper() in _DELIVERED:
            return Report(str(name), "delivered")
        case {"externalId": str() | int() as name, "eventType": str(kind)} if kind.upper() in _FAILED:
            cause = str(event.get("cause") or kind).upper().replace(" ", "_")
            return Report(str(name), "failed", _FAULTS.get(cause, Fault.REFUSED), f"Gupshup: {cause}")
        case _:
            return None
