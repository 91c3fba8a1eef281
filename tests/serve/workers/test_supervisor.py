"""Workers are started, started again, and stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import pytest
from idle_worker import start_idle

from multimodal.core.errors import MultimodalError
from multimodal.serve.workers.supervisor import Supervisor


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_worker_that_was_killed_is_started_again(capfd: pytest.CaptureFixture[str]) -> None:
    started, counts = list[tuple[int, int]](), [5, 5]

    def start(place: int) -> tuple[SpawnProcess, Connection]:
        process, ready = start_idle("good")
        assert process.pid is not None
        started.append((place, process.pid))
        if len(started) == 3:
            threading.Timer(0.1, send, [signal.SIGTERM]).start()
        return process, ready

    def ready(model: str) -> None:
        assert model == "runs/a"
        assert [place for place, _ in started] == [0, 1]
        os.kill(started[1][1], signal.SIGKILL)

    assert Supervisor(start, 2, 20, counts).run(ready) == signal.SIGTERM
    assert [place for place, _ in started] == [0, 1, 1]
    assert counts == [5, 0]  # what the killed one was answering is not counted any longer
    assert f"The worker process {started[1][1]} was ended by SIGKILL" in capfd.readouterr().err
    for _, process in started:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("kind", "message"), [("broken", "There is no model"), ("dies", "A worker ended with exit code 3")]
)
def test_a_server_whose_worker_cannot_begin_ends_with_the_reason(kind: str, message: str) -> None:
    supervisor = Supervisor(lambda place: start_idle("good" if place == 0 else kind), 2, 20, [0, 0])
    with pytest.raises(MultimodalError, match=message):
        supervisor.run(lambda model: None)


def test_a_worker_that_cannot_begin_later_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("multimodal.serve.workers.supervisor.AGAIN", 0.1)
    kinds = iter(["good", "broken", "good"])
    processes = []

    def start(place: int) -> tuple[SpawnProcess, Connection]:
        process, ready = start_idle(next(kinds))
        processes.append(process)
        if len(processes) == 3:
            threading.Timer(0.1, send, [signal.SIGTERM]).start()
        return process, ready

    supervisor = Supervisor(start, 1, 20, [0])
    assert supervisor.run(lambda model: processes[0].kill()) == signal.SIGTERM
    assert ": There is no model; trying again in 0.1 s" in capfd.readouterr().err


@pytest.mark.parametrize(("signals", "patience"), [([signal.SIGTERM], 0.5), ([signal.SIGINT, signal.SIGINT], 60)])
def test_a_worker_that_does_not_end_is_killed(signals: list[int], patience: float) -> None:
    def ready(model: str) -> None:
        for number, name in enumerate(signals):
            threading.Timer(0.2 * (1 + number), send, [name]).start()

    began = time.monotonic()
    assert Supervisor(lambda place: start_idle("stubborn"), 1, patience, [0]).run(ready) == signals[0]
    assert time.monotonic() - began < 30
