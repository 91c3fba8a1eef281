"""The result of a comparison of runs, as tables, JSON, a data frame and files."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.core.files import check_folder
from multimodal.evaluation.comparison_chart import save_comparison_chart
from multimodal.evaluation.grid import Grid
from multimodal.evaluation.intervals import Difference, Interval
from multimodal.evaluation.render import render_text
from multimodal.evaluation.retrieval import Retrieval

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

SHOWN = ("recall@1", "recall@5", "recall@10", "mrr", "mean_rank")
HEADINGS = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "mrr": "MRR",
    "mean_rank": "mean rank",
    "precision@5": "P@5",
    "precision@10": "P@10",
    "map": "mAP",
    "ndcg@10": "NDCG@10",
}
MAIN = "recall@1"  # the measure whose differences the tables list
BETTER, WORSE = "▲", "▼"


@dataclass(frozen=True)
class CorrectedDifference:
    """A difference to the baseline, tested.

    Attributes:
        difference: the mean, its interval, and the p-value of this difference alone.
        corrected_p_value: the p-value after Holm's correction for all runs and directions of the measure.
        holds: whether the corrected p-value is small enough.

    Examples:
        >>> found = CorrectedDifference(Difference(0.1, low=0.05, high=0.15, p_value=0.001), 0.004, holds=True)
        >>> found.to_json()["low"], found.to_json()["holds"]
        (0.05, True)
    """

    difference: Difference
    corrected_p_value: float
    holds: bool

    def to_json(self) -> dict[str, Any]:
        """Return the numbers and the verdict."""
        return vars(self.difference) | {"corrected_p_value": self.corrected_p_value, "holds": self.holds}


@dataclass(frozen=True)
class PairComparison:
    """The runs in one direction, such as text to image.

    Attributes:
        retrieval: run -> its measures, of the runs that have both modalities.
        intervals: run -> measure -> its 95 % bootstrap interval.
        differences: run -> measure -> its difference to the baseline, of the other runs.
    """

    retrieval: Mapping[str, Retrieval]
    intervals: Mapping[str, Mapping[str, Interval]]
    differences: dict[str, dict[str, CorrectedDifference]] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Comparison:
    """Result of ``compare``: it prints as tables, and a notebook shows it as such.

    Attributes:
        runs: the names of the runs.
        baseline: the one that the others are compared with.
        split: split of the queries.
        pool: split that was searched, or "all".
        rows: number of rows of the split.
        table_rows: number of rows of the table.
        confidence: of the intervals and tests.
        pairs: "text->image" -> the runs in that direction.
        notes: remarks for the reader: rows that are left out, gaps, runs that were trained on rows of the comparison.

    Examples:
        >>> Comparison(("a", "b"), "a", "test", "test", rows=40, table_rows=80, confidence=0.95, pairs={}).title
        "Runs in 'test': 40 of 80 rows"
    """

    runs: tuple[str, ...]
    baseline: str
    split: str | list[str]
    pool: str | list[str]
    rows: int
    table_rows: int
    confidence: float
    pairs: Mapping[str, PairComparison]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Title of the tables and the chart: the splits, and how many rows of the table were compared on."""
        place = repr(self.split) if self.pool == self.split else f"{self.pool!r}, queries of {self.split!r}"
        return f"Runs in {place}: {self.rows:,} of {self.table_rows:,} rows"

    @property
    def summary(self) -> str:
        """How many differences hold, and what that means."""
        tested = [t for found in self.pairs.values() for of_run in found.differences.values() for t in of_run.values()]
        held = sum(t.holds for t in tested)
        level = 1 - self.confidence
        return (
            f"{held:,} of {len(tested):,} differences to {self.baseline} hold: randomization test over groups of queries,"
            f" p <= {level:.2g} after Holm's correction for the runs and directions of a measure."
            f" {BETTER} holds, better; {WORSE} holds, worse."
        )

    def grids(self, measures: tuple[str, ...] = (MAIN,)) -> list[Grid]:
        """Return two tables for each direction: the runs, and their differences to the baseline.

        Args:
            measures: those whose differences are listed.
        """
        grids = []
        for pair, found in self.pairs.items():
            grids.append(self._figures(pair))
            if found.differences:
                grids.append(self._differences(pair, measures))
        return grids

    def _figures(self, pair: str) -> Grid:
        found = self.pairs[pair]
        first = next(iter(found.retrieval.values()))
        title = f"{pair.replace('->', ' -> ')}: {first.queries:,} queries, pool of {first.pool:,}"
        rows = []
        for run, r in found.retrieval.items():
            measures, tested = r.to_json(), found.differences.get(run, {})
            cells = [_figure(name, measures[name]) + _mark(name, tested.get(name)) for name in SHOWN]
            rows.append([run + (" (baseline)" if run == self.baseline else ""), *cells])
        return Grid(title, ["run", *(HEADINGS[name] for name in SHOWN)], rows)

    def _differences(self, pair: str, measures: tuple[str, ...]) -> Grid:
        found = self.pairs[pair]
        names = {name: HEADINGS[name] for name in measures if any(name in of for of in found.differences.values())}
        title = f"{pair.replace('->', ' -> ')}, difference to {self.baseline}"
        interval = f"{100 * self.confidence:g} % interval"
        columns = [
            "run",
            *([] if len(measures) == 1 else ["measure"]),
            "difference",
            interval,
            "p",
            "corrected",
            "holds",
        ]
        if len(measures) == 1:
            title = f"{pair.replace('->', ' -> ')}, difference of {HEADINGS[measures[0]]} to {self.baseline}"
        rows = [
            [run, *([] if len(measures) == 1 else [heading]), *_cells(name, of_run[name])]
            for run, of_run in found.differences.items()
            for name, heading in names.items()
        ]
        return Grid(title, columns, rows)

    def tables(self) -> list[Table]:
        """Return the tables for rich's console."""
        return [grid.table() for grid in self.grids()]

    def __str__(self) -> str:
        return render_text([self.title, *self.tables(), self.summary, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = [f"<p>{html.escape(line)}</p>" for line in (self.summary, *self.notes)]
        return "".join([*(grid.html() for grid in self.grids()), *lines])

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``multimodal compare --json`` prints."""
        return {
            "runs": list(self.runs),
            "baseline": self.baseline,
            "split": self.split,
            "pool": self.pool,
            "rows": self.rows,
            "table_rows": self.table_rows,
            "confidence": self.confidence,
            "pairs": {pair: _pair_to_json(found) for pair, found in self.pairs.items()},
            "notes": list(self.notes),
        }

    def to_pandas(self) -> DataFrame:
        """Return one row for each direction and run: the measures, and where tested, "recall@1 difference" and so on."""
        from pandas import DataFrame

        rows = []
        for pair, found in self.pairs.items():
            for run, r in found.retrieval.items():
                row: dict[str, Any] = {"pair": pair, "run": run} | r.to_json()
                for name, tested in found.differences.get(run, {}).items():
                    row |= {f"{name} difference": tested.difference.mean, f"{name} holds": tested.holds}
                rows.append(row)
        return DataFrame(rows)

    def markdown(self) -> str:
        """Return all measures, differences and notes as Markdown."""
        measures = dict.fromkeys(name for f in self.pairs.values() for of in f.differences.values() for name in of)
        grids = [grid.markdown() for grid in self.grids(tuple(measures))]
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join([self.title, *grids, self.summary, *([notes] if notes else [])]) + "\n"

    def save(self, folder: str | Path) -> None:
        """Write ``compare.json``, ``compare.md`` and ``compare.png`` to a folder, which is created if missing.

        Raises:
            UsageError: the folder is a file.
        """
        check_folder(folder)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "compare.json").write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")
        (folder / "compare.md").write_text(self.markdown(), encoding="utf-8")
        if self.pairs:
            self.save_chart(folder / "compare.png")

    def save_chart(self, path: Path) -> None:
        """Draw the main measure of each run and its difference to the baseline, with intervals, as PNG.

        Args:
            path: the file to write.
        """
        measured = {pair: {run: of[MAIN] for run, of in found.intervals.items()} for pair, found in self.pairs.items()}
        tested = {
            pair: {run: (of[MAIN].difference, of[MAIN].holds) for run, of in found.differences.items()}
            for pair, found in self.pairs.items()
        }
        save_comparison_chart(measured, tested, HEADINGS[MAIN], self.baseline, self.title, path)


def _pair_to_json(found: PairComparison) -> dict[str, Any]:
    return {
        "measures": {run: r.to_json() for run, r in found.retrieval.items()},
        "intervals": {
            run: {name: [interval.low, interval.high] for name, interval in of.items()}
            for run, of in found.intervals.items()
        },
        "differences": {
            run: {name: tested.to_json() for name, tested in of.items()} for run, of in found.differences.items()
        },
    }


def _figure(name: str, value: float, sign: str = "") -> str:
    if name.startswith("recall"):
        return f"{100 * value:{sign}.1f}"
    return f"{value:{sign}.1f}" if name == "mean_rank" else f"{value:{sign}.3f}"


def _mark(name: str, tested: CorrectedDifference | None) -> str:
    """A mark of the same width for each cell, so that the figures are aligned."""
    if tested is None or not tested.holds:
        return "  "
    is_better = (tested.difference.mean > 0) != (name == "mean_rank")
    return f" {BETTER if is_better else WORSE}"


def _cells(name: str, tested: CorrectedDifference) -> list[str]:
    d = tested.difference
    interval = f"{_figure(name, d.low, '+')} to {_figure(name, d.high, '+')}"
    p_values = (_p(d.p_value), _p(tested.corrected_p_value))
    return [_figure(name, d.mean, "+"), interval, *p_values, "yes" if tested.holds else "no"]


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
