"""``/metrics``: what Prometheus collects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import perf_counter

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
METHODS = ("GET", "POST", "DELETE", "HEAD")
OTHER = "other"


class Metrics:
    """Counts and latencies of one application.

    Attributes:
        registry: what ``text`` returns.
        waiting: returns the number of requests that are let in and not answered.
        waiting_collector: collects this number.

    Examples:
        >>> metrics = Metrics()
        >>> metrics.batch(3)
        >>> metrics.registry.get_sample_value("multimodal_batch_size_sum")
        3.0
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "multimodal_requests", "Answered requests.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "multimodal_request_seconds", "Time from the request to its answer.", ("route",), registry=self.registry
        )
        self.waiting: Callable[[], int] = lambda: 0
        self.sizes = Histogram(
            "multimodal_batch_size", "Requests that were encoded together.", buckets=SIZES, registry=self.registry
        )

        self.waiting_collector = _Waiting(self)
        self.registry.register(self.waiting_collector)

    def batch(self, size: int) -> None:
        """Count a batch."""
        self.sizes.observe(size)

    def text(self) -> bytes:
        """Return what was counted, in Prometheus's text format."""
        return generate_latest(self.registry)


class _Waiting:
    """The requests that are being answered, which are not counted but asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "multimodal_waiting", "Requests that are let in and not answered.", self._metrics.waiting()
        )


class Measured:
    """Middleware that counts and times requests by route.

    Args:
        app: the application behind it.
        metrics: where they are counted.

    Examples:
        >>> from starlette.responses import PlainTextResponse
        >>> measured = Measured(PlainTextResponse("ok"), Metrics())
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, perf_counter()

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            route = getattr(scope.get("route"), "path", OTHER)  # never the path itself, which a client invents
            method = scope["method"] if scope["method"] in METHODS else OTHER
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(perf_counter() - start)


def metrics_routes(metrics: Metrics, waiting: Callable[[], int]) -> APIRouter:
    """Return the route for Prometheus.

    Args:
        metrics: what was counted.
        waiting: returns the number of requests that are let in and not answered.
    """
    router = APIRouter()
    metrics.waiting = waiting

    @router.get("/metrics", response_class=PlainTextResponse)
    async def collect() -> Response:
        """Return counts and latencies in Prometheus's text format."""
        return Response(await asyncio.to_thread(metrics.text), media_type=CONTENT_TYPE_LATEST)

    return router
