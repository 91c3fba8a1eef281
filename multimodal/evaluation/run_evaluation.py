"""Evaluate a trained space: retrieval between all pairs of modalities next to baselines, its shape, and its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError, UsageError, check_names, suggest
from multimodal.core.files import check_folder
from multimodal.core.hardware import fast_device
from multimodal.core.progress import progress
from multimodal.core.rejects import Rejects
from multimodal.core.run_folder import REJECTS
from multimodal.data.loaders import ProcessedSamples, loader_in_order
from multimodal.data.run_data import SETTINGS, RunData, load_run_data, load_training_rows
from multimodal.data.samples import Samples, readable_rows
from multimodal.evaluation.class_measures import ClassMeasures, Labelled
from multimodal.evaluation.geometry import modality_means
from multimodal.evaluation.intervals import Interval, bootstrap
from multimodal.evaluation.linear_baseline import TableRows, linear_retrieval
from multimodal.evaluation.look_alikes import DigestedSamples, highest_recalls
from multimodal.evaluation.report import Report
from multimodal.evaluation.retrieval import (
    QueryMeasures,
    Retrieval,
    average_queries,
    retrieval_by_query,
    warn_repeated_vectors,
)
from multimodal.evaluation.space import Space
from multimodal.evaluation.zero_shot import TEMPLATES, check_templates, class_vectors

BASELINES = ("linear",)
PROMPTED = "text"  # the modality of the texts that describe classes
BATCH = 256  # rows embedded at a time; affects the speed, not the results
ROWS_FOR_MEANS = 2_000  # drawn from the training split, for the mean of each modality
ROWS_FOR_CLASSIFIERS = 10_000


def evaluate(
    run: str | Path | Embedder,
    data: Any = None,
    *,
    split: str | list[str] | None = None,
    pool: str | list[str] | None = None,
    baseline: Literal["linear"] | None = None,
    space: bool = False,
    label: str | None = None,
    templates: Sequence[str] = TEMPLATES,
    out: str | Path | None = None,
    **settings: Any,
) -> Report:
    """Measure retrieval between all ordered pairs of modalities, and if asked for, the space's shape and its classes.

    Args:
        run: folder of a run or of an exported model, or an embedder.
        data: a configuration with a ``data:`` section, a table's name, or in Python a ``DataModule``, ``Samples`` or a table
            in memory. None: the run's data.
        split: split of the queries. None: the data's test split.
        pool: split to search, or "all". None: ``split``.
        baseline: "linear" also fits a linear model on the rows that the run was trained on, without those of ``split``, and
            measures it, for modalities with linear features. Where there are no such rows, a note says so.
        space: whether to measure the shape of the space: how it is used, hubs, the modality gap, and a search in which all
            modalities compete, before and after each modality's mean over training rows is subtracted.
        label: a column of classes, of which clusters, classifiers and zero-shot classification by texts are measured.
        templates: texts that describe a class, like "a photo of a {}", for zero-shot classification.
        out: folder to write ``metrics.json``, ``metrics.md``, ``retrieval.png`` and ``rejects.jsonl`` (rows that cannot be
            read) to.
        **settings: keys of ``data:`` that replace the configured ones (``columns``, ``key``, ``group``, ``max_rejects``, ...).

    Returns:
        The measures of the model and of the baselines.

    Raises:
        MultimodalError: the model or the data cannot be read, or they have no pair of modalities in common.
        UsageError: there is no such split, baseline or column, an embedder is given without data, settings are given for a
            ``DataModule`` or ``Samples``, or ``out`` is a file.
    """
    check_names("evaluate", settings, [*SETTINGS, "pool", "baseline", "space", "label", "templates", "out"])
    if baseline is not None and baseline not in BASELINES:
        raise UsageError(f"There is no baseline {baseline!r}.{suggest(baseline, list(BASELINES))}")
    if out is not None:
        check_folder(out)
    templates = [templates] if isinstance(templates, str) else templates
    check_templates(templates)
    folder = None if isinstance(run, Embedder) else Path(run)
    embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
    of_run = load_run_data(folder, data, settings)
    samples = of_run.samples
    if label is not None:
        samples.texts(label, [])  # is there such a column?
    split = split or of_run.test_split
    rows = samples.rows(split)
    modalities = [m for m in embedder.modalities if m in samples.modalities]
    if len(modalities) < 2:
        raise MultimodalError(f"The model knows {embedder.modalities}, the data have {samples.modalities}: no pair.")
    searched = None if pool is None else samples.rows(pool)
    if searched is not None and np.array_equal(searched, rows):
        searched = None  # the queries are the pool
    notes: list[str] = []
    fits = baseline is not None or space or label is not None
    training = _training_rows(folder, of_run, rows, notes, required=baseline is not None) if fits else None
    embedded = rows if searched is None else np.concatenate([rows, searched])
    rejects_path = None if out is None else Path(out) / REJECTS
    if rejects_path is not None:
        rejects_path.unlink(missing_ok=True)  # from an earlier evaluation
    rejects = Rejects(of_run.max_rejects, len(samples), rejects_path, samples.key_of)
    processors = {m: embedder.processors[m] for m in modalities}
    by_number = samples.keyed_by_number()  # the key of an embedding is then its row number
    data_of_queries = DigestedSamples(by_number, processors)
    data_of_pool = data_of_queries if searched is None else DigestedSamples(by_number, processors)
    with progress("Embedding", len(embedded)) as advance:
        queries = pool_vectors = embedder.embed_all(loader_in_order(data_of_queries, rows, BATCH, rejects), advance)
        if searched is not None:
            pool_vectors = embedder.embed_all(loader_in_order(data_of_pool, searched, BATCH, rejects), advance)
    notes += warn_repeated_vectors(pool_vectors)
    baselines: dict[str, Mapping[str, Retrieval]] = {}
    if baseline is not None and training is not None:
        known = {m: processor for m, processor in processors.items() if m in training[0].modalities}
        with progress("Fitting the linear baseline"):
            train, *tables = [
                TableRows(*readable_rows(of_part, part, known))
                for of_part, part in (
                    training,
                    (samples, rows),
                    *([] if searched is None else [(samples, searched)]),
                )
            ]
            baselines[baseline] = linear_retrieval(train, *tables, processors=known, on_skipped_pair=notes.append)
    if len(rejects):
        notes.append(rejects.summary())
    by_query = retrieval_by_query(queries, pool_vectors)
    pairs = average_queries(by_query, pool_vectors)
    highest = highest_recalls(queries, data_of_queries.digests, pool_vectors, data_of_pool.digests)
    if not pairs:
        notes.append("No query has a right answer in the pool: search a pool that contains the groups of the queries.")
    fitting = shape = classes = None
    if training is not None and (space or label is not None):
        fitting = _embed_training_rows(embedder, training, ROWS_FOR_MEANS if label is None else ROWS_FOR_CLASSIFIERS)
    if space:
        with progress("Measuring the space"):
            shape = Space.of(queries, None if fitting is None else modality_means(fitting.embeddings))
    if label is not None:
        with progress(f"Measuring the classes of {label}"):
            measured = Labelled(queries, samples.texts(label, map(int, queries.keys)))
            classes = _measure_classes(embedder, label, measured, fitting, templates, notes)
        notes += classes.notes
    report = Report(
        run="embedder" if folder is None else str(run),
        split=split,
        pool=pool or split,
        seed=of_run.seed,
        pairs=pairs,
        baselines=baselines,
        train_split=of_run.train_split,
        rows=len(rows),
        table_rows=len(samples),
        notes=tuple(notes),
        highest_recall_at_1={pair: highest[pair] for pair in pairs},
        intervals={pair: _intervals(queries, pair, found) for pair, found in by_query.items()},
        space=shape,
        classes=classes,
    )
    if out is not None:
        report.save(out)
    return report


def _training_rows(
    run: Path | None, data: RunData, measured: np.ndarray, notes: list[str], required: bool
) -> tuple[Samples, np.ndarray] | None:
    """Return the rows to fit baselines and classifiers on, none of which is measured; None, with a note, if there are none."""
    try:
        samples, rows = load_training_rows(run, data)
    except MultimodalError as error:
        if required and not data.is_another_table:
            raise
        notes.append(
            f"Baseline, means and classifiers are left out, as the rows that the model was trained on cannot be read: {error}"
        )
        return None
    if samples is data.samples:
        rows = np.setdiff1d(rows, measured)
    if not len(rows):
        notes.append(
            "Baseline, means and classifiers are left out: all rows that the model was trained on are evaluated."
        )
        return None
    return samples, rows


@dataclass(frozen=True)
class _Fitting:
    """Vectors of training rows, for what is fitted; their keys are row numbers of the samples."""

    samples: Samples
    embeddings: Embeddings


def _embed_training_rows(embedder: Embedder, training: tuple[Samples, np.ndarray], most: int) -> _Fitting:
    samples, rows = training
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    processors = {m: embedder.processors[m] for m in embedder.modalities if m in samples.modalities}
    data = ProcessedSamples(samples.keyed_by_number(), processors)
    with progress("Embedding training rows", len(rows)) as advance:
        rejects = Rejects(1.0, len(rows))  # training counted and reported them
        return _Fitting(samples, embedder.embed_all(loader_in_order(data, rows, BATCH, rejects), advance))


def _measure_classes(
    embedder: Embedder,
    label: str,
    measured: Labelled,
    fitting: _Fitting | None,
    templates: Sequence[str],
    notes: list[str],
) -> ClassMeasures:
    train = None
    if fitting is not None:
        try:
            train = Labelled(fitting.embeddings, fitting.samples.texts(label, map(int, fitting.embeddings.keys)))
        except UsageError as error:
            notes.append(f"Classifiers are left out: {error}")
    known = [labelled.labels for labelled in (measured, train) if labelled is not None]
    names = sorted({name for labels in known for name in labels if name is not None})
    prompts = None
    if PROMPTED not in embedder.modalities:
        notes.append(f"Zero-shot classification is left out: the model has no modality {PROMPTED!r}.")
    if PROMPTED in embedder.modalities and len(names) > 1:
        prompts = PROMPTED, class_vectors(embedder, names, templates, PROMPTED), names
    return ClassMeasures.of(label, measured, train, prompts)


def _intervals(queries: Embeddings, pair: str, found: QueryMeasures) -> dict[str, Interval]:
    groups = queries.groups_of(pair.partition("->")[0])[found.queries]
    return bootstrap({name: values.cpu().numpy() for name, values in found.values.items()}, groups.cpu().numpy())
