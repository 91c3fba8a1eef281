"""Folders to write to: checks, atomic replacement, and the cache folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multimodal.core.errors import MultimodalError, Unreadable, UsageError, shown

# such as https://host/cup.png, with one slash if it is a Path; a drive like C: has one letter
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|data:[\w/+.-]*[;,]", re.IGNORECASE)


def default_cache() -> Path:
    """Return ``$MULTIMODAL_CACHE``, or the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("MULTIMODAL_CACHE") or user_cache_path("multimodal"))


def not_a_file(path: str | Path, what: str, hint: str = "") -> Unreadable:
    """Make the error for a path at which there is no file.

    Args:
        path: the path, or an address, which people give in its place.
        what: what should be there, such as "the picture".
        hint: the end of the message if nothing is there, such as " Paths are relative to the table's folder."

    Examples:
        >>> not_a_file("https://host/cup.png", "the picture").reason, not_a_file(".", "the picture").reason
        ('address', 'folder')
    """
    if ADDRESS.match(str(path)):
        return Unreadable(
            "address", f"{shown(path)} is an address, which is not fetched; download it and give its path."
        )
    if Path(path).is_dir():
        return Unreadable("folder", f"{what} {shown(path)} is a folder; give a file.")
    return Unreadable("missing file", f"{what} {shown(path)} does not exist.{hint}")


def check_folder(path: str | Path) -> None:
    """Check that a path can be a folder to write to; called before work whose results go there.

    Raises:
        UsageError: the path, or a folder above it, is a file; the message names it.
    """
    absolute = Path(path).absolute()
    existing = next(p for p in (absolute, *absolute.parents) if p.exists())
    if not existing.is_dir():
        raise UsageError(f"{existing} is a file, not a folder; name another folder.")


@contextmanager
def atomic_folder(folder: Path, marker: str) -> Iterator[Path]:
    """Fill a new, empty folder, which replaces ``folder`` when the block ends without an exception.

    The new folder is created next to the old one, so that the move is a rename. A process killed at any moment leaves the
    old folder, the new one, or (for the instant between two renames) neither; never a mixture.

    Args:
        folder: the final path of the new folder.
        marker: the name of a file that identifies a folder of this kind.

    Raises:
        UsageError: ``folder``, or a folder above it, is a file.
        MultimodalError: ``folder`` contains other files: only a folder with the marker is replaced.
    """
    folder = folder.absolute()
    check_folder(folder)
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
    backup = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old-", dir=folder.parent))
    try:
        os.rename(folder, backup / folder.name)
        os.rename(new, folder)
    except OSError:
        if not folder.exists():
            os.rename(backup / folder.name, folder)
        backup.rmdir()
        raise
    shutil.rmtree(backup)


def umask() -> int:
    """Return the permission bits that are removed from new files of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
