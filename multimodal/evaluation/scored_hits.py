"""The first hits of queries, half of which have no answer: what calibrations are fitted to and measured on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multimodal.core.calibration import COMPETITORS
from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.ranking import BLOCK

CANDIDATES = 4  # examined for each hit, as several may be of one group


@dataclass(frozen=True)
class ScoredHits:
    """The first hits of the queries of one direction, each group once.

    Attributes:
        scores: ``(q, h)`` float64 cosines, descending; minus infinity: there are no more.
        is_right: ``(q, h)`` bool.
        has_answer: ``(q,)`` bool, whether the pool has a right answer for the query.
        groups: ``(q,)`` int64, the group of each query.
        pool: number of groups in the pool.

    Examples:
        >>> yes, no = np.array([[True], [False]]), np.array([[0.9], [0.4]])
        >>> ScoredHits(no, yes, np.array([True, False]), np.arange(2), pool=1).take(np.array([1])).scores.tolist()
        [[0.4]]
    """

    scores: np.ndarray
    is_right: np.ndarray
    has_answer: np.ndarray
    groups: np.ndarray
    pool: int

    def take(self, chosen: np.ndarray) -> ScoredHits:
        """Return the queries of a mask ``(q,)`` or of numbers."""
        parts = (part[chosen] for part in (self.scores, self.is_right, self.has_answer, self.groups))
        return ScoredHits(*parts, pool=self.pool)  # pyright: ignore[reportCallIssue]


def scored_hits(queries: Embeddings, candidates: Embeddings, query: str, found: str, *, seed: int = 0) -> ScoredHits:
    """Search with the queries of one modality.

    Args:
        queries: embeddings to search for.
        candidates: embeddings to search in.
        query: modality of the queries.
        found: modality of the candidates, another one.
        seed: decides whose answers, a half's, are not in the pool for their own queries.

    Returns:
        The first ``COMPETITORS`` groups of each query by their best vectors, among the nearest ``COMPETITORS * CANDIDATES``
        vectors; there are fewer of them where groups are large.

    Examples:
        >>> rows = torch.arange(2)
        >>> same = Embeddings({"text": torch.eye(2), "image": torch.eye(2)}, {"text": rows, "image": rows}, groups=rows)
        >>> found = scored_hits(same, same, "text", "image")
        >>> found.has_answer.sum().item(), found.is_right.sum().item()  # of one of the two, the answer is taken out
        (1, 1)
    """
    vectors, pool = queries.vectors[query].float(), candidates.vectors[found].float()
    groups, pool_groups = queries.groups_of(query), candidates.groups_of(found)
    names = torch.unique(groups)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).to(names.device)
    taken_out = torch.isin(groups, names[order[: len(names) // 2]])
    width = min(COMPETITORS * CANDIDATES, len(pool))
    scores, is_right = [], []
    for rows in torch.arange(len(vectors), device=vectors.device).split(max(1, BLOCK // max(1, len(pool)))):
        block = (vectors[rows] @ pool.T).nan_to_num_(nan=-torch.inf)
        same = groups[rows, None] == pool_groups
        best, columns = block.masked_fill_(same & taken_out[rows, None], -torch.inf).topk(width, dim=1)
        repeated = ~_first_of_each_group(pool_groups[columns])
        best, order_ = best.masked_fill(repeated, -torch.inf).sort(dim=1, descending=True, stable=True)
        scores.append(best[:, :COMPETITORS])
        is_right.append(same.gather(1, columns.gather(1, order_))[:, :COMPETITORS] & scores[-1].isfinite())
    has_answer = torch.isin(groups, pool_groups) & ~taken_out
    parts = (torch.cat(scores).double(), torch.cat(is_right), has_answer, groups)
    return ScoredHits(*(part.cpu().numpy() for part in parts), pool=len(torch.unique(pool_groups)))  # pyright: ignore


def _first_of_each_group(groups: Tensor) -> Tensor:
    """Return which entries of ``(q, w)`` are the first of their value in their row."""
    ordered, order = groups.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(first).scatter_(1, order, first)
