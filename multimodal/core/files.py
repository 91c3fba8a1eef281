"""Folders to write to: checks, atomic replacement, and the cache folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from multimodal.core.errors import MultimodalError, Unreadable, UsageError, shown
from multimodal.core.folder_lock import hold_lock, replacement_lock_file
from multimodal.core.system_errors import writing

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
            "address", f"{_as_written(path)} is an address, which is not fetched; download it and give its path."
        )
    if Path(path).is_dir():
        return Unreadable("folder", f"{what} {shown(path)} is a folder; give a file.")
    return Unreadable("missing file", f"{what} {shown(path)} does not exist.{hint}")


def no_such_folder(path: Path, reason: str) -> MultimodalError:
    """Make the error for a path at which there is no folder of the kind that is read.

    Args:
        path: the path, or an address, which people give in its place.
        reason: what is missing, which follows the path.

    Examples:
        >>> print(no_such_folder(Path("https://host/model"), " does not exist."))
        https://host/model is an address, which is not fetched; download the folder and give its path.
        >>> print(no_such_folder(Path("model"), " does not exist."))
        model does not exist.
    """
    if ADDRESS.match(str(path)):
        return MultimodalError(
            f"{_as_written(path)} is an address, which is not fetched; download the folder and give its path."
        )
    return MultimodalError(f"{path}{reason}")


def no_such_model(folder: Path) -> MultimodalError:
    """Make the error for a folder of a run or of a model that does not exist.

    Examples:
        >>> print(no_such_model(Path("runs/cups")))
        runs/cups does not exist; give a run folder or an exported model folder.
    """
    if lost := interrupted_replacement(folder):
        return MultimodalError(f"{folder} does not exist.{lost}")
    return no_such_folder(folder, " does not exist; give a run folder or an exported model folder.")


def no_such_index(folder: Path) -> MultimodalError:
    """Make the error for a folder that is not an index, or does not exist.

    Examples:
        >>> print(no_such_index(Path("cups")))
        cups is not an index: index.json is missing. Build one with `multimodal index`.
    """
    reason = " is not an index: index.json is missing. Build one with `multimodal index`."
    return no_such_folder(folder, f"{reason}{interrupted_replacement(folder)}")


def no_such_table(name: str, hint: str) -> UsageError:
    """Make the error for a table that does not exist.

    Args:
        name: what was given as the table.
        hint: what may have been meant, which follows.

    Examples:
        >>> print(no_such_table("shop.csv", " Did you mean 'shops.csv'?"))
        There is no table 'shop.csv': no file or folder of that name. Did you mean 'shops.csv'?
    """
    return UsageError(f"There is no table {name!r}: no file or folder of that name.{hint}")


def _as_written(path: str | Path) -> str:
    """Return a path for a message; an address that became a ``Path``, which keeps one slash of two, as it was written."""
    return shown(
        re.sub(r"(^|::)(?!file:)([\w+.-]+:)/(?=[^/])", r"\1\2//", str(path)) if isinstance(path, Path) else path
    )


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
    old folder, the new one, or (for the instant between two renames) neither; never a mixture. What a killed process left
    is removed, or the old folder moved back, by the next one that replaces the folder. Only one process at a time does.

    Args:
        folder: the final path of the new folder.
        marker: the name of a file that identifies a folder of this kind.

    Raises:
        UsageError: ``folder``, or a folder above it, is a file.
        MultimodalError: ``folder`` contains other files (only a folder with the marker is replaced), another process is
            replacing it, or it cannot be written.
    """
    folder = folder.absolute()
    check_folder(folder)
    _check_marker(folder, marker)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(replacement_lock_file(folder), folder) as held, writing(folder):
        if held:  # so whoever made the leftovers has ended
            _clear_leftovers(folder)
        _check_marker(folder, marker)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
        try:
            os.chmod(new, 0o777 & ~umask())  # mkdtemp's 0700 would hide the result from other users
            yield new
            if folder.exists():
                _swap_folders(new, folder)
            else:
                os.rename(new, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _check_marker(folder: Path, marker: str) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise MultimodalError(f"{folder} is not empty and holds no {marker}; choose another folder.")


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


def _leftovers(folder: Path, kind: str) -> list[Path]:
    """Return the folders that replacements of a folder made and did not remove, the newest first."""
    name = re.compile(rf"\.{re.escape(folder.name)}\.{kind}-[a-z0-9_]{{8}}")  # as mkdtemp makes them
    found = []
    with suppress(OSError):  # the folder above may be missing, or not be listed
        found = [path for path in folder.parent.iterdir() if name.fullmatch(path.name) and not path.is_symlink()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed replacements of a folder left; the old folder is moved back if it was not replaced."""
    for backup in _leftovers(folder, "old"):
        if not folder.exists() and (backup / folder.name).is_dir():
            os.rename(backup / folder.name, folder)
        shutil.rmtree(backup, ignore_errors=True)
    for new in _leftovers(folder, "new"):
        shutil.rmtree(new, ignore_errors=True)


def interrupted_replacement(folder: Path) -> str:
    """Return the end of an error about a missing folder: where it is, if a process was killed while replacing it."""
    folder = folder.absolute()
    if not folder.exists():
        for backup in _leftovers(folder, "old"):
            if (backup / folder.name).is_dir():
                return f" A process was killed while it replaced it: move {backup / folder.name} to {folder}."
    return ""


def umask() -> int:
    """Return the permission bits that are removed from new files of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
