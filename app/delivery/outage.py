"""Living through the absence of a store: told once, not once a try."""

import asyncio
from typing import Final

import structlog

_PAUSE_SECONDS: Final = 0.5


class Outage:
    """Whether a server is away. Shared by everything in a process that talks to it."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._away = False
        self._log = structlog.get_logger()

    async def pause(self) -> None:
        """Call after each failed try: logs the first one and waits a moment."""
        if not self._away:
            self._away = True
            self._log.warning("Server is away; trying on", server=self._server)
        await asyncio.sleep(_PAUSE_SECONDS)

    def over(self) -> None:
        """Call after each success."""
        if self._away:
            self._away = False
            self._log.info("Server is back", server=self._server)
