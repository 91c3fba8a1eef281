"""The folder of an engine that runs in this process: who has it open, and how its errors are reported."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from multimodal.core.errors import MultimodalError
from multimodal.core.folder_lock import LOCK_FILE, FolderLocked, hold_lock

WAIT_SECONDS = 10.0  # for another process that has the folder open

Identity = tuple[int, int]  # of a folder, wherever it is moved

OPENING = threading.RLock()  # of what is known of all open folders
_FOLDER_LOCKS: dict[Path, threading.RLock] = {}  # while one is built, others can be opened


def lock_of(folder: Path) -> threading.RLock:
    """Return the lock of a folder, held while it is opened or replaced in this process."""
    with OPENING:
        return _FOLDER_LOCKS.setdefault(folder, threading.RLock())


def identity_of(folder: Path) -> Identity:
    """Return what identifies a folder, wherever it is moved; (0, 0): there is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def keep_open(folder: Path, files: ExitStack) -> None:
    """Keep a folder open, so that its number is not given to another one if it is removed."""
    if hasattr(os, "O_DIRECTORY") and folder.is_dir():
        files.callback(os.close, os.open(folder, os.O_RDONLY | os.O_DIRECTORY))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock on a folder; another process, such as a search, gets some seconds to end."""
    end = time.monotonic() + WAIT_SECONDS
    with ExitStack() as lock:
        while True:
            try:
                lock.enter_context(hold_lock(folder / LOCK_FILE, folder))
                break
            except FolderLocked as error:
                if time.monotonic() > end:
                    raise MultimodalError(
                        f"{folder.parent} is open in {error.holder}. An index of this engine is open in one process at a"
                        " time: wait, close it there, or search it through `multimodal serve`."
                    ) from error
            time.sleep(0.1)
        yield


@contextmanager
def errors_of(folder: Path) -> Iterator[None]:
    """Report the engine's errors as ours."""
    try:
        yield
    except MultimodalError:
        raise
    except BaseException as error:  # a panic of the engine is not an Exception
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise MultimodalError(f"The engine of the index {folder.parent} failed: {error}") from error
