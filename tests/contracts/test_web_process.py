"""`gatehouse web` as a process of its own: how it starts, what it does with rude clients, how it ends."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn

from app.asgi import create_app
from app.cli.listening import CannotListen, listen
from app.cli.web import server_config
from app.settings import Settings
from app.web import protocol
from app.web.protocol import HEAD_LIMIT
from tests.conftest import Clock

_SERVE = "from app.settings import load; from app.cli.web import serve; serve(load())"


@asynccontextmanager
async def listening(settings: Settings, clock: Clock) -> AsyncIterator[int]:
    """The application behind its real HTTP protocol, in this process; the port."""
    config = server_config(lambda: create_app(settings, clock=clock), 1)
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn sets a flag
            await asyncio.sleep(0)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


async def exchange(port: int, *pieces: bytes, until: bytes = b"") -> bytes:
    """Sends the pieces and reads up to something, or to the end, which the server has to make."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0)
    answer = b""
    try:
        async with asyncio.timeout(20):
            answer = await (reader.readuntil(until) if until else reader.read())
    except ConnectionResetError:
        pass
    writer.close()
    return answer


async def test_slow_clients_are_cut_off(settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing said, half a head, half a body: each connection ends once the patience does; honest calls go on."""
    monkeypatch.setattr(protocol, "PATIENCE_SECONDS", 0.2)
    head = b"POST /api/v1/tenants/acme/otp/request HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with listening(settings, clock) as port:
        slow = [exchange(port), exchange(port, head), exchange(port, head + b"Content-Length: 9\r\n\r\n{")]
        honest = exchange(port, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        *cut, answered = await asyncio.gather(*slow, honest)
    assert cut == [b"", b"", b""]
    assert answered.startswith(b"HTTP/1.1 200 OK")


async def test_who_reads_nothing_is_cut_off(settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking on and on without reading an answer holds a connection for a while, not for ever."""
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.2)
    ask = b"GET /docs/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    async with listening(settings, clock) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)

        async def ask_on() -> None:
            while True:
                writer.write(ask)
                await writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ask_on(), 20)
        writer.close()


async def test_endless_heads_and_no_http(settings: Settings, clock: Clock) -> None:
    """Even what is no HTTP gets an answer like all others, with id and security headers."""
    line = b"X-Filler: " + b"x" * 8000 + b"\r\n"
    async with listening(settings, clock) as port:
        endless = await exchange(port, b"GET /health HTTP/1.1\r\n", *[line] * (HEAD_LIMIT // len(line) + 2))
        garbage = await exchange(port, b"\x16\x03\x01 hello\r\n\r\n")
    assert garbage.startswith(b"HTTP/1.1 400")
    for answer in (endless, garbage):
        assert b"content-type: application/problem+json" in answer or answer == endless == b""
    assert b"x-request-id: " in garbage
    assert b"content-security-policy: default-src 'none'" in garbage


async def test_bodies_of_unknown_length_end_at_the_limit(settings: Settings, clock: Clock) -> None:
    """A chunked body is refused as soon as it is too large, on a real socket."""
    head = b"POST /api/v1/tenants/acme/otp/request HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    async with listening(settings, clock) as port:
        answer = await exchange(
            port, head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 6, b"0\r\n\r\n", until=b"request_id"
        )
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_taken_port_is_one_clear_error() -> None:
    """The system's reason, with the address."""
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"127.0.0.1, port {port}: Address already in use"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_starts_answers_and_ends_in_order(settings: Settings, root: Path, workers: str) -> None:
    """Ready within seconds of its start; SIGTERM ends it, children too, with exit code 0."""
    assert settings.database_url
    assert settings.redis_url
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(root),
        "ENVIRONMENT": "development",
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "DATA_DIR": str(settings.data_dir),
        "PORT": str(port),
        "WEB_WORKERS": workers,
    }
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVE, env=environment, cwd=settings.data_dir, stderr=asyncio.subprocess.PIPE
    )
    try:
        request = b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = b""
        while not answer and process.returncode is None and time.monotonic() - began < 30:
            try:
                answer = await exchange(port, request)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        process.send_signal(signal.SIGTERM)
        _, logged = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert b"Traceback" not in logged
    with pytest.raises(ConnectionRefusedError):
        await exchange(port)
