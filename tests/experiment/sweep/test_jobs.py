"""Processes of a sweep: how many at a time, where, and how they end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from multimodal.experiment.sweep.jobs import Ended, Job, SweepStopped, run_jobs

PYTHON = (sys.executable, "-I", "-S", "-c")


def run_all(codes: list[str], folder: Path, devices: int = 1) -> list[Ended]:
    jobs = [Job(str(n), (*PYTHON, code), folder / "logs" / f"{n}.log") for n, code in enumerate(codes)]
    ended: list[Ended] = []
    waiting = iter(jobs)
    run_jobs(lambda: next(waiting, None), [{"DEVICE": str(n)} for n in range(devices)], print, ended.append)
    return ended


def test_as_many_run_at_a_time_as_there_are_devices(tmp_path: Path) -> None:
    code = (
        "import os, time; from pathlib import Path; device = Path(f'{os.environ[\"DEVICE\"]}.device'); device.mkdir();"
        " others = len(list(Path('.').glob('*.device'))); time.sleep(0.15); device.rmdir(); print('with', others)"
    )
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        ended = run_all([code] * 5, tmp_path, devices=2)
    finally:
        os.chdir(before)
    assert sorted(e.job.name for e in ended) == ["0", "1", "2", "3", "4"]
    assert [e.error for e in ended] == [None] * 5  # a device that is in use is a folder that cannot be made again
    said = [int(log.read_text().split()[1]) for log in sorted((tmp_path / "logs").iterdir())]
    assert 2 in said
    assert max(said) <= 2


def test_an_error_is_the_last_that_the_command_printed(tmp_path: Path) -> None:
    ended = run_all(
        [
            "import sys; print('multimodal fit: the table is empty.'); print('later'); sys.exit(1)",
            "import sys; print('one'); print('two  '); print(); sys.exit(3)",
            "import sys; sys.exit(4)",
            "import os; print('so far', flush=True); os.kill(os.getpid(), 9)",
            "print('x' * 10 ** 6); import sys; sys.exit(1)",
        ],
        tmp_path,
    )
    errors = [str(e.error) for e in ended]
    assert errors[:4] == [
        "the table is empty.",
        "two",
        "exit code 4, without a message",
        "ended by SIGKILL; last: so far",
    ]
    assert len(errors[4]) == 200


def test_an_error_of_an_earlier_start_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "0.log").write_text("multimodal fit: an old error\n")
    (ended,) = run_all(["import sys; sys.exit(1)"], tmp_path)
    assert ended.error == "exit code 1, without a message"


WAITS = """
import signal, sys, time
from pathlib import Path
received = []
signal.signal(signal.SIGTERM, lambda *_: received.append(1))
signal.signal(signal.SIGINT, lambda *_: received.append(2))
Path({ready!r}).touch()
while not received: time.sleep(0.01)
time.sleep({after})
Path({ready!r}).write_text(str(received))
sys.exit(143)
"""


def signal_when(ready: list[Path], numbers: list[int]) -> threading.Thread:
    def send() -> None:
        while not all(path.exists() for path in ready):
            time.sleep(0.01)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.4)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_process_once_and_no_other_is_started(tmp_path: Path, number: signal.Signals) -> None:
    ready = [tmp_path / "a", tmp_path / "b"]
    codes = [WAITS.format(ready=str(path), after=0.3) for path in ready]
    thread = signal_when(ready, [number])
    with pytest.raises(SweepStopped, match=f"stopped by {number.name}; the same command resumes it") as stopped:
        run_all([*codes, "open('third', 'w')"], tmp_path, devices=2)
    thread.join()
    assert stopped.value.exit_code == 128 + number
    assert [path.read_text() for path in ready] == ["[1]", "[1]"]
    assert not (tmp_path / "logs" / "2.log").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_kills(tmp_path: Path) -> None:
    ready = tmp_path / "a"
    thread = signal_when([ready], [signal.SIGINT, signal.SIGINT])
    began = time.monotonic()
    with pytest.raises(SweepStopped):
        run_all([WAITS.format(ready=str(ready), after=60)], tmp_path)
    thread.join()
    assert time.monotonic() - began < 30
    assert ready.read_text() == ""


def test_an_error_of_the_sweep_ends_its_processes(tmp_path: Path) -> None:
    ready = tmp_path / "a"
    waiting = iter([Job("a", (*PYTHON, WAITS.format(ready=str(ready), after=0)), tmp_path / "a.log")])

    def next_job() -> Job | None:
        return next(waiting, None)

    def fails(job: Job, device: int) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        run_jobs(next_job, [{}], fails, print)
    jobs = iter(
        [
            Job("b", (*PYTHON, "pass"), tmp_path / "b.log"),
            Job("a", (*PYTHON, WAITS.format(ready=str(ready), after=0)), tmp_path / "a.log"),
        ]
    )

    def fails_when_both_run(ended: Ended) -> None:
        while not ready.exists():
            time.sleep(0.01)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        run_jobs(lambda: next(jobs, None), [{}, {}], lambda job, device: None, fails_when_both_run)
    assert ready.read_text() == "[1]"
