"""The result of a sweep, as tables, JSON, a data frame and files."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.core.progress import duration
from multimodal.evaluation.comparison import Comparison
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.render import render_text
from multimodal.experiment.sweep.grid import Range, Values, as_text, short_names
from multimodal.experiment.sweep.run_measures import mode_of
from multimodal.experiment.sweep.state import SweepRun

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table


@dataclass(frozen=True, repr=False)
class Sweep:
    """Result of ``sweep``: it prints as tables, and a notebook shows it as such.

    Attributes:
        folder: the sweep's folder, in which each run's folder has the run's name.
        config: path of the configuration.
        grid: key -> its values.
        measure: by which runs are chosen, at the validation of each run's saved model.
        runs: all runs, in the order in which they began.
        comparison: of the finished runs with the best one; None: there is none, and a note says why.
        notes: remarks for the reader.

    Examples:
        >>> small = SweepRun("1_dim=64", {"model.dim": 64}, "finished", value=0.5)
        >>> large = SweepRun("2_dim=256", {"model.dim": 256}, "finished", value=0.6)
        >>> found = Sweep(Path("sweeps/pairs"), "pairs.yaml", {"model.dim": [64, 256]}, "val/recall@1", (small, large))
        >>> found.best.settings
        {'model.dim': 256}
    """

    folder: Path
    config: str
    grid: Mapping[str, Values]
    measure: str
    runs: tuple[SweepRun, ...]
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()

    @property
    def ranked(self) -> list[SweepRun]:
        """The finished runs, the best first; those without the measure at the end."""
        sign = -1 if mode_of(self.measure) == "max" else 1
        finished = [run for run in self.runs if run.state == "finished"]
        return sorted(finished, key=lambda run: (run.value is None, sign * (run.value or 0.0)))

    @property
    def best(self) -> SweepRun | None:
        """The best run; None: no finished run has the measure."""
        return next((run for run in self.ranked if run.value is not None), None)

    @property
    def title(self) -> str:
        """Title of the table of the runs: how many finished, and their order."""
        finished = len(self.ranked)
        return f"{finished:,} of {len(self.runs):,} runs of {self.config} finished, the best by {self.measure} first"

    def grids(self) -> list[Grid]:
        """Return the table of the runs."""
        names = short_names(list(self.grid))
        columns = ["run", *names.values(), self.measure, "time", "weights"]
        others = [run for run in self.runs if run.state != "finished"]
        rows = []
        for run in [*self.ranked, *others]:
            settings = [as_text(run.settings[key]) for key in names]
            value = run.state if run.state != "finished" else "-" if run.value is None else number(run.value, 4)
            weights = "-" if run.weights is None else f"{run.weights:,}"
            rows.append([run.name, *settings, value, duration(run.seconds), weights])
        return [Grid(self.title, columns, rows)]

    def tables(self) -> list[Table]:
        """Return the tables of the runs and of their comparison, for rich's console."""
        compared = [] if self.comparison is None else self.comparison.tables()
        return [*(grid.table() for grid in self.grids()), *compared]

    def lines(self) -> list[str]:
        """Return what the tables do not say: the comparison's summary, failures, notes."""
        failures = [f"{run.name} failed: {run.error}" for run in self.runs if run.state == "failed"]
        compared = [] if self.comparison is None else [self.comparison.summary, *self.comparison.notes]
        return [*compared, *failures, *self.notes]

    def __str__(self) -> str:
        return render_text([*self.tables(), *self.lines()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        grids = [*self.grids(), *([] if self.comparison is None else self.comparison.grids())]
        return "".join([*(grid.html() for grid in grids), *(f"<p>{html.escape(line)}</p>" for line in self.lines())])

    def results(self) -> dict[str, Any]:
        """Return what ``sweep.json`` has at the end in addition to the runs."""
        return {
            "measure": self.measure,
            "best": None if self.best is None else self.best.name,
            "comparison": None if self.comparison is None else self.comparison.to_json(),
            "notes": list(self.notes),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``multimodal sweep --json`` prints."""
        grid = {key: str(values) if isinstance(values, Range) else values for key, values in self.grid.items()}
        runs = [asdict(run) for run in self.runs]
        return {"folder": str(self.folder), "config": self.config, "grid": grid, "runs": runs} | self.results()

    def to_pandas(self) -> DataFrame:
        """Return one row for each run: name, settings, state, the measure, seconds and weights."""
        from pandas import DataFrame

        return DataFrame(
            [
                {"run": run.name, **run.settings, "state": run.state, self.measure: run.value}
                | {"seconds": run.seconds, "weights": run.weights}
                for run in self.runs
            ]
        )

    def markdown(self) -> str:
        """Return all tables and lines as Markdown."""
        compared = [] if self.comparison is None else [self.comparison.markdown().rstrip()]
        failures = [f"- {run.name} failed: {run.error}" for run in self.runs if run.state == "failed"]
        notes = [*failures, *(f"- {note}" for note in self.notes)]
        parts = [
            *(grid.markdown() for grid in self.grids()),
            "![The measure by each key](sweep.png)",
            *compared,
            *notes,
        ]
        return "\n\n".join(parts) + "\n"

    def save(self) -> None:
        """Write ``sweep.md`` and ``sweep.png`` to the sweep's folder."""
        (self.folder / "sweep.md").write_text(self.markdown(), encoding="utf-8")
        save_sweep_chart(self.ranked, self.grid, self.measure, self.folder / "sweep.png")


def save_sweep_chart(runs: Sequence[SweepRun], grid: Mapping[str, Values], measure: str, path: Path) -> None:
    """Draw the measure of each run by each key with several values, by training time and by size, and save it as PNG.

    Args:
        runs: finished runs.
        grid: key -> its values.
        measure: name of the measure.
        path: the file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    runs = [run for run in runs if run.value is not None]
    varied = {key: values for key, values in grid.items() if isinstance(values, Range) or len(values) > 1}
    panels = len(varied) + 2
    columns = min(panels, 4)
    lines = -(-panels // columns)
    figure = Figure(figsize=(3.2 * columns, 2.8 * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for (key, values), panel in zip(varied.items(), axes, strict=False):
        _draw_key(panel, [(run.settings[key], run.value) for run in runs], values)
        panel.set_xlabel(short_names(list(grid))[key])
    for panel, label, of_run in (
        (axes[len(varied)], "seconds of training", [run.seconds for run in runs]),
        (axes[len(varied) + 1], "weights", [run.weights or 0 for run in runs]),
    ):
        panel.plot(of_run, [run.value for run in runs], "o", color="#2171b5", ms=5)
        panel.set_xlabel(label)
        panel.locator_params(axis="x", nbins=4)
    axes[len(varied) + 1].xaxis.set_major_formatter(EngFormatter(places=None))
    for panel in axes[panels:]:
        panel.set_visible(False)
    for panel in axes[:panels]:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#e5e5e5")
        panel.set_axisbelow(True)
        panel.tick_params(labelleft=True)
    for panel in axes[::columns]:
        panel.set_ylabel(measure)
    FigureCanvasAgg(figure).print_png(str(path))


def _draw_key(panel: Any, points: Sequence[tuple[Any, Any]], values: Values) -> None:
    """Draw the measure by a key: numbers on an axis of numbers, others side by side; a line joins the means."""
    if isinstance(values, Range):
        panel.plot(*zip(*points, strict=True) if points else ([], []), "o", color="#2171b5", ms=5)
        panel.set_xscale("log" if values.is_log else "linear")
        return
    texts = [as_text(value) for value in values]
    places = {text: float(place) for place, text in enumerate(texts)}
    at = {text: [measured for value, measured in points if as_text(value) == text] for text in texts}
    for text, measured in at.items():
        panel.plot([places[text]] * len(measured), measured, "o", color="#2171b5", ms=5)
    means = {places[text]: sum(measured) / len(measured) for text, measured in at.items() if measured}
    panel.plot(list(means), list(means.values()), "-", color="#9a9a9a", lw=1.2, zorder=0)
    panel.set_xticks(list(places.values()), texts)
    panel.set_xlim(-0.5, len(texts) - 0.5)
