"""Statistics of the written rows, counted one row at a time in memory that does not grow with their number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from multimodal.prepare.cleaning import File, to_text
from multimodal.prepare.columns import Column

MAX_CATEGORIES = 1000  # distinct values of a column that are counted separately
BINS_PER_OCTAVE = 4  # bins for each doubling of a length


class Statistics:
    """Lengths, categories and modalities of rows.

    Args:
        columns: the columns of the table.

    Attributes:
        rows: number of rows.
        present: column -> rows that have a value.
        rows_with_both: pair of modalities (also of one with itself) -> rows that have both.
        lengths: column of texts (characters) or files (bytes) -> bin -> values; bin b is [2^(b/4), 2^((b+1)/4)).
        categories: column of categories -> value -> rows.

    Examples:
        >>> statistics = Statistics([Column("title", "text", "text")])
        >>> statistics.add({"title": "a red cup"})
        >>> dict(statistics.present), dict(statistics.lengths["title"])  # 9 characters are in [2^(12/4), 2^(13/4))
        ({'title': 1}, {12: 1})
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.rows = 0
        self.present: Counter[str] = Counter()
        self.rows_with_both: Counter[tuple[str, str]] = Counter()
        self.lengths: dict[str, Counter[int]] = {c.name: Counter() for c in columns if c.is_file or c.kind == "text"}
        self.categories: dict[str, Counter[str]] = {c.name: Counter() for c in columns if c.kind == "category"}

    @property
    def modalities(self) -> list[str]:
        """Modalities of the columns, in order."""
        return list(dict.fromkeys(c.modality for c in self.columns if c.modality))

    def add(self, clean: Mapping[str, Any]) -> None:
        """Count a clean row."""
        self.rows += 1
        self.present.update(clean.keys())
        modalities_of_row = list(dict.fromkeys(c.modality for c in self.columns if c.modality and c.name in clean))
        for a in modalities_of_row:
            for b in modalities_of_row:
                self.rows_with_both[a, b] += 1
        for name, bins in self.lengths.items():
            if name in clean:
                value = clean[name]
                bins[
                    math.floor(BINS_PER_OCTAVE * math.log2(len(value.data if isinstance(value, File) else value)))
                ] += 1
        for name, counts in self.categories.items():
            value = to_text(clean[name])[:100] if name in clean else "(missing)"
            if value in counts or len(counts) < MAX_CATEGORIES:
                counts[value] += 1
            else:
                counts["(others)"] += 1
