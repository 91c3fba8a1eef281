"""Search in a pool of all modalities: does a text query find texts first, whatever they are about?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.ranking import BLOCK, TIE_TOLERANCE, Ignored
from multimodal.evaluation.retrieval import measure_queries


@dataclass(frozen=True)
class MixedPool:
    """How queries of one modality fare where all modalities compete.

    Attributes:
        recall_at_1, recall_at_10: fraction of the queries with a right answer among the first k.
        mrr: mean of 1 / rank of the first right answer.
        own_modality_first: fraction of the queries whose first hit is of their own modality; a tie counts as such.
        queries: number of queries that have a right answer.
        pool: number of vectors of all modalities.

    Examples:
        >>> rows = torch.arange(2)
        >>> apart = {"text": torch.tensor([[1.0, 0.1], [1.0, -0.1]]), "image": torch.tensor([[0.1, 1.0], [-0.1, 1.0]])}
        >>> mixed_pool(Embeddings(apart, {"text": rows, "image": rows}, groups=rows))["text"].own_modality_first
        1.0
    """

    recall_at_1: float
    recall_at_10: float
    mrr: float
    own_modality_first: float
    queries: int
    pool: int


def mixed_pool(embeddings: Embeddings) -> dict[str, MixedPool]:
    """Search the vectors of all modalities with those of each one.

    Right answers are the vectors of the query's group in the other modalities. The query itself, and the other vectors of its
    group in its own modality, are left out of the pool.

    Args:
        embeddings: of at least two modalities.

    Returns:
        Modality of the queries -> how they fare. A modality none of whose queries has a right answer is left out.
    """
    modalities = embeddings.modalities
    pool = torch.cat([embeddings.vectors[m].float() for m in modalities])
    groups = torch.cat([embeddings.groups_of(m) for m in modalities])
    numbers = torch.cat([groups.new_full((len(embeddings.vectors[m]),), i) for i, m in enumerate(modalities)])
    found = {}
    for number, modality in enumerate(modalities):
        queries, query_groups = embeddings.vectors[modality].float(), embeddings.groups_of(modality)
        is_own = numbers == number
        ignored = _ignore_own(query_groups, groups, is_own)
        by_query = measure_queries(queries, pool, query_groups, groups, ignored)
        if not len(by_query.queries):
            continue
        at_1, at_10, mrr = (by_query.values[name].mean().item() for name in ("recall@1", "recall@10", "mrr"))
        own_first = _fraction_with_own_first(queries, pool, is_own, ignored, by_query.queries)
        found[modality] = MixedPool(at_1, at_10, mrr, own_first, queries=len(by_query.queries), pool=len(pool))
    return found


def _ignore_own(query_groups: Tensor, groups: Tensor, is_own: Tensor) -> Ignored:
    return lambda rows: is_own & (groups == query_groups[rows, None])


def _fraction_with_own_first(queries: Tensor, pool: Tensor, is_own: Tensor, ignored: Ignored, rows: Tensor) -> float:
    own_first = 0
    for block in rows.split(max(1, BLOCK // len(pool))):
        scores = (queries[block] @ pool.T).masked_fill_(ignored(block), -torch.inf)
        of_own, of_others = (scores[:, chosen].amax(dim=1) for chosen in (is_own, ~is_own))
        own_first += int((~(of_own < of_others - TIE_TOLERANCE)).sum())
    return own_first / len(rows)
