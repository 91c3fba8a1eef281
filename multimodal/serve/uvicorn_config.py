"""How uvicorn runs an application of this package."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from multimodal.serve.limits import Limits

# seconds; longer than proxies and clients keep a connection that is not used (mostly 60 at most), so that they close it, not
# the server just when the next request is sent
KEEP_ALIVE = 75


def uvicorn_config(app: ASGIApp, limits: Limits, shared: bool = False) -> uvicorn.Config:
    """Return the settings of uvicorn: no log of requests, and an end that waits for those that are let in.

    Args:
        app: the application.
        limits: what a request may cost.
        shared: whether other processes take connections from the same port, see ``SharedPort``.
    """
    one_at_a_time = {"backlog": 1, "loop": "asyncio"} if shared else {}  # other loops pass the number to the system
    end = int(limits.timeout) + 1
    return uvicorn.Config(
        app,
        http="h11",  # httptools does not limit the size of headers
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=end,
        **one_at_a_time,
    )
