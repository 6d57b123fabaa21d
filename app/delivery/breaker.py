"""A circuit breaker: who fails again and again is left alone for a while, then asked once whether it is back.

Each process finds out for itself; that costs a few tries and no store.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from app.delivery.message import EXPIRED, DeliveryError

_THRESHOLD: Final = 5
_REST_SECONDS: Final = 10.0
# Somebody is asking just now: how it ends is known soon.
_PROBED_SECONDS: Final = 1.0
# These say nothing about how the provider is: the fault is ours.
_OF_OURSELVES: Final = frozenset({"internal", "busy"})


class Breaker:
    """Opens after 5 failures in a row that speak of the provider itself; after 10 seconds one message is the probe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._asked_again_at = 0.0
        self._probing = False

    def wait(self) -> float:
        """Seconds until the provider may be asked; 0: now."""
        if self._failures < _THRESHOLD:
            return 0.0
        if self._probing:
            return _PROBED_SECONDS
        return max(0.0, self._asked_again_at - self._clock())

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around one send, after `wait` has said 0. Learns from how it ends; lets every exception through."""
        self._probing = self._failures >= _THRESHOLD
        try:
            yield
        except DeliveryError as error:
            # Who was hung up on because the code expired has not answered at all.
            if error.error_class != EXPIRED:
                self._learn(bad=not (error.permanent or error.of_one or error.error_class in _OF_OURSELVES))
            raise
        else:
            self._learn(bad=False)
        finally:
            # Also when the process is stopping, or our own code stumbled: neither tells anything.
            self._probing = False

    def _learn(self, *, bad: bool) -> None:
        # A refusal for good is an answer, too: the provider is there.
        self._failures = self._failures + 1 if bad else 0
        if self._failures >= _THRESHOLD:
            self._asked_again_at = self._clock() + _REST_SECONDS
