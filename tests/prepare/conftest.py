"""Sources in memory, and pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multimodal.core.rejects import Reject
from multimodal.prepare.source import Row

MakeSource = Callable[..., "MemorySource"]


@dataclass
class MemorySource:
    """Source of rows given as mappings or rejects, with files relative to ``folder``."""

    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any] | Reject]
    folder: Path
    name: str = "table"
    total: int | None = None

    def __iter__(self) -> Generator[Row | Reject]:
        for number, row in enumerate(self.rows):
            yield row if isinstance(row, Reject) else Row(number, row)

    def resolve(self, value: str) -> Path | bytes:
        return self.folder / value


@pytest.fixture
def source(tmp_path: Path) -> MakeSource:
    """Return a function: ``source(rows)`` or ``source(rows, columns)``."""

    def make(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> MemorySource:
        found = columns if columns is not None else dict.fromkeys(c for row in rows for c in row)
        return MemorySource(tuple(found), rows, tmp_path)

    return make


def blobs(seed: int, edge: int = 64) -> Image.Image:
    """Return a picture with smooth random colours, a different one for each seed."""
    grid = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((edge, edge), Image.Resampling.BICUBIC)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def jpeg(picture: Image.Image, quality: int = 85) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


class Pictures:
    """Functions that make pictures and their files."""

    blobs = staticmethod(blobs)
    png = staticmethod(png)
    jpeg = staticmethod(jpeg)


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    return Pictures()
