"""Cross-modal retrieval: search one modality with queries of another and report the rank of the first right answer.

Protocol: a candidate is right if it is in the query's group. The rank of a query is the best rank of any right candidate;
queries without a right candidate do not count. Ties count against the model: a wrong candidate that scores as high as the
best right one ranks before it. Scores within ``TIE_TOLERANCE`` are ties, because the products of two equal vectors may
differ by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import permutations

import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings

TIE_TOLERANCE = 1e-6  # difference of two cosines


@dataclass(frozen=True)
class Retrieval:
    """Retrieval measures of one direction, such as text to image.

    Attributes:
        recall_at_1, recall_at_5, recall_at_10: fraction of the queries with a right answer among the first k (Hits@k).
        mrr: mean of 1 / rank, in [0, 1].
        median_rank, mean_rank: of the first right answer; ranks count from 1.
        queries: number of queries that have a right answer.
        pool: number of candidates.

    Examples:
        >>> summarize_ranks(torch.tensor([1, 2]), pool=10).to_json()["mrr"]  # (1/1 + 1/2) / 2
        0.75
    """

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mrr: float
    median_rank: float
    mean_rank: float
    queries: int
    pool: int

    def to_json(self) -> dict[str, float]:
        """Return the measures by name, recalls as ``recall@1``."""
        return dict(zip(MEASURES, vars(self).values(), strict=True))


MEASURES = tuple(measure.name.replace("_at_", "@") for measure in fields(Retrieval))  # in reports


def ranks(
    queries: Tensor, candidates: Tensor, query_groups: Tensor, candidate_groups: Tensor, chunk: int = 1024
) -> Tensor:
    """Return the rank of the first right answer of each query that has one.

    A NaN score ranks a right answer last and a wrong one first.

    Args:
        queries, candidates: ``(q, dim)`` and ``(c, dim)`` unit vectors.
        query_groups, candidate_groups: ``(q,)`` and ``(c,)`` int64.
        chunk: queries scored at a time; memory is ``chunk * c`` scores.

    Returns:
        ``(q',)`` int64 ranks from 1, in the order of the queries; queries without a right answer are left out.
    """
    result = [torch.zeros(0, dtype=torch.int64, device=queries.device)]
    for start in range(0, len(queries) if len(candidates) else 0, chunk):
        is_correct = query_groups[start : start + chunk, None] == candidate_groups[None, :]
        scores = (queries[start : start + chunk].float() @ candidates.float().T).nan_to_num(nan=torch.inf)
        correct = scores.masked_fill(~is_correct, -torch.inf).masked_fill(scores == torch.inf, -torch.inf)
        best_correct = correct.amax(dim=1, keepdim=True)
        better_wrong = ((scores >= best_correct - TIE_TOLERANCE) & ~is_correct).sum(dim=1)
        result.append(1 + better_wrong[is_correct.any(dim=1)])
    return torch.cat(result)


def retrieval(queries: Embeddings, candidates: Embeddings | None = None) -> dict[str, Retrieval]:
    """Measure retrieval for every ordered pair of modalities.

    Args:
        queries: embeddings to search for.
        candidates: embeddings to search in, such as a larger pool; None: the queries.

    Returns:
        ``"text->image"`` -> the measures of that direction. Pairs in which no query has a right answer are left out.
    """
    candidates = queries if candidates is None else candidates
    table = {}
    for a, b in permutations(queries.modalities, 2):
        if b in candidates.vectors:
            pool = candidates.vectors[b]
            r = ranks(queries.vectors[a], pool, queries.groups_of(a), candidates.groups_of(b))
            if len(r):
                table[f"{a}->{b}"] = summarize_ranks(r, pool=len(pool))
    return table


def warn_repeated_vectors(candidates: Embeddings) -> list[str]:
    """Return a line for each modality in which more than half of the vectors repeat others.

    Equal vectors tie, so one wrong value that occurs often costs many ranks. Example: ten words in three hundred recordings
    occur thirty times each, so the rank behind one wrong word is 31.
    """
    lines = []
    for modality, vectors in candidates.vectors.items():
        distinct = len(torch.unique(vectors.float().round(decimals=4), dim=0))  # batches round differently
        if distinct < len(vectors) / 2:
            lines.append(
                f"The pool of {modality} holds {distinct:,} different vectors among {len(vectors):,}; equal ones tie, so a"
                " wrong one that is often there costs many ranks."
            )
    return lines


def summarize_ranks(ranks: Tensor, pool: int) -> Retrieval:
    """Return the measures of ranks ``(q,)`` int64 from 1, q at least 1, in a pool of the given number of candidates."""
    exact = ranks.double()
    recall = [(ranks <= k).double().mean().item() for k in (1, 5, 10)]
    # torch.median takes the lower of two middle values; the median is their mean
    return Retrieval(
        *recall,
        mrr=(1 / exact).mean().item(),
        median_rank=exact.quantile(0.5).item(),
        mean_rank=exact.mean().item(),
        queries=len(ranks),
        pool=pool,
    )
