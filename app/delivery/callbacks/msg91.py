"""MSG91's delivery reports: they are not signed, so the URL it was given holds a secret.

Source: MSG91 help "How to use Webhook to get the delivery report on the desired URL", with the states below. Their
version 4, made for CleverTap, names no request, so nothing can be learned from it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from app.delivery.callbacks.posted import Posted, Report, read_json, require_token
from app.delivery.faults import Fault

_DELIVERED: Final = "1"
_FAULTS: Final[Mapping[str, Fault]] = {
    "2": Fault.MAILBOX_OFF,  # not delivered to the handset
    "9": Fault.OPTED_OUT,  # do-not-disturb register
    "16": Fault.REFUSED,  # by the operator
    "17": Fault.OPTED_OUT,  # blocked number
    "25": Fault.REFUSED,
}


class Msg91:
    """One account."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def read(self, posted: Posted, now: datetime) -> Sequence[Report]:  # noqa: ARG002 - nothing signs a time
        """As `Reader` says."""
        require_token(posted, self._token)
        told = read_json(dict(posted.form()).get("data", "")) if posted.is_form else posted.json()
        return [report for status in _statuses(told) if (report := _report(status))]


def _statuses(told: Any) -> Iterator[Mapping[str, Any]]:
    """Version 3 is flat; in version 2 each request lists its numbers."""
    for item in told if isinstance(told, list) else [told]:
        if isinstance(item, dict):
            reports = item.get("report")
            inner = reports if isinstance(reports, list) else [item]
            yield from ({**item, **one} for one in inner if isinstance(one, dict))


def _report(status: Mapping[str, Any]) -> Report | None:
    name, number = status.get("requestId"), str(status.get("status", ""))
    if not isinstance(name, str):
        return None
    if number == _DELIVERED:
        return Report(name, "delivered")
    if number in _FAULTS:
        words = status.get("failedReason") or status.get("desc") or number
        return Report(name, "failed", _FAULTS[number], f"MSG91: {words}")
    return None
