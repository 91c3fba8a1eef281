"""The result of an evaluation, as tables, JSON, a data frame and files."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.files import check_folder
from multimodal.evaluation.class_measures import ClassMeasures
from multimodal.evaluation.grid import Grid
from multimodal.evaluation.intervals import Interval
from multimodal.evaluation.render import render_text, retrieval_html, retrieval_markdown, retrieval_table, save_chart
from multimodal.evaluation.retrieval import MEASURES, Retrieval
from multimodal.evaluation.space import Space

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

MAX_CLASSES_IN_JSON = 100  # of which all confusions are listed


@dataclass(frozen=True, repr=False)
class Report:
    """Result of ``evaluate``: it prints as tables, and a notebook shows it as such.

    Attributes:
        run: folder of the run or model.
        split: split of the queries.
        pool: split that was searched, or "all".
        seed: seed of the run; None: unknown.
        pairs: "text->image" -> the measures of that direction.
        baselines: name of a baseline -> its measures, like ``pairs``.
        train_split: split that the baselines were fitted on.
        rows: number of rows of the split; None: unknown.
        table_rows: number of rows of the table; None: unknown.
        notes: remarks for the reader, a line each: equal vectors in a pool, skipped pairs, rows that cannot be read.
        highest_recall_at_1: "text->image" -> the highest recall@1 that any model can have, as equal inputs (one drawing
            that is the letter A of three alphabets) tie.
        intervals: "text->image" -> measure -> its 95 % bootstrap interval over the groups of the queries.
        space: the shape of the space; None: not asked for.
        classes: how well the space knows the classes of a column; None: no column was named.

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

    run: str
    split: str | list[str]
    pool: str | list[str]
    seed: int | None
    pairs: Mapping[str, Retrieval]
    baselines: Mapping[str, Mapping[str, Retrieval]] = field(default_factory=dict)
    train_split: str | list[str] = "train"
    rows: int | None = None
    table_rows: int | None = None
    notes: tuple[str, ...] = ()
    highest_recall_at_1: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    space: Space | None = None
    classes: ClassMeasures | None = None

    @property
    def title(self) -> str:
        """Title of the table and the chart, with the splits, the run and how many rows of the table were evaluated."""
        place = repr(self.split) if self.pool == self.split else f"{self.pool!r}, queries of {self.split!r}"
        counts = "" if self.rows is None else f": {self.rows:,} of {self.table_rows:,} rows"
        return f"Retrieval in {place} ({self.run}){counts}"

    def tables(self) -> list[Table]:
        """Return the model's table and one for each baseline that has results, for rich's console."""
        retrievals = [retrieval_table(found, title, self.highest_recall_at_1) for title, found in self._titled()]
        return [*retrievals, *(grid.table() for grid in self._grids())]

    def _grids(self) -> list[Grid]:
        of_space = [] if self.space is None else self.space.grids()
        return [*of_space, *([] if self.classes is None else self.classes.grids())]

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
            **({} if self.space is None else {"space": _as_json(self.space)}),
            **({} if self.classes is None else {"classes": _as_json(self.classes)}),
        }

    def to_pandas(self) -> DataFrame:
        """Return one row for each direction of the model and of the baselines, with a column for each measure."""
        from pandas import DataFrame

        by = {"model": self.pairs} | dict(self.baselines)
        rows = [{"by": name, "pair": pair} | r.to_json() for name, found in by.items() for pair, r in found.items()]
        return DataFrame(rows, columns=["by", "pair", *MEASURES])

    def _repr_html_(self) -> str:
        tables = [retrieval_html(found, title, self.highest_recall_at_1) for title, found in self._titled()]
        tables += [grid.html() for grid in self._grids()]
        return "".join([*tables, *(f"<p>{html.escape(note)}</p>" for note in self.notes)])

    def save(self, folder: str | Path) -> None:
        """Write ``metrics.json``, ``metrics.md`` and ``retrieval.png`` to a folder, which is created if missing.

        Raises:
            UsageError: the folder is a file.
        """
        check_folder(folder)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")
        (folder / "metrics.md").write_text(self.markdown(), encoding="utf-8")
        save_chart(self.pairs, self.title, folder / "retrieval.png")

    def markdown(self) -> str:
        """Return all tables and notes as Markdown, the recalls with their intervals."""
        tables = [
            retrieval_markdown(found, title, self.intervals if found is self.pairs else {}, self.highest_recall_at_1)
            for title, found in self._titled()
        ]
        notes = [f"- {note}" for note in self.notes]
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
