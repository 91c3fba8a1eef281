"""Training curves: the losses and the validation measure that a run logged."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from multimodal.core.run_folder import LOGS
from multimodal.evaluation.figure import Figure, line_chart

METRICS = "metrics.csv"
MOST_POINTS = 400  # of a line
MAX_BYTES = 64 * 2**20  # of a file of metrics
LOSSES, RECALL = ("train/loss", "val/loss"), "val/recall@1"


def training_curves(run: Path) -> list[Figure]:
    """Return the charts of a run's logs; none if it has no ``logs/version_*/metrics.csv`` that can be read.

    Args:
        run: folder of the run.
    """
    logged: dict[str, dict[int, float]] = {}
    versions = sorted((run / LOGS).glob(f"version_*/{METRICS}"), key=_version)
    for path in versions:  # a later start continues the earlier ones
        for step, name, value in _read(path):
            logged.setdefault(name, {})[step] = value
    figures = []
    losses = {name: _thin(logged[name]) for name in LOSSES if name in logged}
    if losses:
        figures.append(Figure("Loss", line_chart(losses, "step")))
    if RECALL in logged:
        chart = line_chart({RECALL: _thin(logged[RECALL])}, "step", y_range=(0, 1), per_cent=True)
        figures.append(Figure("Validation, mean recall@1 of all pairs", chart))
    return figures


def _version(path: Path) -> tuple[int, str]:
    number = path.parent.name.rpartition("_")[2]
    return (int(number) if number.isdecimal() else -1, path.parent.name)


def _read(path: Path) -> Iterator[tuple[int, str, float]]:
    with suppress(OSError, csv.Error, UnicodeDecodeError):
        if path.stat().st_size > MAX_BYTES:
            return
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name in (*LOSSES, RECALL):
                    try:
                        step, value = int(row.get("step") or ""), float(row.get(name) or "")
                    except (TypeError, ValueError):
                        continue
                    if math.isfinite(value):
                        yield step, name, value


def _thin(values: dict[int, float]) -> list[tuple[float, float]]:
    """Return the values by step, as means of neighbours if they are many."""
    points = sorted(values.items())
    size = -(-len(points) // MOST_POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), max(1, size))]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
