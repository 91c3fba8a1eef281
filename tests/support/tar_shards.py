"""Tar shards written for tests, and the cells that are read from them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multimodal.core.errors import Unreadable
from multimodal.core.table import Table
from multimodal.data.tables.cells import raw_value
from multimodal.data.tables.open import locate, stream_rows


def shard(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    pairs = list(members.items()) if isinstance(members, Mapping) else members
    with tarfile.open(path, "w") as archive:
        for name, content in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def png(colour: str | int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(colour).integers(0, 256, (12, 10, 3), np.uint8) if isinstance(colour, int) else None
    (Image.new("RGB", (3, 2), str(colour)) if noise is None else Image.fromarray(noise)).save(file, "png")
    return file.getvalue()


def cell(table: Table, row: int, column: str) -> Any:
    """The value, or the reason why it cannot be read."""
    try:
        return table.value(row, column)
    except Unreadable as error:
        return error.reason


def cells(table: Table, *columns: str) -> list[list[Any]]:
    return [[cell(table, row, column) for row in range(len(table))] for column in columns]


def streamed(name: str, column: str) -> list[Any]:
    source, found = locate(name), []
    for file in source.files:
        for row in stream_rows(source, file):
            try:
                found.append(raw_value(row[column]))
            except Unreadable as error:
                found.append(error.reason)
    return found
