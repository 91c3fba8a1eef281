"""VICReg and Barlow Twins against their formulas, transcribed in NumPy, and against lightly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drawn_batches import embeddings_of, two_modalities
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import BarlowTwinsLoss, VICRegLoss

from multimodal.core.errors import UsageError
from multimodal.objectives import BarlowTwins, VICReg
from multimodal.objectives.redundancy import covariance, cross_correlation, invariance, variance

sizes = {"n": st.integers(2, 6), "d": st.integers(1, 5), "seed": st.integers(0, 99)}


def two_matrices(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)) / 2


@given(**sizes)
@settings(max_examples=40, deadline=None)
def test_the_terms_of_vicreg_are_their_formulas(n: int, d: int, seed: int) -> None:
    x, y = two_matrices(n, d, seed)
    s = sum(float(((x[i] - y[i]) ** 2).sum()) for i in range(n)) / n / d
    v = sum(max(0.0, 1 - math.sqrt(float(x[:, j].var(ddof=1)) + 1e-4)) for j in range(d)) / d
    c = np.atleast_2d(np.cov(x, rowvar=False))
    off = sum(float(c[i, j]) ** 2 for i in range(d) for j in range(d) if i != j) / d
    assert invariance(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(s, rel=1e-12)
    assert variance(torch.tensor(x)).item() == pytest.approx(v, rel=1e-12, abs=1e-12)
    assert covariance(torch.tensor(x)).item() == pytest.approx(off, rel=1e-10, abs=1e-12)


@given(**sizes)
@settings(max_examples=40, deadline=None)
def test_the_cross_correlation_is_its_formula(n: int, d: int, seed: int) -> None:
    x, y = two_matrices(n, d, seed)
    ours = cross_correlation(torch.tensor(x), torch.tensor(y), epsilon=0.0)
    assert ours.numpy() == pytest.approx(np.corrcoef(x, y, rowvar=False)[:d, d:], rel=1e-9, abs=1e-12)


def test_complete_rows_have_the_losses_of_lightly() -> None:
    embeddings = two_modalities(7, dim=5)
    x, y = (math.sqrt(5) * v for v in embeddings.vectors.values())
    ours = VICReg(invariance=3, variance=4, covariance=5)(embeddings).total
    assert ours.item() == pytest.approx(VICRegLoss(3, 4, 5)(x, y).item(), rel=1e-12)
    assert BarlowTwins(redundancy=0.3)(embeddings).total.item() == pytest.approx(
        BarlowTwinsLoss(0.3)(x, y).item(), rel=1e-10
    )


@pytest.mark.parametrize("objective", [VICReg(), BarlowTwins()])
def test_only_rows_that_have_both_modalities_count(objective: VICReg | BarlowTwins) -> None:
    embeddings = embeddings_of({"image": [0, 1, 2, 4], "text": [0, 2, 3, 4]}, [0, 1, 2, 3, 4])
    x, y = embeddings.vectors.values()
    complete = two_modalities(3)
    complete.vectors.update(image=x[[0, 2, 3]], text=y[[0, 1, 3]])
    assert objective(embeddings).total.item() == pytest.approx(objective(complete).total.item(), rel=1e-12)
    alone = embeddings_of({"image": [0, 1], "text": [1, 2]}, [0, 1, 2])
    assert objective(alone).total.item() == 0
    assert objective(alone).parts == {}


def test_ideal_vectors_have_a_loss_of_zero() -> None:
    ideal = two_modalities(8, dim=4)
    cross = torch.cat([torch.eye(4), -torch.eye(4)]).double()
    ideal.vectors.update(image=cross, text=cross)
    assert BarlowTwins()(ideal).total.item() == pytest.approx(0, abs=1e-8)
    assert VICReg()(ideal).total.item() == 0


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_invalid_weights_are_rejected(weight: float) -> None:
    with pytest.raises(UsageError, match=f"VICReg: variance {weight} must be at least 0"):
        VICReg(variance=weight)
    with pytest.raises(UsageError, match=f"BarlowTwins: redundancy {weight} must be at least 0"):
        BarlowTwins(redundancy=weight)
