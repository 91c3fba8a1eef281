"""Whether a refined model is accepted: it must be better on judged queries, and not worse on anything else that is measured.

Each criterion is a difference of the new model to the old one on the same queries and the same pool, with a paired bootstrap
interval in which whole groups are drawn. "Better": the lower end of the interval is above 0. "Not worse": it is above minus a
tolerance. Of the test, the mean over all directions (text to image, image to text, ...) has to be not worse: with several
directions, the lower end of one of them is often low by chance. Each direction may fall by twice the tolerance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.rejects import Rejects
from multimodal.data.samples import Samples
from multimodal.evaluation.evaluated import embed_rows
from multimodal.evaluation.intervals import bootstrap
from multimodal.evaluation.retrieval import retrieval_by_query
from multimodal.monitor.canary import Canary, run_canaries
from multimodal.monitor.refine_table import JudgedPair
from multimodal.search.embed import embed_in_memory
from multimodal.search.engines.engine import ITEM_SCHEMA
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.index import Index

CONFIDENCE = 0.95
MEASURE = "mrr"
JUDGED, TEST = "judged queries", "test"
DEPTH = 100  # of a search for a judged query


@dataclass(frozen=True)
class Criterion:
    """A measure of both models on the same queries.

    Attributes:
        name: what is measured.
        queries: number of queries.
        old, new: means of the models.
        low, high: 95 % interval of the difference, new minus old.
        least: the lower end has to be above this.

    Examples:
        >>> Criterion("test text->image", 200, old=0.50, new=0.51, low=-0.005, high=0.02, least=-0.02)
        test text->image: 0.500 -> 0.510, difference +0.010 [-0.005, +0.020] over 200 queries: passed
    """

    name: str
    queries: int
    old: float
    new: float
    low: float
    high: float
    least: float

    @property
    def passed(self) -> bool:
        """Whether the lower end of the interval is high enough."""
        return self.low > self.least

    def __repr__(self) -> str:
        verdict = "passed" if self.passed else f"failed, the lower end is not above {self.least:g}"
        interval = f"difference {self.new - self.old:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.name}: {self.old:.3f} -> {self.new:.3f}, {interval} over {self.queries:,} queries: {verdict}"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers and the verdict."""
        return vars(self) | {"passed": self.passed}


def compare_values(name: str, old: np.ndarray, new: np.ndarray, groups: np.ndarray, least: float) -> Criterion:
    """Compare two models by a measure of each query.

    Args:
        name: what is measured.
        old, new: ``(q,)``, the value of each query, q at least 1.
        groups: ``(q,)``, the group of each query.
        least: see ``Criterion``.

    Examples:
        >>> compare_values("judged queries", np.zeros(30), np.ones(30), np.arange(30), least=0.0).passed
        True
    """
    interval = bootstrap({MEASURE: np.asarray(new, float) - old}, groups, confidence=CONFIDENCE)[MEASURE]
    return Criterion(name, len(old), float(np.mean(old)), float(np.mean(new)), interval.low, interval.high, least)


@dataclass(frozen=True)
class HeldOut:
    """What both models are measured on.

    Attributes:
        samples: the table.
        judged: judged queries that the new model was not trained on.
        test: ``(t,)`` numbers of rows that neither model was trained on.
        pool: ``(p,)`` numbers of rows that are searched by judged queries and canaries.
        canaries: queries whose hits are known.
        max_rejects: fraction of the rows that may be unreadable.
    """

    samples: Samples
    judged: Sequence[JudgedPair]
    test: np.ndarray
    pool: np.ndarray
    canaries: Sequence[Canary]
    max_rejects: float


@dataclass(frozen=True)
class Measured:
    """The measures of one model: name of a criterion -> the value of each query, and its groups."""

    values: Mapping[str, np.ndarray]
    groups: Mapping[str, np.ndarray]


def measure_model(embedder: Embedder, held_out: HeldOut) -> Measured:
    """Measure a model on what is held out: reciprocal ranks, and which canaries pass.

    Args:
        embedder: the model.
        held_out: the queries and the rows.
    """
    values, groups = {}, {}
    samples = held_out.samples
    if len(held_out.test):
        rejects = Rejects(held_out.max_rejects, len(samples), None, samples.key_of)
        tested = embed_rows(embedder, samples, held_out.test, rejects, "Embedding the test").embeddings
        of_rows: dict[int, list[float]] = defaultdict(list)  # row -> its measure in each direction
        for pair, found in retrieval_by_query(tested).items():
            modality = pair.partition("->")[0]
            values[f"{TEST} {pair}"] = found.values[MEASURE].numpy()
            groups[f"{TEST} {pair}"] = tested.groups_of(modality)[found.queries].numpy()
            for row, value in zip(tested.rows[modality][found.queries].tolist(), values[f"{TEST} {pair}"], strict=True):
                of_rows[row].append(float(value))
        if of_rows:
            values[TEST] = np.array([np.mean(of_row) for of_row in of_rows.values()])
            groups[TEST] = samples.group_numbers[[int(tested.keys[row]) for row in of_rows]]
    index = index_of_rows(embedder, _searched(held_out), held_out.pool, held_out.max_rejects)
    if held_out.judged:
        values[JUDGED] = judged_ranks(index, samples, held_out.judged)
        groups[JUDGED] = samples.group_numbers[[pair.row for pair in held_out.judged]]
    if held_out.canaries:
        values["canaries"] = run_canaries(index, list(held_out.canaries)).passed.astype(float)
        groups["canaries"] = np.arange(len(held_out.canaries))
    return Measured(values, groups)


def _searched(held_out: HeldOut) -> Samples:
    """Return the samples with the modalities that are searched: without canaries, those of judged hits."""
    samples, targets = held_out.samples, {pair.target for pair in held_out.judged}
    if held_out.canaries or not targets <= set(samples.modalities):
        return samples
    columns = {modality: samples.schema.columns[modality] for modality in sorted(targets)}
    return replace(samples, table=samples._table, schema=replace(samples.schema, columns=columns))


def index_of_rows(embedder: Embedder, samples: Samples, rows: np.ndarray, max_rejects: float) -> Index:
    """Embed some rows of a table and index them, in memory.

    Args:
        embedder: the model.
        samples: the table.
        rows: ``(r,)`` row numbers.
        max_rejects: fraction of the table's rows that may be unreadable.
    """
    engine = ExactEngine(np.empty((0, embedder.dim), np.float32), ITEM_SCHEMA.empty_table())
    engine.upsert([embed_in_memory(embedder, samples, rows, max_rejects)[1]])
    return Index(engine, embedder.fingerprint, samples.settings, embedder)


def judged_ranks(index: Index, samples: Samples, pairs: Sequence[JudgedPair], k: int = DEPTH) -> np.ndarray:
    """Return 1 / rank of the right group of each judged query, ``(n,)``; 0 where it is not among the first k hits.

    Args:
        index: what is searched, of the modality in which the query was judged.
        samples: the table.
        pairs: judged queries with their rows.
        k: depth of the search.
    """
    found = np.zeros(len(pairs))
    for modality, target in sorted({(pair.modality, pair.target) for pair in pairs}):
        numbers = [n for n, pair in enumerate(pairs) if (pair.modality, pair.target) == (modality, target)]
        values = [pairs[n].value for n in numbers]
        vectors = index.need_model().encode(batch_size=256, precision="float32", **{modality: values})
        for n, hits in zip(
            numbers, index.search(vectors, k, target if target in index.modalities else None), strict=True
        ):
            group = samples.group_of(pairs[n].row)
            places = (
                place for place, hit in enumerate(hits, 1) if samples.group_of(samples.rows_by_key[hit.key]) == group
            )
            found[n] = 1 / next(places, np.inf)
    return found


def judge(old: Measured, new: Measured, tolerance: float) -> list[Criterion]:
    """Compare the measures of both models.

    Args:
        old, new: of ``measure_model``.
        tolerance: how much worse, at most, the lower end of an interval may be, in [0, 1].
    """

    def least(name: str) -> float:
        return 0.0 if name == JUDGED else -2 * tolerance if name.startswith(f"{TEST} ") else -tolerance

    return [
        compare_values(name, old.values[name], values, new.groups[name], least(name))
        for name, values in new.values.items()
    ]
