"""Fit maps from a new model's queries to an old model's space on anchors, choose by held-out anchors, and measure.

1. ``encode_anchors`` encodes some rows of a table with both models.
2. ``fit_query_map`` divides the rows at random, whole groups at a time: maps are fitted to the first part, chosen by the recall
   of the second, and measured on the third.
3. A ``MapReport`` says what searches find: the old model, the new one unmapped and mapped in the old index, and the new one in
   an index of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.errors import UsageError
from multimodal.evaluation.intervals import Interval, bootstrap
from multimodal.monitor.query_map import VectorMap, linear, mlp, orthogonal

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder
    from multimodal.data.samples import Samples

Vectors = dict[str, np.ndarray]  # modality -> (n, dim)
FITTED, CHOSEN_BY = 0.6, 0.2  # shares of the anchors; the others are measured on
RIDGES = (1e-4, 1e-3, 1e-2)
K = 10
LEAST = 20  # groups to measure on
ALL = "all"  # the scope of a map that is fitted to the anchors of all modalities


@dataclass(frozen=True)
class Anchors:
    """The vectors of some rows by two models; in each modality, row i of both has the same value.

    Attributes:
        old: modality -> ``(n, d_old)`` float32.
        new: modality -> ``(n, d_new)`` float32.
        rows: modality -> ``(n,)`` int64, the row that each vector is of.
        groups: ``(rows,)`` int64; rows of equal group match.

    Examples:
        >>> row = np.arange(2)
        >>> Anchors({"text": np.eye(2)}, {"text": np.eye(2, 3)}, {"text": row}, row).groups_of("text")
        array([0, 1])
    """

    old: Vectors
    new: Vectors
    rows: dict[str, np.ndarray]
    groups: np.ndarray

    def groups_of(self, modality: str) -> np.ndarray:
        """Return the group of each vector of a modality."""
        return self.groups[self.rows[modality]]


@dataclass(frozen=True)
class MapMeasures:
    """What the held-out queries of one modality find among the anchors' vectors of the others: their recall@10.

    Attributes:
        modality: the modality of the queries.
        kind: of the chosen map: "orthogonal", "linear" or "mlp".
        scope: the modality to whose anchors it was fitted, or "all".
        old: the old model, among its own vectors.
        unmapped: the new model's queries among the old model's vectors. None: the widths differ.
        mapped: the same queries after the map.
        new: the new model, among its own vectors.

    Examples:
        >>> good, none = Interval(0.8, 0.7, 0.9), Interval(0.0, 0.0, 0.1)
        >>> MapMeasures("text", "linear", "all", old=good, unmapped=none, mapped=good, new=good).mapped.mean
        0.8
    """

    modality: str
    kind: str
    scope: str
    old: Interval
    unmapped: Interval | None
    mapped: Interval
    new: Interval


@dataclass(frozen=True)
class MapReport:
    """How good mapped queries are, and whether they are good enough.

    Attributes:
        measures: those of each modality of queries.
        stored: the number of anchors that are searched.
        queries: the number of those that are searched with.
        min_recall: the fraction of the old model's recall that each modality has to reach.

    Examples:
        >>> old, poor, mapped = Interval(0.8, 0.7, 0.9), Interval(0.0, 0.0, 0.1), Interval(0.76, 0.7, 0.8)
        >>> report = MapReport((MapMeasures("text", "linear", "all", old, poor, mapped, old),), 1000, 200, min_recall=0.9)
        >>> report.accepted
        True
        >>> report
        recall@10 of 200 held-out rows among 1,000:
        queries  map               old model             unmapped              mapped                new model
        text     linear, of all    0.800 (0.700, 0.900)  0.000 (0.000, 0.100)  0.760 (0.700, 0.800)  0.800 (0.700, 0.900)
    """

    measures: tuple[MapMeasures, ...]
    stored: int
    queries: int
    min_recall: float

    @property
    def refused(self) -> list[str]:
        """The modalities whose mapped queries find too little."""
        return [m.modality for m in self.measures if m.mapped.mean < self.min_recall * m.old.mean]

    @property
    def accepted(self) -> bool:
        """Whether the mapped queries of every modality reach the bound."""
        return not self.refused

    def __repr__(self) -> str:
        head = ("queries", "map", "old model", "unmapped", "mapped", "new model")
        lines = [
            (m.modality, f"{m.kind}, of {m.scope}", *map(_cell, (m.old, m.unmapped, m.mapped, m.new)))
            for m in self.measures
        ]
        first = max(len(line[0]) for line in [head, *lines]) + 2
        second = max(18, max(len(line[1]) for line in lines) + 2)
        table = [
            f"{line[0]:{first}}{line[1]:{second}}" + "".join(f"{c:22}" for c in line[2:]) for line in (head, *lines)
        ]
        title = f"recall@{K} of {self.queries:,} held-out rows among {self.stored:,}:"
        return "\n".join([title, *(line.rstrip() for line in table)])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self) | {"accepted": self.accepted}


def _cell(interval: Interval | None) -> str:
    return "other width" if interval is None else f"{interval.mean:.3f} ({interval.low:.3f}, {interval.high:.3f})"


def encode_anchors(
    old: Embedder, new: Embedder, samples: Samples, rows: np.ndarray, advance: Callable[[int], object]
) -> Anchors:
    """Encode rows of a table with two models; rows that one of them cannot read are left out.

    Args:
        old: the old model.
        new: the new model.
        samples: the table.
        rows: ``(r,)`` row numbers.
        advance: called with the number of vectors that are done.

    Raises:
        UsageError: the models and the table have no modality in common.
    """
    from multimodal.data.samples import readable_rows

    shared = [m for m in samples.modalities if m in old.modalities and m in new.modalities]
    if not shared:
        raise UsageError("The two models and the table have no modality in common.")
    readable = [row for row in rows.tolist() if all(_reads(samples, row, model, shared) for model in (old, new))]
    values, labels = readable_rows(samples, np.array(readable, np.int64), {m: new.processors[m] for m in shared})
    found: dict[str, Vectors] = {"old": {}, "new": {}}
    has: dict[str, np.ndarray] = {}
    for modality in shared:
        present = [number for number, value in enumerate(values[modality]) if value is not None]
        if not present:
            continue
        has[modality] = np.array(present, np.int64)
        given: dict[str, Any] = {modality: [values[modality][number] for number in present]}
        for name, model in (("old", old), ("new", new)):
            found[name][modality] = model.encode(**given)
            advance(len(present))
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return Anchors(found["old"], found["new"], has, np.array([numbers[label] for label in labels], np.int64))


def _reads(samples: Samples, row: int, model: Embedder, modalities: list[str]) -> bool:
    from multimodal.core.rejects import Reject

    return not any(isinstance(p, Reject) for p in samples.items(row, {m: model.processors[m] for m in modalities}))


def fit_query_map(anchors: Anchors, min_recall: float, seed: int = 0) -> tuple[dict[str, VectorMap], MapReport]:
    """Fit, choose and measure a map for the queries of each modality.

    For each modality, orthogonal, linear and MLP maps are fitted to its own anchors and to those of all modalities; chosen is
    the one whose queries of the second part of the rows find most, the simplest of equal ones.

    Args:
        anchors: the vectors of both models.
        min_recall: fraction of the old model's recall that mapped queries have to reach, in [0, 1].
        seed: of the division of the rows.

    Returns:
        Modality -> its map, and what it finds.

    Raises:
        UsageError: there are too few groups, or no row has a match to measure by.
    """
    drawn = np.random.default_rng(seed).permutation(anchors.groups.max() + 1)
    fitted, chosen_by, measured = np.split(
        drawn, [round(FITTED * len(drawn)), round((FITTED + CHOSEN_BY) * len(drawn))]
    )
    if len(measured) < LEAST:
        raise UsageError(f"{len(drawn):,} groups of rows are too few to fit a map, choose it and measure it.")

    def taken(modality: str, groups: np.ndarray) -> np.ndarray:
        return np.isin(anchors.groups_of(modality), groups)

    new_of_all, old_of_all = (
        np.concatenate([vectors[taken(m, fitted)] for m, vectors in of_model.items()])
        for of_model in (anchors.new, anchors.old)
    )
    of_all = _candidates(new_of_all, old_of_all)
    maps: dict[str, VectorMap] = {}
    measures = []
    for modality, new in anchors.new.items():
        chosen = taken(modality, fitted)
        own = _candidates(new[chosen], anchors.old[modality][chosen])
        tried = [(ALL, each) for each in of_all] + [(modality, each) for each in own]
        asked = taken(modality, chosen_by)
        recalls = [_recall(anchors, modality, each(new[asked]), asked, anchors.old, seed).mean for _, each in tried]
        scope, best = tried[int(np.argmax(recalls))]
        maps[modality], asked = best, taken(modality, measured)
        old = anchors.old[modality]
        measures.append(
            MapMeasures(
                modality,
                best.kind,
                scope,
                _recall(anchors, modality, old[asked], asked, anchors.old, seed),
                _recall(anchors, modality, new[asked], asked, anchors.old, seed)
                if new.shape[1] == old.shape[1]
                else None,
                _recall(anchors, modality, best(new[asked]), asked, anchors.old, seed),
                _recall(anchors, modality, new[asked], asked, anchors.new, seed),
            )
        )
    queries = int(np.isin(anchors.groups, measured).sum())
    return maps, MapReport(tuple(measures), len(anchors.groups), queries, min_recall)


def _candidates(new: np.ndarray, old: np.ndarray) -> list[VectorMap]:
    """Fit maps of each kind, the simplest first."""
    return [orthogonal(new, old), *(linear(new, old, ridge) for ridge in RIDGES), mlp(new, old)]


def _recall(
    anchors: Anchors, modality: str, queries: np.ndarray, asked: np.ndarray, stored: Mapping[str, np.ndarray], seed: int
) -> Interval:
    """Return the recall@10 of queries among the vectors of the other modalities, the mean over these.

    If there is no other modality, a query searches the vectors of its own, without itself.
    """
    import torch

    from multimodal.evaluation.ranking import rankings, without_itself

    groups = anchors.groups_of(modality)[asked]
    found, answered = np.zeros(len(queries)), np.zeros(len(queries))
    others = [name for name in stored if name != modality]
    for name in others or [modality]:
        ignored = None if others else without_itself(torch.from_numpy(np.flatnonzero(asked)), len(asked))
        of, to = (torch.from_numpy(np.ascontiguousarray(vectors)) for vectors in (queries, stored[name]))
        of_groups, to_groups = (torch.from_numpy(labels) for labels in (groups, anchors.groups_of(name)))
        for ranking in rankings(of, to, of_groups, to_groups, ignored):
            numbers = ranking.queries.numpy()
            found[numbers] += (ranking.ranks[:, 0] <= K).numpy()
            answered[numbers] += 1
    if not answered.any():
        raise UsageError(f"No row has a match of its {modality} among the others, so the map cannot be measured.")
    kept = answered > 0
    return bootstrap({"recall": found[kept] / answered[kept]}, groups[kept], seed=seed)["recall"]
