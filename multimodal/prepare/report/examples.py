"""Example rows for the report: near duplicates side by side, linked rows, common values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from multimodal.core.errors import Unreadable
from multimodal.media.image import on_white, open_picture, png_url
from multimodal.prepare.cleaning import File, to_text
from multimodal.prepare.first_pass import FirstPass
from multimodal.prepare.plan import Plan

THUMBNAIL_EDGE = 112  # pixels
MAX_TEXT_CHARACTERS = 280
MAX_NEAR, MAX_LINKED, MAX_COMMON = 16, 8, 12  # pairs, pairs and values that are shown


@dataclass(frozen=True)
class DisplayValue:
    """Value in the form in which it is shown.

    Attributes:
        text: the text, or the name of the file.
        picture: the picture as a ``data:`` URL; "" if there is none.
    """

    text: str = ""
    picture: str = ""


class Examples:
    r"""Collector of the rows that the report shows, chosen in advance and collected during the second pass.

    Rows are given by their numbers among the accepted rows.

    Args:
        reading: the first pass.
        plan: the plan.

    Attributes:
        near: (row left out, the row it nearly repeats).
        linked: pairs of near rows that are both kept, in one split.
        crossing: pairs of linked rows that are in different splits of the table.
        common: (common value, a row that has it).

    Examples:
        >>> from pathlib import Path
        >>> from multimodal.prepare.pipeline import no_progress
        >>> from multimodal.prepare.plan import make_plan
        >>> from multimodal.prepare.settings import Settings
        >>> from multimodal.prepare.source import open_source
        >>> _ = Path("cups.csv").write_text("title\na red cup\nA red cup.\n")
        >>> reading = FirstPass(open_source("cups.csv"), Settings(columns={"text": "title"}))
        >>> with open("rejects.jsonl", "w") as rejects:
        ...     reading.read(rejects, no_progress)
        >>> examples = Examples(reading, make_plan(reading))
        >>> examples.near
        [(1, 0)]
        >>> examples.collect(1, {"title": "A red cup."})
        >>> examples.row(1)["title"].text
        'A red cup.'
    """

    def __init__(self, reading: FirstPass, plan: Plan) -> None:
        self._reading = reading
        left_out = np.flatnonzero(plan.duplicates.near)
        self.near = [(r, int(plan.duplicates.original[r])) for r in _evenly_spaced(left_out, MAX_NEAR).tolist()]
        near_pairs = plan.links.pairs[plan.links.near]
        within_split = near_pairs[plan.split[near_pairs[:, 0]] == plan.split[near_pairs[:, 1]]]
        self.linked = [(a, b) for a, b in _evenly_spaced(within_split, MAX_LINKED).tolist()]
        self.crossing = [(a, b) for a, b in _evenly_spaced(plan.crossing_pairs, MAX_LINKED).tolist()]
        rows = {content.column.name: content.rows for content in reading.contents}
        kept = plan.kept
        self.common = [
            (value, int(np.flatnonzero(kept & (rows[value.column] == value.number))[0]))
            for value in plan.links.common[:MAX_COMMON]
        ]
        pairs = [*self.near, *self.linked, *self.crossing]
        self._chosen = {row for pair in pairs for row in pair} | {row for _, row in self.common}
        self._collected: dict[int, dict[str, DisplayValue]] = {}

    def collect(self, row: int, clean: Mapping[str, Any]) -> None:
        """Keep the clean values of a row if it will be shown."""
        if row in self._chosen:
            contents = [c.column for c in self._reading.contents if c.column.name in clean]
            self._collected[row] = {c.name: _display_value(clean[c.name], c.kind) for c in contents}

    def row(self, row: int) -> Mapping[str, DisplayValue]:
        """Return the values to show of a collected row, by content column."""
        return self._collected[row]

    def number(self, row: int) -> int:
        """Return the number of an accepted row in the table."""
        return self._reading.numbers[row]


def _evenly_spaced(rows: np.ndarray, limit: int) -> np.ndarray:
    """Return at most ``limit`` of the rows, evenly spaced from first to last."""
    positions = np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(int)
    return rows[positions]


def _display_value(value: Any, kind: str) -> DisplayValue:
    if kind == "image" and isinstance(value, File):
        try:
            return DisplayValue(value.name, thumbnail(value.data))
        except Unreadable:  # the file changed after the first pass; the shards contain it unchanged
            return DisplayValue(value.name)
    if isinstance(value, File):
        return DisplayValue(f"{value.name or 'file'} ({len(value.data):,} bytes)")
    text = to_text(value)
    return DisplayValue(text if len(text) <= MAX_TEXT_CHARACTERS else text[:MAX_TEXT_CHARACTERS] + "…")


def thumbnail(data: bytes) -> str:
    """Return a picture, scaled to at most 112 x 112 pixels, as a ``data:`` URL.

    Raises:
        Unreadable: the bytes are not an image.
    """
    picture = on_white(open_picture(data))
    picture.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE), Image.Resampling.LANCZOS)
    return png_url(picture, optimize=True)
