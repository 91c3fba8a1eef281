"""Failures of the operating system in one line: a full disk, no permission, too many open files."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

from multimodal.core.errors import MultimodalError, shown

ADVICE = {
    errno.ENOSPC: "the disk is full; free some space, or name a folder on another disk",
    errno.EDQUOT: "the disk quota is used up; free some space, or name a folder on another disk",
    errno.EFBIG: "the file would be larger than the file system or `ulimit -f` allows",
    errno.EROFS: "the file system is read-only; name a folder elsewhere",
    errno.EIO: "the disk reports an input/output error; it may be failing",
    errno.EACCES: "permission denied; check who owns it and the folders above it, and their permissions",
    errno.EPERM: "operation not permitted; check who owns it and the folders above it, and their permissions",
    errno.ENOENT: "there is no such file or folder",
    errno.EEXIST: "it exists already",
    errno.ENOTEMPTY: "the folder is not empty",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EMFILE: "this process has too many open files; raise the limit with `ulimit -n`, or use fewer workers",
    errno.ENFILE: "the system has too many open files; close other programs",
    errno.ENOMEM: "there is not enough memory; use smaller batches or fewer workers",
    errno.ESTALE: "the network file system has lost it; run the command again",
    errno.ETXTBSY: "it is a program that is running",
    errno.EBUSY: "it is in use by the system",
}
# what writing a file may end with, whichever file was being written
OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# libraries that write files themselves keep the system's text, at most
BY_TEXT = {os.strerror(code): code for code in (*OF_WRITING, errno.EMFILE, errno.ENFILE)}
# torch (twice), datasets, numpy
INCOMPLETE_WRITES = ("PytorchStreamWriter failed", "unexpected pos ", "Not enough disk space", " requested and ")


@dataclass(frozen=True)
class SystemFault:
    """What the system refused.

    Attributes:
        code: the error's number, as in ``errno``.
        file: the file or folder; None: unknown.

    Examples:
        >>> str(SystemFault(errno.EISDIR, "pairs.csv"))
        'pairs.csv: it is a folder, not a file.'
    """

    code: int
    file: str | None = None

    @property
    def advice(self) -> str:
        """What is wrong and what to do, without the file."""
        return ADVICE[self.code]

    def __str__(self) -> str:
        if self.file is None:
            return f"{self.advice[0].upper()}{self.advice[1:]}."
        return f"{shown(self.file)}: {self.advice}."


def system_fault(error: BaseException) -> SystemFault | None:
    """Find the failure of the system that an exception, or one that it was raised from, reports.

    Returns:
        The failure; None if there is none, or it is not one of ``ADVICE``.

    Examples:
        >>> system_fault(RuntimeError("I/O error: No space left on device (os error 28)"))
        SystemFault(code=28, file=None)
    """
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return None
        if (fault := _fault(seen)) is not None:
            return fault
        seen = seen.__cause__
    return None


def _fault(error: BaseException) -> SystemFault | None:
    if isinstance(error, OSError) and error.errno in ADVICE:
        file = error.filename
        return SystemFault(error.errno, None if file is None or isinstance(file, int) else os.fsdecode(file))
    text = str(error)
    # of a data worker, with that process's traceback
    if isinstance(error, OSError) and (found := re.search(r"\[Errno (\d+)\] [^\n:]*(?:: '([^'\n]*)')?\s*$", text)):
        code = int(found[1])
        return SystemFault(code, found[2]) if code in ADVICE else None
    for words, code in BY_TEXT.items():
        if words in text:
            return SystemFault(code)
    if isinstance(error, OSError | RuntimeError) and any(words in text for words in INCOMPLETE_WRITES):
        return SystemFault(errno.ENOSPC)
    return None


def check_space(folder: Path, needed: int) -> None:
    """Raise what writing to a full disk raises, before a library writes to mapped files: there, the system ends the process.

    Args:
        folder: where it will write.
        needed: bytes.

    Raises:
        OSError: the disk has less space.
    """
    if disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn failures to write in the block (a full disk, a read-only one) into an error that names the folder.

    Args:
        folder: what is written in the block.

    Raises:
        MultimodalError: the system failed to write; the message says why and what to do.
    """
    try:
        yield
    except MultimodalError:
        raise
    except Exception as error:
        fault = system_fault(error)
        if fault is None or fault.code not in OF_WRITING:
            raise
        file = fault.file if fault.file is not None else folder
        raise MultimodalError(f"{shown(file)} cannot be written: {fault.advice}.") from error
