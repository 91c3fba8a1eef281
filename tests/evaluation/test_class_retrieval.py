"""Retrieval by classes equals scikit-learn's measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, ndcg_score

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.class_retrieval import class_retrieval


def made(n: int, groups: list[int], seed: int) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    vectors = {
        m: torch.nn.functional.normalize(torch.randn(n, 5, generator=generator), dim=1) for m in ("text", "image")
    }
    return Embeddings(vectors, dict.fromkeys(vectors, torch.arange(n)), groups=torch.tensor(groups))


@pytest.mark.parametrize("seed", range(3))
def test_measures_equal_scikit_learn(seed: int) -> None:
    draws = np.random.default_rng(seed)
    groups = draws.integers(0, 12, 40).tolist()
    classes = [None if g == 11 else f"class {g % 3}" for g in groups]
    e = made(40, groups, seed)
    found = class_retrieval(e, classes)["text->image"]
    known = [n for n in range(40) if classes[n] is not None]
    scores = (e.vectors["text"] @ e.vectors["image"].T).numpy()[np.ix_(known, known)]
    same_class = np.array([[classes[a] == classes[b] for b in known] for a in known])
    same_item = np.array([[groups[a] == groups[b] for b in known] for a in known])
    assert found.queries == len(known)
    assert found.map == pytest.approx(
        np.mean([average_precision_score(right, of_query) for right, of_query in zip(same_class, scores, strict=True)])
    )
    gains = 1.0 * same_class + 1.0 * same_item
    assert found.graded_ndcg_at_10 == pytest.approx(ndcg_score(gains, scores, k=10))
    first = np.argsort(-scores, axis=1)[:, :10]
    assert found.precision_at_10 == pytest.approx(np.take_along_axis(same_class, first, axis=1).mean())


def test_a_pool_of_its_own_and_unknown_classes() -> None:
    e, pool = made(4, [0, 1, 2, 3], 0), made(6, [0, 1, 2, 3, 4, 5], 1)
    found = class_retrieval(e, ["cup", "hat", "hat", None], pool, ["cup", "cup", None, None, None, "bag"])
    assert found["text->image"].queries == 1  # no hat is in the pool
    assert class_retrieval(e, [None] * 4) == {}
    assert class_retrieval(e, ["a", "b", "c", "d"], pool, ["e"] * 6) == {}
