"""Requests that are too much, on a real socket: refused with 4xx, at once, and all looking like any other answer."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from psutil import Process

from app.settings import Settings
from app.web.protocol import HEAD_LIMIT
from tests.processes import WEB, environment, free_port, running, web_process

_PATH: Final = b"/api/v1/tenants/acme/otp/request"
_JSON: Final = b"Content-Type: application/json\r\n"
_MEGABYTE: Final = 1024 * 1024
_BOMB: Final = gzip.compress(b'{"identifier": "' + b"a" * 30 * _MEGABYTE + b'"}')
SECURITY_HEADERS: Final = {
    "content-security-policy",
    "x-content-type-options",
    "referrer-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "x-request-id",
}


def sized(body: bytes, *headers: bytes) -> bytes:
    """A whole POST."""
    more = b"".join(header + b"\r\n" for header in headers)
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%s%sContent-Length: %d\r\n\r\n" % (_PATH, _JSON, more, len(body)) + body


def chunked(*chunks: bytes) -> bytes:
    """A POST whose length is not told, and which doesn't end."""
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n" % (_PATH, _JSON)
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def got(path: bytes, *headers: bytes) -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path, b"".join(header + b"\r\n" for header in headers))


HEAVY: Final[dict[str, tuple[bytes, set[int]]]] = {
    "20 MB": (sized(b"{" + b" " * 20 * _MEGABYTE + b"}"), {413}),
    "endless chunks": (chunked(*[b" " * 65536] * 320), {413}),
    "many small chunks": (chunked(*[b" "] * 40_000), {413}),
    "1,000-deep lists": (sized(b"[" * 1000 + b"]" * 1000), {400}),
    "1,000-deep objects": (sized(b'{"a":' * 1000 + b"1" + b"}" * 1000), {400}),
    "8,000-deep lists": (sized(b"[" * 8000 + b"]" * 8000), {400}),
    "a gzip bomb": (sized(_BOMB, b"Content-Encoding: gzip"), {400, 413, 415}),
    "a small gzip bomb": (sized(gzip.compress(b" " * _MEGABYTE), b"Content-Encoding: gzip"), {400, 415}),
    "a bomb in two layers": (sized(gzip.compress(_BOMB), b"Content-Encoding: gzip, gzip"), {400, 413, 415}),
    "a million digits": (sized(b'{"code": ' + b"1" * 15_000 + b"}"), {400}),
    "ten thousand fields": (sized(json.dumps({f"f{n}": 1 for n in range(1200)}).encode()), {400}),
    "a long path": (got(b"/" + b"a" * HEAD_LIMIT), {431}),
    "a long header": (got(b"/health", b"X-Filler: " + b"x" * HEAD_LIMIT), {431}),
    "many headers": (got(b"/health", *[b"X-Filler: x"] * 4000), {431}),
    "unknown": (got(b"/nothing/here"), {404}),
    "no such method": (got(_PATH), {405}),
    "no such media type": (sized(b"{}").replace(b"application/json", b"application/xml"), {415}),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", {400}),
    "two lengths": (sized(b"{}", b"Content-Length: 5"), {400}),
    "length and chunks": (sized(b"{}", b"Transfer-Encoding: chunked"), {400}),
}


@pytest.fixture(scope="module")
async def port(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    log = tmp_path_factory.mktemp("heavy") / "web.log"
    async with web_process(settings, log, LOG_LEVEL="WARNING") as url:
        yield int(url.rpartition(":")[2])


async def exchange(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, however much of the request was read before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            status, _, lines = head.decode("latin-1").partition("\r\n")
            headers = {}
            for line in lines.splitlines():
                name, _, value = line.partition(":")
                if name:
                    headers[name.lower()] = value.strip()
            body = await reader.readexactly(int(headers["content-length"]))
    finally:
        writer.transport.abort()
    return int(status.split()[1]), headers, body


@pytest.mark.parametrize(("request_", "statuses"), HEAVY.values(), ids=HEAVY.keys())
async def test_too_much_is_refused(port: int, request_: bytes, statuses: set[int]) -> None:
    """4xx with a problem document, an id and all security headers, before the rest of it is read."""
    status, headers, body = await exchange(port, request_)
    assert status in statuses, body
    assert headers.keys() >= SECURITY_HEADERS
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert (problem["status"], problem["request_id"]) == (status, headers["x-request-id"])
    assert len(body) < 1000


async def test_heavy_bodies_take_no_memory(settings: Settings, tmp_path: Path) -> None:
    """Fifty bodies of 20 MB and fifty bombs at once: the process grows by less than one of them, and answers on."""
    port = free_port()
    env = environment(settings, PORT=str(port), LOG_LEVEL="WARNING")
    async with running(WEB, tmp_path / "web.log", env) as process:
        await _answering(port)
        for _ in range(20):
            await exchange(port, sized(b"{}"))
        before = Process(process.pid).memory_info().rss
        heavy = [HEAVY[name][0] for name in ("20 MB", "a gzip bomb") for _ in range(50)]
        answers = await asyncio.gather(*(exchange(port, request) for request in heavy))
        assert {status for status, *_ in answers} <= {400, 413, 415}
        assert Process(process.pid).memory_info().rss - before < 20 * _MEGABYTE
        assert (await exchange(port, got(b"/health")))[0] == 200


async def _answering(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await exchange(port, got(b"/health"))
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                return
