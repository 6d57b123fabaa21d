"""Numbers for Prometheus: what was asked, how it was answered, how long it took."""

import hmac
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from app.delivery.health import DeliveryCount, DeliveryHealth
from app.errors import NotFound, Unavailable
from app.settings import Settings
from app.web.caller import bearer_token
from app.web.services import AnyRequest, services

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_FORWARDED: Final = ("x-forwarded-for", "forwarded", "via")


class Metrics:
    """The counters of one process. Routes are templates, so the number of series is bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        labels = ("method", "route", "status")
        self._requests = Counter("gatehouse_http_requests", "Answers sent.", labels, registry=self.registry)
        self._seconds = Histogram(
            "gatehouse_http_request_seconds", "Time to answer.", ("route",), buckets=_BUCKETS, registry=self.registry
        )
        # Looking a child up by its labels costs more than counting.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one answer; status 0 is one that nobody waited for."""
        key = (method if method in _METHODS else "other", route, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._requests.labels(*map(str, key))
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route)
        counter.inc()
        timer.observe(seconds)

    def route(self, settings: Settings) -> HTTPRouteHandler:
        """GET /metrics, for whoever has METRICS_TOKEN; where none is set, in production, for this machine and nobody
        behind a proxy.
        """

        @get("/metrics", include_in_schema=False)
        async def metrics(request: AnyRequest) -> Response[bytes]:
            if not _may_read(request, settings):
                raise NotFound
            text = generate_latest(self.registry)
            # Rather a gap than numbers that look like a restart; what this process counts is still told.
            with suppress(Unavailable):
                text += generate_latest(_Deliveries(await DeliveryHealth(services(request).db).counts()))
            return Response(text, media_type=CONTENT_TYPE_LATEST)

        return metrics


class _Deliveries(Collector):
    """What the workers and the providers' callbacks have counted in the database; any web process tells it all."""

    def __init__(self, counts: Sequence[DeliveryCount]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[CounterMetricFamily]:
        """One family."""
        family = CounterMetricFamily(
            "gatehouse_deliveries",
            "Steps of messages, by the state they led to; queued: to be tried again.",
            labels=("channel", "provider", "state"),
        )
        for count in self._counts:
            family.add_metric((count.channel, count.provider, count.state), count.count)
        return [family]


def _may_read(request: AnyRequest, settings: Settings) -> bool:
    if settings.metrics_token is not None:
        return hmac.compare_digest((bearer_token(request) or "").encode(), settings.metrics_token.encode())
    return not settings.production or _from_this_machine(request)


def _from_this_machine(request: AnyRequest) -> bool:
    """A proxy on this machine is a loopback peer too, but says that it forwards."""
    client = request.scope["client"]
    local = client is not None and client[0] in _LOOPBACK
    return local and not any(name in request.headers for name in _FORWARDED)
