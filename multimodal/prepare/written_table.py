"""A copied table as shards, with further columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from multimodal.core.digests import FILES, describe_files, with_digest
from multimodal.core.errors import UsageError
from multimodal.core.manifests import PREPARED
from multimodal.prepare.copied_table import CopiedTable, Progress
from multimodal.prepare.shard_writer import ShardWriter

SHARD_ROWS = 10_000
NO_SPLIT = "none"  # file name of the rows without a split


def write_table(
    table: CopiedTable,
    folder: Path,
    like: Mapping[str, str],
    more: Callable[[int], Mapping[str, Any]],
    document: Mapping[str, Any],
    progress: Progress,
) -> int:
    """Read a table twice and write its rows with more columns; return the number of rows.

    Args:
        table: the table, which was not read yet.
        folder: an existing folder.
        like: name of a new column -> the table's column whose kind of values it has.
        more: number of a row -> values of the new columns.
        document: what is written to ``prepare.json`` next to the digests of the shards.
        progress: see ``prepare``.

    Raises:
        MultimodalError: too many rows cannot be read.
        UsageError: the table has a column of such a name already.
    """
    for name in like:
        if name in table.kinds:
            raise UsageError(f"The table {table.source.name!r} has a column {name!r} already; rename it.")
    table.scan(progress=progress)
    columns, types = table.output({name: replace(table.kinds[column], name=name) for name, column in like.items()})
    types |= {name: types[column] for name, column in like.items() if column in types}
    shards = ShardWriter(folder, "parquet", SHARD_ROWS, columns, types)
    written = 0
    try:
        with progress("Writing", table.source.total) as advance:
            for row in table.rows():
                shards.write(row.split or NO_SPLIT, row.number, {**table.labelled(row), **more(row.number)})
                written += 1
                advance(1)
    finally:
        shards.close()
    names = sorted(path.name for path in folder.iterdir())
    described = with_digest({"table": table.source.name, **document, FILES: describe_files(folder, names)})
    text = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    (folder / PREPARED).write_text(text, encoding="utf-8", newline="\n")
    return written
