"""Nearest-neighbour tests of a file: triplets, graded pairs and analogies, whose values the model embeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError, suggest
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.open import open_table
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.neighbours import analogy_accuracy, graded_pairs, triplet_accuracy

KINDS = {
    "triplets": ("anchor", "nearer", "farther"),
    "graded pairs": ("first", "second", "grade"),
    "analogies": ("a", "b", "c", "d"),
}
DEFAULT_MODALITY = "text"


@dataclass(frozen=True)
class NeighbourTest:
    """The result of a nearest-neighbour test.

    Attributes:
        file: name of the table.
        kind: "triplets", "graded pairs" or "analogies".
        modality: modality of the values.
        measures: "accuracy", or "spearman" and "pearson"; NaN: it is not defined, as all grades are equal.
        rows: number of tests.
    """

    file: str
    kind: str
    modality: str
    measures: Mapping[str, float]
    rows: int


@dataclass(frozen=True)
class NeighbourTests:
    """The results of several files.

    Attributes:
        tests: a result for each.

    Examples:
        >>> test = NeighbourTest("triplets.csv", "triplets", "text", {"accuracy": 0.9}, 100)
        >>> NeighbourTests([test]).grids()[0].rows
        [['triplets of triplets.csv', 'text', 'accuracy', '0.900', '100']]
    """

    tests: Sequence[NeighbourTest]

    def grids(self) -> list[Grid]:
        """Return one table with a line for each measure of each file."""
        rows = [
            [f"{test.kind} of {Path(test.file).name}", test.modality, name, number(value), f"{test.rows:,}"]
            for test in self.tests
            for name, value in test.measures.items()
        ]
        return [Grid("Nearest-neighbour tests", ["test", "modality", "measure", "value", "tests"], rows)]


def run_neighbour_test(embedder: Embedder, table: Any, modality: str | None = None) -> NeighbourTest:
    """Run the test that a table holds; its columns say which.

    ``anchor, nearer, farther``: whether the anchor is nearer to the second value than to the third. ``first, second, grade``:
    the rank correlation of cosines with grades. ``a, b, c, d``: whether, of all values in the table, d is nearest to
    b - a + c.

    Args:
        embedder: the model.
        table: a table's name, or rows.
        modality: modality of the values. None: "text", or the model's only one.

    Raises:
        MultimodalError: a value cannot be read.
        UsageError: the table has other columns, no row, a missing value or a grade that is not a number.

    Examples:
        >>> from multimodal import create
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["red cup", "blue hat"] * 2})
        >>> rows = [{"anchor": "red cup", "nearer": "red cup", "farther": "blue hat"}]
        >>> run_neighbour_test(embedder, rows).measures
        {'accuracy': 1.0}
    """
    opened = open_table(table)
    kind = next((kind for kind, columns in KINDS.items() if set(columns) <= set(opened.columns)), None)
    if kind is None:
        known = "; ".join(f"{', '.join(columns)} ({kind})" for kind, columns in KINDS.items())
        raise UsageError(
            f"{opened.name!r} has the columns {', '.join(opened.columns)}; a nearest-neighbour test has one of: {known}."
        )
    if modality is None:
        modality = embedder.modalities[0] if len(embedder.modalities) == 1 else DEFAULT_MODALITY
    if modality not in embedder.modalities:
        raise UsageError(f"The model has no modality {modality!r}.{suggest(modality, embedder.modalities)}")
    if not len(opened):
        raise UsageError(f"{opened.name!r} has no rows, so there is nothing to test.")
    cells = {column: list(opened.column(column)) for column in KINDS[kind]}
    for column, values in cells.items():
        if None in values:
            raise UsageError(f"{opened.name!r}, row {values.index(None)}: {column} is missing.")
    grades = [_grade(opened.name, row, cell) for row, cell in enumerate(cells.pop("grade", ()))]
    names = list(dict.fromkeys(str(v) for values in cells.values() for v in values))
    reads_files = embedder.processors[modality].reads_files
    values = [resolve_file_cell(name, opened.base) if reads_files else name for name in names]
    vectors = embedder.encode(batch_size=None, precision="float32", **{modality: values})
    place = {name: n for n, name in enumerate(names)}
    numbers = [np.array([place[str(v)] for v in of_column]) for of_column in cells.values()]
    if kind == "triplets":
        anchors, nearer, farther = (vectors[n] for n in numbers)
        measures = {"accuracy": triplet_accuracy(anchors, nearer, farther)}
    elif kind == "analogies":
        measures = {"accuracy": analogy_accuracy(vectors, np.stack(numbers, axis=1))}
    else:
        measures = graded_pairs(vectors[numbers[0]], vectors[numbers[1]], grades)
    return NeighbourTest(opened.name, kind, modality, measures, len(opened))


def _grade(table: str, row: int, cell: Any) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise UsageError(f"{table!r}, row {row}: the grade {cell!r} is not a number.")
    return value
