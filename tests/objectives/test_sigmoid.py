"""The sigmoid loss against its formula, transcribed with loops, and against open_clip's."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from drawn_batches import MODALITIES, embeddings_of, gradient, incomplete_batches, two_modalities, unit_vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import SigLipLoss

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives import Sigmoid, tiles
from multimodal.objectives.sigmoid import sigmoid_loss
from multimodal.objectives.tiles import Block


def by_hand(embeddings: Embeddings, scale: float, bias: float) -> float:
    """The mean over the pairs of modalities with a match of -2 / (n + m) sum log sigma(z s)."""
    losses = []
    for a, b in combinations(embeddings.vectors, 2):
        groups = embeddings.groups_of(a).tolist(), embeddings.groups_of(b).tolist()
        if not set(groups[0]) & set(groups[1]):
            continue
        total = 0.0
        for x, x_group in zip(embeddings.vectors[a].tolist(), groups[0], strict=True):
            for y, y_group in zip(embeddings.vectors[b].tolist(), groups[1], strict=True):
                s = scale * sum(p * q for p, q in zip(x, y, strict=True)) + bias
                total += math.log1p(math.exp(-s if x_group == y_group else s))
        losses.append(2 * total / (len(groups[0]) + len(groups[1])))
    return sum(losses) / len(losses) if losses else 0.0


@given(embeddings=incomplete_batches(), temperature=st.floats(0.02, 1), bias=st.floats(-12, 3), tile=st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_the_loss_is_its_formula_in_tiles_of_any_size(
    embeddings: Embeddings, temperature: float, bias: float, tile: int
) -> None:
    objective = Sigmoid(temperature=temperature, bias=bias).double()
    scale = math.exp(objective.temperature.log_scale.value.item())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        total = objective(embeddings).total
    expected = by_hand(embeddings, scale, objective.bias.value.item())
    assert total.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_a_hard_negative_from_the_data_is_compared_with_its_own_row_alone() -> None:
    """Row 2 is a text, a hard negative of row 0, and row 3 an image, one of row 1."""
    x, y = (v.detach() for v in two_modalities(2).vectors.values())
    text, image = unit_vectors(1, 8).detach(), unit_vectors(1, 9).detach()
    rows = {"image": torch.tensor([0, 1, 3]), "text": torch.tensor([0, 1, 2])}
    vectors = {"image": torch.cat([x, image]), "text": torch.cat([y, text])}
    embeddings = Embeddings(vectors, rows, torch.tensor([4, 5, 6, 7]), negative_of=torch.tensor([-1, -1, 0, 1]))
    expected = by_hand(
        Embeddings({"image": x, "text": y}, dict.fromkeys(vectors, rows["text"][:2]), torch.arange(2)), 10, -1
    )
    expected += sum(math.log1p(math.exp(10 * float(s) - 1)) for s in (x[0] @ text[0], image[0] @ y[1])) / 2
    assert Sigmoid(temperature=0.1, bias=-1.0).double()(embeddings).total.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_complete_rows_have_the_loss_and_gradients_of_siglip(dtype: torch.dtype, tolerance: float) -> None:
    embeddings = two_modalities(9, dtype=dtype)
    objective = Sigmoid(temperature=0.05).to(dtype)
    theirs = [v.detach().clone().requires_grad_() for v in embeddings.vectors.values()]
    own = [p.detach().clone().requires_grad_() for p in (objective.temperature.log_scale.value, objective.bias.value)]
    total, expected = objective(embeddings).total, SigLipLoss()(*theirs, own[0].exp(), own[1])
    total.backward()
    expected.backward()
    torch.testing.assert_close(total, expected, rtol=tolerance, atol=tolerance)
    ours = [*embeddings.vectors.values(), objective.temperature.log_scale.value, objective.bias.value]
    for mine, other in zip(ours, [*theirs, *own], strict=True):
        torch.testing.assert_close(gradient(mine), gradient(other), rtol=tolerance, atol=tolerance)


def test_each_pair_may_have_its_own_temperature_and_bias() -> None:
    embeddings = embeddings_of({m: [0, 1, 2] for m in MODALITIES}, [0, 1, 2])
    objective = Sigmoid(temperature={"image-*": 0.5, "*-*": 0.1}, bias={"*-*": -3.0, "graph-text": -1.0}).double()
    loss = objective(embeddings)
    for a, b, scale, bias in [("image", "graph", 2, -3), ("image", "text", 2, -3), ("graph", "text", 10, -1)]:
        pair = embeddings_of({}, [0, 1, 2])
        pair.vectors.update({m: embeddings.vectors[m] for m in (a, b)})
        pair.rows.update({m: embeddings.rows[m] for m in (a, b)})
        assert loss.parts[f"{a}-{b}"].item() == pytest.approx(by_hand(pair, scale, bias), rel=1e-6)
    assert loss.parts["bias/graph-text"].item() == -1
    assert loss.parts["temperature/image-*"].item() == pytest.approx(0.5)


def test_initial_temperature_and_bias_are_those_of_siglip() -> None:
    loss = Sigmoid()(two_modalities(3, dtype=torch.float32))
    assert loss.parts["temperature"].item() == pytest.approx(0.1)
    assert loss.parts["bias"].item() == -10


def test_vectors_that_all_match_have_only_positives() -> None:
    x = Block(torch.ones(2, 1, dtype=torch.float64), torch.tensor([5, 5]))
    assert sigmoid_loss(x, x, torch.tensor(1.0)).item() == pytest.approx(2 * math.log1p(math.exp(-2)))


@pytest.mark.parametrize("bias", [math.nan, math.inf])
def test_a_non_finite_bias_is_rejected(bias: float) -> None:
    with pytest.raises(UsageError, match=f"Sigmoid: bias {bias} must be finite"):
        Sigmoid(bias=bias)
    with pytest.raises(UsageError, match=f"Sigmoid: bias {bias} must be finite"):
        Sigmoid(bias={"*-*": bias})
