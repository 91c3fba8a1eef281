"""Evaluate a trained space: retrieval between all pairs of modalities next to baselines, and sections that are asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
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
from multimodal.data.run_data import SETTINGS, RunData, load_run_data, load_training_rows
from multimodal.data.samples import Samples, readable_rows
from multimodal.evaluation.evaluated import Evaluated, RowVectors, embed_rows, rows_where
from multimodal.evaluation.fused import check_fusion, fused_name, parse_fusion, with_fused
from multimodal.evaluation.intervals import Interval, bootstrap
from multimodal.evaluation.linear_baseline import TableRows, linear_retrieval
from multimodal.evaluation.look_alikes import highest_recalls
from multimodal.evaluation.projection import Projection, check_projection
from multimodal.evaluation.provenance import Cost
from multimodal.evaluation.report import Report
from multimodal.evaluation.retrieval import (
    QueryMeasures,
    Retrieval,
    average_queries,
    retrieval_by_query,
    warn_repeated_vectors,
)
from multimodal.evaluation.sections import SECTIONS, Section, chosen_sections
from multimodal.evaluation.zero_shot import TEMPLATES, check_templates

BASELINES = ("linear",)
Conditions = Mapping[str, str | Sequence[str] | Mapping[str, Any]]


def evaluate(
    run: str | Path | Embedder,
    data: Any = None,
    *,
    split: str | list[str] | None = None,
    pool: str | list[str] | None = None,
    query_where: Conditions | None = None,
    pool_where: Conditions | None = None,
    fuse: str | Mapping[str, float] | None = None,
    baseline: Literal["linear"] | None = None,
    sections: str | Iterable[str] | None = None,
    label: str | None = None,
    templates: str | Sequence[str] = TEMPLATES,
    slices: str | Sequence[str] = (),
    neighbours: Any = (),
    out: str | Path | None = None,
    projection: Projection = "pca",
    **settings: Any,
) -> Report:
    """Measure retrieval between all ordered pairs of modalities, and the sections that are asked for.

    Args:
        run: folder of a run or of an exported model, or an embedder.
        data: a configuration with a ``data:`` section, a table's name, or in Python a ``DataModule``, ``Samples`` or a table
            in memory. None: the run's data.
        split: split of the queries. None: the data's test split.
        pool: split to search, or "all". None: ``split``.
        query_where: column -> value, several, or a range ``{"gte": 5, "lt": 20}``: the rows of the split that are queries.
            With it or ``pool_where``, search within one modality is measured as well, without the query itself.
        pool_where: column -> value, several, or a range: the rows of the pool that are searched.
        fuse: modalities whose vectors are also searched for as one, as "text+image", or with weights, as
            "text=0.7+image=0.3" or a mapping.
        baseline: "linear" also fits a linear model on the rows that the run was trained on, without those of ``split``, and
            measures it, for modalities with linear features. Where there are no such rows, a note says so.
        sections: further measures by name, or "all"; see ``multimodal.evaluation.sections.SECTIONS``. None: with ``out``
            those that are quick, else none.
        label: a column of classes, of which clusters, classifiers, retrieval and zero-shot classification by texts are
            measured.
        templates: texts that describe a class, like "a photo of a {}", for zero-shot classification.
        slices: columns by whose values retrieval is measured.
        neighbours: tables of nearest-neighbour tests, see ``multimodal.evaluation.neighbour_tests``.
        out: folder to write the files of ``Report.save`` and ``rejects.jsonl`` (rows that cannot be read) to.
        projection: how the report's map of the space is made, "pca" or "umap" (which needs the extra ``umap``).
        **settings: keys of ``data:`` that replace the configured ones (``columns``, ``key``, ``group``, ``max_rejects``, ...).

    Returns:
        The measures of the model and of the baselines.

    Raises:
        MultimodalError: the model or the data cannot be read, or they have no pair of modalities in common.
        UsageError: there is no such split, baseline, section, projection or column, an embedder is given without data, settings
            are given for a ``DataModule`` or ``Samples``, or ``out`` is a file.
    """
    start = time.monotonic()
    own = ["pool", "query_where", "pool_where", "fuse", "baseline", "sections", "label", "templates", "slices"]
    check_names("evaluate", settings, [*SETTINGS, *own, "neighbours", "out", "projection"])
    if baseline is not None and baseline not in BASELINES:
        raise UsageError(f"There is no baseline {baseline!r}.{suggest(baseline, list(BASELINES))}")
    check_projection(projection)
    if out is not None:
        check_folder(out)
    templates, slices = ([v] if isinstance(v, str) else v for v in (templates, slices))
    check_templates(templates)
    weights = parse_fusion(fuse) if isinstance(fuse, str) else fuse
    tests = [neighbours] if isinstance(neighbours, str | Path) else list(neighbours)
    of_sections: dict[str, Any] = {"label": label, "templates": templates, "slices": slices, "neighbours": tests}
    chosen = chosen_sections(sections, [name for name, value in of_sections.items() if value], out is not None)
    folder = None if isinstance(run, Embedder) else Path(run)
    embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
    of_run = load_run_data(folder, data, settings)
    samples = of_run.samples
    for column in (*slices, *([] if label is None else [label])):
        samples.texts(column, [])  # is there such a column?
    split = split or of_run.test_split
    rows = samples.rows(split)
    searched = rows if pool is None else samples.rows(pool)
    rows, searched = (rows_where(samples, r, where or {}) for r, where in ((rows, query_where), (searched, pool_where)))
    modalities = [m for m in embedder.modalities if m in samples.modalities]
    if len(modalities) < 2:
        raise MultimodalError(f"The model knows {embedder.modalities}, the data have {samples.modalities}: no pair.")
    if weights is not None:
        check_fusion(weights, modalities)
    notes: list[str] = []
    if of_run.missing_group is not None:
        notes.append(
            f"The run groups its rows by the column {of_run.missing_group!r}, which the table {samples.name!r} does not have:"
            " each row is its own group, and no other row is a right answer to it. Name the column: --group COLUMN."
        )
    fits = baseline is not None or "space" in chosen or label is not None
    training = _training_rows(folder, of_run, rows, notes, required=baseline is not None) if fits else None
    rejects_path = None if out is None else Path(out) / REJECTS
    if rejects_path is not None:
        rejects_path.unlink(missing_ok=True)  # from an earlier evaluation
    rejects = Rejects(of_run.max_rejects, len(samples), rejects_path, samples.key_of)
    queries = embed_rows(embedder, samples, rows, rejects)
    is_own_pool = np.array_equal(searched, rows)
    candidates = queries if is_own_pool else embed_rows(embedder, samples, searched, rejects, "Embedding the pool")
    notes += warn_repeated_vectors(candidates.embeddings)
    baselines: dict[str, Mapping[str, Retrieval]] = {}
    if baseline is not None and training is not None:
        parts = [training, (samples, rows), *([] if is_own_pool else [(samples, searched)])]
        baselines[baseline] = _linear_baseline(embedder, modalities, parts, notes)
    if len(rejects):
        notes.append(rejects.summary())
    apart = query_where is not None or pool_where is not None
    by_query, pairs = _measure_retrieval(queries, candidates, weights, within=apart)
    highest = highest_recalls(queries.embeddings, queries.digests, candidates.embeddings, candidates.digests)
    if not pairs:
        notes.append("No query has a right answer in the pool: search a pool that contains the groups of the queries.")
    of_sections["split"] = split
    evaluated = Evaluated(embedder, queries, candidates, by_query, training, of_sections, notes, weights)
    measured, left_out = _measure_sections(evaluated, chosen, named=sections is not None)  # adds notes
    report = Report(
        run="embedder" if folder is None else str(run),
        split=split,
        pool=pool or split,
        query_where=_as_given(query_where or {}),
        pool_where=_as_given(pool_where or {}),
        seed=of_run.seed,
        pairs=pairs,
        baselines=baselines,
        train_split=of_run.train_split,
        rows=len(rows),
        table_rows=len(samples),
        highest_recall_at_1={pair: highest[pair] for pair in pairs if pair in highest},
        intervals={pair: _intervals(evaluated.searched_for, pair, found) for pair, found in by_query.items()},
        sections=measured,
        left_out=left_out,
        notes=tuple(notes),
        evaluated=evaluated,
        projection=projection,
        cost=Cost.since(start),
    )
    if out is not None:
        report.save(out)
    return report


def _as_given(where: Conditions) -> dict[str, list[str] | dict[str, Any]]:
    """Return conditions with values as lists of texts, and ranges as they are."""
    return {
        column: dict(wanted)
        if isinstance(wanted, Mapping)
        else [wanted]
        if isinstance(wanted, str)
        else [str(value) for value in wanted]
        for column, wanted in where.items()
    }


def _measure_retrieval(
    queries: RowVectors, candidates: RowVectors, weights: Mapping[str, float] | None, within: bool
) -> tuple[dict[str, QueryMeasures], dict[str, Retrieval]]:
    """Measure each pair of modalities, the fused queries, and if asked for, search within each modality."""
    searched_for, searched = queries.embeddings, candidates.embeddings
    pairs = list(permutations(searched_for.modalities, 2))
    if within:
        pairs += [(m, m) for m in searched_for.modalities]
    if weights is not None:
        pairs += [(fused_name(list(weights)), m) for m in searched_for.modalities if m not in weights]
        searched_for = with_fused(searched_for, weights)
    by_query = retrieval_by_query(searched_for, searched, pairs)
    return by_query, average_queries(by_query, searched)


def _measure_sections(
    evaluated: Evaluated, chosen: Sequence[str], named: bool
) -> tuple[dict[str, Section], dict[str, str]]:
    """Measure sections, and return them and why others are left out; one that was named raises its error."""
    found: dict[str, Section] = {}
    left_out: dict[str, str] = {}
    for name in chosen:
        try:
            with progress(f"Measuring {name}"):
                found[name] = SECTIONS[name].measure(evaluated)
        except UsageError as error:
            if named or SECTIONS[name].needs is not None:
                raise
            left_out[name] = str(error)
            continue
        evaluated.notes += getattr(found[name], "notes", ())
    return found, left_out


def _linear_baseline(
    embedder: Embedder, modalities: Sequence[str], parts: Sequence[tuple[Samples, np.ndarray]], notes: list[str]
) -> Mapping[str, Retrieval]:
    """Fit the linear baseline on the first of the rows, and measure it on the others."""
    known = {m: embedder.processors[m] for m in modalities if m in parts[0][0].modalities}
    with progress("Fitting the linear baseline"):
        train, *tables = [TableRows(*readable_rows(samples, rows, known)) for samples, rows in parts]
        return linear_retrieval(train, *tables, processors=known, on_skipped_pair=notes.append)


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


def _intervals(queries: Embeddings, pair: str, found: QueryMeasures) -> dict[str, Interval]:
    groups = queries.groups_of(pair.partition("->")[0])[found.queries]
    return bootstrap({name: values.cpu().numpy() for name, values in found.values.items()}, groups.cpu().numpy())
