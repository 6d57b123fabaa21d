"""Takes providers' reports: each counts once, whatever comes twice, too early or too late changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog

from app.delivery.callbacks.posted import Posted, Reader, Report
from app.delivery.message import MAX_TEXT, harmless, one_line
from app.delivery.routing import UNHEALTHY
from app.storage.db import Database

_TAKE: Final = "SELECT fn.take_report($1, $2, $3, $4, $5, $6, $7) AS outcome"


class Reports:
    """Writes down what became of messages. `routes` are the providers by channel, for codes that must go on."""

    def __init__(
        self,
        database: Database,
        routes: Mapping[str, Sequence[str]],
        clock: Callable[[], datetime],
        wake_worker: Callable[[], None],
    ) -> None:
        self._database = database
        self._routes = routes
        self._clock = clock
        self._wake_worker = wake_worker
        self._log = structlog.get_logger()

    async def take(self, provider: str, reader: Reader, posted: Posted) -> None:
        """All reports of one call. Raises what `Reader.read` does, with nothing changed, and `Unavailable`."""
        for report in await reader.read(posted, self._clock()):
            await self.write(provider, report)

    async def write(self, provider: str, report: Report) -> None:
        """One report by whoever is believed to be the provider. Raises `Unavailable`."""
        name = one_line(report.message_id)[:MAX_TEXT]
        error_class = report.fault.value if report.fault else None
        text = harmless(report.text) if report.text else None
        row = await self._database.row(
            _TAKE,
            self._clock(),
            f"{provider}:{name}",
            report.state,
            error_class,
            text,
            error_class in UNHEALTHY,
            self._routes,
        )
        outcome = row["outcome"] if row else None
        if report.state == "failed" and outcome in {"written", "followed"}:
            self._log.warning(
                "Delivery failed after the provider took it",
                provider=provider,
                error_class=error_class,
                detail=text,
                provider_message_id=name,
            )
        if outcome == "followed":
            self._wake_worker()
