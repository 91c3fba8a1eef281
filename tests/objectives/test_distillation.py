"""Distillation against the divergence of two distributions, computed with loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from drawn_batches import MODALITIES, embeddings_of
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives import Distillation

TEACHER = {"image": "taught_image", "text": "taught_text"}


def taught_embeddings() -> Embeddings:
    """Five rows; the teacher has vectors of another width for the images 0, 2, 4 and the texts 0, 1, 2."""
    targets = {name: torch.randn(5, 7, dtype=torch.float64) for name in TEACHER.values()}
    targets["taught_image"][[1, 3]] = math.nan
    targets["taught_text"][[3, 4]] = math.nan
    rows = {"image": [0, 1, 2, 4], "graph": [0, 1], "text": [0, 1, 2, 3]}
    return replace(embeddings_of(rows, [0, 1, 2, 3, 4]), targets=targets)


def cosines(x: Tensor, y: Tensor) -> list[list[float]]:
    return [[float(p @ q / p.norm() / q.norm()) for q in y.detach()] for p in x.detach()]


def divergence(student: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        q, p = ([math.exp(x / temperature) for x in row] for row in (student_row, teacher_row))
        q, p = [x / sum(q) for x in q], [x / sum(p) for x in p]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(student)


def test_the_loss_is_the_divergence_over_rows_with_both_teacher_vectors() -> None:
    embeddings = taught_embeddings()
    loss = Distillation(TEACHER, temperature=0.3)(embeddings)
    student = cosines(embeddings.vectors["image"][[0, 2, 3]], embeddings.vectors["text"][[0, 1, 2]])
    teacher = cosines(embeddings.targets["taught_image"][[0, 2, 4]], embeddings.targets["taught_text"][[0, 1, 2]])
    transposed = [[list(column) for column in zip(*s, strict=True)] for s in (student, teacher)]
    expected = (divergence(student, teacher, 0.3) + divergence(transposed[0], transposed[1], 0.3)) / 2
    assert loss.total.item() == pytest.approx(expected, rel=1e-10)
    assert set(loss.parts) == {"image-text"}


def test_a_student_equal_to_the_teacher_has_no_loss_and_no_gradient() -> None:
    embeddings = embeddings_of({"image": [0, 1, 2], "text": [0, 1, 2]}, [0, 1, 2])
    itself = {TEACHER[m]: 3 * v.detach() for m, v in embeddings.vectors.items()}
    loss = Distillation(TEACHER)(replace(embeddings, targets=itself)).total
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    for vectors in embeddings.vectors.values():
        assert vectors.grad is not None
        assert vectors.grad.abs().max() < 1e-12


def test_the_teacher_is_not_trained() -> None:
    embeddings = taught_embeddings()
    embeddings.targets["taught_image"].requires_grad_()
    Distillation(TEACHER)(embeddings).total.backward()
    assert embeddings.targets["taught_image"].grad is None


@pytest.mark.parametrize("missing", ["targets", "all of one modality"])
def test_without_teacher_vectors_loss_and_gradients_are_zero(missing: str) -> None:
    embeddings = taught_embeddings()
    if missing == "targets":
        embeddings.targets.clear()
    else:
        embeddings.targets["taught_text"].fill_(math.nan)
    loss = Distillation(TEACHER)(embeddings)
    loss.total.backward()
    assert loss.total.item() == 0
    assert all(v.grad is not None and not v.grad.any() for v in embeddings.vectors.values())


def test_named_modalities_and_targets_come_from_pairs_and_teacher() -> None:
    objective = Distillation(TEACHER, pairs={"image-graph": 1.0})
    assert objective.named_modalities == set(MODALITIES)
    assert objective.named_targets == set(TEACHER.values())


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(UsageError, match="teacher needs a target for at least two modalities"):
        Distillation({"image": "taught_image"})
    with pytest.raises(UsageError, match=r"temperature 0.0 must be a positive number"):
        Distillation(TEACHER, temperature=0.0)
