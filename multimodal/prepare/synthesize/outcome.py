"""Counts of what ``synthesize`` made and refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Synthesized:
    """Result of ``synthesize``: counts of rows.

    Attributes:
        rows_in: rows of the table that can be read.
        rows_out: rows written: those of the table, and the made ones.
        made: recipe -> rows made.
        refused: recipe or column of negatives -> values refused as copies of values of other splits.
        negatives: column of hard negatives -> rows that have one.
        rejects: rows of the table that cannot be read.
        unreadable: recipe -> rows whose value the recipe cannot read.

    Examples:
        >>> counts = Synthesized(rows_in=4, rows_out=6, made={"captions": 2}, refused={"captions": 1})
        >>> counts
        4 rows in, 6 out; made: 2 by captions; refused as copies of other splits: 1 of captions
    """

    rows_in: int
    rows_out: int
    made: dict[str, int]
    refused: dict[str, int] = field(default_factory=dict)
    negatives: dict[str, int] = field(default_factory=dict)
    rejects: int = 0
    unreadable: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [
            ("made", [f"{count:,} by {recipe}" for recipe, count in self.made.items()]),
            ("hard negatives", [f"{count:,} in {column}" for column, count in self.negatives.items()]),
            (
                "refused as copies of other splits",
                [f"{count:,} of {what}" for what, count in self.refused.items() if count],
            ),
            ("not understood", [f"{count:,} rows by {recipe}" for recipe, count in self.unreadable.items() if count]),
        ]
        said = "".join(f"; {what}: {', '.join(several)}" for what, several in parts if several)
        left_out = f"; {self.rejects:,} rows cannot be read" if self.rejects else ""
        return f"{self.rows_in:,} rows in, {self.rows_out:,} out{said}{left_out}"

    def to_json(self) -> dict[str, Any]:
        """Return the counts by name."""
        return dict(vars(self))
