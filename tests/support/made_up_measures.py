"""Retrieval measures made up for tests of what shows them."""

from __future__ import annotations

from multimodal.evaluation.retrieval import Retrieval


def measures(*recalls: float, mrr: float, median_rank: float, mean_rank: float, queries: int, pool: int) -> Retrieval:
    """Measures of a direction in which each query has one right answer.

    Args:
        *recalls: recall@1, recall@5 and recall@10.
        mrr, median_rank, mean_rank: of the first right answer.
        queries, pool: their numbers.
    """
    at_1, at_5, at_10 = recalls
    return Retrieval(
        recall_at_1=at_1,
        recall_at_5=at_5,
        recall_at_10=at_10,
        mrr=mrr,
        median_rank=median_rank,
        mean_rank=mean_rank,
        queries=queries,
        pool=pool,
        precision_at_5=at_5 / 5,
        precision_at_10=at_10 / 10,
        map=mrr,
        ndcg_at_10=at_10 / 2,
    )
