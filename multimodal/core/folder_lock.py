"""One writer at a time for a folder.

1. A writer locks a small file with ``flock``. The system releases the lock when the process ends, however it ends, so that
   a killed writer never blocks the next one.
2. The file says who holds the lock and since when, for the error that a second writer gets.
3. For a folder that is written in place (a run, embeddings), the file is in it: the folder above may be read-only. For a
   folder that is replaced as a whole, the file is next to it. The holder removes the file at the end.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from multimodal.core.errors import MultimodalError, shown

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

LOCK_FILE = ".multimodal.lock"
NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # by the file system
MAX_HOLDER_BYTES = 4096


class FolderLocked(MultimodalError):
    """Another process or thread is writing a folder.

    Args:
        folder: the folder.
        holder: the process, as the message names it.

    Examples:
        >>> print(FolderLocked(Path("run"), "'multimodal fit' (process 7)"))
        run is being written by 'multimodal fit' (process 7). Wait until that ends, or name another folder.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder} is being written by {holder}. Wait until that ends, or name another folder.")
        self.holder = holder


_HELD: dict[int, tuple[Path, int]] = {}  # file descriptor -> the lock file, and the thread that holds it


@contextmanager
def write_lock(folder: str | Path) -> Iterator[bool]:
    """Be the only writer of a folder that is written in place; the folder is created, and removed if it is still empty.

    A thread that holds the lock may enter it again.

    Args:
        folder: the folder.

    Yields:
        Whether the lock is held; False where the file system has no locks.

    Raises:
        MultimodalError: another process or thread holds the lock; the message says who and since when.

    Examples:
        >>> with write_lock("run") as held:
        ...     held, Path("run/.multimodal.lock").exists()
        (True, True)
        >>> Path("run").exists()
        False
    """
    folder = Path(folder).absolute()
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(folder / LOCK_FILE, folder) as held:
            yield held
    finally:
        with suppress(OSError):  # the first that is not empty ends it
            for path in created:
                path.rmdir()


def replacement_lock_file(folder: Path) -> Path:
    """Return the lock file of a folder that is replaced as a whole; it is next to the folder."""
    return folder.with_name(f".{folder.name}{LOCK_FILE}")


@contextmanager
def hold_lock(file: Path, folder: Path) -> Iterator[bool]:
    """Hold the lock on a file, which is created and then removed.

    Args:
        file: the lock file, an absolute path.
        folder: the folder that it protects, for the error.

    Yields:
        Whether the lock is held; False where the file system has no locks.

    Raises:
        MultimodalError: another process or thread holds the lock.
    """
    thread = threading.get_ident()
    if any(held == (file, thread) and _is_at(descriptor, file) for descriptor, held in list(_HELD.items())):
        yield True
        return
    descriptor = _lock(file, folder)
    if descriptor is None:
        yield False
        return
    _HELD[descriptor] = file, thread
    try:
        yield True
    finally:
        # A process forked meanwhile (a data worker) has closed its copy. The file goes before the lock does: whoever has
        # opened it in between sees in `_lock` that it is no longer the one at this path. If the folder was moved meanwhile,
        # the path has the file of another folder, which is not ours to remove.
        if _HELD.get(descriptor) == (file, thread):
            del _HELD[descriptor]
            with suppress(OSError):
                if _is_at(descriptor, file):
                    file.unlink()
            os.close(descriptor)


def _lock(file: Path, folder: Path) -> int | None:
    """Lock a file and return its descriptor; None if the file system has no locks."""
    if fcntl is None:
        return None
    while True:
        if file.is_symlink():  # it could name any file of the user's, whose contents would be replaced
            raise MultimodalError(f"{file} is a link, which this package did not write; remove it.")
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise MultimodalError(f"{file} is not a file, so this package did not write it; remove it.")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, file):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_this_process()).encode())
                return descriptor
            os.close(descriptor)  # its holder removed it in between
        except BlockingIOError as error:
            holder = _describe_holder(descriptor)
            os.close(descriptor)
            raise FolderLocked(folder, holder) from error
        except OSError as error:
            os.close(descriptor)
            if error.errno not in NOT_SUPPORTED:
                raise
            with suppress(OSError):
                file.unlink()
            return None
        except BaseException:
            os.close(descriptor)
            raise


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, str | int]:
    program = Path(sys.argv[0] if sys.argv else "python")
    name = program.parent.name if program.name == "__main__.py" else program.name
    command = " ".join([name, *sys.argv[1:2]])  # further arguments may hold what is not for others to read
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    return {"command": shown(command), "pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _describe_holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, MAX_HOLDER_BYTES, 0))
        who = {key: shown(found[key]) for key in ("command", "pid", "host", "since")}
    except (OSError, ValueError, TypeError, KeyError):  # it was locked an instant ago
        return "another process"
    return "{command!r} (process {pid} on {host}, since {since})".format(**who)


def _forget_in_child() -> None:
    """Close a forked process's copies: a data worker that outlives its killed parent would hold the lock."""
    for descriptor in _HELD:
        with suppress(OSError):
            os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
