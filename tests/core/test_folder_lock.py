"""A folder has one writer at a time, and a dead writer blocks nobody."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from multimodal.core.errors import MultimodalError
from multimodal.core.folder_lock import LOCK_FILE, hold_lock, replacement_lock_file, write_lock

HOLDER = """
import os, sys, time
from multimodal.core.folder_lock import write_lock
with write_lock(sys.argv[1]):
    forks = len(sys.argv) > 2
    child = forks and os.fork() == 0  # a worker that outlives it, and reports when its copies are closed
    if child or not forks:
        print("held", flush=True)
    time.sleep(60)
    if child:
        os._exit(0)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the folder ``run``."""
    yield from _held_by_process(tmp_path)


@pytest.fixture
def holder_with_child(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    yield from _held_by_process(tmp_path, "fork")


def _held_by_process(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it and its child


def test_a_second_process_is_refused_in_one_line_that_says_who_and_since_when(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(MultimodalError) as refusal, write_lock(tmp_path / "run"):
        pass
    message = str(refusal.value)
    assert message.startswith(
        f"{tmp_path / 'run'} is being written by '-c {tmp_path / 'run'}' (process {holder.pid} on"
    )
    assert f"on {socket.gethostname()}, since 20" in message
    assert message.endswith(". Wait until that ends, or name another folder.")
    assert (tmp_path / "run" / LOCK_FILE).exists()


@pytest.mark.parametrize("fixture", ["holder", "holder_with_child"])
def test_the_lock_of_a_killed_process_is_taken_over(
    tmp_path: Path, fixture: str, request: pytest.FixtureRequest
) -> None:
    process = request.getfixturevalue(fixture)
    process.kill()
    process.wait()
    assert json.loads((tmp_path / "run" / LOCK_FILE).read_text())["pid"] == process.pid
    with write_lock(tmp_path / "run") as held:
        assert held
        assert json.loads((tmp_path / "run" / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_the_folder_is_kept_if_something_was_written_and_else_removed_with_those_above(tmp_path: Path) -> None:
    with write_lock(tmp_path / "runs" / "deep"):
        assert os.listdir(tmp_path / "runs" / "deep") == [LOCK_FILE]
    assert os.listdir(tmp_path) == []
    with write_lock(tmp_path / "runs" / "deep"):
        (tmp_path / "runs" / "deep" / "a").write_text("1")
    assert os.listdir(tmp_path / "runs" / "deep") == ["a"]
    (tmp_path / "empty").mkdir()
    with write_lock(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").exists()  # it was there before


def test_an_exception_releases_the_lock(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), write_lock(tmp_path):
            _ = 1 / 0
    assert os.listdir(tmp_path) == []


def refused_in_a_thread(folder: Path) -> bool:
    """Whether another thread of this process is refused."""
    refused = []

    def try_it() -> None:
        try:
            with write_lock(folder):
                refused.append(False)
        except MultimodalError:
            refused.append(True)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return refused[0]


def test_a_thread_may_enter_its_lock_again_and_another_thread_may_not(tmp_path: Path) -> None:
    with write_lock(tmp_path):
        with write_lock(tmp_path) as held:
            assert held
        assert refused_in_a_thread(tmp_path)  # also after the inner one ended
    assert not refused_in_a_thread(tmp_path)


def test_a_lock_whose_file_its_holder_removed_in_between_is_taken_at_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the holder ended after this process opened the file, and before it locked it."""
    flock, file = fcntl.flock, tmp_path / LOCK_FILE

    def remove_first(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        file.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with write_lock(tmp_path):
        assert file.exists()
        assert refused_in_a_thread(tmp_path)


def test_a_holder_that_has_not_said_yet_who_it_is(tmp_path: Path) -> None:
    with (tmp_path / LOCK_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for text in ("", "[1]", '{"pid": 3'):
            (tmp_path / LOCK_FILE).write_text(text)
            with pytest.raises(MultimodalError, match="is being written by another process"), write_lock(tmp_path):
                pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_written_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def not_supported(descriptor: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", not_supported)
    with write_lock(tmp_path) as held:
        assert not held
        assert os.listdir(tmp_path) == []


def test_a_link_in_the_place_of_the_lock_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("dear")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_FILE).symlink_to(tmp_path / "thesis")
    with pytest.raises(MultimodalError, match=r"\.multimodal\.lock is a link"), write_lock(tmp_path / "run"):
        pass
    assert (tmp_path / "thesis").read_text() == "dear"


def test_the_lock_of_a_replaced_folder_is_next_to_it(tmp_path: Path) -> None:
    file = replacement_lock_file(tmp_path / "index")
    assert file == tmp_path / ".index.multimodal.lock"
    with hold_lock(file, tmp_path / "index"):
        assert os.listdir(tmp_path) == [file.name]
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_folder_that_is_moved_leaves_the_one_that_takes_its_place_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "folder", tmp_path / "other"
    first.mkdir()
    second.mkdir()
    file = first / LOCK_FILE
    with hold_lock(file, first):
        first.rename(tmp_path / "moved")
        second.rename(first)
        with hold_lock(file, first) as held:  # by the same thread: another file at the same path
            assert held
            assert file.exists()
    assert not file.exists()
    with hold_lock(tmp_path / "moved" / LOCK_FILE, tmp_path / "moved") as held:
        assert held


def test_a_lock_that_ends_first_does_not_remove_the_file_of_the_folder_that_took_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    outer = hold_lock(folder / LOCK_FILE, folder)
    outer.__enter__()
    folder.rename(tmp_path / "moved")
    folder.mkdir()
    with hold_lock(folder / LOCK_FILE, folder):
        outer.__exit__(None, None, None)
        assert (folder / LOCK_FILE).exists()
