"""Compare runs on the same queries and the same pool, and find the differences that hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError, UsageError, check_names, suggest
from multimodal.core.files import check_folder
from multimodal.core.hardware import fast_device
from multimodal.core.rejects import Rejects
from multimodal.data.run_data import SETTINGS
from multimodal.evaluation.common_rows import keep_common, keep_rows
from multimodal.evaluation.compared_data import ComparedData, load_compared_data
from multimodal.evaluation.comparison import Comparison, CorrectedDifference, PairComparison
from multimodal.evaluation.evaluated import embed_rows
from multimodal.evaluation.intervals import Difference, bootstrap, compare_paired, holm
from multimodal.evaluation.retrieval import (
    MEASURES,
    QueryMeasures,
    Retrieval,
    average_queries,
    retrieval_by_query,
    warn_repeated_vectors,
)

CONFIDENCE = 0.95
# those of Retrieval that are means; the median is reported without a test
TESTED = tuple(name for name in MEASURES if name not in ("median_rank", "queries", "pool"))
EXCHANGES = 10_000  # random exchanges of a test, more where there are more than 100 tests
EXCHANGES_PER_TEST = 100  # so that the smallest corrected p-value is below 0.01
# where each query has one right answer, map is mrr and precision@k is recall@k / k: they are not tested a second time
SAME_WITH_ONE_ANSWER = ("map", "precision@5", "precision@10")


def compare(
    runs: Sequence[str | Path] | Mapping[str, str | Path | Embedder],
    data: Any = None,
    *,
    baseline: str | Path | None = None,
    split: str | list[str] | None = None,
    pool: str | list[str] | None = None,
    out: str | Path | None = None,
    **settings: Any,
) -> Comparison:
    """Measure retrieval by several runs on the same queries and pool, and test which differences hold.

    A difference holds if its p-value is at most 0.05 in a randomization test, in which whole groups of queries exchange the
    runs, after Holm's correction for all runs and directions of the same measure. A row that one of the runs cannot read is
    left out for all.

    Args:
        runs: at least two folders of runs or exported models; or name -> folder or embedder.
        data: a configuration with a ``data:`` section, a table's name, or in Python a ``DataModule``, ``Samples`` or a table
            in memory. None: the runs' data, which must be the same rows.
        baseline: the run that the others are compared with, by its name or folder. None: the first.
        split: split of the queries. None: the data's test split.
        pool: split to search, or "all". None: ``split``.
        out: folder to write ``compare.json``, ``compare.md`` and ``compare.png`` to.
        **settings: keys of ``data:`` that replace the configured ones (``columns``, ``key``, ``group``, ``max_rejects``, ...).

    Returns:
        The measures of each run, and the tested differences.

    Raises:
        MultimodalError: a model or the data cannot be read, or no two runs have a pair of modalities in common.
        UsageError: there are fewer than two runs, one is given twice, their rows differ, or there is no such split.
    """
    check_names("compare", settings, [*SETTINGS, "baseline", "split", "pool", "out"])
    if out is not None:
        check_folder(out)
    named = _named(runs)
    first = next(iter(named)) if baseline is None else str(baseline)
    first = first if first in named else str(Path(first))
    if first not in named:
        raise UsageError(f"The baseline {first!r} is not one of the compared runs.{suggest(first, list(named))}")
    rows_of = load_compared_data(named, data, settings, split, pool)
    measured, notes = _measure(named, rows_of)
    pairs = _compare_pairs(measured, first)
    notes += _gaps(pairs, list(named), first)
    result = Comparison(
        runs=tuple(named),
        baseline=first,
        split=rows_of.split,
        pool=rows_of.pool_split,
        rows=len(rows_of.rows),
        table_rows=len(next(iter(rows_of.samples.values()))),
        confidence=CONFIDENCE,
        pairs=pairs,
        notes=tuple(notes),
    )
    if out is not None:
        result.save(out)
    return result


def _named(runs: Sequence[str | Path] | Mapping[str, str | Path | Embedder]) -> dict[str, Path | Embedder]:
    if isinstance(runs, str | Path | Embedder):
        raise UsageError("compare() takes a list of runs, as compare(['runs/a', 'runs/b']).")
    if not isinstance(runs, Mapping) and any(isinstance(run, Embedder) for run in runs):
        raise UsageError("Embedders need names, as compare({'first': one, 'second': another}, data).")
    items = list(runs.items()) if isinstance(runs, Mapping) else [(str(Path(run)), run) for run in runs]
    named = {name: run if isinstance(run, Embedder) else Path(run) for name, run in items}
    if len(named) < len(items):
        twice = next(name for n, (name, _) in enumerate(items) if name in dict(items[:n]))
        raise UsageError(f"{twice} is given twice; a run is compared with others.")
    if len(named) < 2:
        raise UsageError("A comparison takes at least two runs.")
    return named


@dataclass(frozen=True)
class _Measured:
    """The vectors of a run, kept to what all runs have, and what they find."""

    queries: Embeddings
    pool: Embeddings
    by_query: Mapping[str, QueryMeasures]
    means: Mapping[str, Retrieval]

    def groups(self, pair: str) -> np.ndarray:
        """The group of each measured query."""
        return self.queries.groups_of(pair.partition("->")[0])[self.by_query[pair].queries].numpy()

    def has_one_answer(self, pair: str) -> bool:
        """Whether each query has one right answer in the pool."""
        groups, counts = np.unique(self.pool.groups_of(pair.partition("->")[2]).numpy(), return_counts=True)
        return bool((counts[np.searchsorted(groups, self.groups(pair))] == 1).all())

    def values(self, pair: str) -> dict[str, np.ndarray]:
        """Measure -> its value for each query, of the measures of which the mean is compared."""
        found = self.by_query[pair]
        values = {name: of_measure.numpy() for name, of_measure in found.values.items()}
        return values | {"mean_rank": found.ranks.numpy()}


def _measure(runs: Mapping[str, Path | Embedder], data: ComparedData) -> tuple[dict[str, _Measured], list[str]]:
    """Embed the rows by each run, one model in memory at a time, keep what all can read, and search."""
    notes, embeddings = list(data.notes), {}
    rows = np.union1d(data.rows, data.pool)
    for name, run in runs.items():
        embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
        samples = data.samples[name]
        if not set(embedder.modalities) & set(samples.modalities):
            raise MultimodalError(f"{name} knows {embedder.modalities}, the data have {samples.modalities}.")
        rejects = Rejects(data.max_rejects, len(samples), None, samples.key_of)
        embeddings[name] = embed_rows(embedder, samples, rows, rejects, f"Embedding by {name}").embeddings
        if len(rejects):
            notes.append(f"Left out for all runs, as {name} cannot read them: {rejects.summary()}")
    measured, same = {}, np.array_equal(data.rows, data.pool)
    for name, of_run in keep_common(embeddings).items():
        queries = keep_rows(of_run, data.rows)
        pool = queries if same else keep_rows(of_run, data.pool)
        notes += [f"{name}: {line}" for line in warn_repeated_vectors(pool)]
        by_query = retrieval_by_query(queries, pool)
        measured[name] = _Measured(queries, pool, by_query, average_queries(by_query, pool))
    return measured, notes


def _compare_pairs(measured: Mapping[str, _Measured], baseline: str) -> dict[str, PairComparison]:
    pairs = list(dict.fromkeys(pair for of_run in measured.values() for pair in of_run.means))
    runs_of = {pair: [name for name, of_run in measured.items() if pair in of_run.means] for pair in pairs}
    tests = sum(len(runs) - 1 for runs in runs_of.values() if baseline in runs)  # of each measure
    exchanges = max(EXCHANGES, EXCHANGES_PER_TEST * tests)
    differences, found = {}, {}
    for pair, runs in runs_of.items():
        of_first = measured[runs[0]]
        groups, queries = of_first.groups(pair), of_first.by_query[pair].queries
        assert all(torch.equal(queries, measured[run].by_query[pair].queries) for run in runs)
        values = {run: measured[run].values(pair) for run in runs}
        tested = [name for name in TESTED if not (name in SAME_WITH_ONE_ANSWER and of_first.has_one_answer(pair))]
        differences[pair] = _differences(values, tested, groups, baseline, exchanges)
        intervals = {run: bootstrap(values[run], groups, confidence=CONFIDENCE) for run in runs}
        found[pair] = PairComparison({run: measured[run].means[pair] for run in runs}, intervals)
    for (pair, run, measure), difference in _correct(differences).items():
        found[pair].differences.setdefault(run, {})[measure] = difference
    return found


def _differences(
    values: Mapping[str, Mapping[str, np.ndarray]],
    measures: Sequence[str],
    groups: np.ndarray,
    baseline: str,
    exchanges: int,
) -> dict[tuple[str, str], Difference]:
    """Return (run, measure) -> its difference to the baseline; all are tested by the same random exchanges."""
    others = [run for run in values if run != baseline]
    if baseline not in values or not others:
        return {}
    labels = {f"{n} {measure}": (run, measure) for n, run in enumerate(others) for measure in measures}
    ours = {label: values[baseline][measure] for label, (_, measure) in labels.items()}
    theirs = {label: values[run][measure] for label, (run, measure) in labels.items()}
    found = compare_paired(ours, theirs, groups, confidence=CONFIDENCE, exchanges=exchanges)
    return {labels[label]: difference for label, difference in found.items()}


def _correct(
    differences: Mapping[str, Mapping[tuple[str, str], Difference]],
) -> dict[tuple[str, str, str], CorrectedDifference]:
    """Return (pair, run, measure) -> the difference with its p-value corrected for all runs and pairs of its measure."""
    flat = {(pair, *which): difference for pair, of in differences.items() for which, difference in of.items()}
    corrected = {}
    for measure in TESTED:
        family = [which for which in flat if which[2] == measure]
        for which, p_value in zip(family, holm([flat[w].p_value for w in family]), strict=True):
            corrected[which] = CorrectedDifference(flat[which], p_value, p_value <= 1 - CONFIDENCE + 1e-12)
    return corrected


def _gaps(pairs: Mapping[str, PairComparison], runs: Sequence[str], baseline: str) -> Iterator[str]:
    """Say which directions are not measured or not compared, and why."""
    if not pairs:
        yield "No query has a right answer in the pool: search a pool that contains the groups of the queries."
    for pair, found in pairs.items():
        shown = pair.replace("->", " -> ")
        missing = [run for run in runs if run not in found.retrieval]
        if baseline in missing:
            yield f"{shown} is not compared: {baseline} has no vectors for it."
        elif missing:
            yield f"{shown} is not measured for {', '.join(missing)}: no vectors for it."
