"""The copies of tables in the cache: whole, or made again.

A copy is mapped into memory, where a damaged file ends the process or shows as other values. ``digests.json`` in its folder holds
the digests of its files by block, which are compared whenever the table is opened: all blocks up to 1 GiB (0.6 seconds), some
drawn at random beyond. A copy that is damaged, or has no digests, is made again from the table's files. These are compared with
the digests of ``multimodal prepare`` or ``embed`` first, if it wrote them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from multimodal.core.digests import (
    BLOCK_BYTES,
    FILES,
    DamagedFile,
    check_document,
    check_file,
    describe_files,
    read_manifest,
    with_digest,
)

DIGESTS = "digests.json"
INFO = "dataset_info.json"  # of the datasets library, which reads it when it constructs a reader


def copy_to_cache(make_reader: Callable[[], Any], cache: Path, files: Sequence[str], download_config: Any) -> Any:
    """Copy a table to the cache, unless there is a whole copy of it.

    Args:
        make_reader: constructs the reader of the ``datasets`` library.
        cache: the folder of all copies.
        files: addresses of the table's files.
        download_config: the reader's settings of downloads.

    Returns:
        The reader, whose ``as_dataset`` opens the copy.

    Raises:
        DamagedFile: a file of the table is not what ``multimodal prepare`` or ``embed`` wrote.
    """
    try:
        reader = make_reader()
    except Exception:
        if not _remove_damaged(cache):
            raise
        reader = make_reader()
    folder = Path(reader.cache_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.{DIGESTS}.lock"):
        if folder.exists() and not _is_whole(folder):
            shutil.rmtree(folder)
            reader = make_reader()
        if not folder.exists():
            _check_sources(files)
        reader.download_and_prepare(download_config=download_config)
        if not (folder / DIGESTS).is_file():
            names = sorted(path.name for path in folder.iterdir() if path.is_file())
            document = with_digest({FILES: describe_files(folder, names, BLOCK_BYTES)})
            new = folder / f"{DIGESTS}.new"
            new.write_text(json.dumps(document), encoding="utf-8")
            os.replace(new, folder / DIGESTS)
    return reader


def _is_whole(folder: Path, only: str | None = None) -> bool:
    """Return whether the files of a copy are those that were written."""
    try:
        document = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
        check_document(document, folder / DIGESTS)
        for name, entry in document[FILES].items():
            if only in (None, name):
                check_file(folder / name, entry)
    except (DamagedFile, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _remove_damaged(cache: Path) -> bool:
    """Remove the copies whose description, which readers read first, is damaged; return whether there were any."""
    damaged = [path.parent for path in cache.rglob(DIGESTS) if not _is_whole(path.parent, only=INFO)]
    for folder in damaged:
        shutil.rmtree(folder)
    return bool(damaged)


def _check_sources(files: Sequence[str]) -> None:
    """Compare files with the digests that ``multimodal prepare`` or ``embed`` wrote next to them, if it did."""
    digests: dict[Path, dict[str, Any]] = {}
    for file in files:
        path = Path(file)
        if not path.is_file():  # a URL, or in an archive
            continue
        if path.parent not in digests:
            digests[path.parent] = read_manifest(path.parent)
        check_file(path, digests[path.parent].get(path.name), "Prepare or embed the table again.")
