"""Cross-modal retrieval: search one modality with queries of another and measure where the right answers rank.

The protocol, and how ties count, is that of ``multimodal.evaluation.ranking``. Queries without a right answer do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from itertools import permutations

import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.ranking import TIE_TOLERANCE, Ignored, Ranking, rankings, without_itself

CUTOFFS = (1, 5, 10)


@dataclass(frozen=True)
class Retrieval:
    """Retrieval measures of one direction, such as text to image: means over the queries that have a right answer.

    Where each query has one right answer, map equals mrr and precision@k is recall@k / k.

    Attributes:
        recall_at_1, recall_at_5, recall_at_10: fraction of the queries with a right answer among the first k (Hits@k).
        mrr: mean of 1 / rank of the first right answer, in [0, 1].
        median_rank, mean_rank: of the first right answer; ranks count from 1.
        queries: number of queries that have a right answer.
        pool: number of candidates.
        precision_at_5, precision_at_10: mean fraction of right answers among the first k.
        map: mean average precision: the mean, over a query's right answers, of the precision up to each.
        ndcg_at_10: normalized discounted cumulative gain of the first 10.

    Examples:
        >>> vectors, groups = torch.eye(2), torch.tensor([0, 1])
        >>> measures = Retrieval.of(measure_queries(vectors, vectors.flip(0), groups, groups), pool=2)
        >>> measures.recall_at_1, measures.to_json()["recall@5"], measures.mrr  # each is found second
        (0.0, 1.0, 0.5)
    """

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mrr: float
    median_rank: float
    mean_rank: float
    queries: int
    pool: int
    precision_at_5: float
    precision_at_10: float
    map: float
    ndcg_at_10: float

    @classmethod
    def of(cls, by_query: QueryMeasures, pool: int) -> Retrieval:
        """Average the measures of queries, at least one, over a pool of the given number of candidates."""
        means = {name.replace("@", "_at_"): values.mean().item() for name, values in by_query.values.items()}
        # torch.median takes the lower of two middle values; the median is their mean
        median_rank, mean_rank = by_query.ranks.quantile(0.5).item(), by_query.ranks.mean().item()
        return cls(**means, median_rank=median_rank, mean_rank=mean_rank, queries=len(by_query.queries), pool=pool)

    def to_json(self) -> dict[str, float]:
        """Return the measures by name, recalls as ``recall@1``."""
        return dict(zip(MEASURES, vars(self).values(), strict=True))


MEASURES = tuple(measure.name.replace("_at_", "@") for measure in fields(Retrieval))  # in reports


@dataclass(frozen=True)
class QueryMeasures:
    """The measures of each query of one direction, from which means, intervals and comparisons are made.

    Attributes:
        queries: ``(q,)`` int64, the numbers of the queries that have a right answer, ascending.
        ranks: ``(q,)`` float64, the rank of the first right answer, from 1.
        values: "recall@1" and so on -> ``(q,)`` float64, measures of which the mean is reported.

    Examples:
        >>> groups = torch.tensor([0, 1])
        >>> by_query = measure_queries(torch.eye(2), torch.eye(2), groups, groups)
        >>> by_query.ranks.tolist(), by_query.values["recall@1"].tolist()
        ([1.0, 1.0], [1.0, 1.0])
    """

    queries: Tensor
    ranks: Tensor
    values: dict[str, Tensor]


def measure_queries(
    queries: Tensor,
    candidates: Tensor,
    query_groups: Tensor,
    candidate_groups: Tensor,
    ignored: Ignored | None = None,
) -> QueryMeasures:
    """Measure each query that has a right answer.

    Args:
        queries, candidates: ``(q, dim)`` and ``(c, dim)`` unit vectors.
        query_groups, candidate_groups: ``(q,)`` and ``(c,)`` int64; a candidate of the query's group is right.
        ignored: the candidates that do not count for a query, as of ``rankings``.
    """
    numbers = [torch.zeros(0, dtype=torch.int64, device=queries.device)]
    blocks = [{name: torch.zeros(0, dtype=torch.float64, device=queries.device) for name in ("rank", *_MEANS)}]
    for ranking in rankings(queries, candidates, query_groups, candidate_groups, ignored):
        numbers.append(ranking.queries)
        blocks.append({"rank": ranking.ranks[:, 0].double()} | {name: f(ranking) for name, f in _MEANS.items()})
    order = torch.cat(numbers).argsort()
    values = {name: torch.cat([block[name] for block in blocks])[order] for name in blocks[0]}
    return QueryMeasures(torch.cat(numbers)[order], values.pop("rank"), values)


def ranks(queries: Tensor, candidates: Tensor, query_groups: Tensor, candidate_groups: Tensor) -> Tensor:
    """Return the rank of the first right answer of each query that has one.

    Args:
        queries, candidates: ``(q, dim)`` and ``(c, dim)`` unit vectors.
        query_groups, candidate_groups: ``(q,)`` and ``(c,)`` int64.

    Returns:
        ``(q',)`` int64 ranks from 1, in the order of the queries; queries without a right answer are left out.
    """
    return measure_queries(queries, candidates, query_groups, candidate_groups).ranks.long()


def retrieval(queries: Embeddings, candidates: Embeddings | None = None) -> dict[str, Retrieval]:
    """Measure retrieval for every ordered pair of modalities.

    Args:
        queries: embeddings to search for.
        candidates: embeddings to search in, such as a larger pool; None: the queries.

    Returns:
        ``"text->image"`` -> the measures of that direction. Pairs in which no query has a right answer are left out.
    """
    return average_queries(retrieval_by_query(queries, candidates), queries if candidates is None else candidates)


def average_queries(by_query: Mapping[str, QueryMeasures], candidates: Embeddings) -> dict[str, Retrieval]:
    """Return the measures of each direction from those of its queries.

    Args:
        by_query: "text->image" -> the measures of its queries.
        candidates: the embeddings that were searched.
    """
    return {
        pair: Retrieval.of(found, pool=len(candidates.vectors[pair.partition("->")[2]]))
        for pair, found in by_query.items()
    }


def retrieval_by_query(
    queries: Embeddings, candidates: Embeddings | None = None, pairs: Iterable[tuple[str, str]] | None = None
) -> dict[str, QueryMeasures]:
    """Measure each query of pairs of modalities.

    Args:
        queries: embeddings to search for.
        candidates: embeddings to search in; None: the queries.
        pairs: modality of the queries, and of the candidates. None: every ordered pair of two modalities. Within one
            modality, the candidate of the query's key does not count: it is the query itself.

    Returns:
        ``"text->image"`` -> the measures of that direction's queries, which are numbered as the vectors of the modality.
        Pairs in which no query has a right answer are left out.
    """
    candidates = queries if candidates is None else candidates
    found = {
        f"{a}->{b}": measure_queries(
            queries.vectors[a],
            candidates.vectors[b],
            queries.groups_of(a),
            candidates.groups_of(b),
            _without_own_row(queries, candidates, a) if a == b else None,
        )
        for a, b in (permutations(queries.modalities, 2) if pairs is None else pairs)
        if b in candidates.vectors
    }
    return {pair: by_query for pair, by_query in found.items() if len(by_query.queries)}


def _without_own_row(queries: Embeddings, candidates: Embeddings, modality: str) -> Ignored:
    if queries is candidates:
        return without_itself(torch.arange(len(queries.vectors[modality])), len(queries.vectors[modality]))
    number_of = {candidates.keys[row]: n for n, row in enumerate(candidates.rows[modality].tolist())}
    own = [number_of.get(queries.keys[row], -1) for row in queries.rows[modality].tolist()]
    return without_itself(torch.tensor(own), len(candidates.vectors[modality]))


def ndcg(ranking: Ranking, gains: Tensor, k: int = 10) -> Tensor:
    r"""Return the normalized discounted cumulative gain of the first k candidates of each query, ``(b,)`` float64.

    .. math:: \frac{\sum_i g_i / \log_2(1 + r_i)}{\sum_i g_{(i)} / \log_2(1 + i)}

    over the right answers i of gain g and rank r, up to rank k; below the line they are in the best order. Of equal right
    answers, those of lower gain rank before those of higher gain.

    Args:
        ranking: the right answers.
        gains: ``(b, p)``, the gain of each right answer, 0 or more, at least one of a query more than 0.
        k: the last rank that counts.

    Source: Järvelin and Kekäläinen 2002, with linear gains and the discount of Burges et al. 2005.
    """
    gains = gains.double().masked_fill(~ranking.is_answer, -1.0)
    scores = ranking.scores.double()
    lower = scores[:, :-1] - scores[:, 1:] > TIE_TOLERANCE
    tie = torch.cat([torch.zeros_like(scores[:, :1]), lower.cumsum(dim=1)], dim=1)  # equal scores have one number
    order = gains.masked_fill(~ranking.is_answer, torch.inf).argsort(dim=1, stable=True)
    order = order.gather(1, tie.gather(1, order).argsort(dim=1, stable=True))
    found = _discounted(gains.gather(1, order).clamp(min=0), ranking.ranks, k)
    places = torch.arange(1, gains.shape[1] + 1, device=gains.device)
    return found / _discounted(gains.sort(dim=1, descending=True).values.clamp(min=0), places, k)


def _discounted(gains: Tensor, ranks: Tensor, k: int) -> Tensor:
    return (gains / torch.log2(1.0 + ranks) * (ranks <= k)).sum(dim=1)


def average_precision(ranking: Ranking) -> Tensor:
    """Return the mean, over the right answers of each query, of the precision up to each, ``(b,)`` float64.

    Args:
        ranking: the right answers.
    """
    places = torch.arange(1, ranking.ranks.shape[1] + 1, device=ranking.ranks.device)
    return ((places / ranking.ranks.double()) * ranking.is_answer).sum(dim=1) / ranking.counts


def precision(ranking: Ranking, k: int) -> Tensor:
    """Return the fraction of right answers among the first k candidates of each query, ``(b,)`` float64.

    Args:
        ranking: the right answers.
        k: the last rank that counts.
    """
    return (ranking.is_answer & (ranking.ranks <= k)).sum(dim=1).double() / k


def _recall(k: int) -> Callable[[Ranking], Tensor]:
    return lambda ranking: (ranking.ranks[:, 0] <= k).double()


_MEANS: Mapping[str, Callable[[Ranking], Tensor]] = (
    {f"recall@{k}": _recall(k) for k in CUTOFFS}
    | {"mrr": lambda ranking: 1 / ranking.ranks[:, 0].double()}
    | {f"precision@{k}": partial(precision, k=k) for k in CUTOFFS[1:]}
    | {"map": average_precision, "ndcg@10": lambda ranking: ndcg(ranking, ranking.is_answer)}
)


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
