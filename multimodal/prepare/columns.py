"""A content column of a table and the kind of its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "image", "audio", "file", "number", "category", "other"]
FILE_KINDS = ("image", "audio", "file")


@dataclass(frozen=True)
class Column:
    """A column, its kind, and the modality it holds (None: it goes along as it is)."""

    name: str
    kind: Kind
    modality: str | None

    @property
    def is_file(self) -> bool:
        return self.kind in FILE_KINDS
