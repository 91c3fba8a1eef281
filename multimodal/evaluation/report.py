"""The result of an evaluation, as tables, JSON, a data frame and files."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.files import check_folder
from multimodal.core.progress import progress
from multimodal.data.shown_values import Values
from multimodal.evaluation.grid import Grid
from multimodal.evaluation.intervals import CONFIDENCE
from multimodal.evaluation.model_card import CARD, model_card
from multimodal.evaluation.page.write_page import PAGE, page_html
from multimodal.evaluation.points import POINTS, Points, write_points
from multimodal.evaluation.render import all_measures_grid, render_text, retrieval_grid, save_chart
from multimodal.evaluation.results import Results
from multimodal.evaluation.retrieval import MEASURES, Retrieval

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

MAX_CLASSES_IN_JSON = 100  # of which all confusions are listed


@dataclass(frozen=True, repr=False)
class Report(Results):
    """Result of ``evaluate``: it prints as tables, and a notebook shows it as such.

    Its attributes are those of ``Results``.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> from multimodal.evaluation.retrieval import retrieval
        >>> rows = torch.arange(2)
        >>> vectors = {"text": torch.eye(2), "image": torch.eye(2)[[0, 0]]}  # both images are at the first text
        >>> found = retrieval(Embeddings(vectors, {"text": rows, "image": rows}, groups=rows))
        >>> report = Report("runs/cups", "test", "test", seed=0, pairs={"text->image": found["text->image"]})
        >>> report.title
        "Retrieval in 'test' (runs/cups)"
        >>> report.to_pandas()[["by", "pair", "recall@1", "mrr"]].values.tolist()
        [['model', 'text->image', 0.0, 0.5]]
    """

    def tables(self, sections: bool = True) -> list[Table]:
        """Return the tables of the model, of the baselines and of the sections, for rich's console.

        Args:
            sections: whether to include those of the sections.
        """
        retrievals = [retrieval_grid(found, title, self.highest_recall_at_1).table() for title, found in self._titled()]
        return [*retrievals, *(grid.table() for grid in self._grids() if sections)]

    def _grids(self) -> list[Grid]:
        return [grid for section in self.sections.values() for grid in section.grids()]

    def _titled(self) -> Iterator[tuple[str, Mapping[str, Retrieval]]]:
        yield self.title, self.pairs
        for name, found in self.baselines.items():
            if found:
                yield f"The {name} baseline, fitted on {self.train_split!r}", found

    def __str__(self) -> str:
        return render_text([*self.tables(), *self.notes])

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``multimodal evaluate --json`` prints."""
        return {
            "run": self.run,
            "split": self.split,
            "pool": self.pool,
            "query_where": _as_json(self.query_where),
            "pool_where": _as_json(self.pool_where),
            "seed": self.seed,
            "rows": self.rows,
            "table_rows": self.table_rows,
            "pairs": {pair: r.to_json() for pair, r in self.pairs.items()},
            "highest_recall@1": dict(self.highest_recall_at_1),
            "notes": list(self.notes),
            "intervals": {
                pair: {name: [interval.low, interval.high] for name, interval in found.items()}
                for pair, found in self.intervals.items()
            },
            "baselines": {n: {pair: r.to_json() for pair, r in found.items()} for n, found in self.baselines.items()},
            "sections": {name: _as_json(section) for name, section in self.sections.items()},
            "left_out": dict(self.left_out),
        }

    def to_pandas(self) -> DataFrame:
        """Return one row for each direction of the model and of the baselines, with a column for each measure."""
        from pandas import DataFrame

        by = {"model": self.pairs} | dict(self.baselines)
        rows = [{"by": name, "pair": pair} | r.to_json() for name, found in by.items() for pair, r in found.items()]
        return DataFrame(rows, columns=["by", "pair", *MEASURES])

    def _repr_html_(self) -> str:
        tables = [retrieval_grid(found, title, self.highest_recall_at_1).html() for title, found in self._titled()]
        tables += [grid.html() for grid in self._grids()]
        return "".join([*tables, *(f"<p>{html.escape(note)}</p>" for note in self.notes)])

    def save(self, folder: str | Path) -> None:
        """Write the report to a folder, which is created if missing.

        It gets ``metrics.json``, ``metrics.md``, ``retrieval.png``, ``report.html`` (one page that opens without a network),
        ``model_card.md``, and unless ``evaluated`` is None, ``points.parquet`` (the map's points with their neighbours).

        Raises:
            UsageError: the folder is a file.
        """
        check_folder(folder)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")
        (folder / "metrics.md").write_text(self.markdown(), encoding="utf-8")
        save_chart(self.pairs, self.title, folder / "retrieval.png")
        (folder / CARD).write_text(model_card(self), encoding="utf-8")
        with progress("Writing the report"):
            self._save_page(folder)

    def _save_page(self, folder: Path) -> None:
        points = values = None
        if self.evaluated is not None:
            samples, processors = self.evaluated.queries.samples, self.evaluated.embedder.processors
            points, values = Points.of(self.evaluated.queries, self.projection), Values(samples, processors)
            write_points(folder / POINTS, points, samples, processors)
        (folder / PAGE).write_text(page_html(self, points, values), encoding="utf-8", newline="\n")

    def markdown(self) -> str:
        """Return all tables and notes as Markdown, the recalls with their intervals."""
        tables = [
            all_measures_grid(
                found, title, self.intervals if found is self.pairs else {}, self.highest_recall_at_1
            ).markdown()
            for title, found in self._titled()
        ]
        notes = [f"- {note}" for note in self.notes]
        if self.intervals:
            what = f"{100 * CONFIDENCE:g} % confidence intervals, by drawing the groups of the queries again"
            notes.insert(0, f"- In brackets: {what}.")
        notes += [f"- The section {name!r} is left out: {reason}" for name, reason in self.left_out.items()]
        return "\n\n".join([*tables, *(grid.markdown() for grid in self._grids()), *notes]) + "\n"


def _as_json(value: Any) -> Any:
    """Return a result as JSON values; a number that is not defined (NaN) is null."""
    if isinstance(value, Retrieval):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _as_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist() if len(value) <= MAX_CLASSES_IN_JSON else None
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
