"""The files of a table and their reader."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

# suffix -> the reader of the datasets library, and its settings
READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"delimiter": "\t", "quoting": 3}),  # quotes are letters there
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {"batch_size": 10_000}),  # by default a whole row group is held in memory
    ".tar": ("webdataset", {}),
}
COMPRESSED = (".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class Source:
    """Where a table lies: the reader of its ``files``, the reader's settings, and the ``base`` of relative paths."""

    name: str
    reader: str
    options: dict[str, Any]
    files: tuple[str, ...]
    base: str
    metadata_columns: tuple[str, ...] | None = None  # None: as the types of the columns tell


def _suffix(file: str) -> str:
    """What tells the format; Parquet is compressed inside, and is read from any place of its file."""
    stem, suffix = posixpath.splitext(file.lower())
    packed = posixpath.splitext(stem)[1] if suffix in COMPRESSED else ""
    return packed if packed not in ("", ".parquet") else suffix
