"""Sums with schedules, prefixes, and modalities dropped at random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn_batches import MODALITIES, embeddings_of, gradient, two_modalities
from jsonargparse import ArgumentParser

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives import (
    Classification,
    Distillation,
    InfoNCE,
    Loss,
    Matryoshka,
    ModalityDropout,
    Objective,
    Ramp,
    Sigmoid,
    Sum,
    Triplet,
    VICReg,
)
from multimodal.objectives.compose import prefix


class Recorder(Objective):
    """An objective that records its input; its loss is the sum of all vectors."""

    def forward(self, embeddings: Embeddings) -> Loss:
        self.embeddings = embeddings
        total = sum((v.sum() for v in embeddings.vectors.values()), start=torch.zeros(()))
        return Loss(total, {"vectors": total.detach()})


@pytest.mark.parametrize(
    ("ramp", "weights"),
    [
        (Ramp(0.0, 1.0), {0.0: 0.0, 0.25: 0.25, 1.0: 1.0}),
        (Ramp(2.0, 1.0, begin=0.5, finish=0.75), {0.0: 2.0, 0.5: 2.0, 0.625: 1.5, 0.75: 1.0, 1.0: 1.0}),
    ],
)
def test_a_ramp_goes_from_start_to_end(ramp: Ramp, weights: dict[float, float]) -> None:
    assert {progress: ramp.at(progress) for progress in weights} == weights


@pytest.mark.parametrize(("begin", "finish"), [(0.5, 0.5), (0.7, 0.2), (-0.1, 1.0), (0.0, 1.1)])
def test_a_ramp_outside_the_training_is_rejected(begin: float, finish: float) -> None:
    with pytest.raises(UsageError, match=r"Ramp: begin .* and finish .* must satisfy 0 <= begin < finish <= 1"):
        Ramp(0.0, 1.0, begin, finish)


def test_a_sum_weighs_its_objectives_as_the_training_continues() -> None:
    embeddings = two_modalities(5)
    clip, triplet, siglip = InfoNCE(), Triplet(), Sigmoid()
    objective = Sum(
        {"clip": clip, "triplet": triplet, "siglip": siglip}, {"clip": 2.0, "triplet": Ramp(0.0, 4.0)}
    ).double()
    alone = [each(embeddings).total.item() for each in (clip, triplet, siglip)]
    for progress in (0.0, 0.25, 1.0):
        objective.set_progress(progress)
        loss = objective(embeddings)
        assert loss.total.item() == pytest.approx(2 * alone[0] + 4 * progress * alone[1] + alone[2], rel=1e-12)
    assert [loss.parts[name].item() for name in ("clip", "triplet", "siglip")] == alone
    assert {"clip/temperature", "clip/image-text", "triplet/image-text", "siglip/bias"} <= set(loss.parts)
    assert not any(part.requires_grad for part in loss.parts.values())


def test_progress_reaches_the_innermost_objectives() -> None:
    innermost = Sum({"seen": Recorder()}, {"seen": Ramp(1.0, 3.0)})
    outermost = Sum({"a": ModalityDropout(Matryoshka(innermost, [2]))})
    outermost.set_progress(0.5)
    assert innermost.progress == 0.5
    assert Sum({"seen": Recorder()}).progress == 0.0


def test_compositions_name_the_modalities_and_targets_of_their_objectives() -> None:
    teacher = {"text": "taught_text", "image": "taught_image"}
    objective = Sum({"clip": InfoNCE({"image-graph": 1.0}), "teacher": Distillation(teacher)})
    for each in (objective, Matryoshka(objective, [2]), ModalityDropout(objective)):
        assert each.named_modalities == set(MODALITIES)
        assert each.named_targets == {"taught_text", "taught_image"}
    assert ModalityDropout(InfoNCE(), {"audio": 0.5}).named_modalities == {"audio"}


@pytest.mark.parametrize(
    ("objectives", "weights", "message"),
    [
        ({}, None, "objectives is empty; give at least one"),
        ({"clip": InfoNCE()}, {"clop": 1.0}, "there is a weight for 'clop', which is not one of clip"),
        ({"clip": InfoNCE()}, {"clip": -1.0}, "of 'clip' must be at least 0"),
        ({"clip": InfoNCE()}, {"clip": Ramp(0.0, math.inf)}, "of 'clip' must be at least 0"),
    ],
)
def test_invalid_sums_are_rejected(
    objectives: Mapping[str, Objective], weights: Mapping[str, float | Ramp] | None, message: str
) -> None:
    with pytest.raises(UsageError, match=f"Sum: .*{message}"):
        Sum(objectives, weights)


def test_matryoshka_is_the_mean_over_prefixes_scaled_to_unit_length() -> None:
    embeddings, inner = two_modalities(6, dim=8), InfoNCE().double()
    loss = Matryoshka(inner, dims=[8, 2, 5])(embeddings)
    totals = {}
    for dim in (2, 5, 8):
        cut = {m: v[:, :dim] / v[:, :dim].norm(dim=1, keepdim=True) for m, v in embeddings.vectors.items()}
        totals[dim] = inner(replace(embeddings, vectors=cut)).total.item()
        assert loss.parts[str(dim)].item() == pytest.approx(totals[dim], rel=1e-12)
        assert loss.parts[f"{dim}/image-text"].item() == pytest.approx(totals[dim], rel=1e-12)
    assert loss.total.item() == pytest.approx(sum(totals.values()) / 3, rel=1e-12)
    loss.total.backward()
    assert all(gradient(v).abs().sum() > 0 for v in embeddings.vectors.values())


@pytest.mark.parametrize("dims", [[], [0, 4], [4, 4]])
def test_invalid_prefixes_are_rejected(dims: list[int]) -> None:
    with pytest.raises(UsageError, match=r"Matryoshka: dims .* must be different numbers of at least 1"):
        Matryoshka(InfoNCE(), dims)


def test_prefixes_longer_than_the_vectors_are_rejected() -> None:
    with pytest.raises(UsageError, match="the vectors have 4 components, fewer than the 5 in dims"):
        prefix(torch.ones(1, 4), 5)


def test_dropout_drops_vectors_only_in_training_and_never_all_of_a_row() -> None:
    rows = {"image": list(range(400)), "graph": list(range(200)), "text": list(range(100, 400))}
    embeddings, seen = embeddings_of(rows, list(range(400))), Recorder()
    objective = ModalityDropout(seen, rate=0.3)
    loss = objective(embeddings)
    loss.total.backward()
    kept = {m: set(r.tolist()) for m, r in seen.embeddings.rows.items()}
    assert set().union(*kept.values()) == set(range(400))
    complete = set(range(100, 200))  # a row of all three keeps one with probability 1 - 0.3 (1 - 0.3^2 / 3) or so
    shares = [len(kept[m] & complete) / 100 for m in MODALITIES]
    assert all(0.5 < share < 0.9 for share in shares)
    for modality, vectors in embeddings.vectors.items():
        keep = torch.tensor([row in kept[modality] for row in rows[modality]])
        torch.testing.assert_close(seen.embeddings.vectors[modality], vectors[keep])
        torch.testing.assert_close(gradient(vectors), keep[:, None].double().expand_as(vectors))
    objective.eval()
    objective(embeddings)
    assert seen.embeddings is embeddings


def test_dropout_of_one_modality_keeps_the_others_and_rows_without_another() -> None:
    embeddings, seen = embeddings_of({"image": [0, 1, 2], "text": [0, 1]}, [0, 1, 2]), Recorder()
    objective = ModalityDropout(seen, rate={"image": 1 - 1e-9})
    objective(embeddings)
    assert {m: r.tolist() for m, r in seen.embeddings.rows.items()} == {"image": [2], "text": [0, 1]}


def test_a_completely_dropped_modality_has_a_gradient_of_zero() -> None:
    embeddings = two_modalities(3)
    loss = ModalityDropout(InfoNCE(), rate={"image": 1 - 1e-9})(embeddings)
    loss.total.backward()
    assert loss.total.item() == 0
    assert all(not gradient(v).any() for v in embeddings.vectors.values())


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan, {"image": 2.0}])
def test_invalid_rates_are_rejected(rate: Any) -> None:
    with pytest.raises(UsageError, match=r"ModalityDropout: rate .* lies outside \[0, 1\)"):
        ModalityDropout(InfoNCE(), rate)


def test_a_composition_can_be_written_in_yaml() -> None:
    def of(name: str, **settings: Any) -> dict[str, Any]:
        return {"class_path": f"multimodal.objectives.{name}", "init_args": settings}

    parser = ArgumentParser()
    parser.add_argument("--objective", type=Objective)
    objectives = {
        "clip": of("InfoNCE", pairs={"image-*": 1.0}, temperature={"*-*": 0.05}, smoothing=0.1),
        "sort": of("Classification", target="kind", classes=3, dim=4),
    }
    weights = {"clip": 1.0, "sort": {"start": 0.0, "end": 0.5}}
    dropped = of("ModalityDropout", objective=of("Sum", objectives=objectives, weights=weights), rate={"text": 0.2})
    config = parser.parse_object({"objective": of("Matryoshka", objective=dropped, dims=[2, 4])})
    objective = parser.instantiate(config)["objective"]
    assert isinstance(objective, Matryoshka)
    assert isinstance(objective.objective, ModalityDropout)
    total = objective.objective.objective
    assert isinstance(total, Sum)
    assert total.weights == {"clip": 1.0, "sort": Ramp(0.0, 0.5)}
    assert isinstance(total.objectives["sort"], Classification)
    assert objective(two_modalities(3, dtype=torch.float32)).total > 0


COMPARED: list[tuple[Objective, set[str] | None]] = [
    (InfoNCE(), {"image-text", "graph-image", "graph-text"}),
    (InfoNCE({"image-*": 1.0}), {"image-text", "graph-image"}),
    (Sigmoid({"text-graph": 0.5}), {"graph-text"}),
    (Triplet({"image-sound": 1.0}), set()),  # no such modality here
    (Matryoshka(InfoNCE({"text-image": 1.0}), [2, 4]), {"image-text"}),
    (ModalityDropout(InfoNCE({"text-image": 1.0})), {"image-text"}),
    (Sum({"a": InfoNCE({"image-text": 1.0}), "b": VICReg({"graph-text": 1.0})}), {"image-text", "graph-text"}),
    (Sum({"a": InfoNCE({"image-text": 1.0}), "b": VICReg()}, {"b": 0.0}), {"image-text"}),
    (Sum({"a": InfoNCE({"image-*": 1.0}), "b": Classification("kind", 3, 4)}), {"image-text", "graph-image"}),
    (Sum({"a": InfoNCE({"image-*": 1.0}), "b": Recorder()}), None),  # one of them does not report its pairs
    (Distillation({"image": "i", "text": "t"}), {"image-text"}),
    (Classification("kind", 3, 4), set()),
    (Recorder(), None),
]


@pytest.mark.parametrize(("objective", "expected"), COMPARED)
def test_an_objective_reports_which_pairs_of_modalities_it_compares(
    objective: Objective, expected: set[str] | None
) -> None:
    pairs = objective.compared_pairs(["image", "text", "graph"])
    assert (None if pairs is None else {"-".join(sorted(pair)) for pair in pairs}) == expected


def test_an_objective_without_a_loss_is_rejected() -> None:
    class Scalar(Recorder):
        def forward(self, embeddings: Embeddings) -> Any:
            return super().forward(embeddings).total

    message = r"Scalar returned a Tensor; return Loss\(total, parts\)\."
    for objective in (Scalar(), Sum({"mine": Scalar()})):
        with pytest.raises(UsageError, match=message):
            objective(two_modalities(5))
