"""A vendor's API as far as the wire is concerned: keeps every request, answers as told.

A real HTTP server in a thread of its own, so that the vendors' own clients, which block, can talk to it as well.
"""

import asyncio
import json
import threading
from base64 import b64decode
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `body` that is no text goes out as JSON; `silent` holds the line until the recorder closes."""

    status: int = 200
    body: object = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False

    def encoded(self) -> bytes:
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


SILENCE = Reply(silent=True)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers["content-type"].partition(";")[0]

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form, each of which must be there once."""
        pairs = parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def account(self) -> str:
        """User and password of basic authentication."""
        scheme, _, encoded = self.headers["authorization"].partition(" ")
        assert scheme == "Basic"
        return b64decode(encoded).decode()


class _Server(ThreadingHTTPServer):
    # As many connections at once as a provider opens; the default, five, makes the others wait for seconds.
    request_queue_size = 128


class Recorder:
    """Serves on a free port of 127.0.0.1 while it is entered. `replies` are used up one by one, the last one stays."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = deque(replies or [Reply()])
        self.requests: list[Recorded] = []
        self.connections = 0
        self._over = threading.Event()
        self._arrived = threading.Condition()
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                recorder.connections += 1
                super().setup()

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Recorded("POST", self.path, headers, self.rfile.read(length))
                with recorder._arrived:
                    recorder.requests.append(request)
                    recorder._arrived.notify_all()
                recorder._reply(self)

            def log_message(self, *_: object) -> None:
                """Keeps the tests' output clean."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def last(self) -> Recorded:
        return self.requests[-1]

    async def has(self, count: int, seconds: float = 10) -> bool:
        """Waits until so many requests have arrived; whether they have."""

        def wait() -> bool:
            with self._arrived:
                return self._arrived.wait_for(lambda: len(self.requests) >= count, seconds)

        return await asyncio.to_thread(wait)

    def _reply(self, handler: BaseHTTPRequestHandler) -> None:
        reply = self.replies.popleft() if len(self.replies) > 1 else self.replies[0]
        if reply.silent:
            self._over.wait()
            handler.close_connection = True
            return
        body = reply.encoded()
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
