"""``/metrics``: what Prometheus collects."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
METHODS = ("GET", "POST", "DELETE", "HEAD")
OTHER = "other"


class Metrics:
    """Counts and latencies of one application.

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
        self.waiting = Gauge("multimodal_waiting", "Requests that are let in and not answered.", registry=self.registry)
        self.sizes = Histogram(
            "multimodal_batch_size", "Requests that were encoded together.", buckets=SIZES, registry=self.registry
        )

    def batch(self, size: int) -> None:
        """Count a batch."""
        self.sizes.observe(size)


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
    metrics.waiting.set_function(waiting)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def collect() -> Response:
        """Return counts and latencies in Prometheus's text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router
