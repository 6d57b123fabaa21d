"""Providers that a test plays: each answers as it is told, in order, and takes whatever it isn't told about."""

import asyncio

from app.delivery.message import Message, Receipt


class Way:
    """One way to send on one channel, and what it was given."""

    def __init__(self, name: str, *answers: Exception | None, channel: str = "sms") -> None:
        self.name = name
        self.channel = channel
        self.answers = list(answers)
        self.asked = 0
        self.taken: list[Message] = []
        self._taken: asyncio.Queue[Message] = asyncio.Queue()
        self._calls = asyncio.Condition()

    async def send(self, message: Message) -> Receipt:
        """Raises the next answer; without one the message is taken, under an id such as `a-1`."""
        self.asked += 1
        async with self._calls:
            self._calls.notify_all()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.taken.append(message)
        self._taken.put_nowait(message)
        return Receipt(f"{self.name}-{self.asked}")

    async def next(self) -> Message:
        """The next message it took, waiting for it."""
        async with asyncio.timeout(30):
            return await self._taken.get()

    async def asked_times(self, times: int) -> None:
        """Until it was asked so often, whatever it answered."""
        async with asyncio.timeout(30), self._calls:
            await self._calls.wait_for(lambda: self.asked >= times)

    async def close(self) -> None:
        """There is nothing to close."""
