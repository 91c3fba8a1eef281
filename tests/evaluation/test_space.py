"""The shape of a space is put together from its measures."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation import geometry, space
from multimodal.evaluation.mixed_pool import mixed_pool
from multimodal.evaluation.retrieval import retrieval
from multimodal.evaluation.space import Space


def made(rows: dict[str, Tensor], n: int) -> Embeddings:
    vectors = {m: functional.normalize(torch.randn(len(r), 6) + 1, dim=1) for m, r in rows.items()}
    return Embeddings(vectors, rows, groups=torch.arange(n))


def test_each_modality_and_pair_has_its_measures() -> None:
    e = made({"text": torch.tensor([0, 1, 2, 3]), "image": torch.tensor([3, 1, 4])}, 5)
    found = Space.of(e)
    text, image = e.vectors["text"], e.vectors["image"]
    assert found.modalities["text"].vectors == 4
    assert found.modalities["image"].effective_rank == pytest.approx(geometry.effective_rank(image))
    pair = found.pairs["text-image"]
    assert pair.partners == 2
    assert pair.alignment == pytest.approx(geometry.alignment(text[[3, 1]], image[[0, 1]]))
    assert pair.gap == pytest.approx((text.mean(0) - image.mean(0)).norm().item(), rel=1e-5)
    assert pair.hubness == geometry.hubness(text, image)
    assert math.isnan(
        Space.of(made({"text": torch.tensor([0]), "image": torch.tensor([0])}, 1)).modalities["text"].uniformity
    )
    assert pair.hubness_back == geometry.hubness(image, text)
    assert found.mixed == mixed_pool(e)
    assert found.mixed_centred == found.centred == {}


def test_the_gap_is_closed_by_means_of_other_rows() -> None:
    rows = {"text": torch.arange(40), "image": torch.arange(40)}
    measured, other = made(rows, 40), made(rows, 40)
    found = Space.of(measured, geometry.modality_means(other))
    closed = geometry.close_gap(measured, geometry.modality_means(other))
    assert found.mixed_centred == mixed_pool(closed)
    assert found.centred == retrieval(closed)
    assert found.uncentred == retrieval(measured)
    assert found.mixed_centred != mixed_pool(geometry.close_gap(measured, geometry.modality_means(measured)))
    titles = [grid.title for grid in found.grids()]
    assert titles[-1] == "Two modalities, each one's mean subtracted"
    assert len(titles) == 5


def test_modalities_without_a_common_row_have_no_alignment() -> None:
    found = Space.of(made({"text": torch.tensor([0, 1]), "image": torch.tensor([2, 3])}, 4))
    assert math.isnan(found.pairs["text-image"].alignment)
    assert found.grids()[1].rows[0][:3] == ["text-image", "0", "-"]


def test_large_modalities_are_measured_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    e = made({"text": torch.arange(300), "image": torch.arange(300)}, 300)
    exact = Space.of(e)
    monkeypatch.setattr(space, "SAMPLE", 100)
    sampled = Space.of(e)
    assert sampled.modalities["text"].vectors == 300
    assert sampled.modalities["text"].uniformity != exact.modalities["text"].uniformity
    assert sampled.modalities["text"].uniformity == pytest.approx(exact.modalities["text"].uniformity, abs=0.2)
