"""Predicting a target of a table's rows by a head that was trained with the model.

A row's prediction is the mean of those from its values: of the modalities that the head was trained on, and of all their
columns. The result is a table with the columns ``key``; ``label`` unless the target is numeric; ``probability_NAME`` for each
class or label, or ``value``, ``value_0``, ... for numbers. They are empty for a row without such a value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from multimodal.core.errors import MultimodalError, Unreadable, UsageError, check_names
from multimodal.core.predictors import LIKELY, Predictions, Predictor, find_predictor
from multimodal.core.progress import progress
from multimodal.core.rejects import Rejects
from multimodal.data.tables.cells import is_number
from multimodal.data.targets import target_value

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder
    from multimodal.data.samples import Samples

SUFFIXES = (".csv", ".parquet")
BATCH_SIZE = 256  # rows embedded at a time; affects the speed, not the results
ROWS_WRITTEN = 8_192  # at a time


@dataclass
class Classified:
    """The outcome of ``classify_table``.

    Attributes:
        target: the target.
        rows: the rows with a prediction.
        split: the split that they are of, or "all".
        rows_without: the rows without a value to predict from.
        rejects: the rows that cannot be read; they are left out.
        labelled: the rows with a prediction whose target is known.
        measure: "accuracy" of classes, "F1" of labels (micro-averaged), "mean absolute error" of numbers.
        score: the measure of the labelled rows; None without them.
        unknown: name -> number of labelled rows whose class or label no training row has; they are counted as wrong.

    Examples:
        >>> outcome = Classified("kind", "accuracy", rows=3, labelled=2, score=0.5)
        >>> print(outcome)
        3 rows, accuracy 0.500 of the 2 whose 'kind' is known
    """

    target: str
    measure: str
    rows: int = 0
    rows_without: int = 0
    rejects: Rejects | None = None
    labelled: int = 0
    score: float | None = None
    unknown: dict[str, int] = field(default_factory=dict)
    split: str | list[str] = "all"

    def __str__(self) -> str:
        split = self.split if isinstance(self.split, str) else ", ".join(self.split)
        text = f"{self.rows:,} rows" + ("" if split == "all" else f" of the split {split}")
        if self.rows_without:
            text += f" (and {self.rows_without:,} without a value to predict from)"
        if self.score is None:
            return text
        text += f", {self.measure} {self.score:.3f} of the {self.labelled:,} whose {self.target!r} is known"
        if self.unknown:
            text += f"; not seen in training: {_some(self.unknown)}"
        return text

    def to_json(self) -> dict[str, Any]:
        """Return the attributes, with the number of rejects, as JSON values."""
        return {
            "target": self.target,
            "measure": self.measure,
            "score": self.score,
            "labelled": self.labelled,
            "unknown": self.unknown,
            "rows": self.rows,
            "split": self.split,
            "rows_without": self.rows_without,
            "rejects": 0 if self.rejects is None else len(self.rejects),
        }


def classify_table(
    run: str | Path | Embedder,
    table: Any = None,
    *,
    out: str | Path | BinaryIO,
    target: str | None = None,
    label: str | None = None,
    split: str | None = None,
    **settings: Any,
) -> Classified:
    """Predict a target of a table's rows, as ``multimodal classify`` does.

    Args:
        run: folder of a run or of a saved model, or an embedder.
        table: see ``embed_table``.
        out: the CSV or Parquet file to write, by its suffix; an existing one is replaced. Or a binary file, for CSV.
        target: the target to predict. None: the only one.
        label: the column to compare with. None: the target's column in the run's data, if the table has it.
        split: the split to predict, or "all". None: the run's test split; of another table, all rows.
        **settings: keys of ``data:`` that replace the configured ones.

    Returns:
        What was done, with the accuracy if the table has the column of the target.

    Raises:
        UsageError: the model predicts no such target, or ``out`` has another suffix.
        MultimodalError: the model or table cannot be read, or too many rows cannot be read.
    """
    from multimodal.core.embedder import Embedder
    from multimodal.core.hardware import fast_device
    from multimodal.data.run_data import SETTINGS, load_run_data

    check_names("classify_table", settings, [*SETTINGS, "out", "target", "label", "split"])
    if isinstance(out, str | Path) and Path(out).suffix not in SUFFIXES:
        raise UsageError(f"{out} ends in neither {' nor '.join(SUFFIXES)}.")
    embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
    predictor = find_predictor(embedder.predictors, target)
    if label is not None:
        settings["targets"] = {predictor.target: label}
    data = load_run_data(None if isinstance(run, Embedder) else Path(run), table, settings)
    chosen = data.test_split if split is None else split
    rows = data.samples.rows(chosen)
    if not len(rows):
        raise MultimodalError("There are no rows to classify.")
    outcome = _classify(embedder, predictor, data.samples, rows, out, data.max_rejects)
    return replace(outcome, split=chosen)


def _classify(
    embedder: Embedder, predictor: Predictor, samples: Samples, rows: np.ndarray, out: Any, max_rejects: float
) -> Classified:
    known = predictor.modalities or tuple(embedder.modalities)
    processors = {m: embedder.processors[m] for m in samples.modalities if m in known and m in embedder.modalities}
    if not processors:
        raise MultimodalError(
            f"{predictor.target!r} is predicted from {', '.join(known)}; the table has only {', '.join(samples.modalities)}."
        )
    scorer = _Scorer(predictor)
    labels: dict[int, Any] = {}
    if predictor.target in samples.schema.targets:
        labels = dict(zip(rows.tolist(), samples.target_cells_of(predictor.target, rows), strict=True))
    plain = samples.without_targets().keyed_by_number()  # a row is predicted whether its target can be read or not
    rejects = Rejects(max_rejects, len(samples), key_of=samples.key_of)
    outcome = Classified(predictor.target, scorer.measure, rejects=rejects)
    with progress("Classifying", len(rows)) as advance, _writer(out, _schema(predictor, out)) as write:
        for start in range(0, len(rows), ROWS_WRITTEN):
            numbers, values = _predict(
                embedder, predictor, plain, rows[start : start + ROWS_WRITTEN], processors, rejects, advance
            )
            write(_columns(predictor, [samples.key_of(row) for row in numbers], values))
            for row, value in zip(numbers, values, strict=True):
                if not np.isnan(value[0]):
                    outcome.rows += 1
                    scorer.add(value, labels.get(row))
                else:
                    outcome.rows_without += 1
    outcome.labelled, outcome.score, outcome.unknown = scorer.labelled, scorer.score, scorer.unknown
    return outcome


def _predict(
    embedder: Embedder,
    predictor: Predictor,
    samples: Samples,
    rows: np.ndarray,
    processors: Any,
    rejects: Rejects,
    advance: Any,
) -> tuple[list[int], np.ndarray]:
    """Return the numbers of the rows that can be read, and their mean predictions ``(rows, c)``, NaN without one."""
    from multimodal.data.loaders import ordered_loader

    embeddings = embedder.embed_all(ordered_loader(samples, rows, processors, BATCH_SIZE, rejects), advance)
    numbers = list(dict.fromkeys(map(int, embeddings.keys)))  # alternative columns are samples with one key
    position = {row: n for n, row in enumerate(numbers)}
    of_sample = np.array([position[int(key)] for key in embeddings.keys], dtype=np.int64)
    sums, counts = np.zeros((len(numbers), len(predictor.names))), np.zeros((len(numbers), 1))
    for modality, vectors in embeddings.vectors.items():
        which = of_sample[embeddings.rows[modality].numpy()]
        np.add.at(sums, which, predictor(vectors.numpy()).values)
        np.add.at(counts, which, 1)
    return numbers, np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


class _Scorer:
    """Compares predictions with labels."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.measure = {"classes": "accuracy", "labels": "F1", "numbers": "mean absolute error"}[predictor.kind]
        self.labelled, self.unknown = 0, dict[str, int]()
        self._numerator = self._denominator = 0.0
        self._indices = {name: number for number, name in enumerate(predictor.names)}

    @property
    def score(self) -> float | None:
        return self._numerator / self._denominator if self._denominator else None

    def add(self, values: np.ndarray, cell: Any) -> None:
        """Count a row's prediction ``(c,)``; the cell of its target may be missing or unreadable."""
        try:
            if cell is None or not self._add(values, cell):
                return
        except Unreadable:
            return
        self.labelled += 1

    def _add(self, values: np.ndarray, cell: Any) -> bool:
        if self.predictor.kind == "classes":
            name = str(cell)
            if name not in self._indices and is_number(name) and float(name).is_integer():
                name = str(int(float(name)))  # a class number read as a fraction
            self._count_unknown([name])
            self._numerator += self._indices.get(name) == int(values.argmax())
            self._denominator += 1
            return True
        if self.predictor.kind == "numbers":
            errors = np.abs(values - np.array(target_value(cell, None), dtype=float).reshape(-1))
            self._numerator += float(np.nansum(errors))
            self._denominator += int((~np.isnan(errors)).sum())
            return not bool(np.isnan(errors).all())
        several = cell if isinstance(cell, list) else [cell]
        named = any(isinstance(each, str) for each in several) or not several
        if named:
            self._count_unknown(several)
        truth = np.array(target_value(several, self._indices if named else None), dtype=float)
        right = values >= LIKELY
        missed = sum(name not in self._indices for name in several) if named else 0
        self._numerator += 2 * float((right & (truth >= LIKELY)).sum())
        self._denominator += float(right[~np.isnan(truth)].sum() + (truth >= LIKELY).sum()) + missed
        return True

    def _count_unknown(self, names: Sequence[Any]) -> None:
        for name in map(str, names):
            if name not in self._indices:
                self.unknown[name] = self.unknown.get(name, 0) + 1


def _schema(predictor: Predictor, out: Any) -> pa.Schema:
    """Return the columns of the result; a CSV file has a list of labels as JSON."""
    fields = [("key", pa.string())]
    if predictor.kind == "numbers":
        names = ["value"] if len(predictor.names) == 1 else [f"value_{name}" for name in predictor.names]
    else:
        names = [f"probability_{name}" for name in predictor.names]
        lists = predictor.kind == "labels" and isinstance(out, str | Path) and Path(out).suffix == ".parquet"
        fields.append(("label", pa.list_(pa.string()) if lists else pa.string()))
    return pa.schema([*fields, *((name, pa.float32()) for name in names)])


def _columns(predictor: Predictor, keys: Sequence[str], values: np.ndarray) -> list[Any]:
    missing = np.isnan(values[:, 0])
    columns: list[Any] = [keys]
    if predictor.kind != "numbers":
        labels = Predictions(predictor.target, predictor.kind, predictor.names, np.nan_to_num(values)).labels
        columns.append([None if absent else label for label, absent in zip(labels, missing, strict=True)])
    return columns + [pa.array(column, pa.float32(), mask=missing) for column in values.T]


@contextmanager
def _writer(out: Any, schema: pa.Schema) -> Iterator[Any]:
    """Yield a function that writes columns; a file gets its name when the block ends without an exception."""
    if not isinstance(out, str | Path):
        header = iter([True])  # with the first rows: an error before them leaves no table of no rows
        yield lambda columns: pacsv.write_csv(
            _as_table(columns, schema), out, pacsv.WriteOptions(include_header=next(header, False))
        )
        return
    out = Path(out)
    new = out.with_name(f"{out.name}.new-{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (pq.ParquetWriter if out.suffix == ".parquet" else pacsv.CSVWriter)(str(new), schema) as file:
            yield lambda columns: file.write_table(_as_table(columns, schema))
        os.replace(new, out)
    finally:
        new.unlink(missing_ok=True)


def _as_table(columns: list[Any], schema: pa.Schema) -> pa.Table:
    arrays = []
    for column, of in zip(columns, schema, strict=True):
        if of.name == "label" and of.type == pa.string():
            column = [json.dumps(each, ensure_ascii=False) if isinstance(each, list) else each for each in column]
        arrays.append(pa.array(column, of.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _some(names: dict[str, int]) -> str:
    shown = [f"{name} ({rows:,})" for name, rows in list(names.items())[:3]]
    return ", ".join([*shown, *(["..."] if len(names) > 3 else [])])
