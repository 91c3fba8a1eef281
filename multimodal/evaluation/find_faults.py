"""Find suspected faults of a run's data, by its model and by the data's own features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.files import check_folder
from multimodal.core.hardware import fast_device
from multimodal.core.progress import progress
from multimodal.core.rejects import Rejects
from multimodal.data.run_data import load_run_data
from multimodal.data.samples import Samples
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.evaluation.evaluated import embed_rows
from multimodal.evaluation.faults import Faults, RowViews, columns_of, readable, suspect

By = Literal["inputs", "model"]
WIDEST = 4096  # features; more are reduced
REDUCED = 512


def find_faults(
    run: str | Path | Embedder,
    data: Any = None,
    *,
    split: str | list[str] | None = None,
    by: By = "inputs",
    out: str | Path | None = None,
    **settings: Any,
) -> Faults:
    """Find rows whose values do not belong together, and rows that are one item under two names.

    Args:
        run: folder of a run or of a saved model, or an embedder.
        data: see ``evaluate``.
        split: the rows to go through. None: all, so that duplicates across splits are found.
        by: what neighbours are found by: "inputs", the pixels, words, ... themselves, which have learned nothing from the
            pairs; or "model", the model's vectors, for pretrained encoders or rows that the model was not trained on.
            Modalities without features of their own are compared by the model in any case.
        out: a CSV file to write the table to.
        **settings: keys of ``data:`` that replace the configured ones.

    Returns:
        The suspicions, the strongest first.

    Raises:
        MultimodalError: the model or the data cannot be read.
        UsageError: there is no such split, or ``by`` is unknown.
    """
    if by not in get_args(By):
        raise UsageError(f"by: there is no {by!r}.{suggest(str(by), list(get_args(By)))}")
    if out is not None and Path(out).is_dir():
        raise UsageError(f"out: {out} is a folder; name a file, such as faults.csv.")
    if out is not None:
        check_folder(Path(out).parent)
    folder = None if isinstance(run, Embedder) else Path(run)
    embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
    of_run = load_run_data(folder, data, settings)
    samples = of_run.samples
    rows = samples.rows(split or "all")
    rejects = Rejects(of_run.max_rejects, len(samples), None, samples.key_of)
    model = RowViews.of(embed_rows(embedder, samples, rows, rejects).embeddings)
    if not model.rows:
        raise MultimodalError(
            f"The model knows {embedder.modalities}, the data have {samples.modalities}: none in common."
        )
    views, looks, notes = model, model, []
    if by == "inputs":
        views, looks, notes = own_features(embedder, samples, model)
    group_of = {int(row): int(samples.group_numbers[row]) for row in rows}
    split_of = {row: name for name, found in samples.splits.items() for row in found.tolist()}
    with progress("Looking for faults"):
        suspicions, reasons = suspect(model, views, looks, group_of, split_of)
    if len(rejects):
        notes.append(rejects.summary())
    named = columns_of(suspicions)
    contents = {row: readable(samples[row].values) for row in named}
    found = Faults(suspicions, {row: samples.key_of(row) for row in named}, contents, (*notes, *reasons))
    if out is not None:
        found.save(out)
    return found


def own_features(embedder: Embedder, samples: Samples, model: RowViews) -> tuple[RowViews, RowViews, list[str]]:
    """Return features of the rows' own values: those by which neighbours are found, and those by which equal values are.

    Args:
        embedder: its processors provide the features.
        samples: the table.
        model: the model's vectors of the rows, which are used where a modality has no features.
    """
    views, looks, notes = dict(model.vectors), dict(model.vectors), []
    for modality, rows in model.rows.items():
        processor = embedder.processors[modality]
        of_neighbours, of_equals = processor.neighbour_features(), processor.linear_features()
        if of_neighbours is None or of_equals is None:
            notes.append(
                f"{modality} has no features of its own, so it is compared by the model's vectors; those of rows that it was"
                " trained on hide wrong pairs."
            )
            continue
        values, places = [], []
        for column in samples.schema.columns[modality]:
            single = samples.single_column(modality, column)
            for place, row in enumerate(rows.tolist()):
                value = single[row].values.get(modality)
                if value is not None:
                    values.append(resolve_file_cell(value, samples.base) if processor.reads_files else value)
                    places.append(place)
        for found, transformer in ((views, of_neighbours), (looks, of_equals)):
            found[modality] = _unit_rows(transformer.fit_transform(values), np.array(places), len(rows))
    return RowViews(model.rows, views), RowViews(model.rows, looks), notes


def _unit_rows(features: Any, places: np.ndarray, rows: int) -> torch.Tensor:
    """Add up the features of each row's values, subtract the mean of dense ones, and scale them to unit length."""
    from scipy.sparse import csr_array, issparse
    from sklearn.decomposition import TruncatedSVD

    sums = csr_array((np.ones(len(places)), (places, np.arange(len(places)))), shape=(rows, len(places))) @ features
    if sums.shape[1] > WIDEST and min(sums.shape) > REDUCED:
        sums = TruncatedSVD(REDUCED, random_state=0).fit_transform(sums)
    elif issparse(sums):
        sums = sums.toarray()
    else:
        sums = sums - sums.mean(axis=0)
    return torch.nn.functional.normalize(torch.from_numpy(np.asarray(sums, dtype=np.float32)), dim=1)
