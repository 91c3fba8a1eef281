"""Atomic replacement of folders, and the cache folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multimodal.core.errors import MultimodalError


def default_cache() -> Path:
    """Return ``$MULTIMODAL_CACHE``, or the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("MULTIMODAL_CACHE") or user_cache_path("multimodal"))


@contextmanager
def atomic_folder(folder: Path, marker: str) -> Iterator[Path]:
    """Fill a new, empty folder, which replaces ``folder`` when the block ends without an exception.

    It is made next to its place, so that the move is a rename. A process killed at any moment leaves the old folder, the
    new one, or (for the instant between two renames) none; never a mixture.

    Args:
        folder: where the new folder goes.
        marker: the name of a file that identifies a folder of this kind.

    Raises:
        MultimodalError: ``folder`` is a file, or holds other things: only a folder with the marker is replaced.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise MultimodalError(f"{folder} is a file; name a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise MultimodalError(f"{folder} is not empty and holds no {marker}; choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
    os.chmod(new, 0o777 & ~umask())  # mkdtemp's 0700 would hide the result from other users
    try:
        yield new
        if folder.exists():
            _swap_folders(new, folder)
        else:
            os.rename(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _swap_folders(new: Path, folder: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old-", dir=folder.parent))
    try:
        os.rename(folder, aside / folder.name)
        os.rename(new, folder)
    except OSError:
        if not folder.exists():
            os.rename(aside / folder.name, folder)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def umask() -> int:
    """Return the permission bits that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
