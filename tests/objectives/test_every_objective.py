"""Properties of every objective: correct gradients, and independence of the order of a batch and of empty parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from drawn_batches import MODALITIES, embeddings_of, gradient, shuffled, unit_vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

from multimodal.core.embeddings import Embeddings
from multimodal.objectives import (
    BackwardCompatible,
    BarlowTwins,
    Classification,
    Distillation,
    InfoNCE,
    Matryoshka,
    ModalityDropout,
    MultiLabel,
    Objective,
    Regression,
    Sigmoid,
    Sum,
    Triplet,
    VICReg,
)

TAUGHT = {m: f"taught_{m}" for m in MODALITIES}
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "InfoNCE": lambda: InfoNCE(temperature=0.3),
    "InfoNCE hard smooth": lambda: InfoNCE({"image-*": 1.0}, {"*-*": 0.4, "image-text": 0.2}, 10, 0.2, 0.5),
    "InfoNCE decoupled": lambda: InfoNCE(temperature=0.3, decoupled=True),
    "InfoNCE decoupled hard": lambda: InfoNCE(temperature=0.3, hardness=0.5, decoupled=True),
    "Sigmoid": lambda: Sigmoid(temperature=0.3, bias={"*-*": -1.0, "text-*": 0.5}),
    "Triplet hard": lambda: Triplet(margin=0.7),
    "Triplet semi-hard": lambda: Triplet(margin=0.7, mining="semi-hard"),
    "Triplet given": lambda: Triplet(margin=0.7, negatives="given"),
    "VICReg": lambda: VICReg({"image-text": 1.0, "graph-text": 2.0}),
    "BarlowTwins": BarlowTwins,
    "Classification": lambda: Classification("kind", classes=3, dim=4),
    "MultiLabel": lambda: MultiLabel("labels", labels=2, dim=4),
    "Regression": lambda: Regression("labels", dim=4, outputs=2),
    "Distillation": lambda: Distillation(TAUGHT, temperature=0.5),
    "BackwardCompatible": lambda: BackwardCompatible(TAUGHT, temperature=0.5),
    "Matryoshka": lambda: Matryoshka(InfoNCE(temperature=0.3), [2, 4]),
    "Sum": lambda: Sum({"clip": InfoNCE(temperature=0.3), "vicreg": VICReg()}, {"vicreg": 0.1}),
    "ModalityDropout": lambda: ModalityDropout(InfoNCE(temperature=0.3)).eval(),
}
every_objective = pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)


def batch(seed: int = 0) -> Embeddings:
    """Eight rows, some without a modality, two of them hard negatives, with targets for most."""
    rows = {"image": [0, 1, 2, 3, 5], "graph": [1, 2, 3, 4, 5], "text": [0, 2, 3, 4, 5, 6, 7]}
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(8, 2, generator=generator, dtype=torch.float64)
    labels[3, 0] = labels[6] = torch.nan
    targets = {"kind": torch.tensor([0, 1, 2, torch.nan, 1, 0, torch.nan, 2]), "labels": labels}
    targets |= {name: unit_vectors(8, seed + 50 + i).detach() for i, name in enumerate(TAUGHT.values())}
    return replace(
        embeddings_of(rows, [0, 0, 1, 2, 1, 3, 8, 9], seed),
        targets=targets,
        negative_of=torch.tensor([-1, -1, -1, -1, -1, -1, 0, 3]),
    )


@every_objective
def test_gradients_equal_numerical_derivatives(make: Callable[[], Objective]) -> None:
    embeddings, objective = batch(), make().double()
    names = [name for name, _ in objective.named_parameters()]

    def loss(*tensors: Tensor) -> Tensor:
        vectors = dict(zip(embeddings.modalities, tensors, strict=False))
        parameters = {name: t.clone() for name, t in zip(names, tensors[len(vectors) :], strict=True)}
        return functional_call(objective, parameters, (replace(embeddings, vectors=vectors),)).total

    inputs = (*embeddings.vectors.values(), *(p.detach().clone().requires_grad_() for p in objective.parameters()))
    assert loss(*inputs).item() > 0
    assert torch.autograd.gradcheck(loss, inputs)


@every_objective
@given(order=st.permutations(range(8)), modalities=st.permutations(MODALITIES), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_the_order_of_rows_and_modalities_does_not_matter(
    make: Callable[[], Objective], order: list[int], modalities: list[str], seed: int
) -> None:
    torch.manual_seed(0)  # the heads' weights
    embeddings, objective = batch(seed), make().double()
    before, after = objective(embeddings).total, objective(shuffled(embeddings, order, modalities)).total
    assert after.item() == pytest.approx(before.item(), rel=1e-10)


@every_objective
@pytest.mark.parametrize(
    "embeddings",
    [
        pytest.param(Embeddings({}, {}, torch.arange(3)), id="no modality"),
        pytest.param(embeddings_of({"image": [0, 1]}, [0, 1]), id="one modality"),
        pytest.param(embeddings_of({"image": [0, 1], "text": [2, 3]}, [0, 1, 2, 3]), id="no match"),
        pytest.param(embeddings_of({"image": [], "text": [0]}, [0]), id="no vector"),
    ],
)
def test_without_anything_to_compare_loss_and_gradients_are_zero(
    make: Callable[[], Objective], embeddings: Embeddings
) -> None:
    objective = make().double()
    for tensor in embeddings.vectors.values():
        tensor.grad = None
    total = objective(embeddings).total
    assert total.item() == 0
    tensors = [*embeddings.vectors.values(), *objective.parameters()]
    if tensors:
        total.backward()
    assert all(torch.equal(gradient(t), torch.zeros_like(t)) for t in tensors)


@every_objective
def test_the_total_depends_only_on_the_vectors(make: Callable[[], Objective]) -> None:
    embeddings, objective = batch(), make().double()
    detached = {m: v.detach().clone().requires_grad_() for m, v in embeddings.vectors.items()}
    objective(embeddings).total.backward()
    objective(replace(embeddings, vectors=detached)).total.backward()
    for modality, vectors in detached.items():
        assert torch.equal(gradient(vectors), gradient(embeddings.vectors[modality]))
