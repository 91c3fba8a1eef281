"""Retrieval by classes: whether what is found is at least of the query's class, and the same item first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.ranking import rankings
from multimodal.evaluation.retrieval import average_precision, ndcg, precision

SAME_CLASS, SAME_ITEM = 1.0, 2.0  # the gains of graded relevance


@dataclass(frozen=True)
class ClassRetrieval:
    """Retrieval where candidates of the query's class are right.

    Attributes:
        precision_at_10: mean fraction of candidates of the class among the first 10.
        map: mean average precision.
        graded_ndcg_at_10: NDCG of graded relevance: 2 for the query's group, 1 for its class, 0 for others.
        queries: number of queries whose class has a candidate.

    Examples:
        >>> rows = torch.arange(2)
        >>> cups = Embeddings({"text": torch.eye(2), "image": torch.eye(2)}, {"text": rows, "image": rows}, groups=rows)
        >>> found = class_retrieval(cups, ["cup", "cup"])["text->image"]
        >>> found.map, found.graded_ndcg_at_10  # both are cups, and the same item is found first
        (1.0, 1.0)
    """

    precision_at_10: float
    map: float
    graded_ndcg_at_10: float
    queries: int


def class_retrieval(
    queries: Embeddings,
    classes: Sequence[str | None],
    candidates: Embeddings | None = None,
    candidate_classes: Sequence[str | None] | None = None,
) -> dict[str, ClassRetrieval]:
    """Measure retrieval by classes for every ordered pair of modalities.

    Args:
        queries: embeddings to search for.
        classes: the class of each of their rows; None: unknown, the row does not count.
        candidates: embeddings to search in; None: the queries.
        candidate_classes: the class of each of their rows.

    Returns:
        ``"text->image"`` -> the measures; pairs in which no query has a right answer are left out.
    """
    if candidates is None or candidate_classes is None:
        candidates, candidate_classes = queries, classes
    numbers = {name: n for n, name in enumerate(dict.fromkeys([*classes, *candidate_classes])) if name is not None}
    of_queries, of_candidates = (
        torch.tensor([-1 if name is None else numbers[name] for name in names], dtype=torch.int64)
        for names in (classes, candidate_classes)
    )
    found = {}
    for a, b in permutations(queries.modalities, 2):
        if b not in candidates.vectors:
            continue
        query_classes, pool_classes = of_queries[queries.rows[a]], of_candidates[candidates.rows[b]]
        known, in_pool = query_classes >= 0, pool_classes >= 0
        measured = _measure(
            queries.vectors[a][known],
            candidates.vectors[b][in_pool],
            (query_classes[known], pool_classes[in_pool]),
            (queries.groups_of(a)[known], candidates.groups_of(b)[in_pool]),
        )
        if measured is not None:
            found[f"{a}->{b}"] = measured
    return found


def _measure(
    queries: Tensor, pool: Tensor, classes: tuple[Tensor, Tensor], groups: tuple[Tensor, Tensor]
) -> ClassRetrieval | None:
    sums, count = torch.zeros(3, dtype=torch.float64), 0
    for ranking in rankings(queries, pool, *classes):
        same = groups[1][ranking.candidates.clamp(min=0)] == groups[0][ranking.queries][:, None]
        gains = torch.where(same, SAME_ITEM, SAME_CLASS)
        values = (precision(ranking, 10), average_precision(ranking), ndcg(ranking, gains))
        sums += torch.stack([value.sum() for value in values])
        count += len(ranking.queries)
    if not count:
        return None
    of_precision, of_map, of_ndcg = (sums / count).tolist()
    return ClassRetrieval(of_precision, of_map, of_ndcg, count)
