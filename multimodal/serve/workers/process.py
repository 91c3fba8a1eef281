"""A worker: a process that answers requests, with a model of its own and the index of another process.

It imports what it needs when it runs, so that signals are in order before anything else, and prometheus_client knows where to
count.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.serve.workers.settings import Shared, WorkerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from multimodal.search.index import Index

STOPPING = (signal.SIGINT, signal.SIGTERM)


def run_worker(
    settings: WorkerSettings, shared: Shared, place: int, listening: socket.socket, ready: Connection
) -> None:
    """Answer requests until the process is asked to stop by SIGTERM; those that are let in are answered first.

    Args:
        settings: what is served.
        shared: what the processes of the server share.
        place: of this worker among them.
        listening: the port.
        ready: gets one message, in JSON: the model that is served, or the error by which it is not.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the supervisor stops this process
    signal.signal(signal.SIGTERM, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    threading.Thread(target=_end_with_parent, args=(shared.folder,), daemon=True).start()
    try:
        _serve(settings, shared, place, listening, ready)
    except Exception as error:
        from multimodal.core.errors import MultimodalError

        if not isinstance(error, MultimodalError):
            raise
        _report(ready, {"error": str(error)})
        sys.exit(1)


def _serve(settings: WorkerSettings, shared: Shared, place: int, listening: socket.socket, ready: Connection) -> None:
    from multimodal.core.library_warnings import ignore_import_warnings

    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared.metrics)
    with ignore_import_warnings():
        import torch
        import uvicorn

        from multimodal.core.hardware import cores
        from multimodal.serve.app import create_app
        from multimodal.serve.feedback import learn_from_feedback
        from multimodal.serve.generations import Generation, SwitchingApp
        from multimodal.serve.uvicorn_config import uvicorn_config
        from multimodal.serve.watch import Watch
        from multimodal.serve.workers.metrics import SharedMetrics
        from multimodal.serve.workers.remote_engine import Link
        from multimodal.serve.workers.sent_queries import SentQueries
        from multimodal.serve.workers.shared_port import SharedPort

        for module in settings.trust_modules:
            import_module(module)
    threads = max(1, cores() // settings.workers)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # of tokenizers
    link = Link(settings.index, shared.socket, shared.changes)
    sent = SentQueries(link) if settings.recorded else None
    watch = None if sent is None else Watch(sent if settings.logged else None, sent)
    metrics = SharedMetrics(shared.metrics, lambda: bytes(link.call("metrics", {}).parts[0]))

    def make(opened: Index, name: str) -> FastAPI:
        if settings.learn and settings.feedback is not None:
            learn_from_feedback(opened, settings.feedback)
        return create_app(
            opened,
            settings.limits,
            name,
            settings.token,
            settings.feedback,
            watch,
            metrics,
            settings.hosts,
            shared.counts,
            place,
        )

    first = Generation.open(settings.index, [settings.run], make, lambda folder: link.open())
    at_end = None if watch is None else watch.close
    app = SwitchingApp(
        settings.index, first, make, at_end=at_end, open_folder=lambda folder: link.open(), announces=place == 0
    )
    _report(ready, {"model": str(first.model)})
    uvicorn.Server(uvicorn_config(app, settings.limits, shared=True)).run(sockets=[SharedPort.of(listening)])


def _report(ready: Connection, message: dict[str, str]) -> None:
    with suppress(OSError):  # the supervisor has ended
        ready.send_bytes(json.dumps(message).encode())


def _end(*_: object) -> None:
    os._exit(0)  # before the first request, or after the last one


def _end_with_parent(folder: Path) -> None:
    """Wait for the end of the process that has the index, without which nothing can be answered.

    Args:
        folder: what it would have removed at its end.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)
