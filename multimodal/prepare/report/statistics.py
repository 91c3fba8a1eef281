"""Figures of the rows that come out, counted a row at a time in memory that does not grow with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from multimodal.prepare.cleaning import File, to_text
from multimodal.prepare.columns import Column

MAX_CATEGORIES = 1000  # different values of a category that are counted
BINS_PER_OCTAVE = 4  # bins for each doubling of a length


class Statistics:
    """Lengths, categories and modalities of rows.

    Attributes:
        rows: how many were added.
        present: column -> rows that have it.
        together: pair of modalities (also of one with itself) -> rows that have both.
        lengths: column of texts (characters) or files (bytes) -> bin -> values; bin b holds [2^(b/4), 2^((b+1)/4)).
        categories: column of categories or numbers of few values -> value -> rows.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = columns
        self.rows = 0
        self.present: Counter[str] = Counter()
        self.together: Counter[tuple[str, str]] = Counter()
        self.lengths: dict[str, Counter[int]] = {c.name: Counter() for c in columns if c.is_file or c.kind == "text"}
        self.categories: dict[str, Counter[str]] = {c.name: Counter() for c in columns if c.kind == "category"}

    @property
    def modalities(self) -> list[str]:
        return list(dict.fromkeys(c.modality for c in self.columns if c.modality))

    def add(self, clean: Mapping[str, Any]) -> None:
        """Count a clean row."""
        self.rows += 1
        self.present.update(clean.keys())
        here = list(dict.fromkeys(c.modality for c in self.columns if c.modality and c.name in clean))
        for a in here:
            for b in here:
                self.together[a, b] += 1
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
