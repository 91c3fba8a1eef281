"""The process of a server: its port, its signals, and its end."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from multimodal.core.errors import MultimodalError
from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.auth import configured_token
from multimodal.serve.feedback import learn_from_feedback
from multimodal.serve.generations import Generation, SwitchingApp
from multimodal.serve.hosts import known_hosts
from multimodal.serve.limits import Limits
from multimodal.serve.metrics import Metrics
from multimodal.serve.uvicorn_config import uvicorn_config
from multimodal.serve.watch import LogSettings, Watch, open_watch
from multimodal.serve.workers.shared_port import BACKLOG


def serve(
    run: str | Path,
    index: str | Path,
    host: str,
    port: int,
    limits: Limits,
    token_file: str | Path | None = None,
    feedback: str | Path | None = None,
    browse: bool = False,
    log: LogSettings | None = None,
    drift_reference: str | Path | None = None,
    learn: bool = False,
    allow_hosts: Sequence[str] = (),
    workers: int = 1,
    trust_modules: Sequence[str] = (),
) -> None:
    """Serve an index until the process is asked to stop; requests that are let in are answered first.

    Ctrl+C is such a request, after which this returns; SIGTERM ends the process.

    If another index takes its place, of a model that an upgrade recorded or that was served before, it continues with that.

    Args:
        run: folder of the run or exported model with which the index was made; if it was upgraded since, the model that the
            upgrade recorded takes its place.
        index: folder of the index.
        host: the address to listen on.
        port: the port; 0: a free one.
        limits: what a request may cost.
        token_file: the file of the token that changes of the index need. None: see ``configured_token``.
        feedback: the file to which judgements of hits are appended. None: the page has no thumbs.
        browse: whether to open the page in the browser.
        log: the log of queries. None: none is kept.
        drift_reference: folder of vectors with which the latest queries are compared. None: they are not.
        learn: whether judgements in the file of feedback change the ranking, within a second or two.
        allow_hosts: further names under which requests may come, see ``known_hosts``.
        workers: processes that answer requests, each with a model of its own. With more than one, this process has the index.
        trust_modules: modules with encoders of other packages, which workers import too.

    Raises:
        MultimodalError: the model or the index cannot be read, do not belong together, or the address is in use.
    """
    token, metrics = configured_token(token_file), Metrics()
    hosts = known_hosts(host, allow_hosts)
    watch: Watch | None = None

    def make(opened: Index, name: str) -> FastAPI:
        nonlocal watch
        if watch is None and (watch := open_watch(opened, log, drift_reference)) is not None:
            closing.callback(watch.close)
            metrics.registry.register(watch)
        judgements = None if feedback is None else Path(feedback)
        if learn and judgements is not None:
            learn_from_feedback(opened, judgements)
        return create_app(opened, limits, name, token, judgements, watch, metrics, hosts)

    def announce(vectors: int, model: Path) -> None:
        shown_host = f"[{host}]" if ":" in host else host
        address = f"http://{shown_host}:{listening.getsockname()[1]}"
        of_model = "" if model == Path(run) else f" of the model {model}, to which it was upgraded,"
        by_workers = f", by {workers} workers" if workers > 1 else ""
        print(f"Serving {vectors:,} vectors{of_model}{by_workers} at {address}", flush=True)
        if browse:  # the socket listens already; in a thread, as a browser in the terminal waits for the page
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    with (
        suppress(KeyboardInterrupt),
        ExitStack() as closing,
        bind(host, port) as listening,
    ):  # Ctrl+C is how it is ended
        if workers > 1:
            from multimodal.serve.workers.settings import WorkerSettings
            from multimodal.serve.workers.supervisor import serve_by_workers

            judgements = None if feedback is None else Path(feedback)
            settings = WorkerSettings(
                Path(run), Path(index), limits, workers, token, judgements, learn, hosts, tuple(trust_modules)
            )
            serve_by_workers(settings, listening, announce, log, drift_reference)
            return
        first = Generation.open(Path(index), [Path(run)], make)
        app = SwitchingApp(Path(index), first, make, at_end=closing.close)
        announce(len(first.index), first.model)
        uvicorn.Server(uvicorn_config(app, limits)).run(sockets=[listening])


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        MultimodalError: the address is in use, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MultimodalError(f"The server cannot listen on {host}, port {port}: {reason}.") from error
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an answer waits 40 ms for its second packet
    return listening
