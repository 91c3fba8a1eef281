"""The rows on which several runs are compared: the data of each run, checked to be the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.run_folder import RUN_CONFIG
from multimodal.data.run_data import RunData, load_run_data, load_training_rows
from multimodal.data.samples import Samples

SAME_ROWS = (
    "Runs are compared on the same rows: name the table with --data TABLE (in Python, data=TABLE), or a configuration"
    " whose `data:` gives the table, columns, group and split with --data CONFIG.yaml."
)


@dataclass(frozen=True)
class ComparedData:
    """The rows of a comparison.

    Attributes:
        samples: name of a run -> its samples, which are the same rows, with the columns of its modalities.
        rows: ``(q,)`` row numbers of the queries.
        pool: ``(c,)`` row numbers that are searched.
        split: split of the queries.
        pool_split: split that is searched, or "all".
        max_rejects: fraction of the rows that may be unreadable.
        notes: runs that were trained on rows of the comparison, a line each.
    """

    samples: Mapping[str, Samples]
    rows: np.ndarray
    pool: np.ndarray
    split: str | list[str]
    pool_split: str | list[str]
    max_rejects: float
    notes: tuple[str, ...]


def load_compared_data(
    runs: Mapping[str, Path | Embedder],
    data: Any,
    settings: Mapping[str, Any],
    split: str | list[str] | None,
    pool: str | list[str] | None,
) -> ComparedData:
    """Load the data of each run, or the given data with the settings of each run, and check that the rows are the same.

    Args:
        runs: name -> folder of a run or of a model, or an embedder.
        data: as of ``load_run_data``. None: the data of the runs. A model without any takes the data and settings of the first
            run that has some.
        settings: keys of ``data:`` that replace the configured ones.
        split: split of the queries. None: the test split of the data.
        pool: split to search, or "all". None: ``split``.

    Raises:
        MultimodalError: data cannot be read.
        UsageError: the runs have different rows, splits, groups or columns; the message says which and what to do.
    """
    folders = {name: None if isinstance(run, Embedder) else run for name, run in runs.items()}
    with_config = [path for path in folders.values() if path is not None and (path / RUN_CONFIG).is_file()]
    of_runs: dict[str, RunData] = {}
    for name, folder in folders.items():
        if with_config and folder not in with_config:
            folder = with_config[0]
        of_runs[name] = load_run_data(folder, data, settings)
    (first, of_first), *others = of_runs.items()
    for name, other in others:
        _check_same_table(first, of_first.samples, name, other.samples)
        if split is None and other.test_split != of_first.test_split:
            raise UsageError(
                f"The test split of {first} is {of_first.test_split!r}, that of {name} {other.test_split!r}: name one for both"
                " with --split."
            )
    split = split or of_first.test_split
    rows = of_first.samples.rows(split)
    searched = rows if pool is None else of_first.samples.rows(pool)
    measured = np.union1d(rows, searched)
    for name, other in others:
        same = np.array_equal(rows, other.samples.rows(split))
        if not (same and (pool is None or np.array_equal(searched, other.samples.rows(pool)))):
            raise UsageError(
                f"The split {split if not same else pool!r} of {first} has other rows than that of {name}. {SAME_ROWS}"
            )
        if other.samples.schema.group != of_first.samples.schema.group and any(
            of_first.samples.group_of(row) != other.samples.group_of(row) for row in measured.tolist()
        ):
            raise UsageError(
                f"{first} and {name} group the rows differently, so that their right answers differ: name the column that"
                " groups them with --group."
            )
    return ComparedData(
        {name: of_run.samples for name, of_run in of_runs.items()},
        rows,
        searched,
        split,
        pool or split,
        of_first.max_rejects,
        tuple(_overlaps(folders, of_runs, measured)),
    )


def _check_same_table(first: str, samples: Samples, name: str, other: Samples) -> None:
    if samples.fingerprint != other.fingerprint:
        tables = f"{samples.name!r} ({len(samples):,} rows), that of {name} {other.name!r} ({len(other):,} rows)"
        raise UsageError(f"The table of {first} is {tables}. {SAME_ROWS}")
    columns, of_other = samples.schema.columns, other.schema.columns
    for modality in columns:
        if modality in of_other and columns[modality] != of_other[modality]:
            ours, theirs = ("+".join(of[modality]) for of in (columns, of_other))
            raise UsageError(
                f"{first} reads {modality} from the column {ours!r}, {name} from {theirs!r}: name one column for all, as"
                f" --columns.{modality} {columns[modality][0]}, and with it the columns of the other modalities."
            )


def _overlaps(folders: Mapping[str, Path | None], of_runs: Mapping[str, RunData], measured: np.ndarray) -> list[str]:
    """Say which runs were trained on rows that are measured, where this can be seen."""
    notes = []
    for name, folder in folders.items():
        if folder is None or not (folder / RUN_CONFIG).is_file():
            continue
        with suppress(MultimodalError):  # its table may be gone, or was in memory
            trained, rows = load_training_rows(folder, load_run_data(folder))
            shared = np.intersect1d(rows, measured) if trained.fingerprint == of_runs[name].samples.fingerprint else ()
            if len(shared):
                notes.append(f"{name} was trained on {len(shared):,} of the {len(measured):,} rows of this comparison.")
    return notes
