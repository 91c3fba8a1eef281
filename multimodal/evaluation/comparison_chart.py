"""The chart of a comparison of runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

from multimodal.evaluation.intervals import Difference, Interval

COLOR, WITHOUT = "#2171b5", "#9a9a9a"  # of differences that hold, and that do not


def save_comparison_chart(
    measured: Mapping[str, Mapping[str, Interval]],
    tested: Mapping[str, Mapping[str, tuple[Difference, bool]]],
    measure: str,
    baseline: str,
    title: str,
    path: Path,
) -> None:
    """Draw a measure of each run, and next to it the difference to the baseline, with intervals, and save them as PNG.

    Args:
        measured: "text->image" -> run -> mean and interval, at least one.
        tested: "text->image" -> run -> difference to the baseline, and whether it holds; those are filled.
        measure: name of the measure.
        baseline: name of the run that the others are compared with.
        title: the title of the chart; long ones are wrapped.
        path: the file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [(pair, run) for pair, of_runs in measured.items() for run in of_runs]
    place, places = 0.0, {}
    for number, (pair, run) in enumerate(lines):
        place += 1.0 if number and lines[number - 1][0] == pair else 1.8  # a gap above each direction
        places[pair, run] = place
    figure = Figure(figsize=(10, 1.4 + 0.26 * place), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for (pair, run), y in places.items():
        color = "black" if run == baseline else COLOR
        found = measured[pair][run]
        left.plot([found.low, found.high], [y, y], color=color, lw=1.2)
        left.plot(found.mean, y, "o", color=color, ms=5)
        if run in tested.get(pair, {}):
            difference, holds = tested[pair][run]
            color = COLOR if holds else WITHOUT
            right.plot([difference.low, difference.high], [y, y], color=color, lw=1.2)
            right.plot(difference.mean, y, "o", color=color, ms=5, mfc=color if holds else "white")
    right.axvline(0, color="black", lw=0.8)
    for pair, of_runs in measured.items():
        top = places[pair, next(iter(of_runs))] - 0.75
        left.text(0, top, pair.replace("->", " → "), transform=left.get_yaxis_transform(), weight="bold", va="center")
    left.set_yticks(list(places.values()), [f"{run} (baseline)" if run == baseline else run for _, run in places])
    left.set_ylim(place + 0.8, 0.4)
    left.set_xlabel(measure)
    right.set_xlabel(f"difference of {measure} to the baseline (filled: holds)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#e5e5e5")
        axes.set_axisbelow(True)
    figure.suptitle(fill(title, 90), fontsize=11)
    FigureCanvasAgg(figure).print_png(str(path))
