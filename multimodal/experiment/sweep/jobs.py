"""Processes that train runs, at most one for each device at a time, and that end with the sweep.

Each process is in a session of its own, so that Ctrl-C reaches the sweep alone, which then sends one SIGTERM to each: a
second signal would end a training without its checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from multimodal.core.errors import MultimodalError, shown

POLL = 0.1  # seconds between two looks at the processes
MAX_LOG_END = 2**16  # bytes of a log in which the error is looked for


@dataclass(frozen=True)
class Job:
    """A process to start.

    Attributes:
        name: of the run.
        command: the program and its arguments; there is no shell.
        log: the file to which what it prints is appended.
    """

    name: str
    command: Sequence[str]
    log: Path


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        job: what was started.
        seconds: for which it ran.
        error: what it printed last, or the signal that ended it; None: it succeeded.
    """

    job: Job
    seconds: float
    error: str | None


class SweepStopped(MultimodalError):
    """A signal ended the sweep, after the running trainings had saved their checkpoints.

    Args:
        message: how to resume.
        number: the signal; the command line ends with exit code 128 + number, as shells report it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    device: int
    began: float
    log_began: int  # bytes of the log of earlier starts


def run_jobs(
    next_job: Callable[[], Job | None],
    devices: Sequence[Mapping[str, str]],
    on_start: Callable[[Job, int], object],
    on_end: Callable[[Ended], object],
) -> None:
    """Run jobs until there is none left, as many at a time as there are devices.

    Args:
        next_job: returns the next job; None: there is none left at the moment. It is asked again when a job has ended.
        devices: the environment variables of each device, added to those of this process.
        on_start: called with a job and the number of its device.
        on_end: called when a job has ended by itself.

    Raises:
        SweepStopped: SIGINT or SIGTERM arrived; all processes have ended. A second signal kills them.
    """
    running: list[_Running] = []
    with _signals() as received:
        try:
            while True:
                free = sorted(set(range(len(devices))) - {r.device for r in running})
                while free and not received and (job := next_job()) is not None:
                    on_start(job, free[0])
                    running.append(_start(job, free.pop(0), devices))
                if not running:
                    break
                if received:
                    _stop(running, received)
                time.sleep(POLL)
                for each in [r for r in running if r.process.poll() is not None]:
                    running.remove(each)
                    if not received or each.process.returncode == 0:
                        on_end(_ended(each))
        finally:  # an error of a callback, or KeyboardInterrupt in another thread's loop
            if running:
                _stop(running, received)
    if received:
        raise SweepStopped(
            f"The sweep was stopped by {signal.Signals(received[0]).name}; the same command resumes it.", received[0]
        )


def _start(job: Job, device: int, devices: Sequence[Mapping[str, str]]) -> _Running:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        began = log.tell()
        process = subprocess.Popen(
            list(job.command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(devices[device]),
            start_new_session=True,
        )
    return _Running(job, process, device, time.monotonic(), began)


def _stop(running: Sequence[_Running], received: list[int]) -> None:
    """Send SIGTERM to each process once and wait for their ends; at a second signal, kill them with their data workers."""
    for each in running:
        each.process.terminate()
    while any(each.process.poll() is None for each in running):
        if len(received) > 1:
            for each in running:
                with suppress(ProcessLookupError):
                    os.killpg(each.process.pid, signal.SIGKILL)
        time.sleep(POLL)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that arrive in the block, where Python allows it: in the main thread."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda got, frame: received.append(got)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ended(each: _Running) -> Ended:
    seconds, code = time.monotonic() - each.began, each.process.returncode
    if code == 0:
        return Ended(each.job, seconds, None)
    said = _last_error(each.job.log, each.log_began)
    if code < 0:
        said = f"ended by {signal.Signals(-code).name}" + (f"; last: {said}" if said else "")
    return Ended(each.job, seconds, said or f"exit code {code}, without a message")


def _last_error(log: Path, began: int) -> str:
    """Return the last line that a command printed as its error, or else its last line."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(began, size - MAX_LOG_END))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line.partition(": ")[2] for line in lines if line.startswith("multimodal fit: ")]
    return shown((errors or lines or [""])[-1])
