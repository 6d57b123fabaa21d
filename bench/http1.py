"""A keep-alive HTTP/1.1 client that costs little: it shares two cores with what it measures."""

import asyncio
from typing import Final, cast

_PATIENCE_SECONDS: Final = 30.0
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"


class Unexpected(Exception):
    """The server answered something else, or nothing."""


class Refused(Exception):
    """503: a store did not answer in time."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """A connection to a port of this machine."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or Unexpected("The server closed the connection."))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(_END_OF_HEAD)
        if not found or self._answer is None:
            return
        at = head.lower().find(_LENGTH)
        if at < 0:
            self._answer.set_exception(Unexpected("An answer without Content-Length."))
            return
        if len(body) >= int(head[at + len(_LENGTH) :].partition(b"\r\n")[0]):
            self._received = b""
            self._answer.set_result((int(head[9:12]), body))

    async def post(self, path: str, body: bytes, headers: str = "") -> bytes:
        """The body of a 2xx answer. `headers` are whole lines. Raises `Refused`, `Unexpected`, TimeoutError."""
        if self._transport is None:
            raise Unexpected("The server has closed the connection.")
        self._answer = asyncio.get_running_loop().create_future()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
            f"{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            status, answer = await self._answer
        if status == 503:
            raise Refused
        if not 200 <= status < 300:
            raise Unexpected(f"{path}: {status} {answer[:300]!r}")
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
