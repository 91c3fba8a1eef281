"""Some rows to show to people: near duplicates side by side, links, common values."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from multimodal.core.errors import Unreadable
from multimodal.media.image import on_white, open_picture
from multimodal.prepare.cleaning import File, to_text
from multimodal.prepare.first_pass import FirstPass
from multimodal.prepare.plan import Plan

THUMBNAIL_EDGE = 112  # pixels
MAX_TEXT_CHARACTERS = 280
MAX_NEAR, MAX_LINKED, MAX_COMMON = 16, 8, 12  # how many are shown


@dataclass(frozen=True)
class DisplayValue:
    """A value to show: a text, or a picture as a ``data:`` URL."""

    text: str = ""
    picture: str = ""


class Examples:
    """Collects the rows to be shown while they pass.

    Attributes:
        near: (row left out, the row it nearly repeats).
        linked: near pairs of rows that both stay, in one split.
        apart: linked rows that the table's own splits separate.
        common: (common value, a row that holds it).
    """

    def __init__(self, reading: FirstPass, plan: Plan) -> None:
        self._reading = reading
        left_out = np.flatnonzero(plan.duplicates.near)
        self.near = [(r, int(plan.duplicates.of[r])) for r in _evenly_spaced(left_out, MAX_NEAR).tolist()]
        near_pairs = plan.links.pairs[plan.links.near]
        together = near_pairs[plan.split[near_pairs[:, 0]] == plan.split[near_pairs[:, 1]]]
        self.linked = [(a, b) for a, b in _evenly_spaced(together, MAX_LINKED).tolist()]
        self.apart = [(a, b) for a, b in _evenly_spaced(plan.crossing_pairs, MAX_LINKED).tolist()]
        rows = {content.column.name: content.rows for content in reading.contents}
        stays = plan.stays
        self.common = [
            (value, int(np.flatnonzero(stays & (rows[value.column] == value.number))[0]))
            for value in plan.links.common[:MAX_COMMON]
        ]
        pairs = [*self.near, *self.linked, *self.apart]
        self._wanted = {row for pair in pairs for row in pair} | {row for _, row in self.common}
        self._seen: dict[int, dict[str, DisplayValue]] = {}

    def see(self, row: int, clean: Mapping[str, Any]) -> None:
        """Keep the row, by its number among the accepted ones, if it is to be shown."""
        if row in self._wanted:
            contents = [c.column for c in self._reading.contents if c.column.name in clean]
            self._seen[row] = {c.name: _display_value(clean[c.name], c.kind) for c in contents}

    def row(self, row: int) -> Mapping[str, DisplayValue]:
        """Content column -> what to show of that row."""
        return self._seen[row]

    def number(self, row: int) -> int:
        """The row's number in the table."""
        return self._reading.numbers[row]


def _evenly_spaced(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly from first to last."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    return rows[places]


def _display_value(value: Any, kind: str) -> DisplayValue:
    if kind == "image" and isinstance(value, File):
        try:
            return DisplayValue(value.name, thumbnail(value.data))
        except Unreadable:  # changed since it was read; the shards hold it as it is
            return DisplayValue(value.name)
    if isinstance(value, File):
        return DisplayValue(f"{value.name or 'file'} ({len(value.data):,} bytes)")
    text = to_text(value)
    return DisplayValue(text if len(text) <= MAX_TEXT_CHARACTERS else text[:MAX_TEXT_CHARACTERS] + "…")


def thumbnail(data: bytes) -> str:
    """A picture of at most 112 x 112 pixels as a ``data:`` URL.

    Raises:
        Unreadable: it is no picture.
    """
    picture = on_white(open_picture(data))
    picture.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
