"""Column of a table and the kind of its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "image", "audio", "file", "number", "category", "other"]
FILE_KINDS = ("image", "audio", "file")


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Args:
        name: name of the column.
        kind: kind of its values.
        modality: modality that it contains; None: it is copied unchanged.

    Examples:
        >>> Column("photo", "image", modality="image").is_file
        True
    """

    name: str
    kind: Kind
    modality: str | None

    @property
    def is_file(self) -> bool:
        """Whether its values are files."""
        return self.kind in FILE_KINDS
