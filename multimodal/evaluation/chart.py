"""The recalls as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

from multimodal.evaluation.retrieval import Retrieval

INK = {"recall_at_10": "#c6dbef", "recall_at_5": "#6baed6", "recall_at_1": "#2171b5"}  # the wider bar lies behind


def save_chart(results: Mapping[str, Retrieval], title: str, path: Path) -> None:
    """Recall@1, 5 and 10 of each direction as bars within one another, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.4 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{pair.replace('->', ' → ')}  ({r.pool:,})" for pair, r in results.items()]
    for measure, color in INK.items():
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
        xlabel="part of the queries with a right answer among the first k (pool size)",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(str(path))
