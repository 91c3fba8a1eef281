"""Long work shows life: a bar in a terminal, lines with the time left elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core import progress as module
from multimodal.core.progress import ProgressLine, duration, progress

WORK = """
import time
from multimodal.core.progress import progress

with progress("Reading", 40) as advance:
    for _ in range(4):
        time.sleep(0.3)
        advance(10)
"""


def test_without_a_terminal_it_writes_lines_also_while_nothing_advances(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.05)
    with progress("Opening"):
        time.sleep(0.18)
    with progress("Reading", 40) as advance:
        advance(10)
        time.sleep(0.18)
    out, lines = capsys.readouterr()
    assert out == ""
    opening = [line for line in lines.splitlines() if line.startswith("Opening")]
    assert opening[0] == "Opening: 0 s so far"
    assert 2 <= len(opening) <= 4
    reading = [line for line in lines.splitlines() if line.startswith("Reading")]
    assert reading[0].startswith("Reading: 10 of 40 rows, ")
    assert reading[0].endswith(" s left")


def test_short_work_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Reading", 40) as advance:
        advance(40)
    assert capsys.readouterr() == ("", "")


def test_an_error_ends_the_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.02)
    with pytest.raises(ValueError, match="broken"), progress("Reading", 40):
        raise ValueError("broken")
    capsys.readouterr()
    time.sleep(0.06)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", WORK], stderr=theirs, stdout=subprocess.PIPE, check=True)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # the end, on Linux
        pass
    os.close(ours)
    assert done.stdout == b""
    assert b"Reading" in shown
    assert b"30/40" in shown
    assert b"rows/s" not in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(done=st.integers(1, 10**6), more=st.integers(0, 10**6), seconds=st.floats(0.1, 1e5))
def test_the_time_left_follows_from_the_speed(done: int, more: int, seconds: float) -> None:
    times = iter([0.0, seconds])
    line = ProgressLine("Reading", done + more, clock=lambda: next(times))
    line.advance(done)
    assert str(line).endswith(f", {duration(seconds * more / done)} left")
