"""Forwarded headers from somebody whose word isn't taken: never believed, and said, because a proxy was forgotten."""

import asyncio
import ipaddress
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from app.masking import mask_ip
from app.storage.redis import FORGOTTEN_PROXY, Accelerator, AcceleratorDown
from app.web.addresses import Headers

_NAMES: Final = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-real-ip"})
_NOTE_SECONDS: Final = 60.0
_KEEP_SECONDS: Final = 3600
_NOTE: Final = "redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])"


class Forwarded:
    """Says it once a process in the log, and leaves a note for `gatehouse doctor` as long as it goes on."""

    def __init__(self, accelerator: Accelerator, clock: Callable[[], float] = time.monotonic) -> None:
        self._accelerator = accelerator
        self._clock = clock
        self._said = False
        self._next = float("-inf")
        self._noting: asyncio.Task[None] | None = None

    def notice(self, peer: str | None, headers: Headers) -> None:
        """To be called for a request whose peer isn't among TRUSTED_PROXIES."""
        if peer is None or not any(name in _NAMES for name, _ in headers) or self._clock() < self._next:
            return
        self._next = self._clock() + _NOTE_SECONDS
        sentence = advice(peer)
        if not self._said:
            self._said = True
            structlog.get_logger().warning("Forwarded headers from an untrusted peer", detail=sentence)
        self._noting = asyncio.get_running_loop().create_task(self._note(sentence))

    async def _note(self, sentence: str) -> None:
        with suppress(AcceleratorDown):
            await self._accelerator.script(_NOTE, [FORGOTTEN_PROXY], [sentence, _KEEP_SECONDS])


def advice(peer: str) -> str:
    """What to do. A public address may be a person's who makes things up, so it isn't shown in full."""
    private = not ipaddress.ip_address(peer).is_global
    shown = peer if private else mask_ip(peer)
    return (
        f"X-Forwarded-* arrived from {shown}, which isn't in TRUSTED_PROXIES: it isn't believed, and all behind that "
        f"address count as one. If it is your proxy, set TRUSTED_PROXIES={shown if private else 'to its address'}."
    )
