"""Retrieval results as a table and as a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from rich.console import Console
from rich.table import Table

from multimodal.evaluation.grid import Grid
from multimodal.evaluation.intervals import Interval
from multimodal.evaluation.retrieval import Retrieval

WIDTH = 120  # characters in a line of a table as text
COLUMNS = ("query -> found", "R@1", "R@5", "R@10", "MRR", "median", "mean", "queries", "pool")
HIGHEST = "max R@1"  # a last column, where equal inputs limit it
BAR_COLORS = {
    "recall_at_10": "#c6dbef",
    "recall_at_5": "#6baed6",
    "recall_at_1": "#2171b5",
}  # drawn in this order: the longest bar behind


def retrieval_grid(results: Mapping[str, Retrieval], title: str, highest: Mapping[str, float] = {}) -> Grid:
    """Return a table with one row for each direction.

    Columns: recalls in per cent, mean reciprocal rank, median and mean rank of the first right answer, numbers of queries
    and candidates, and where equal inputs limit it, the highest recall@1 that any model can have.

    Args:
        results: direction -> its measures.
        title: title of the table.
        highest: direction -> highest recall@1.
    """
    return Grid(title, *_columns_and_rows(results, highest))


def all_measures_grid(
    results: Mapping[str, Retrieval],
    title: str,
    intervals: Mapping[str, Mapping[str, Interval]] = {},
    highest: Mapping[str, float] = {},
) -> Grid:
    """Return all measures as a table, recalls and MRR with their intervals.

    Args:
        results: direction -> its measures.
        title: title of the table.
        intervals: direction -> name of a measure -> its interval.
        highest: direction -> highest recall@1.
    """
    columns, rows_of_table = _columns_and_rows(results, highest)
    rows = []
    for (pair, r), cells in zip(results.items(), rows_of_table, strict=True):
        for column, name in enumerate(("recall@1", "recall@5", "recall@10", "mrr"), start=1):
            if (interval := intervals.get(pair, {}).get(name)) is not None:
                low, high = (f"{v:.3f}" if name == "mrr" else f"{100 * v:.1f}" for v in (interval.low, interval.high))
                cells[column] += f" ({low} to {high})"
        rows.append([*cells, f"{r.map:.3f}", f"{r.ndcg_at_10:.3f}", f"{r.precision_at_10:.3f}"])
    return Grid(title, [*columns, "mAP", "NDCG@10", "P@10"], rows)


def _columns_and_rows(
    results: Mapping[str, Retrieval], highest: Mapping[str, float]
) -> tuple[tuple[str, ...], list[list[str]]]:
    rows = [_cells(pair, r) for pair, r in results.items()]
    if all(highest.get(pair, 1.0) == 1.0 for pair in results):
        return COLUMNS, rows
    return (*COLUMNS, HIGHEST), [
        [*row, f"{100 * highest.get(pair, 1.0):.1f}"] for pair, row in zip(results, rows, strict=True)
    ]


def _cells(pair: str, r: Retrieval) -> list[str]:
    """Return the cells of a row, in the order of ``COLUMNS``."""
    recalls = (f"{100 * recall:.1f}" for recall in (r.recall_at_1, r.recall_at_5, r.recall_at_10))
    ranks = (f"{r.median_rank:g}", f"{r.mean_rank:.1f}")
    return [pair.replace("->", " -> "), *recalls, f"{r.mrr:.3f}", *ranks, f"{r.queries:,}", f"{r.pool:,}"]


def render_text(parts: Sequence[Table | str]) -> str:
    """Render tables and lines as plain text."""
    console = Console(width=WIDTH, color_system=None, force_jupyter=False)  # in a notebook it would show them
    with console.capture() as captured:
        for part in parts:
            console.print(part, highlight=False, markup=False) if isinstance(part, str) else console.print(part)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def save_chart(results: Mapping[str, Retrieval], title: str, path: Path) -> None:
    """Draw recall@1, 5 and 10 of each direction as nested bars and save them as PNG.

    Args:
        results: ``"text->image"`` -> the measures of that direction.
        title: the title of the chart; long ones are wrapped.
        path: the file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.4 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{pair.replace('->', ' → ')}  ({r.pool:,})" for pair, r in results.items()]
    for measure, color in BAR_COLORS.items():
        values = [getattr(r, measure) for r in results.values()]
        axes.barh(names, values, color=color, label=f"R@{measure.rpartition('_')[2]}")
    for row, r in enumerate(results.values()):
        inside = r.recall_at_1 > 0.1
        x, side, color = (-0.01, "right", "white") if inside else (0.01, "left", "black")
        axes.text(r.recall_at_1 + x, row, f"{r.recall_at_1:.2f}", va="center", ha=side, color=color)
    axes.invert_yaxis()
    axes.set(
        xlim=(0, 1),
        title=fill(title, 60),
        xlabel="fraction of the queries with a right answer among the first k (pool size)",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(str(path))
