"""Rankings against a plain transcription of the protocol."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from multimodal.evaluation import ranking
from multimodal.evaluation.ranking import rankings, without_itself

NUMBERS = (-1.0, -0.5, 0.0, 0.25, 1.0, math.nan)
Found = dict[int, list[tuple[int, int]]]  # query -> (candidate, wrong before it), in order


def plain(queries: Tensor, candidates: Tensor, query_groups: Tensor, candidate_groups: Tensor, own: Tensor) -> Found:
    found = {}
    for i, (query, group) in enumerate(zip(queries.tolist(), query_groups.tolist(), strict=True)):
        others = [j for j in range(len(candidates)) if j != own[i]]
        score = {j: sum(a * b for a, b in zip(query, candidates[j].tolist(), strict=True)) for j in others}
        right = [j for j in others if candidate_groups[j] == group]
        wrong = [score[j] for j in others if candidate_groups[j] != group]
        usable = {j: -math.inf if math.isnan(score[j]) else score[j] for j in right}
        before = {j: sum(math.isnan(s) or s >= usable[j] - 1e-6 for s in wrong) for j in right}
        if right:
            found[i] = [(j, before[j]) for j in sorted(right, key=lambda j: -usable[j])]
    return found


@st.composite
def searches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dim, q, c = draw(st.integers(1, 3)), draw(st.integers(0, 7)), draw(st.integers(1, 9))
    vector = st.lists(st.sampled_from(NUMBERS), min_size=dim, max_size=dim)
    queries, candidates = (draw(st.lists(vector, min_size=n, max_size=n)) for n in (q, c))
    of_queries, of_candidates = (draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)) for n in (q, c))
    own = draw(st.lists(st.integers(-1, c - 1), min_size=q, max_size=q))
    return (
        torch.tensor(queries).reshape(-1, dim),
        torch.tensor(candidates),
        torch.tensor(of_queries, dtype=torch.int64),
        torch.tensor(of_candidates),
        torch.tensor(own, dtype=torch.int64),
    )


@given(searches(), st.integers(1, 40), st.sampled_from([0, 1, 100]))
@settings(deadline=None, max_examples=200)
def test_rankings_follow_the_protocol(
    search: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], block: int, few: int
) -> None:
    queries, candidates, query_groups, candidate_groups, own = search
    found: Found = {}
    ignored = without_itself(own, len(candidates))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "FEW", few)  # with 0, scores are sorted
        for r in rankings(queries, candidates, query_groups, candidate_groups, ignored, block):
            for i, n, places, before in zip(r.queries, r.counts, r.candidates, r.wrong_before, strict=True):
                assert (places[n:] == -1).all()
                found[int(i)] = list(zip(places[:n].tolist(), before[:n].tolist(), strict=True))
    assert found == plain(*search)


def test_a_search_within_a_modality_leaves_out_the_query() -> None:
    vectors = nn.functional.normalize(torch.randn(40, 6), dim=1)
    groups, ignored = torch.arange(40) // 2, without_itself(torch.arange(40), 40)
    for r in rankings(vectors, vectors, groups, groups, ignored):
        assert (r.candidates[:, 0] == r.queries ^ 1).all()
    ranks = torch.cat([r.ranks[:, 0] for r in rankings(vectors, vectors, groups, groups, ignored)])
    assert ranks.float().mean() > 5  # not found first, as the query itself would be


@pytest.mark.parametrize("ignored", [None, without_itself(torch.tensor([-1, -1, -1]), 4)])
def test_ignoring_nothing_changes_nothing(ignored: ranking.Ignored | None) -> None:
    vectors, groups = torch.randn(4, 3), torch.tensor([0, 0, 1, 2])
    (found,) = rankings(vectors[:3], vectors, groups[:3], groups, ignored)
    (expected,) = rankings(vectors[:3], vectors, groups[:3], groups)
    assert torch.equal(found.wrong_before, expected.wrong_before)


def test_memory_is_bounded_by_the_block() -> None:
    largest = 0
    original = ranking._rank_block

    def record(scores: Tensor, *rest: Tensor) -> ranking.Ranking:
        nonlocal largest
        largest = max(largest, scores.numel())
        return original(scores, *rest)

    vectors, groups = torch.randn(500, 4), torch.arange(500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_rank_block", record)
        list(rankings(vectors, vectors, groups, groups, block=5_000))
    assert largest == 5_000
