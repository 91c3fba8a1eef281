"""Of two commands that write one folder, the second is refused in one line and the first ends as if it were alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from command_processes import Command
from written_folders import Material, arguments_of

from multimodal.core.folder_lock import LOCK_FILE

pytestmark = pytest.mark.slow

ATTEMPTS = 20


def stopped_while_it_writes(arguments: list[object], out: Path, log: Path) -> Command | None:
    """Start a command and stop it as soon as it holds the lock; None: it was too fast."""
    command = Command(arguments, log)
    locks = (out / LOCK_FILE, out.with_name(f".{out.name}{LOCK_FILE}"))
    while command.process.is_alive():
        if any(lock.exists() for lock in locks):
            command.signal(signal.SIGSTOP)
            time.sleep(0.05)
            if any(lock.exists() and lock.stat().st_size for lock in locks):
                return command
            command.signal(signal.SIGCONT)
    assert command.wait() == 0, command.printed
    return None


@pytest.mark.parametrize("command", ["embed", "index", "prepare", "export", "fit"])
def test_the_second_writer_is_refused_and_the_first_is_not_disturbed(
    command: str, material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for attempt in range(ATTEMPTS):
        out = tmp_path / f"out-{attempt}"
        arguments = arguments_of(command, material, out)
        first = stopped_while_it_writes(arguments, out, tmp_path / "first.log")
        if first is None:
            continue
        second = Command(arguments, tmp_path / "second.log")
        assert second.wait() == 1
        expected = f"multimodal {command}: {out} is being written by "
        assert second.last_line.startswith(expected), second.printed
        assert f"(process {first.process.pid} on " in second.last_line
        first.signal(signal.SIGCONT)
        assert first.wait() == 0, first.printed
        assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []
        assert [path.name for path in out.rglob(".*")] == []
        third = Command(arguments, tmp_path / "third.log")  # the folder is free again
        assert third.wait() == (1 if command == "fit" else 0), third.printed
        if command == "fit":
            assert "holds a run already" in third.last_line
        with capsys.disabled():
            print(f"\n{command}: the second writer was refused (attempt {attempt + 1})")
        return
    pytest.fail(f"{command} could not be stopped while it wrote")


@pytest.mark.parametrize("command", ["embed", "index", "prepare", "fit"])
def test_two_that_start_together_leave_one_whole_result(
    command: str, material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = 0
    alone = Command(arguments_of(command, material, tmp_path / "alone"), tmp_path / "alone.log")
    assert alone.wait() == 0, alone.printed
    files = sorted(path.name for path in (tmp_path / "alone").iterdir())
    for trial in range(5):
        out = tmp_path / f"out-{trial}"
        both = [Command(arguments_of(command, material, out), tmp_path / f"{n}.log") for n in range(2)]
        codes = sorted(command.wait() for command in both)
        assert codes in ([0, 0], [0, 1]), [command.printed for command in both]
        for one in both:
            if one.process.exitcode == 1:
                refused += 1
                assert "is being written by" in one.last_line or "holds a run already" in one.last_line, one.printed
        assert sorted(path.name for path in out.iterdir()) == files
        assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []
    with capsys.disabled():
        print(f"\n{command}: 5 pairs at once, {refused} refused, {5 - refused} one after the other")
