"""Folders that are there whole or not at all, and where what can be made again is kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multimodal.core.errors import MultimodalError


def default_cache() -> Path:
    """``$MULTIMODAL_CACHE``, or the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("MULTIMODAL_CACHE") or user_cache_path("multimodal"))


@contextmanager
def atomic_folder(folder: Path, marker: str) -> Iterator[Path]:
    """A new, empty folder to fill, which takes the place of ``folder`` when the block ends without an exception.

    It is made beside its place, so that the move is a rename. A process killed at any moment leaves the old folder, the
    new one, or (for the instant between two renames) none; never a mixture.

    Args:
        folder: where the new folder goes.
        marker: the name of a file that tells a folder of this kind.

    Raises:
        MultimodalError: ``folder`` is a file, or holds other things: nothing is replaced that was not written so.
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
    """The bits that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
