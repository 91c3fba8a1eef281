"""The first hit of each query, and by how much it is ahead of the right answer: what failures and confusions are found by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.ranking import BLOCK, TIE_TOLERANCE

MOST_QUERIES = 5_000  # of a direction, drawn at random


@dataclass(frozen=True)
class FirstHits:
    """The first hits of the queries of one direction that have a right answer.

    Attributes:
        queries: ``(q,)`` int64, the numbers of the queries.
        hits: ``(q,)`` int64, the candidate that each finds first; of equal scores a wrong one.
        is_right: ``(q,)`` bool.
        margins: ``(q,)`` float32, the score of the best wrong candidate minus that of the best right one.
        total: number of queries, of which these were drawn.
    """

    queries: Tensor
    hits: Tensor
    is_right: Tensor
    margins: Tensor
    total: int


def first_hits(queries: Embeddings, candidates: Embeddings, pair: str, answered: Tensor) -> FirstHits:
    """Search with the queries of one direction.

    Args:
        queries, candidates: the vectors.
        pair: "text->image"; within one modality, the query's own row is left out.
        answered: ``(a,)`` int64, the queries that have a right answer.

    Examples:
        >>> rows = torch.arange(2)
        >>> cups = Embeddings({"text": torch.eye(2), "image": torch.eye(2).flip(0)}, {"text": rows, "image": rows}, groups=rows)
        >>> found = first_hits(cups, cups, "text->image", rows)
        >>> found.hits.tolist(), found.is_right.tolist(), found.margins.tolist()
        ([1, 0], [False, False], [1.0, 1.0])
    """
    source, _, target = pair.partition("->")
    chosen = answered
    if len(answered) > MOST_QUERIES:
        order = torch.randperm(len(answered), generator=torch.Generator().manual_seed(0))
        chosen = answered[order[:MOST_QUERIES].to(answered.device).sort().values]
    hits, is_right, margins = [chosen.new_zeros(0)], [chosen.new_zeros(0, dtype=torch.bool)], [torch.zeros(0)]
    pool = candidates.vectors[target]
    for block in chosen.split(max(1, BLOCK // max(1, len(pool)))):
        scores, right = scores_of(queries, candidates, source, target, block)
        wrong_best, wrong_hit = scores.masked_fill(right, -torch.inf).max(dim=1)
        right_best, right_hit = scores.masked_fill(~right, -torch.inf).max(dim=1)
        found = right_best - TIE_TOLERANCE > wrong_best
        hits.append(torch.where(found, right_hit, wrong_hit))
        is_right.append(found)
        margins.append((wrong_best - right_best).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).cpu())
    return FirstHits(chosen, torch.cat(hits), torch.cat(is_right), torch.cat(margins), len(answered))


def scores_of(
    queries: Embeddings, candidates: Embeddings, source: str, target: str, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the scores of some queries for all candidates, and which are right.

    Args:
        queries, candidates: the vectors.
        source, target: modality of the queries, and of the candidates.
        numbers: ``(b,)`` int64, the queries.

    Returns:
        ``(b, c)`` float32, minus infinity for what is not finite or is the query itself, and ``(b, c)`` bool.
    """
    vectors = queries.vectors[source][numbers].float()
    scores = vectors @ candidates.vectors[target].float().T
    scores = scores.masked_fill(~scores.isfinite(), -torch.inf)
    right = queries.groups_of(source)[numbers][:, None] == candidates.groups_of(target)[None, :]
    if source == target:
        own = [queries.keys[row] for row in queries.rows[source][numbers].tolist()]
        keys = {candidates.keys[row]: n for n, row in enumerate(candidates.rows[target].tolist())}
        for place, key in enumerate(own):
            if (number := keys.get(key)) is not None:
                scores[place, number], right[place, number] = -torch.inf, False
    return scores, right
