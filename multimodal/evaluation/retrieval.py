"""Cross-modal retrieval: search one modality with another and see at which rank a right answer stands.

The protocol. A query is right at rank r if r is the best rank of any candidate of its group; only queries with such a
candidate count. Ties count against the model: a wrong candidate that scores as high as the best right one stands before
it. Scores count as equal within ``TIE_TOLERANCE``, for two equal vectors may get products that differ by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings

TIE_TOLERANCE = 1e-6  # of a cosine


@dataclass(frozen=True)
class Retrieval:
    """The measures of one direction. Recalls and ``mrr`` lie in [0, 1]; ranks count from 1.

    ``recall_at_k`` is the part of the queries with a right answer among the first k (Hits@k), ``mrr`` the mean of
    1 / rank, ``queries`` how many counted, ``pool`` how many candidates were searched.
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
        return {name.replace("_at_", "@"): value for name, value in vars(self).items()}


def ranks(
    queries: Tensor, candidates: Tensor, query_groups: Tensor, candidate_groups: Tensor, chunk: int = 1024
) -> Tensor:
    """The rank of the first right answer of each query that has one.

    Args:
        queries, candidates: ``(q, dim)`` and ``(c, dim)`` unit vectors.
        query_groups, candidate_groups: ``(q,)`` and ``(c,)`` int64.
        chunk: queries scored at a time; memory is ``chunk * c`` scores.

    Returns:
        ``(q',)`` int64, ranks from 1, in the order of the queries, those without a right answer left out. A NaN score
        ranks a right answer last and a wrong one first.
    """
    found = [torch.zeros(0, dtype=torch.int64, device=queries.device)]
    for start in range(0, len(queries) if len(candidates) else 0, chunk):
        right = query_groups[start : start + chunk, None] == candidate_groups[None, :]
        scores = (queries[start : start + chunk].float() @ candidates.float().T).nan_to_num(nan=torch.inf)
        best = scores.masked_fill(~right, -torch.inf).masked_fill(scores == torch.inf, -torch.inf).amax(dim=1)
        before = ((scores >= best[:, None] - TIE_TOLERANCE) & ~right).sum(dim=1)
        found.append(1 + before[right.any(dim=1)])
    return torch.cat(found)


def retrieval(queries: Embeddings, candidates: Embeddings | None = None) -> dict[str, Retrieval]:
    """The measures of every ordered pair of modalities, under names like ``"text->image"``.

    A pair without any query that has a right answer is left out.

    Args:
        queries: what is searched for.
        candidates: what is searched in, a wider pool; None: the queries' own embeddings.
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
    """A line on each modality whose pool holds equal vectors: as they tie, they stand together before or behind a query.

    Of ten words in three hundred recordings each is there thirty times: the rank behind one wrong word is 31. That more than
    half of a modality's vectors repeat others is told.
    """
    lines = []
    for modality, vectors in candidates.vectors.items():
        different = len(torch.unique(vectors.float().round(decimals=4), dim=0))  # batches round differently
        if different < len(vectors) / 2:
            lines.append(
                f"The pool of {modality} holds {different:,} different vectors among {len(vectors):,}; equal ones tie, so a"
                " wrong one that is often there costs many ranks."
            )
    return lines


def summarize_ranks(ranks: Tensor, pool: int) -> Retrieval:
    """The measures of ranks ``(q,)`` int64 from 1, q at least 1."""
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
