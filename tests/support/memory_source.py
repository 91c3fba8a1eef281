"""A source of rows for ``prepare``, in memory."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal.core.rejects import Reject
from multimodal.prepare.source import Row


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
