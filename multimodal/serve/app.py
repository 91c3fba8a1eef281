"""The application: all routes of a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

from multimodal import __version__
from multimodal.search.index import Index
from multimodal.serve.about import about_routes
from multimodal.serve.embed import embed_routes
from multimodal.serve.errors import answer_errors
from multimodal.serve.explain import explain_routes
from multimodal.serve.feedback import feedback_routes
from multimodal.serve.hosts import HostCheck
from multimodal.serve.items import item_routes
from multimodal.serve.limits import Counts, Gate, Limits
from multimodal.serve.map import map_routes
from multimodal.serve.media import media_routes
from multimodal.serve.metrics import Measured, Metrics, metrics_routes
from multimodal.serve.openai_form import openai_routes
from multimodal.serve.page.build_page import build_page
from multimodal.serve.rows import Rows
from multimodal.serve.search import search_routes
from multimodal.serve.service import Service
from multimodal.serve.sketch import sketch_routes
from multimodal.serve.watch import Watch


def create_app(
    index: Index,
    limits: Limits | None = None,
    name: str = "model",
    token: str | None = None,
    feedback: Path | None = None,
    watch: Watch | None = None,
    metrics: Metrics | None = None,
    hosts: Sequence[str] | None = None,
    counts: Counts | None = None,
    place: int = 0,
) -> FastAPI:
    """Return the application of a server, for uvicorn or for tests.

    Args:
        index: the index, opened with its model.
        limits: what a request may cost. None: the defaults.
        name: the name of the model.
        token: the token that changes of the index need. None: it cannot be changed.
        feedback: the file to which judgements of hits are appended. None: the page has no thumbs.
        watch: records searches; whoever opened it closes it. None: they are not recorded.
        metrics: where requests are counted, to which the watch is registered already. None: counts of its own.
        hosts: names under which requests may come, see ``known_hosts``. None: any.
        counts: of each worker of a server, the requests that it answers now, see ``Gate``. None: this is the only one.
        place: of this worker among them.

    Raises:
        UsageError: the index does not know its model.
    """
    limits = limits or Limits()
    if metrics is None:
        metrics = Metrics()
        if watch is not None:
            metrics.registry.register(watch)
    service = Service(index, limits, metrics.batch)

    @asynccontextmanager
    async def until_closed(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="multimodal",
        version=__version__,
        lifespan=until_closed,
        docs_url=None,  # its page loads programs from elsewhere
        redoc_url=None,
    )
    answer_errors(app)
    gate, rows = Gate(limits, counts, place), Rows.of(index, service.processors, shared=counts is not None)
    for routes in (
        search_routes(service, watch, token),
        media_routes(service, rows),
        embed_routes(service),
        openai_routes(service, name),
        explain_routes(service, rows),
        item_routes(service, rows, token),
        about_routes(service, rows, name, token is not None, feedback is not None),
        map_routes(service),
        sketch_routes(service, rows),
        metrics_routes(metrics, lambda: gate.admitted),
    ):
        app.include_router(routes)
    if feedback is not None:
        app.include_router(feedback_routes(service, feedback, token))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """The page for people."""
        content, policy = build_page()
        return HTMLResponse(content, headers={"Content-Security-Policy": policy})

    app.add_middleware(gate.middleware)
    if hosts is not None:
        app.add_middleware(HostCheck, hosts=hosts)
    app.add_middleware(Measured, metrics=metrics)  # the outer one
    return app
