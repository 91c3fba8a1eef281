"""The process that has the port and the index of a server with several workers, and starts these."""

from __future__ import annotations

import json
import multiprocessing
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from multimodal.core.errors import MultimodalError
from multimodal.search.index import Index
from multimodal.serve.feedback import prepare_feedback
from multimodal.serve.watch import LogSettings, open_watch
from multimodal.serve.workers.host import IndexHost
from multimodal.serve.workers.messages import Message
from multimodal.serve.workers.process import STOPPING, run_worker
from multimodal.serve.workers.sent_queries import CALL, record_sent
from multimodal.serve.workers.settings import Shared, WorkerSettings

CONTEXT = multiprocessing.get_context("spawn")
AGAIN = 10.0  # seconds until a worker that could not begin is started again
AT_LAST = 10.0  # seconds after the time-out of requests until a worker is killed

Start = Callable[[int], tuple[SpawnProcess, Connection]]


def serve_by_workers(
    settings: WorkerSettings,
    listening: socket.socket,
    announce: Callable[[int, Path], None],
    log: LogSettings | None = None,
    drift_reference: str | Path | None = None,
) -> None:
    """Serve an index by several workers until the process is asked to stop.

    Args:
        settings: what is served.
        listening: the port.
        announce: called with the number of vectors and the folder of the model when all workers answer.
        log: the log of queries. None: none is kept.
        drift_reference: folder of vectors with which the latest queries are compared. None: they are not.

    Raises:
        MultimodalError: the model or the index cannot be read, or do not belong together.
    """
    if settings.feedback is not None:
        prepare_feedback(settings.feedback, settings.token is not None)  # before several do so at once
    registry = CollectorRegistry()
    with ExitStack() as closing:
        folder = TemporaryDirectory(prefix="multimodal-", ignore_cleanup_errors=True)  # other users cannot enter it
        shared = Shared(
            Path(closing.enter_context(folder)), CONTEXT.RawValue("Q", 0), CONTEXT.RawArray("q", settings.workers)
        )
        shared.metrics.mkdir()
        host = IndexHost(settings.index, shared.socket, shared.changes)
        closing.callback(host.close)
        host.calls["metrics"] = lambda call: Message({}, [generate_latest(registry)])
        handle, opened = host.open()
        index = Index.of_opened(settings.index, opened)
        vectors = len(index)
        if (watch := open_watch(index, log, drift_reference)) is not None:
            closing.callback(watch.close)
            registry.register(watch)
            host.calls[CALL] = partial(record_sent, watch)
            settings = replace(settings, recorded=True, logged=log is not None)
        host.release(handle)
        start = partial(_start, settings, shared, listening)
        supervisor = Supervisor(start, settings.workers, settings.limits.timeout + AT_LAST, shared.counts)
        ended_by = supervisor.run(lambda model: announce(vectors, Path(model)))
    signal.raise_signal(ended_by)  # as uvicorn does: who started this process sees why it ended


def _start(
    settings: WorkerSettings, shared: Shared, listening: socket.socket, place: int
) -> tuple[SpawnProcess, Connection]:
    """Start a worker; signals reach it when it is ready for them."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=run_worker, args=(settings, shared, place, listening, theirs))
    resource_tracker.ensure_running()  # it would admit signals again
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    theirs.close()
    return process, ours


@dataclass
class _Worker:
    """A worker that was started.

    Attributes:
        process: its process.
        ready: says that it answers requests, or why not. None: it answers them.
    """

    process: SpawnProcess
    ready: Connection | None


class Supervisor:
    """Starts workers, starts one again that has ended, and stops all when a signal comes.

    Args:
        start: starts the worker of a place; returns its process, and the connection by which it says that it is ready.
        count: number of workers.
        patience: seconds after which a worker that was asked to stop is killed.
        counts: of each worker, the requests that it answers; those of a worker that has ended are taken away.

    Examples:
        >>> import os
        >>> def start(place):
        ...     ours, theirs = CONTEXT.Pipe(duplex=False)
        ...     process = CONTEXT.Process(target=time.sleep, args=(60,))
        ...     process.start()
        ...     theirs.send_bytes(b'{"model": "runs/shop"}')
        ...     return process, ours
        >>> supervisor = Supervisor(start, count=1, patience=10.0, counts=[0])
        >>> supervisor.run(lambda model: os.kill(os.getpid(), signal.SIGTERM)) == signal.SIGTERM
        True
    """

    def __init__(self, start: Start, count: int, patience: float, counts: Any) -> None:
        self._start_one, self._count, self._patience, self._counts = start, count, patience, counts
        self._workers: dict[int, _Worker] = {}
        self._due: dict[int, float] = {}  # place -> when it is started again
        self._signals: list[int] = []
        self._model: str | None = None

    def run(self, on_ready: Callable[[str], None]) -> int:
        """Run the workers until SIGINT or SIGTERM comes.

        Args:
            on_ready: called with the model once all workers answer requests.

        Returns:
            The signal.

        Raises:
            MultimodalError: a worker cannot begin, before all have begun.
        """
        with self._signalled() as signalled:
            try:
                for place in range(self._count):
                    self._start(place)
                announced = False
                while not self._signals:
                    self._look(signalled, strict=not announced)
                    if not announced and all(worker.ready is None for worker in self._workers.values()):
                        announced = True
                        on_ready(self._model or "")
                self._stop(signalled)
            finally:
                for worker in self._workers.values():
                    worker.process.kill()
                    worker.process.join()
        return self._signals[0]

    def _start(self, place: int) -> None:
        process, ready = self._start_one(place)
        self._workers[place] = _Worker(process, ready)

    def _look(self, signalled: Connection, strict: bool) -> None:
        """Wait for what happens next: a signal, a worker that has begun or ended, or one that is to be started.

        Args:
            signalled: is readable when a signal has come.
            strict: whether a worker that cannot begin is an error.
        """
        now = time.monotonic()
        for place in [place for place, due in self._due.items() if due <= now]:
            del self._due[place]
            self._start(place)
        ready = [worker.ready for worker in self._workers.values() if worker.ready is not None]
        ended = [worker.process.sentinel for worker in self._workers.values()]
        pause = max(0.0, min(self._due.values()) - now) if self._due else None
        wait([signalled, *ready, *ended], pause)
        for place, worker in list(self._workers.items()):
            reason = None
            if worker.ready is not None and worker.ready.poll():
                reason = self._begun(worker)
            if reason is None and worker.process.exitcode is None:
                continue
            if self._signals:  # the whole group may have got it
                return
            self._ended(place, worker, reason, strict)

    def _begun(self, worker: _Worker) -> str | None:
        """Read what a worker says of its beginning; return why it cannot begin, if it says so."""
        assert worker.ready is not None
        try:
            message = json.loads(worker.ready.recv_bytes())
        except (EOFError, OSError):
            worker.process.join()
            return None
        if "error" in message:
            worker.process.kill()
            worker.process.join()
            return message["error"]
        worker.ready.close()
        worker.ready = None
        self._model = self._model or message["model"]
        return None

    def _ended(self, place: int, worker: _Worker, reason: str | None, strict: bool) -> None:
        begun = worker.ready is None
        how = _how_it_ended(worker.process)
        why = "" if reason is None else f": {reason.rstrip('.')}"
        if strict:
            raise MultimodalError(reason or f"A worker {how}.")
        del self._workers[place]
        self._counts[place] = 0
        if worker.ready is not None:
            worker.ready.close()
        self._due[place] = time.monotonic() + (0.0 if begun else AGAIN)
        then = "it is started again" if begun else f"trying again in {AGAIN:g} s"
        print(f"The worker process {worker.process.pid} {how}{why}; {then}.", file=sys.stderr, flush=True)

    def _stop(self, signalled: Connection) -> None:
        """Let the workers answer what they were given, and end."""
        for worker in self._workers.values():
            worker.process.terminate()
        end = time.monotonic() + self._patience
        while remaining := [worker for worker in self._workers.values() if worker.process.exitcode is None]:
            while signalled.poll():
                signalled.recv_bytes()
            if self._signals.count(signal.SIGINT) > 1 or time.monotonic() > end:  # the user does not wait
                return
            sentinels = [worker.process.sentinel for worker in remaining]
            wait([signalled, *sentinels], max(0.0, end - time.monotonic()))

    @contextmanager
    def _signalled(self) -> Iterator[Connection]:
        """Note signals in the block; yield a connection that is readable when one has come."""
        reader, writer = CONTEXT.Pipe(duplex=False)

        def note(number: int, _: object) -> None:
            self._signals.append(number)
            writer.send_bytes(b"!")

        former = {number: signal.signal(number, note) for number in STOPPING}
        try:
            yield reader
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
            reader.close()
            writer.close()


def _how_it_ended(process: SpawnProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"ended with exit code {code}"
    memory = ", perhaps because the memory was full" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{memory}"
