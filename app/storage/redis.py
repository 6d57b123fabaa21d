"""Valkey or Redis: an accelerator that may be away. Every caller has a slower path without it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

# Sign-in never waits longer than this for the accelerator (architecture.md, "Two stores").
_TIMEOUT: Final = 0.05
# What web processes leave for `gatehouse doctor`: a proxy that TRUSTED_PROXIES doesn't name.
FORGOTTEN_PROXY: Final = "gatehouse:forgotten-proxy"
# After a failure calls are skipped for so long; then one call probes.
_BREAK_SECONDS: Final = 1.0


class AcceleratorDown(Exception):
    """The server didn't answer in time, or the breaker is open. Take the slower path."""


class Accelerator:
    """Short-lived shared state behind a 50 ms timeout and a circuit breaker."""

    def __init__(self, url: str, *, timeout: float = _TIMEOUT, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        options: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": timeout,
            "protocol": 3,
            "client_name": "gatehouse",
        }
        # A burst waits for a connection: refused one, it would look like an outage and open the breaker.
        self._client = Redis.from_pool(
            BlockingConnectionPool.from_url(url, max_connections=16, timeout=timeout, socket_timeout=timeout, **options)
        )
        # A subscription waits for as long as nothing happens, so it has no read timeout of its own.
        self._listener = Redis.from_url(url, socket_timeout=None, **options)
        self._clock = clock
        self._broken_until = float("-inf")

    @property
    def available(self) -> bool:
        """False while the breaker is open."""
        return self._clock() >= self._broken_until

    async def close(self) -> None:
        """Drops all connections."""
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()
            await self._listener.aclose()

    async def ping(self) -> None:
        """Raises `AcceleratorDown` unless the server answers now; ignores the breaker."""
        try:
            await asyncio.wait_for(self._client.ping(), self._timeout * 4)
        except (RedisError, OSError, TimeoutError) as error:
            raise AcceleratorDown from error
        self._broken_until = float("-inf")

    async def publish(self, channel: str, data: str = "") -> None:
        """Tells subscribers. Raises `AcceleratorDown`."""
        await self._call(lambda: self._client.publish(channel, data))

    async def script(self, source: str, keys: list[str], args: list[str | int | float]) -> Any:
        """Runs a Lua script atomically on keys of one hash tag. Raises `AcceleratorDown`."""
        return await self._call(lambda: self._client.register_script(source)(keys=keys, args=args))

    async def subscribe(self, channel: str) -> AsyncGenerator[str, None]:
        """Messages on a channel until the caller stops listening. Raises `AcceleratorDown` when the server goes."""
        subscription = self._listener.pubsub(ignore_subscribe_messages=True)
        try:
            await subscription.subscribe(channel)
            async for message in subscription.listen():
                data = message["data"]
                yield data.decode() if isinstance(data, bytes) else str(data)
        except (RedisError, OSError, TimeoutError) as error:
            raise AcceleratorDown from error
        finally:
            close: Callable[[], Awaitable[None]] = subscription.aclose  # redis-py leaves it without types
            with contextlib.suppress(RedisError, OSError):
                await close()

    async def _call(self, operation: Callable[[], Any]) -> Any:
        if not self.available:
            raise AcceleratorDown
        try:
            return await asyncio.wait_for(operation(), self._timeout)
        except (RedisError, OSError, TimeoutError) as error:
            self._broken_until = self._clock() + _BREAK_SECONDS
            raise AcceleratorDown from error
