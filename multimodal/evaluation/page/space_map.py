"""A map of the space: its vectors as points, which the page's script draws and names."""

from __future__ import annotations

from typing import Any

import numpy as np

from multimodal.core.html_page import as_json, paragraph, printable, text
from multimodal.data.shown_values import Values
from multimodal.evaluation.points import Points, describing_columns

MOST_DRAWN = 3000
MOST_COLUMNS = 12  # by which points can be coloured
MOST_CLASSES = 11  # that have a colour of their own
MAX_BYTES = 1_500_000  # of pictures that are not among the examples
MAX_TEXT = 120  # characters of a value


def map_html(points: Points, values: Values) -> str:
    """Return the map: a canvas, what it is drawn from, and the form that chooses layout and colours.

    Args:
        points: the points; of too many, some are drawn.
        values: the values of the table.
    """
    values.allow(MAX_BYTES)
    drawn = _chosen(points)
    if not len(drawn):
        return paragraph("No vector can be drawn.")
    rows = list(dict.fromkeys(points.rows[drawn].tolist()))
    number_of = {row: number for number, row in enumerate(rows)}
    modalities = list(dict.fromkeys(points.modalities))
    layouts = {name: {"x": _rounded(xy[drawn, 0]), "y": _rounded(xy[drawn, 1])} for name, xy in points.layouts.items()}
    data: dict[str, Any] = {
        "layouts": layouts,
        "modalities": modalities,
        "modality": [modalities.index(points.modalities[n]) for n in drawn.tolist()],
        "row": [number_of[row] for row in points.rows[drawn].tolist()],
        "rows": _describe(points, drawn, rows, values),
        "columns": _columns(values, np.array(rows)),
    }
    layout_options = "".join(f'<option value="{text(name)}">{text(name)}</option>' for name in layouts)
    colour_options = "".join(f'<option value="{text(name)}">{text(name)}</option>' for name in data["columns"])
    explained = "" if points.explained != points.explained else f" PCA shows {points.explained:.0%} of their variance."
    return (
        paragraph(f"{len(drawn):,} of {len(points.rows) + points.left_out:,} vectors.{explained}")
        + '<form class="filter"><label>Layout <select name="layout">'
        f'{layout_options}</select></label>\n<label>Colour <select name="colour"><option value="">modality</option>'
        f"{colour_options}</select></label>\n"
        '<span class="buttons"><button type="button" data-zoom="1.5" aria-label="zoom in">+</button>'
        '<button type="button" data-zoom="0.6667" aria-label="zoom out">−</button>'
        '<button type="button" data-zoom="0">whole map</button></span></form>\n'
        '<div class="map"><canvas tabindex="0" role="img" aria-label="Map of the space; the arrow keys go from point to point"'
        '></canvas><div class="tip" role="status" hidden></div></div>\n<p class="legend" data-legend></p>\n'
        '<p class="soft">Point at a vector to see what it is, and lines to the other modalities of its row. Drag to move;'
        " the wheel with Ctrl zooms; arrow keys go from point to point.</p>\n"
        f'<script type="application/json" id="map-data">{as_json(data)}</script>\n'
    )


def _chosen(points: Points) -> np.ndarray:
    """Return the numbers of the points to draw: those of rows drawn at random, so that rows are whole."""
    rows = np.random.default_rng(0).permutation(np.unique(points.rows))
    place = dict(zip(rows.tolist(), range(len(rows)), strict=True))
    places = np.array([place[row] for row in points.rows.tolist()], dtype=np.int64)
    return np.sort(np.argsort(places, kind="stable")[:MOST_DRAWN])


def _rounded(values: np.ndarray) -> list[float]:
    extent = float(np.abs(values).max(initial=0.0)) or 1.0
    return [round(float(value) / extent, 4) * extent if extent != 1 else round(float(value), 4) for value in values]


def _describe(points: Points, drawn: np.ndarray, rows: list[int], values: Values) -> list[dict[str, Any]]:
    """Return the key, texts and pictures of each row, of the modalities that are drawn."""
    of_row: dict[int, list[str]] = {row: [] for row in rows}
    for number in drawn.tolist():
        of_row[int(points.rows[number])].append(points.modalities[number])
    described = []
    for row in rows:
        shown = {modality: values.show(row, modality) for modality in of_row[row]}
        described.append(
            {
                "key": printable(values.samples.key_of(row)[:80]),
                "texts": {m: printable(s.text[:MAX_TEXT]) for m, s in shown.items() if s.text and s.kind != "left_out"},
                "media": {m: s.media for m, s in shown.items() if s.media is not None and s.kind != "sound"},
            }
        )
    return described


def _columns(values: Values, rows: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return, for columns by which colours say something, the number or the class of each row."""
    columns = {}
    for name, cells in describing_columns(values.samples, rows).items():
        present = [cell for cell in cells if cell is not None]
        distinct = len(set(present))
        are_numbers = all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in present)
        if distinct < 2 or len(columns) == MOST_COLUMNS:
            continue
        if are_numbers and distinct > MOST_CLASSES:
            finite = [float(cell) if cell is not None and np.isfinite(float(cell)) else None for cell in cells]
            columns[printable(name)] = {"numbers": finite}
        elif distinct <= max(MOST_CLASSES, len(present) // 2):
            columns[printable(name)] = _classes(cells)
    return columns


def _classes(cells: list[Any]) -> dict[str, Any]:
    """Return the names of the most frequent values, and the number of that of each row, -1 for others."""
    texts = [None if cell is None else printable(str(cell)[:MAX_TEXT]) for cell in cells]
    counts: dict[str, int] = {}
    for name in texts:
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
    names = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_CLASSES]
    number_of = {name: number for number, name in enumerate(names)}
    return {"names": names, "of": [number_of.get(name, -1) if name is not None else -1 for name in texts]}
