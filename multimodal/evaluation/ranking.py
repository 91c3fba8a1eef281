"""Where the right answers of each query rank among the candidates: what all retrieval measures are computed from.

Protocol: a candidate is right if it is in the query's group. Ties count against the model: a wrong candidate that scores as
high as a right one ranks before it. Scores within ``TIE_TOLERANCE`` are ties, because the products of two equal vectors may
differ by rounding.

Only a block of the scores is in memory at a time. Nothing is sorted where the queries have few right answers: each score of
the block is compared with the score of each right answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TIE_TOLERANCE = 1e-6  # difference of two cosines
BLOCK = 2**24  # scores in memory at a time: 64 MiB, and more for queries with many right answers
COMPARED = (
    2**20
)  # scores compared at a time; with larger pieces of memory, the heap of a long search grew by a gigabyte
FEW = 100  # right answers of a query; with more, sorting the scores is faster than comparing them with each


@dataclass(frozen=True)
class Ranking:
    """The right answers of b queries, each query's in the order in which it ranks them.

    Attributes:
        queries: ``(b,)`` int64, the numbers of the queries; each has a right answer.
        counts: ``(b,)`` int64, how many right answers each has; p is the largest.
        candidates: ``(b, p)`` int64, the candidates that they are, -1 beyond the count.
        scores: ``(b, p)`` float32, their scores, descending, minus infinity beyond the count.
        wrong_before: ``(b, p)`` int64, how many wrong candidates rank before each.

    Examples:
        >>> queries, candidates = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.8, 0.6]])
        >>> (found,) = rankings(queries, candidates, torch.tensor([7]), torch.tensor([7, 8, 7]))
        >>> found.candidates.tolist(), found.wrong_before.tolist(), found.ranks.tolist()
        ([[2, 0]], [[1, 1]], [[2, 3]])
    """

    queries: Tensor
    counts: Tensor
    candidates: Tensor
    scores: Tensor
    wrong_before: Tensor

    @property
    def is_answer(self) -> Tensor:
        """Which entries are within the count, ``(b, p)`` bool."""
        return self.candidates >= 0

    @property
    def ranks(self) -> Tensor:
        """The rank of each right answer among all candidates, ``(b, p)`` int64 from 1; of no meaning beyond the count."""
        return self.wrong_before + torch.arange(1, self.wrong_before.shape[1] + 1, device=self.wrong_before.device)


Ignored = Callable[[Tensor], Tensor]


def rankings(
    queries: Tensor,
    candidates: Tensor,
    query_groups: Tensor,
    candidate_groups: Tensor,
    ignored: Ignored | None = None,
    block: int = BLOCK,
) -> Iterator[Ranking]:
    """Search the candidates with each query and yield where its right answers rank, a block of queries at a time.

    A NaN score ranks a right answer last and a wrong one first. Queries without a right answer are left out.

    Args:
        queries, candidates: ``(q, dim)`` and ``(c, dim)`` unit vectors.
        query_groups, candidate_groups: ``(q,)`` and ``(c,)`` int64.
        ignored: from the numbers of queries ``(b,)`` to a mask ``(b, c)`` of the candidates that do not count for each, such
            as ``without_itself`` in a search within one modality. None: all count.
        block: scores in memory at a time.
    """
    query_groups = query_groups.contiguous()  # torch warns of others
    by_group = candidate_groups.argsort(stable=True)  # puts the right answers of a query next to each other
    sorted_groups = candidate_groups[by_group]
    first = torch.searchsorted(sorted_groups, query_groups)
    members = torch.searchsorted(sorted_groups, query_groups, right=True) - first
    answered = (members > 0).nonzero().flatten()
    answered = answered[members[answered].argsort(stable=True)]  # so that little is padded
    candidates = candidates.float()
    finite = bool(torch.isfinite(queries).all()) and bool(torch.isfinite(candidates).all())
    for rows in answered.split(max(1, block // max(1, len(candidates)))) if len(answered) else ():
        columns, is_answer = _padded_columns(by_group, first[rows], members[rows])
        mask = None if ignored is None else ignored(rows)
        if mask is not None:
            is_answer &= ~mask.gather(1, columns)
            kept = is_answer.any(dim=1)
            rows, columns, is_answer, mask = rows[kept], columns[kept], is_answer[kept], mask[kept]
        if len(rows):
            scores = queries[rows].float() @ candidates.T
            if not finite:
                scores.nan_to_num_(nan=torch.inf, posinf=torch.inf)
            yield _rank_block(scores, rows, columns, is_answer, mask)


def without_itself(candidate_of: Tensor, candidates: int) -> Ignored:
    """Return what ``rankings`` ignores where queries are candidates: each one's own vector.

    Args:
        candidate_of: ``(q,)`` int64, the candidate that each query is, or -1.
        candidates: their number.
    """
    everyone = torch.arange(candidates, device=candidate_of.device)
    return lambda rows: candidate_of[rows, None] == everyone


def _padded_columns(by_group: Tensor, first: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Return the candidates of each query's group, ``(b, p)``, and which of the entries are such."""
    place = torch.arange(int(members.max()), device=first.device)
    return by_group[(first[:, None] + place).clamp(max=len(by_group) - 1)], place < members[:, None]


def _rank_block(scores: Tensor, rows: Tensor, columns: Tensor, is_answer: Tensor, ignored: Tensor | None) -> Ranking:
    """Rank the right answers of a block of scores ``(b, c)``, which it changes."""
    counts = is_answer.sum(dim=1)
    right = scores.gather(1, columns)
    unusable = torch.finfo(right.dtype).min  # a right answer without a score is the last of all
    right = right.masked_fill(right == torch.inf, unusable).masked_fill(~is_answer, -torch.inf)
    right, order = right.sort(dim=1, descending=True, stable=True)
    right, order = right[:, : int(counts.max())], order[:, : int(counts.max())]
    in_count = torch.arange(right.shape[1], device=rows.device) < counts[:, None]
    row, place = is_answer.nonzero(as_tuple=True)
    not_wrong = counts
    if ignored is not None:
        not_wrong = counts + ignored.sum(dim=1)
        scores[ignored] = torch.inf
    scores[row, columns[row, place]] = torch.inf  # as the ignored ones: above each threshold, and subtracted
    wrong = _count_at_least(scores, right - TIE_TOLERANCE) - not_wrong[:, None]
    return Ranking(rows, counts, columns.gather(1, order).masked_fill(~in_count, -1), right, wrong)


def _count_at_least(scores: Tensor, thresholds: Tensor) -> Tensor:
    """Return how many scores ``(b, c)`` of each row are at least each of its thresholds ``(b, p)``."""
    if thresholds.shape[1] > FEW:
        return scores.shape[1] - torch.searchsorted(scores.sort(dim=1).values, thresholds.contiguous())
    counts = torch.empty(thresholds.shape, dtype=torch.int64, device=scores.device)
    if scores.device.type != "cpu":
        for place in range(thresholds.shape[1]):
            counts[:, place] = (scores >= thresholds[:, place, None]).sum(dim=1)
        return counts
    rows = max(1, COMPARED // max(1, scores.shape[1]))
    above = torch.empty((rows, scores.shape[1]), dtype=torch.bool)
    for start in range(0, len(scores), rows):
        part = scores[start : start + rows]
        for place in range(thresholds.shape[1]):
            found = torch.ge(part, thresholds[start : start + rows, place, None], out=above[: len(part)])
            # 15 times as fast as torch's sum of booleans
            counts[start : start + rows, place] = torch.tensor([np.count_nonzero(row) for row in found.numpy()])
    return counts
