"""The curve of sizes: each point equals retrieval by the vectors that it stands for."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
import torch
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.evaluation.retrieval import retrieval
from multimodal.evaluation.sizes import SizePoint, Sizes


def made(n: int, dim: int = 32, noise: float = 0.12) -> Embeddings:
    generator = torch.Generator().manual_seed(0)
    middle = functional.normalize(torch.randn(n, dim, generator=generator), dim=1)
    vectors = {
        m: functional.normalize(middle + noise * torch.randn(n, dim, generator=generator), dim=1)
        for m in ("text", "image")
    }
    return Embeddings(vectors, dict.fromkeys(vectors, torch.arange(n)), groups=torch.arange(n))


def point(sizes: Sizes, stored: str, dim: int, rescored: bool = False) -> SizePoint:
    return next(p for p in sizes.points if (p.stored, p.dim, p.rescored) == (stored, dim, rescored))


def mean_recall(e: Embeddings, vectors: dict[str, torch.Tensor], k: int) -> float:
    found = retrieval(Embeddings(vectors, e.rows, e.groups)).values()
    return fmean(getattr(r, f"recall_at_{k}") for r in found)


def test_points_equal_retrieval_by_their_vectors() -> None:
    e = made(300)
    sizes = Sizes.of(e)
    assert [p.dim for p in sizes.points if p.stored == "float32" and not p.rescored] == [32, 16, 8]
    for dim in (32, 16):
        prefix = {m: functional.normalize(v[:, :dim], dim=1) for m, v in e.vectors.items()}
        assert point(sizes, "float32", dim).recall_at_1 == pytest.approx(mean_recall(e, prefix, 1))
        assert point(sizes, "float32", dim).recall_at_10 == pytest.approx(mean_recall(e, prefix, 10))
        signs = {m: functional.normalize(v[:, :dim].sign(), dim=1) for m, v in e.vectors.items()}
        assert point(sizes, "binary", dim).recall_at_1 == pytest.approx(mean_recall(e, signs, 1))
    assert [point(sizes, s, 32).bytes for s in ("float32", "int8", "binary")] == [128, 32, 4]
    assert point(sizes, "int8", 32).recall_at_1 == pytest.approx(point(sizes, "float32", 32).recall_at_1, abs=0.02)
    assert all(p.milliseconds > 0 for p in sizes.points)


def test_rescoring_orders_the_first_candidates_by_the_whole_vectors() -> None:
    few, e = made(40), made(300)
    assert point(Sizes.of(few), "binary", 8, True).recall_at_1 == point(Sizes.of(few), "float32", 32).recall_at_1
    text, image = e.vectors["text"].numpy(), e.vectors["image"].numpy()
    right = []
    for queries, pool in ((text, image), (image, text)):
        scores = queries[:, :16] / np.linalg.norm(queries[:, :16], axis=1, keepdims=True)
        scores = scores @ (pool[:, :16] / np.linalg.norm(pool[:, :16], axis=1, keepdims=True)).T
        for n in range(300):
            shortlist = np.argsort(-scores[n])[:40]
            right.append(shortlist[np.argmax(pool[shortlist] @ queries[n])] == n)
    assert point(Sizes.of(e), "float32", 16, True).recall_at_1 == pytest.approx(np.mean(right))


def test_queries_without_an_answer_do_not_count() -> None:
    e = made(40)
    half = Embeddings(e.vectors, e.rows, torch.arange(40))
    pool = Embeddings({m: v[:20] for m, v in e.vectors.items()}, {m: r[:20] for m, r in e.rows.items()}, e.groups)
    assert Sizes.of(half, pool).pool == 20
    assert point(Sizes.of(half, pool), "float32", 32).recall_at_10 > 0.5
    other = Embeddings(e.vectors, e.rows, torch.arange(100, 140))
    with pytest.raises(UsageError, match="No query has a right answer"):
        Sizes.of(other, pool)
