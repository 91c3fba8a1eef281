"""Two folders that change places."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

AT_FDCWD = -100  # paths are relative to the working folder
EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)  # by the system or the file system


def exchange_folders(a: Path, b: Path) -> None:
    """Let two folders of one file system change places.

    Linux (renameat2) and macOS (renamex_np) do it in one step: at every moment, each of the two paths has one of the folders.
    Elsewhere, and on file systems that cannot, it takes three renames, and a process killed between them leaves no folder at
    ``a``: the one that was there is in a folder next to it, whose name begins with that of ``a`` and ".exchange".

    Args:
        a: the one folder.
        b: the other one.

    Raises:
        OSError: they cannot be renamed.

    Examples:
        >>> for name in ("old", "new"):
        ...     Path(name).mkdir()
        ...     _ = Path(name, "which").write_text(name)
        >>> exchange_folders(Path("old"), Path("new"))
        >>> Path("old", "which").read_text()
        'new'
    """
    rename = _system_call()
    if rename is not None:
        if rename(os.fsencode(a), os.fsencode(b)) == 0:
            return
        code = ctypes.get_errno()
        if code not in NOT_SUPPORTED:
            raise OSError(code, os.strerror(code), str(a), None, str(b))
    _by_three_renames(a, b)


def _system_call() -> Callable[[bytes, bytes], int] | None:
    """Return what exchanges two paths and returns 0 for success; None: the system has no such call."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform.startswith("linux") and hasattr(library, "renameat2"):
        return lambda a, b: library.renameat2(AT_FDCWD, a, AT_FDCWD, b, EXCHANGE)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return lambda a, b: library.renamex_np(a, b, EXCHANGE)
    return None


def _by_three_renames(a: Path, b: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f"{a.name}.exchange-", dir=a.parent))
    os.rename(a, aside / a.name)
    try:
        os.rename(b, a)
    except OSError:
        os.rename(aside / a.name, a)
        aside.rmdir()
        raise
    os.rename(aside / a.name, b)
    aside.rmdir()
