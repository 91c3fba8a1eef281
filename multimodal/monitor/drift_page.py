"""The result of a drift test as one HTML page, with the rows that fit least."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.core.errors import MultimodalError
from multimodal.core.html_page import as_json, cards, page, paragraph, section, table, text
from multimodal.core.html_table import shorten
from multimodal.data.tables.open import IN_MEMORY
from multimodal.monitor.drift_result import Drift, ModalityDrift
from multimodal.monitor.vector_sets import VectorSet

if TYPE_CHECKING:
    from multimodal.data.shown_values import Values

SHOWN = 12  # rows of a list
MAX_NAME = 80  # characters
NAMES = ("name", "title")  # columns that name a row
MEASURES = {
    "classifier": "AUC of a linear classifier on held-out rows (no difference: 0.5)",
    "mmd": "Maximum mean discrepancy, Gaussian kernel",
    "mean": "Distance of the means, in standard deviations of the reference",
    "covariance": "Distance of the covariances, relative to the reference",
    "neighbours": "Share of neighbours in the other set (no difference: 1)",
}
STYLE = """
.rows { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; list-style: none; padding: 0; }
.rows li { border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px; overflow-wrap: anywhere; min-width: 0; }
.rows img { max-width: 96px; max-height: 96px; display: block; background: #fff; margin-bottom: 4px; }
.rows small { display: block; color: var(--soft); } audio { width: 100%; }
.yes .card:first-child b { color: var(--wrong); } .no .card:first-child b { color: var(--right); }
"""
SCRIPT = """
const media = JSON.parse(document.getElementById("media").textContent);
for (const element of document.querySelectorAll("[data-media]")) element.src = media[Number(element.dataset.media)];
"""


def drift_page(result: Drift, current: VectorSet, model: str | Path | None = None) -> str:
    """Return the page of a drift test.

    Args:
        result: what was found.
        current: the current set, whose table is opened again to show its rows; if it cannot be, they are shown by their names.
        model: the run or exported model, whose processors know how values are shown. None: values are not shown.
    """
    values = _values(current, model)
    shown = _Rows(current, values)
    verdict = "Drift" if result.drifted else "No drift was found"
    head = (
        f"<h1>{verdict}</h1>\n"
        f'<p class="soft">{text(result.current)} compared with {text(result.reference)}</p>\n'
        f'<div class="{"yes" if result.drifted else "no"}">'
        + cards(
            [
                (f"{result.p_value:.3g}", f"p-value, with an alarm below {result.alpha:g}"),
                (f"{result.score:.3f}", "score: AUC of a classifier, 0.5 without drift"),
                (
                    f"{max(found.outside['95'] for found in result.modalities.values()):.1%}",
                    "outside the reference, 5% without drift",
                ),
            ]
        )
        + "</div>\n"
    )
    body = [head, *(_modality(name, found, shown) for name, found in result.modalities.items())]
    for column, by_value in result.slices.items():
        rows = [
            (value, modality, f"{found.p_value:.3g}", f"{found.score:.3f}", found.outside["95"])
            for value, of in by_value.items()
            for modality, found in of.items()
        ]
        if rows:
            titles = (column, "modality", "p-value before correction", "AUC", "outside")
            body.append(section(f"Slices by {column}", table(titles, rows)))
    if result.left_out:
        body.append(section("Not compared", table(("what", "why"), list(result.left_out.items()))))
    urls = [] if values is None else values.urls
    body.append(f'<script type="application/json" id="media">{as_json(urls)}</script>\n')
    return page(f"{verdict}: {Path(result.current).name}", "".join(body), STYLE, SCRIPT)


def _modality(name: str, found: ModalityDrift, shown: _Rows) -> str:
    titles = {"All units": found.units, "Units in both sets: did they move?": found.shared}
    content = []
    for title, of in titles.items():
        if of is None:
            continue
        rows = [(MEASURES[m], f"{of.values[m]:.4g}", f"{of.p_values[m]:.3g}") for m in MEASURES]
        rows.append(("All of them together", "", f"{of.p_value:.3g}"))
        counts = f"{of.rows[0]:,} units of the reference, {of.rows[1]:,} current ones"
        content.append(f"<h3>{text(title)}</h3>\n<p class='soft'>{counts}</p>\n")
        content.append(table(("measure", "value", "p-value"), rows))
    outside = ", ".join(f"{share:.1%} (expected {100 - float(level):g}%)" for level, share in found.outside.items())
    content.append(paragraph(f"Current rows outside the reference: {outside}."))
    content.append("<h3>The rows that fit least</h3>\n")
    content.append(shown.list(name, [(row["key"], f"{row['distance']:.2f}") for row in found.least_fitting[:SHOWN]]))
    content.append(
        '<p class="soft">The number is the distance to the reference; 19 of 20 reference rows are below 1.</p>\n'
    )
    if found.most_moved:
        content.append("<h3>The rows that moved most</h3>\n")
        content.append(shown.list(name, [(row["key"], f"{row['cosine']:.3f}") for row in found.most_moved[:SHOWN]]))
        content.append('<p class="soft">The number is the cosine of the old and the new vector.</p>\n')
    return section(name, *content)


class _Rows:
    """How rows are shown: by their values where these are known, by their names, and by their keys."""

    def __init__(self, current: VectorSet, values: Values | None) -> None:
        self._current, self._values = current, values

    def list(self, modality: str, rows: Sequence[tuple[str, str]]) -> str:
        vectors = self._current.modalities[modality]
        place_of = {key: place for place, key in enumerate(vectors.keys.tolist())}
        items = []
        for key, number in rows:
            cells: Mapping[str, Any] = json.loads(vectors.metadata[place_of[key]] or "{}")
            name = next((str(cells[column]) for column in NAMES if cells.get(column)), key)
            value, is_text = self._value(modality, key)
            title = "" if is_text else f'<b dir="auto">{text(shorten(name, MAX_NAME))}</b>'
            items.append(
                f"<li>{value}{title}<small>{text(number)}</small><small>{text(shorten(key, MAX_NAME))}</small></li>\n"
            )
        return f'<ul class="rows">\n{"".join(items)}</ul>\n'

    def _value(self, modality: str, key: str) -> tuple[str, bool]:
        """Return a value as HTML, and whether it is a text, which needs no name."""
        if self._values is None or (row := self._values.samples.rows_by_key.get(key)) is None:
            return "", False
        shown = self._values.show(row, modality)
        return shown.html(), shown.kind == "text"


def _values(current: VectorSet, model: str | Path | None) -> Values | None:
    """Return the values of the current rows; None: their table or the model is unknown."""
    if model is None or (current.samples is None and (current.data is None or current.data["table"] == IN_MEMORY)):
        return None
    from multimodal.core.embedder import Embedder
    from multimodal.data.samples import Samples
    from multimodal.data.shown_values import Values

    samples = current.samples
    if samples is None:
        try:
            samples = Samples.of(**(current.data or {}))
        except (MultimodalError, OSError):  # it has moved, or is of another machine
            return None
    return Values(samples, Embedder.from_pretrained(model).processors)
