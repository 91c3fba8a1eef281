"""The copies of tables in the cache: whole, or made again.

A copy is mapped into memory, where a damaged file ends the process or shows as other values. ``digests.json`` in its folder
holds the digests of its files by block, which are compared whenever the table is opened: all blocks up to 1 GiB (0.6 seconds),
some drawn at random beyond. A copy that is damaged, or has no digests, is made again from the table's files; these are compared
first with the digests of ``multimodal prepare`` or ``embed``, if it wrote them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from multimodal.core.digests import check_recorded, is_whole_copy, write_copy_digests
from multimodal.core.manifests import COPY_DIGESTS
from multimodal.data.tables.compressed import check_compressed

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
        MultimodalError: a compressed file opens to far more than tables do.
    """
    try:
        reader = make_reader()
    except Exception:
        if not _remove_damaged(cache):
            raise
        reader = make_reader()
    folder = Path(reader.cache_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.{COPY_DIGESTS}.lock"):
        if folder.exists() and not is_whole_copy(folder):
            shutil.rmtree(folder)
            reader = make_reader()
        if not folder.exists():
            check_recorded(map(Path, files), "Prepare or embed the table again.")  # URLs are not files
            check_compressed(files)
        reader.download_and_prepare(download_config=download_config)
        if not (folder / COPY_DIGESTS).is_file():
            write_copy_digests(folder)
    return reader


def _remove_damaged(cache: Path) -> bool:
    """Remove the copies whose description, which readers read first, is damaged; return whether there were any."""
    damaged = [path.parent for path in cache.rglob(COPY_DIGESTS) if not is_whole_copy(path.parent, only=INFO)]
    for folder in damaged:
        shutil.rmtree(folder)
    return bool(damaged)
