"""Ranks and measures against a plain transcription of the protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score
from torch import Tensor, nn

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.ranking import rankings
from multimodal.evaluation.retrieval import (
    QueryMeasures,
    Retrieval,
    measure_queries,
    ndcg,
    ranks,
    retrieval,
    warn_repeated_vectors,
)

Vectors = list[list[float]]


def brute_force(
    queries: Vectors, candidates: Vectors, query_groups: list[int], candidate_groups: list[int]
) -> list[int]:
    """Apply the protocol in plain Python, one query and one candidate at a time."""
    found = []
    for query, group in zip(queries, query_groups, strict=True):
        scores = [sum(a * b for a, b in zip(query, candidate, strict=True)) for candidate in candidates]
        right = [s for s, g in zip(scores, candidate_groups, strict=True) if g == group]
        wrong = [s for s, g in zip(scores, candidate_groups, strict=True) if g != group]
        if right:
            best = max((s for s in right if not math.isnan(s)), default=-math.inf)
            found.append(1 + sum(math.isnan(s) or s >= best - 1e-6 for s in wrong))
    return found


@st.composite
def searches(draw: st.DrawFn, numbers: Sequence[float]) -> tuple[Vectors, Vectors, list[int], list[int]]:
    """Draw queries, candidates and their groups, with numbers whose float32 products are exact and often equal."""
    dim, q, c = draw(st.integers(1, 3)), draw(st.integers(0, 7)), draw(st.integers(1, 9))
    vector, group = st.lists(st.sampled_from(numbers), min_size=dim, max_size=dim), st.integers(0, 3)
    several = [draw(st.lists(vector, min_size=n, max_size=n)) for n in (q, c)]
    groups = [draw(st.lists(group, min_size=n, max_size=n)) for n in (q, c)]
    return several[0], several[1], groups[0], groups[1]


def tensors(search: tuple[Vectors, Vectors, list[int], list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    queries, candidates, query_groups, candidate_groups = search
    dim = len(candidates[0])
    return (
        torch.tensor(queries, dtype=torch.float32).reshape(-1, dim),
        torch.tensor(candidates),
        torch.tensor(query_groups, dtype=torch.int64),
        torch.tensor(candidate_groups),
    )


GRID = (-1.0, -0.5, 0.0, 0.25, 1.0)


@given(searches(GRID))
@settings(deadline=None, max_examples=150)
def test_ranks_follow_the_protocol(search: tuple[Vectors, Vectors, list[int], list[int]]) -> None:
    assert ranks(*tensors(search)).tolist() == brute_force(*search)


@given(searches((*GRID, math.nan)))
@settings(deadline=None, max_examples=100)
def test_a_nan_ranks_a_right_answer_last_and_a_wrong_one_first(
    search: tuple[Vectors, Vectors, list[int], list[int]],
) -> None:
    assert ranks(*tensors(search)).tolist() == brute_force(*search)


@pytest.mark.parametrize(
    ("wrong", "rank"), [(0.8, 2), (0.8 - 5e-7, 2), (0.8 + 5e-7, 2), (0.8 - 4e-6, 1), (0.8 + 4e-6, 2)]
)
def test_a_wrong_answer_within_a_millionth_ranks_before_the_right_one(wrong: float, rank: int) -> None:
    candidates = torch.tensor([[0.8, 0.6], [wrong, math.sqrt(1 - wrong**2)]])
    found = ranks(torch.tensor([[1.0, 0.0]]), candidates, torch.tensor([0]), torch.tensor([0, 1]))
    assert found.tolist() == [rank]


def test_equal_vectors_everywhere_give_the_last_rank_and_not_the_first() -> None:
    vectors, groups = torch.ones(6, 4) / 2, torch.arange(6)
    assert ranks(vectors, vectors, groups, groups).tolist() == [6] * 6


def test_half_precision_vectors_are_scored_in_single_precision() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(50, 8), dim=1).to(torch.bfloat16)
    groups = torch.arange(50) // 2
    assert torch.equal(
        ranks(vectors, vectors.flip(0), groups, groups.flip(0)),
        ranks(vectors.float(), vectors.float().flip(0), groups, groups.flip(0)),
    )


def test_without_queries_there_are_no_ranks() -> None:
    none = ranks(torch.zeros(0, 2), torch.eye(2), torch.zeros(0, dtype=torch.int64), torch.arange(2))
    assert (none.tolist(), none.dtype) == ([], torch.int64)


def test_without_candidates_no_query_counts() -> None:
    none = ranks(torch.eye(2), torch.zeros(0, 2), torch.arange(2), torch.zeros(0, dtype=torch.int64))
    assert (none.tolist(), none.dtype) == ([], torch.int64)


def plain_measures(scores: list[float], right: list[bool]) -> dict[str, float]:
    """The measures of one query, with the right answers after all wrong ones of equal score."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], right[i]))
    relevant = [right[i] for i in order]
    found = [rank for rank, r in enumerate(relevant, 1) if r]
    ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(len(found), 10) + 1))
    return {
        **{f"recall@{k}": float(any(relevant[:k])) for k in (1, 5, 10)},
        **{f"precision@{k}": sum(relevant[:k]) / k for k in (5, 10)},
        "mrr": 1 / found[0],
        "map": sum(sum(relevant[:rank]) / rank for rank in found) / len(found),
        "ndcg@10": sum(1 / math.log2(1 + rank) for rank in found if rank <= 10) / ideal,
    }


@given(searches(GRID))
@settings(deadline=None, max_examples=150)
def test_measures_of_queries_follow_their_definitions(search: tuple[Vectors, Vectors, list[int], list[int]]) -> None:
    queries, candidates, query_groups, candidate_groups = search
    by_query = measure_queries(*tensors(search))
    answered = [i for i, g in enumerate(query_groups) if g in candidate_groups]
    assert by_query.queries.tolist() == answered
    for number, i in enumerate(answered):
        scores = [sum(a * b for a, b in zip(queries[i], c, strict=True)) for c in candidates]
        expected = plain_measures(scores, [g == query_groups[i] for g in candidate_groups])
        assert {name: v[number].item() for name, v in by_query.values.items()} == pytest.approx(expected)


def test_measures_equal_those_of_scikit_learn() -> None:
    q, c = (nn.functional.normalize(torch.randn(n, 8), dim=1) for n in (40, 200))
    query_groups, candidate_groups = torch.randint(0, 6, (40,)), torch.randint(0, 6, (200,))
    by_query = measure_queries(q, c, query_groups, candidate_groups)
    scores, right = (q @ c.T).numpy(), (query_groups[:, None] == candidate_groups).numpy()
    expected = [average_precision_score(r, s) for r, s in zip(right, scores, strict=True)]
    np.testing.assert_allclose(by_query.values["map"], expected)
    expected = [ndcg_score(r[None], s[None], k=10) for r, s in zip(right, scores, strict=True)]
    np.testing.assert_allclose(by_query.values["ndcg@10"], expected)


def test_graded_gains_equal_those_of_scikit_learn() -> None:
    q, c = (nn.functional.normalize(torch.randn(n, 8), dim=1) for n in (30, 90))
    groups = torch.arange(30), torch.arange(90) % 30
    grades = torch.randint(0, 4, (90,)) + 0.5
    expected = [
        ndcg_score((grades * (groups[1] == g)).numpy()[None], s[None], k=5)
        for g, s in zip(range(30), (q @ c.T).numpy(), strict=True)
    ]
    found = torch.zeros(30, dtype=torch.float64)
    for ranking in rankings(q, c, *groups):
        found[ranking.queries] = ndcg(ranking, grades[ranking.candidates], k=5)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_of_equal_right_answers_the_better_one_ranks_last() -> None:
    groups = torch.zeros(3, dtype=torch.int64)
    (ranking,) = rankings(torch.tensor([[1.0]]), torch.ones(3, 1), groups[:1], groups)
    grades = torch.tensor([3.0, 1.0, 2.0])
    worst, best = (sum(g / math.log2(1 + rank) for rank, g in enumerate(order, 1)) for order in ([1, 2, 3], [3, 2, 1]))
    assert ndcg(ranking, grades[ranking.candidates]).item() == pytest.approx(worst / best)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_measures_equal_those_of_numpy(found: list[int]) -> None:
    """Candidates of descending score, of which the one at the wanted rank is right, for each query."""
    candidates = torch.linspace(1, 0, 60).reshape(-1, 1)
    pairs = [measure_queries(torch.ones(1, 1), candidates, torch.tensor([r]), torch.arange(1, 61)) for r in found]
    values = {name: torch.cat([p.values[name] for p in pairs]) for name in pairs[0].values}
    by_query = QueryMeasures(torch.arange(len(found)), torch.cat([p.ranks for p in pairs]), values)
    r, expected = Retrieval.of(by_query, pool=60).to_json(), np.array(found)
    for k in (1, 5, 10):
        assert r[f"recall@{k}"] == pytest.approx(np.mean(expected <= k))
    assert r["mrr"] == r["map"] == pytest.approx(np.mean(1 / expected))
    assert r["median_rank"] == pytest.approx(np.median(expected))
    assert r["mean_rank"] == pytest.approx(np.mean(expected))
    assert (r["queries"], r["pool"]) == (len(found), 60)


def test_the_json_has_the_documented_keys() -> None:
    keys = ["recall@1", "recall@5", "recall@10", "mrr", "median_rank", "mean_rank", "queries", "pool"]
    found = measure_queries(torch.eye(1), torch.eye(1), torch.tensor([0]), torch.tensor([0]))
    assert list(Retrieval.of(found, pool=1).to_json()) == [*keys, "precision@5", "precision@10", "map", "ndcg@10"]


def of_rows(vectors: dict[str, Tensor], rows: dict[str, list[int]], groups: list[int]) -> Embeddings:
    return Embeddings(vectors, {m: torch.tensor(r) for m, r in rows.items()}, torch.tensor(groups))


def test_perfect_embeddings_are_found_at_once() -> None:
    vectors = {"text": torch.eye(12), "image": torch.eye(12), "graph": torch.eye(12)}
    results = retrieval(of_rows(vectors, {m: list(range(12)) for m in vectors}, list(range(12))))
    assert len(results) == 6
    for r in results.values():
        assert (r.recall_at_1, r.recall_at_5, r.recall_at_10, r.mrr, r.median_rank, r.mean_rank) == (1,) * 6
        assert (r.queries, r.pool) == (12, 12)


def test_random_embeddings_are_found_by_chance() -> None:
    n = 800
    vectors = {m: torch.nn.functional.normalize(torch.randn(n, 64), dim=1) for m in ("text", "image")}
    for r in retrieval(of_rows(vectors, {m: list(range(n)) for m in vectors}, list(range(n)))).values():
        assert r.mean_rank == pytest.approx((n + 1) / 2, abs=6 * n / math.sqrt(12 * n))
        assert r.mrr == pytest.approx(sum(1 / rank for rank in range(1, n + 1)) / n, abs=0.01)
        assert r.recall_at_10 == pytest.approx(10 / n, abs=6 * math.sqrt(10 / n / n))


def test_each_direction_searches_the_vectors_that_its_modality_has() -> None:
    groups = [0, 0, 1, 2, 3, 3]
    rows = {"text": [0, 2, 3, 5], "image": [1, 2, 4], "audio": [3]}
    vectors = {m: torch.nn.functional.normalize(torch.randn(len(r), 4), dim=1) for m, r in rows.items()}
    results = retrieval(of_rows(vectors, rows, groups))
    assert set(results) == {"text->image", "image->text", "text->audio", "audio->text"}  # no image is in group 2
    for pair, r in results.items():
        a, b = pair.split("->")
        of = {m: [groups[row] for row in rows[m]] for m in (a, b)}
        expected = brute_force(vectors[a].tolist(), vectors[b].tolist(), of[a], of[b])
        assert (r.queries, r.pool) == (len(expected), len(rows[b]))
        assert r.mean_rank == pytest.approx(np.mean(expected))
    assert results["text->audio"].queries == 1


def test_one_modality_alone_has_no_pairs() -> None:
    assert retrieval(of_rows({"text": torch.eye(3)}, {"text": [0, 1, 2]}, [0, 1, 2])) == {}


def test_a_wider_pool_is_searched_with_the_same_queries() -> None:
    everything = Embeddings(
        {m: nn.functional.normalize(torch.randn(30, 8), dim=1) for m in "ab"},
        {m: torch.arange(30) for m in "ab"},
        torch.arange(30),
    )
    few = Embeddings(
        {m: v[:5] for m, v in everything.vectors.items()}, {m: torch.arange(5) for m in "ab"}, torch.arange(5)
    )
    found = retrieval(few, everything)
    scores = (few.vectors["a"] @ everything.vectors["b"].T).numpy()
    expected = [(row >= row[i] - 1e-6).sum() for i, row in enumerate(scores)]
    assert (found["a->b"].queries, found["a->b"].pool) == (5, 30)
    assert found["a->b"].mean_rank == pytest.approx(sum(expected) / 5)


def test_a_pool_of_few_different_vectors_is_reported() -> None:
    words = torch.eye(3)[[0, 1, 2, 0, 1, 2, 0]]
    rows = {"text": torch.arange(7), "audio": torch.arange(7)}
    sounds = torch.nn.functional.normalize(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    (line,) = warn_repeated_vectors(Embeddings({"text": words, "audio": sounds}, rows, torch.arange(7)))
    assert line.startswith("The pool of text holds 3 different vectors among 7; ")
