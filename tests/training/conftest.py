"""A table of a few glyphs, so that an epoch has a few batches."""

from __future__ import annotations

from typing import Any

import pytest

from multimodal.data import samples
from multimodal.datasets.glyphs import Glyphs


class FewGlyphs:
    """Some rows of the glyphs: 70 characters to train on in two fonts, 20 to validate on, 20 to test with."""

    name = "few_glyphs"
    columns = Glyphs.columns
    metadata_columns = Glyphs.metadata_columns

    def __init__(self) -> None:
        self._all = Glyphs()
        self._rows: list[tuple[int, str]] = []
        letters = [
            row
            for row in range(len(self._all))
            if self._all.value(row, "font") in ("DejaVuSans", "DejaVuSans-Bold")
            and 0x41 <= ord(self._all.value(row, "character")) < 0x180
        ]
        characters = sorted({self._all.value(row, "character") for row in letters})
        split = {c: "train" if i < 70 else "validation" if i < 90 else "test" for i, c in enumerate(characters[:110])}
        for row in letters:
            character, font = self._all.value(row, "character"), self._all.value(row, "font")
            if character in split and (split[character] == "train" or font == "DejaVuSans"):
                self._rows.append((row, split[character]))

    def __len__(self) -> int:
        return len(self._rows)

    def value(self, row: int, column: str) -> Any:
        return self._rows[row][1] if column == "split" else self._all.value(self._rows[row][0], column)


@pytest.fixture
def small_glyphs(monkeypatch: pytest.MonkeyPatch) -> str:
    table = FewGlyphs()
    monkeypatch.setattr(samples, "open_table", lambda name: table)
    return table.name
