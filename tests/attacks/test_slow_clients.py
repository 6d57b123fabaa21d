"""Hundreds of clients that never finish what they say, in front of a real web process."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Final

import httpx

from app.settings import Settings
from tests.processes import web_process

_SLOW: Final = 500
# Honest calls; p99 is then the third slowest.
_HONEST: Final = 300
_P99: Final = 0.5

_HEAD: Final = b"POST /api/v1/tenants/acme/otp/request HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
# Nothing, a word, half a head, half a body, half a chunk, and a head that goes on for ever.
KINDS: Final = (
    b"",
    b"POST",
    _HEAD,
    _HEAD + b"Content-Length: 1000\r\n\r\n{",
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n{",
    _HEAD + b"X-Drip: ",
)


@asynccontextmanager
async def slow_sockets(port: int, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections that say a byte now and then, each in one of the ways above."""
    async with AsyncExitStack() as stack:
        lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
        for number, (_, writer) in enumerate(lines):
            stack.callback(writer.close)
            writer.write(KINDS[number % len(KINDS)])

        async def drip() -> None:
            while True:
                for number, (_, writer) in enumerate(lines):
                    if KINDS[number % len(KINDS)] and not writer.is_closing():
                        writer.write(b"x")
                # Slowly: that is the attack.
                await asyncio.sleep(1)

        dripping = asyncio.create_task(drip())
        try:
            yield [reader for reader, _ in lines]
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)


async def honest(url: str) -> list[float]:
    """Seconds of each honest call, four at a time."""
    took: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:

        async def call_again_and_again(times: int) -> None:
            for _ in range(times):
                began = time.perf_counter()
                answer = await client.post("/api/v1/tenants/nobody/otp/status", json={"challenge_id": "A" * 22})
                took.append(time.perf_counter() - began)
                assert answer.status_code == 410

        await asyncio.gather(*(call_again_and_again(_HONEST // 4) for _ in range(4)))
    return took


async def test_500_slow_sockets_hold_nobody_up(settings: Settings, tmp_path: Path) -> None:
    """Honest p99 stays under 500 ms meanwhile. That each slow one is cut off is shown in contracts/test_web_process."""
    async with web_process(settings, tmp_path / "web.log", LOG_LEVEL="WARNING") as url:
        async with slow_sockets(int(url.rpartition(":")[2]), _SLOW) as readers:
            took = await honest(url)
            held = sum(not reader.at_eof() for reader in readers)
        p99 = quantiles(took, n=100)[98]
        assert held > _SLOW * 0.9, "they were not slow, they were refused"
        assert p99 < _P99, f"p99 {p99 * 1000:.0f} ms"
