"""uvicorn's HTTP protocol with limits it doesn't have: on the size of a head, on how slowly a request may come and an
answer be read.
"""

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.errors import InvalidRequest
from app.web.edge import Edge
from app.web.problems import HeadTooLarge

HEAD_LIMIT: Final = 32 * 1024
# In each such span an unfinished request must make this much progress. A head that drips in at just this rate runs
# into its limit within a minute.
PATIENCE_SECONDS: Final = 10.0
_LEAST_PROGRESS: Final = 8 * 1024
# Whoever doesn't take in what is waiting for them (64 KiB in asyncio, and what the system buffers) in this time never
# will: it would cost them nothing to hold the connection and the answer for ever.
UNREAD_SECONDS: Final = 30.0


class GuardedProtocol(HttpToolsProtocol):
    """Cuts off whoever holds a connection open without asking anything.

    A request that arrives in one piece costs no timer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unfinished = True  # the first request is awaited like the rest of a later one
        self._in_head = True
        self._head_bytes = 0
        self._progress = 0
        self._watch: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._watch = self.loop.call_later(PATIENCE_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """It went."""
        self._rest()
        self._taken_in()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        self._progress += len(data)
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > HEAD_LIMIT:
            self._refuse(HeadTooLarge())
        elif self._unfinished and self._watch is None:
            self._watch = self.loop.call_later(PATIENCE_SECONDS, self._look)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read most of it."""
        self._taken_in()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refuse(InvalidRequest(detail=msg))

    def _refuse(self, error: InvalidRequest) -> None:
        """Even here the answer looks like all others."""
        edge: Edge = self.config.loaded_app.asgi_handler
        status, headers, body = edge.refuse_unparsed(error)
        head = [STATUS_LINE[status], *(name + b": " + value + b"\r\n" for name, value in headers)]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", body]))
        self.transport.close()

    def on_message_begin(self) -> None:
        """The parser saw the start of a request."""
        self._unfinished = self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The parser saw the end of its head."""
        self._in_head = False
        # Counted again, because what came with the end of the head may be body.
        too_large = self._head_bytes > HEAD_LIMIT and self._length_of_head() > HEAD_LIMIT
        self._head_bytes = 0
        if too_large:
            self._refuse(HeadTooLarge())
        else:
            super().on_headers_complete()

    def _length_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_message_complete(self) -> None:
        """The parser saw its end."""
        self._unfinished = False
        self._rest()
        super().on_message_complete()

    def _look(self) -> None:
        """Time is up for some progress. While we ourselves have stopped reading, it isn't the client's to make."""
        progress, self._progress = self._progress, 0
        if self.flow.read_paused or (progress >= _LEAST_PROGRESS and not self.transport.is_closing()):
            self._watch = self.loop.call_later(PATIENCE_SECONDS, self._look)
        else:
            self.transport.abort()

    def _taken_in(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _rest(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
