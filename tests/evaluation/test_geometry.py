"""Geometry against plain transcriptions of the formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation import geometry
from multimodal.evaluation.geometry import (
    alignment,
    close_gap,
    effective_rank,
    hubness,
    k_occurrences,
    modality_gap,
    modality_means,
    spectrum,
    uniformity,
)


def unit(n: int, dim: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_alignment_is_the_mean_squared_distance() -> None:
    x, y = unit(50, 7), unit(50, 7, seed=1)
    expected = np.mean([np.sum((a - b) ** 2) for a, b in zip(x.double().numpy(), y.double().numpy(), strict=True)])
    assert alignment(x, y) == pytest.approx(expected)


@pytest.mark.parametrize("block", [1, 100, 2**24])
def test_uniformity_is_the_log_of_the_mean_over_all_pairs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "BLOCK", block)
    x = unit(40, 5)
    pairs = torch.pdist(x.double()).square()
    assert uniformity(x) == pytest.approx(pairs.mul(-2).exp().mean().log().item(), rel=1e-5)


def test_equal_vectors_are_as_uneven_as_can_be() -> None:
    assert uniformity(torch.ones(9, 4) / 2) == pytest.approx(0, abs=1e-6)


def test_effective_rank_is_the_exponential_of_the_entropy() -> None:
    x = unit(60, 8) * torch.linspace(0.1, 2, 8)
    values = np.linalg.svd(x.double().numpy(), compute_uv=False)
    assert effective_rank(x) == pytest.approx(math.exp(entropy(values / values.sum())))
    np.testing.assert_allclose(spectrum(x), values**2 / (values**2).sum())


def test_vectors_on_one_line_have_an_effective_rank_of_one() -> None:
    assert effective_rank(torch.tensor([[1.0, 0.0]]).repeat(20, 1)) == pytest.approx(1)


@pytest.mark.parametrize("block", [1, 2**24])
def test_occurrences_count_the_nearest(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "BLOCK", block)
    q, c = unit(30, 4), unit(20, 4, seed=1)
    nearest = np.argsort(-(q @ c.T).numpy(), axis=1)[:, :3]
    expected = np.bincount(nearest.flatten(), minlength=20)
    assert k_occurrences(q, c, k=3).tolist() == expected.tolist()
    centred = expected - expected.mean()
    assert hubness(q, c, k=3) == pytest.approx((centred**3).mean() / (centred**2).mean() ** 1.5)


def test_one_candidate_near_to_all_queries_is_a_hub() -> None:
    queries, candidates = unit(200, 30), unit(100, 30, seed=1)
    even = hubness(queries, candidates)
    candidates[0] = functional.normalize(queries.mean(dim=0), dim=0)
    assert hubness(queries, candidates) > even + 1


def test_a_pool_smaller_than_k_has_no_hubs() -> None:
    assert hubness(unit(5, 3), unit(2, 3)) == 0.0


def test_subtracting_the_means_closes_the_gap() -> None:
    rows = torch.arange(200)
    shift = functional.normalize(torch.randn(12), dim=0) * 3
    content = torch.randn(200, 12)
    vectors = {
        "text": functional.normalize(content + shift, dim=1),
        "image": functional.normalize(content - shift, dim=1),
    }
    apart = Embeddings(vectors, {"text": rows, "image": rows}, groups=rows)
    means = modality_means(apart)
    expected = np.linalg.norm(vectors["text"].double().mean(0) - vectors["image"].double().mean(0))
    assert modality_gap(means, "text", "image") == pytest.approx(float(expected), rel=1e-5)
    closed = close_gap(apart, means)
    assert modality_gap(modality_means(closed), "text", "image") < 0.1 * expected
    for v in closed.vectors.values():
        torch.testing.assert_close(v.norm(dim=1), torch.ones(200))
