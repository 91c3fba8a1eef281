"""Backward-compatible training against its formula, transcribed with loops in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from drawn_batches import MODALITIES, embeddings_of
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives import BackwardCompatible

OLD = {"image": "old_image", "text": "old_text"}


def embeddings_with_old(width: int = 4) -> Embeddings:
    """Five rows in four groups; there are old vectors of the images 0, 2, 4 and of the texts 0, 1, 2, of any length."""
    generator = torch.Generator().manual_seed(3)
    targets = {name: torch.randn(5, width, dtype=torch.float64, generator=generator) for name in OLD.values()}
    targets["old_image"][[1, 3]] = math.nan
    targets["old_text"][[3, 4]] = math.nan
    rows = {"image": [0, 1, 2, 4], "graph": [0, 1], "text": [0, 1, 2, 3]}
    return replace(embeddings_of(rows, [0, 1, 1, 2, 3]), targets=targets)


def unit(vector: Tensor) -> list[float]:
    values = vector.detach().tolist()
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


def one_direction(scores: list[list[float]], of: list[int], to: list[int]) -> float:
    """Mean over the anchors with a positive of log(sum of all) minus the mean score of the positives."""
    losses = []
    for row, group in zip(scores, of, strict=True):
        positives = [score for score, other in zip(row, to, strict=True) if other == group]
        if positives:
            losses.append(math.log(sum(math.exp(s) for s in row)) - sum(positives) / len(positives))
    return sum(losses) / len(losses)


def transcribed(new: list[Tensor], new_groups: list[int], old: list[Tensor], old_groups: list[int]) -> float:
    scores = [[sum(p * q for p, q in zip(x.detach().tolist(), unit(y), strict=True)) / 0.3 for y in old] for x in new]
    turned = [list(column) for column in zip(*scores, strict=True)]
    return (one_direction(scores, new_groups, old_groups) + one_direction(turned, old_groups, new_groups)) / 2


def test_the_loss_contrasts_new_vectors_of_each_modality_with_old_ones_of_the_other() -> None:
    batch = embeddings_with_old()
    loss = BackwardCompatible(OLD, temperature=0.3)(batch)
    image, text = (list(batch.vectors[m]) for m in ("image", "text"))
    old_image, old_text = (batch.targets[name] for name in ("old_image", "old_text"))
    new_image = transcribed(image, [0, 1, 1, 3], [old_text[0], old_text[1], old_text[2]], [0, 1, 1])
    new_text = transcribed(text, [0, 1, 1, 2], [old_image[0], old_image[2], old_image[4]], [0, 1, 3])
    assert loss.total.item() == pytest.approx((new_image + new_text) / 2, rel=1e-10)
    assert set(loss.parts) == {"image-text"}


def test_old_vectors_are_not_trained() -> None:
    batch = embeddings_with_old()
    batch.targets["old_image"].requires_grad_()
    BackwardCompatible(OLD)(batch).total.backward()
    assert batch.targets["old_image"].grad is None
    assert all(batch.vectors[m].grad is not None for m in MODALITIES)


def test_gradient_steps_make_new_queries_find_old_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    old = {name: torch.randn(20, 8, generator=generator) for name in OLD.values()}
    old["old_image"] = old["old_text"] + 0.1 * old["old_image"]  # the old model agrees with itself
    rows = torch.arange(20)
    new = {m: torch.randn(20, 8, generator=generator).requires_grad_() for m in OLD}
    objective, optimizer = BackwardCompatible(OLD), torch.optim.Adam(new.values(), 0.05)

    def recall() -> float:
        scores = torch.nn.functional.normalize(new["text"], dim=1) @ old["old_image"].T
        return (scores.argmax(1) == rows).float().mean().item()

    assert recall() < 0.3
    for _ in range(100):
        vectors = {m: torch.nn.functional.normalize(v, dim=1) for m, v in new.items()}
        optimizer.zero_grad()
        objective(Embeddings(vectors, dict.fromkeys(OLD, rows), rows, targets=old)).total.backward()
        optimizer.step()
    assert recall() > 0.9


def test_old_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(UsageError, match=r"old vectors of image \(old_image\) have the shape \(7,\).*4 wide"):
        BackwardCompatible(OLD)(embeddings_with_old(width=7))


def test_named_modalities_and_targets_come_from_pairs_and_old() -> None:
    objective = BackwardCompatible(OLD, pairs={"image-graph": 1.0})
    assert objective.named_modalities == set(MODALITIES)
    assert objective.named_targets == set(OLD.values())


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(UsageError, match="old needs a target for at least two modalities"):
        BackwardCompatible({"image": "old_image"})
    with pytest.raises(UsageError, match=r"temperature 0.0 must be a positive number"):
        BackwardCompatible(OLD, temperature=0.0)
