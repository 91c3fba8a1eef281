"""First hits equal a loop over the queries, and agree with recall@1."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.page.first_hits import first_hits
from multimodal.evaluation.retrieval import retrieval_by_query


def draw(seed: int, n: int, groups: int, same: bool) -> Embeddings:
    """Vectors, some of which are equal, of n rows in groups; every third row has no image."""
    rng = torch.Generator().manual_seed(seed)
    few = functional.normalize(torch.randn(3 if same else n, 4, generator=rng), dim=1)
    texts, images = (few[torch.randint(len(few), (n,), generator=rng)] for _ in range(2))
    has_image = torch.arange(n) % 3 > 0
    return Embeddings(
        {"text": texts, "image": images[has_image]},
        {"text": torch.arange(n), "image": torch.arange(n)[has_image]},
        torch.randint(groups, (n,), generator=rng),
        tuple(map(str, range(n))),
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30), st.integers(1, 12), st.booleans())
def test_first_hits_equal_a_loop(seed: int, n: int, groups: int, same: bool) -> None:
    found = draw(seed, n, groups, same)
    pairs = [("text", "image"), ("image", "text"), ("text", "text")]
    for pair, measured in retrieval_by_query(found, found, pairs).items():
        source, _, target = pair.partition("->")
        first = first_hits(found, found, pair, measured.queries)
        assert first.queries.tolist() == measured.queries.tolist()
        assert first.is_right.double().tolist() == measured.values["recall@1"].tolist()
        vectors, pool = (found.vectors[m].double().numpy() for m in (source, target))
        for place, query in enumerate(measured.queries.tolist()):
            scores = pool @ vectors[query]
            right = (found.groups_of(target) == found.groups_of(source)[query]).numpy()
            if source == target:
                scores[query], right[query] = -np.inf, False
            wrong_best = max(scores[~right & np.isfinite(scores)], default=-np.inf)
            right_best = scores[right].max()
            assert first.is_right[place] == (right_best - 1e-6 > wrong_best)
            assert np.isclose(first.margins[place].item(), wrong_best - right_best, atol=1e-5)
            assert np.isclose(scores[first.hits[place]], max(wrong_best, right_best), atol=1e-5)
            assert right[first.hits[place]] == first.is_right[place]


def test_a_vector_that_is_not_finite_is_never_right() -> None:
    found = draw(0, 9, 9, same=False)
    found.vectors["text"][4] = torch.nan
    measured = retrieval_by_query(found)["text->image"]
    first = first_hits(found, found, "text->image", measured.queries)
    assert not first.is_right[measured.queries == 4].item()
    assert first.margins[measured.queries == 4].item() == 0  # it has no scores
