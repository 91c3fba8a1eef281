"""The files of a table and their reader."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

# suffix -> the reader of the datasets library, and its settings
READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"delimiter": "\t", "quoting": 3}),  # quotes are ordinary characters in TSV
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {"batch_size": 10_000}),  # by default an entire row group is held in memory
    ".tar": ("webdataset", {}),
}
COMPRESSED = (".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class Source:
    """The location of a table that consists of files, and its reader.

    Attributes:
        name: name of the table, as the user gave it.
        reader: name of the reader: "csv", "json", "parquet" or "webdataset".
        options: settings of the reader.
        files: addresses of the files, in order.
        base: the folder or URL that paths in the table are relative to.
        metadata_columns: the columns that describe a row to users; None: inferred from the column types.
    """

    name: str
    reader: str
    options: dict[str, Any]
    files: tuple[str, ...]
    base: str
    metadata_columns: tuple[str, ...] | None = None


def format_suffix(file: str) -> str:
    """Return the suffix that determines a file's format, in lower case, without the suffix of a compression.

    Compressed Parquet files keep the latter (``.gz``): Parquet is compressed internally and needs random access.

    Examples:
        >>> format_suffix("shop.CSV.gz"), format_suffix("shop.parquet.gz")
        ('.csv', '.gz')
    """
    stem, suffix = posixpath.splitext(file.lower())
    inner_suffix = posixpath.splitext(stem)[1] if suffix in COMPRESSED else ""
    return inner_suffix if inner_suffix not in ("", ".parquet") else suffix
