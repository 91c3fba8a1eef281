"""Sources in memory, and pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_source import MemorySource
from PIL import Image

MakeSource = Callable[..., MemorySource]


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
