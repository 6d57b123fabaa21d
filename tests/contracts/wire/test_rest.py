"""What holds for every vendor reached over HTTP: bounds, no redirects, and which failures mean what."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.delivery.message import UNANSWERED, DeliveryError, PermanentFailure, TransientFailure
from app.delivery.providers.rest import _CONNECTIONS, Rest
from tests.certificates import self_signed, serving
from tests.contracts.wire.recorder import SILENCE, Recorder, Reply
from tests.contracts.wire.vendors import MESSAGE, installation, provider


@asynccontextmanager
async def client(url: str, patience: float = 5) -> AsyncIterator[Rest]:
    rest = Rest("Acme SMS", url, timeout=patience)
    yield rest
    await rest.close()


async def post(url: str, patience: float = 5) -> DeliveryError:
    """How a post to such a server fails."""
    async with client(url, patience) as rest:
        with pytest.raises(DeliveryError) as raised:
            await rest.form("/send", {"to": "1"})
    return raised.value


async def test_no_redirect_is_followed() -> None:
    """A body with a code in it goes to the configured host, or nowhere."""
    with Recorder() as elsewhere, Recorder(Reply(307, "", {"Location": f"{elsewhere.url}/send"})) as recorder:
        error = await post(recorder.url)
    assert (error.permanent, error.error_class) == (True, "protocol")
    assert elsewhere.requests == []


async def test_of_an_endless_answer_little_is_read() -> None:
    """No vendor, or whoever answers in its place, can fill our memory."""

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 4096)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    async with server, client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", patience=1) as rest:
        answer = await rest.form("/send", {"to": "1"})
    assert len(answer.body) == 65_536
    assert answer.json() == {}


async def test_nobody_there() -> None:
    """A connection that is refused was never a request."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = await post(f"http://127.0.0.1:{free.getsockname()[1]}")
    assert (error.permanent, error.error_class) == (False, "unreachable")


async def test_a_connection_that_ends_before_the_answer() -> None:
    """The request may have been read by then."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        error = await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert (error.permanent, error.error_class) == (False, UNANSWERED)


async def test_an_answer_that_drips() -> None:
    """A byte now and then satisfies every timeout of a single read; the whole exchange has one of its own."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"{")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        error = await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", patience=0.1)
    assert (error.permanent, error.error_class) == (False, UNANSWERED)


async def test_a_certificate_nobody_vouches_for(tmp_path: Path) -> None:
    """Nobody in between gets a code, and no retry makes it better."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=serving(self_signed(tmp_path)))
    async with server:
        error = await post(f"https://localhost:{server.sockets[0].getsockname()[1]}")
    assert isinstance(error, PermanentFailure)
    assert error.error_class == "tls"


async def test_one_connection_serves_one_message_after_another() -> None:
    """A TLS handshake costs more than an SMS."""
    with Recorder() as recorder:
        async with client(recorder.url) as rest:
            for _ in range(5):
                await rest.form("/send", {"to": "1"})
    assert (len(recorder.requests), recorder.connections) == (5, 1)


async def test_more_sends_than_connections_wait_no_longer_than_the_timeout() -> None:
    """A vendor that hangs doesn't pile up work: what gets no connection in time never went out."""
    with Recorder(SILENCE) as recorder:
        async with client(recorder.url, patience=20) as rest:
            hanging = [asyncio.create_task(rest.form("/send", {"to": "1"})) for _ in range(_CONNECTIONS)]
            assert await recorder.has(_CONNECTIONS)
            rest._client.timeout = httpx.Timeout(0.1)
            late = await asyncio.gather(*(rest.form("/send", {"to": "1"}) for _ in range(6)), return_exceptions=True)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
    assert [error.error_class for error in late if isinstance(error, TransientFailure)] == ["busy"] * 6
    assert len(recorder.requests) == _CONNECTIONS


@pytest.mark.parametrize(("channel", "name"), [("sms", "msg91"), ("whatsapp", "meta")])
async def test_a_template_for_codes_takes_no_other_message(channel: str, name: str) -> None:
    """A notice or a test message can't be squeezed into it, and is not sent half empty."""
    with Recorder() as recorder:
        async with provider(installation(recorder.url), channel, name) as ours:
            with pytest.raises(PermanentFailure) as raised:
                await ours.send(replace(MESSAGE, code=None))
    assert raised.value.error_class == "template"
    assert recorder.requests == []
