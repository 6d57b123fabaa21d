"""Tells the worker that there is something in the outbox, without making anybody wait for it."""

import asyncio
from contextlib import suppress
from typing import Final

from app.delivery.outbox import WAKE_CHANNEL
from app.storage.redis import Accelerator, AcceleratorDown

# Under load one message for many codes spares this process, Valkey and the worker; no code notices the delay.
_SPAN_SECONDS: Final = 0.005


class Wakeup:
    """Call it after a commit: the first call sends at once, those of the next milliseconds share one message.

    One more message always follows a call that came during the last: the worker may have looked before that call's
    commit. A message that can't be sent is dropped, because the worker looks by itself anyway.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def __call__(self) -> None:
        """Starts the message, or makes one follow that under way. Never waits, never fails."""
        if self._task is None:
            self._task = asyncio.create_task(self._tell())
        else:
            self._again = True

    async def close(self) -> None:
        """Lets the message under way arrive."""
        if self._task is not None:
            await self._task

    async def _tell(self) -> None:
        try:
            while True:
                self._again = False
                with suppress(AcceleratorDown):
                    await self._accelerator.publish(WAKE_CHANNEL)
                await asyncio.sleep(_SPAN_SECONDS)
                if not self._again:
                    return
        finally:
            self._task = None
