"""InfoNCE over pairs of modalities, with incomplete rows, against loops over single numbers and open_clip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from drawn_batches import MODALITIES, embeddings_of, gradient, incomplete_batches, two_modalities, unit_vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives import InfoNCE, Loss, Objective, tiles


def objective_of(log_scale: float = 1.5, pairs: Mapping[str, float] | None = None) -> InfoNCE:
    objective = InfoNCE(pairs).double()
    with torch.no_grad():
        objective.temperature.log_scale.value.fill_(log_scale)
    return objective


@dataclass
class ByHand:
    """A loss and its derivatives, as nested lists of Python floats."""

    loss: float
    vectors: dict[str, list[list[float]]]
    log_scale: float


def by_hand(embeddings: Embeddings, log_scale: float, weights: Mapping[tuple[str, str], float]) -> ByHand:
    """The weighted mean over pairs of (a to b + b to a) / 2, anchor by anchor and candidate by candidate.

    For an anchor i with positives P, d/ds_ij of -1/|P| sum_p log(exp s_ip / sum_k exp s_ik) is
    exp(s_ij) / sum_k exp(s_ik) - [j in P] / |P|.
    """
    values = {m: v.tolist() for m, v in embeddings.vectors.items()}
    groups = {m: [int(embeddings.groups[row]) for row in rows] for m, rows in embeddings.rows.items()}
    scale = math.exp(log_scale)
    result = ByHand(0.0, {m: [[0.0] * len(v) for v in vs] for m, vs in values.items()}, 0.0)
    used = {
        (a, b): w
        for (a, b), w in weights.items()
        if a in values and b in values and any(g in groups[b] for g in groups[a])
    }
    for (a, b), weight in used.items():
        for of, to in ((a, b), (b, a)):
            anchors = [i for i, g in enumerate(groups[of]) if g in groups[to]]
            factor = weight / sum(used.values()) / 2 / len(anchors)
            for i in anchors:
                positives = [j for j, g in enumerate(groups[to]) if g == groups[of][i]]
                cosines = [sum(x * y for x, y in zip(values[of][i], other, strict=True)) for other in values[to]]
                denominator = sum(math.exp(scale * c) for c in cosines)
                for p in positives:
                    probability = math.exp(scale * cosines[p]) / denominator
                    result.loss -= factor / len(positives) * math.log(probability)
                for j, cosine in enumerate(cosines):
                    d_logit = factor * math.exp(scale * cosine) / denominator
                    if j in positives:
                        d_logit -= factor / len(positives)
                    result.log_scale += d_logit * scale * cosine
                    for k in range(len(values[to][j])):
                        result.vectors[of][i][k] += d_logit * scale * values[to][j][k]
                        result.vectors[to][j][k] += d_logit * scale * values[of][i][k]
    return result


def assert_as_by_hand(objective: InfoNCE, embeddings: Embeddings, weights: Mapping[tuple[str, str], float]) -> None:
    expected = by_hand(embeddings, float(objective.temperature.log_scale.value.detach()), weights)
    total = objective(embeddings).total
    total.backward()
    assert total.item() == pytest.approx(expected.loss, rel=1e-10, abs=1e-10)
    for modality, vectors in embeddings.vectors.items():
        np.testing.assert_allclose(gradient(vectors).numpy(), expected.vectors[modality], rtol=1e-10, atol=1e-10)
    assert gradient(objective.temperature.log_scale.value).item() == pytest.approx(
        expected.log_scale, rel=1e-10, abs=1e-10
    )


@given(embeddings=incomplete_batches(), tile=st.integers(1, 7), pair=st.sampled_from(["*-*", "image-*", "text-graph"]))
@settings(max_examples=60, deadline=None)
def test_tiles_give_the_losses_and_gradients_of_the_dense_form(embeddings: Embeddings, tile: int, pair: str) -> None:
    objective = InfoNCE({pair: 1.0}, temperature=0.1, smoothing=0.1, hardness=0.5).double()
    inputs = [*embeddings.vectors.values(), objective.temperature.log_scale.value]
    dense = objective(embeddings).total
    expected = torch.autograd.grad(dense, inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        tiled = objective(embeddings).total
    torch.testing.assert_close(tiled, dense, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.autograd.grad(tiled, inputs), expected, rtol=1e-10, atol=1e-10)


def test_batches_of_more_than_a_tile_have_the_loss_and_gradients_of_clip() -> None:
    embeddings = two_modalities(tiles.TILE + 100, dim=16, dtype=torch.float32)
    theirs = [v.detach().clone().requires_grad_() for v in embeddings.vectors.values()]
    total, expected = InfoNCE(temperature=0.1)(embeddings).total, ClipLoss()(*theirs, torch.tensor(10.0))
    total.backward()
    expected.backward()
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=0)
    for ours, other in zip(embeddings.vectors.values(), theirs, strict=True):
        torch.testing.assert_close(gradient(ours), gradient(other), rtol=1e-4, atol=1e-8)


def test_a_hard_negative_from_the_data_is_a_candidate_of_its_own_row_alone() -> None:
    """Row 2 is a text, a hard negative of row 0 in the data."""
    x, y = (v.detach() for v in two_modalities(2).vectors.values())
    extra = unit_vectors(1, 9).detach()
    rows = {"image": torch.tensor([0, 1]), "text": torch.tensor([0, 1, 2])}
    vectors = {"image": x, "text": torch.cat([y, extra])}
    embeddings = Embeddings(vectors, rows, torch.tensor([4, 5, 6]), negative_of=torch.tensor([-1, -1, 0]))
    logits = 10 * x @ vectors["text"].T
    logits[1, 2] = -torch.inf
    a_to_b = functional.cross_entropy(logits, torch.arange(2))
    b_to_a = functional.cross_entropy(10 * y @ x.T, torch.arange(2))
    ours = InfoNCE(temperature=0.1).double()(embeddings).total
    assert ours.item() == pytest.approx((a_to_b + b_to_a).item() / 2, rel=1e-6)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_smoothing_outside_its_bounds_is_rejected(smoothing: float) -> None:
    with pytest.raises(UsageError, match=r"InfoNCE: smoothing .* lies outside \[0, 1\)"):
        InfoNCE(smoothing=smoothing)


@pytest.mark.parametrize("hardness", [-0.1, math.inf, math.nan])
def test_invalid_hardness_is_rejected(hardness: float) -> None:
    with pytest.raises(UsageError, match=r"InfoNCE: hardness .* must be at least 0"):
        InfoNCE(hardness=hardness)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_complete_rows_of_their_own_groups_have_the_loss_and_gradients_of_clip(
    dtype: torch.dtype, tolerance: float
) -> None:
    ours = [unit_vectors(7, seed, dtype=dtype) for seed in (1, 2)]
    theirs = [v.detach().clone().requires_grad_() for v in ours]
    objective = InfoNCE(temperature=0.05).to(dtype)
    their_log_scale = objective.temperature.log_scale.value.detach().clone().requires_grad_()
    rows = torch.arange(7)
    total = objective(Embeddings({"image": ours[0], "text": ours[1]}, {"image": rows, "text": rows}, 100 - rows)).total
    expected = ClipLoss()(*theirs, their_log_scale.exp())
    total.backward()
    expected.backward()
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    close(total, expected)
    close([gradient(v) for v in ours], [gradient(v) for v in theirs])
    close(gradient(objective.temperature.log_scale.value), gradient(their_log_scale))


def test_several_positives_are_averaged_outside_the_logarithm_as_in_supervised_contrastive_learning() -> None:
    """Khosla et al. 2020, equation 2, with anchors of one modality and candidates of the other."""
    groups = np.array([0, 0, 1, 2, 1, 0])
    rows = {"image": [0, 1, 2, 3, 5], "text": [0, 1, 2, 4, 5]}
    embeddings = embeddings_of(rows, groups.tolist())
    temperature = 0.2

    def supervised(z_anchor: np.ndarray, z: np.ndarray, of: np.ndarray, to: np.ndarray) -> float:
        losses = []
        for z_i, label in zip(z_anchor, of, strict=True):
            p_i = np.flatnonzero(to == label)
            if len(p_i):
                a_i = np.exp(z @ z_i / temperature)
                losses.append(-np.mean(np.log(a_i[p_i] / a_i.sum())))
        return float(np.mean(losses))

    image, text = (embeddings.vectors[m].detach().numpy() for m in rows)
    labels = [groups[r] for r in rows.values()]
    expected = (supervised(image, text, *labels) + supervised(text, image, *labels[::-1])) / 2
    total = objective_of(-math.log(temperature))(embeddings).total
    assert total.item() == pytest.approx(expected, rel=1e-12)


@given(embeddings=incomplete_batches(), log_scale=st.floats(0, math.log(100)))
@settings(max_examples=60, deadline=None)
def test_incomplete_rows_count_in_the_pairs_they_have(embeddings: Embeddings, log_scale: float) -> None:
    weights = dict.fromkeys(combinations(MODALITIES, 2), 1.0)
    assert_as_by_hand(objective_of(log_scale), embeddings, weights)


@given(
    embeddings=incomplete_batches(),
    pairs=st.dictionaries(
        st.sampled_from([(a, b) for a in MODALITIES for b in MODALITIES if a < b]), st.floats(0.01, 10), min_size=1
    ),
)
@settings(max_examples=40, deadline=None)
def test_only_the_chosen_pairs_count_and_by_their_weights(
    embeddings: Embeddings, pairs: dict[tuple[str, str], float]
) -> None:
    assert_as_by_hand(objective_of(pairs={f"{a}-{b}": w for (a, b), w in pairs.items()}), embeddings, pairs)


def test_the_parts_are_the_losses_of_the_pairs_alone_and_the_temperature() -> None:
    embeddings = embeddings_of({"image": [0, 1, 2], "graph": [0, 2], "text": [0, 1]}, [0, 1, 2])
    loss = objective_of(pairs={"image-text": 3.0, "graph-text": 1.0})(embeddings)
    alone = {pair: objective_of(pairs={pair: 0.5})(embeddings).total.item() for pair in ("image-text", "graph-text")}
    assert {name: part.item() for name, part in loss.parts.items()} == pytest.approx(
        alone | {"temperature": math.exp(-1.5)}, rel=1e-12
    )
    assert loss.total.item() == pytest.approx((3 * alone["image-text"] + alone["graph-text"]) / 4, rel=1e-12)
    assert not any(part.requires_grad for part in loss.parts.values())


@pytest.mark.parametrize(("log_scale", "projected"), [(20.0, math.log(50)), (-3.0, 0.0)])
def test_the_scale_is_projected_onto_its_bounds_and_has_a_gradient_there(log_scale: float, projected: float) -> None:
    objective = InfoNCE(max_scale=50).double()
    with torch.no_grad():
        objective.temperature.log_scale.value.fill_(log_scale)
    embeddings = embeddings_of({"image": [0, 1, 2], "text": [0, 1, 2]}, [0, 1, 2])
    loss = objective(embeddings)
    assert objective.temperature.log_scale.value.item() == pytest.approx(projected, abs=1e-12)
    assert loss.parts["temperature"].item() == pytest.approx(math.exp(-projected), rel=1e-12)
    assert loss.total.item() == pytest.approx(by_hand(embeddings, projected, {("image", "text"): 1}).loss, rel=1e-10)
    loss.total.backward()
    expected = by_hand(embeddings, projected, {("image", "text"): 1}).log_scale
    assert abs(expected) > 1e-3
    assert gradient(objective.temperature.log_scale.value).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_the_initial_temperature_is_the_given_one(temperature: float) -> None:
    embeddings = embeddings_of({"image": [0, 1], "text": [0, 1]}, [0, 1])
    assert InfoNCE(temperature=temperature)(embeddings).parts["temperature"].item() == pytest.approx(temperature)


@pytest.mark.parametrize("temperature", [0.0, -0.1, 0.009, 1.01, math.inf, math.nan])
def test_a_temperature_outside_the_bounds_is_rejected(temperature: float) -> None:
    with pytest.raises(UsageError, match=r"temperature .* lies outside \[1 / max_scale, 1\] = \[0.01, 1\]"):
        InfoNCE(temperature=temperature)


@pytest.mark.parametrize("max_scale", [0.0, -5.0, 0.99, math.nan, -math.inf])
def test_a_max_scale_below_one_is_rejected(max_scale: float) -> None:
    with pytest.raises(UsageError, match=f"max_scale {max_scale} must be at least 1"):
        InfoNCE(max_scale=max_scale)


def test_infinite_max_scale_is_rejected() -> None:
    with pytest.raises(UsageError, match="max_scale"):
        InfoNCE(temperature=0.0, max_scale=math.inf)


def test_a_scale_bound_to_one_remains_one() -> None:
    embeddings = embeddings_of({"image": [0, 1], "text": [0, 1]}, [0, 1])
    assert InfoNCE(temperature=1, max_scale=1)(embeddings).parts["temperature"].item() == 1


def test_an_empty_choice_of_pairs_is_rejected() -> None:
    with pytest.raises(UsageError, match="pairs is empty; leave it out to compare all pairs"):
        InfoNCE(pairs={})


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        (None, set()),
        ({"text-image": 1.0}, {"text", "image"}),
        ({"text-image": 1.0, "graph-text": 2.0}, {"text", "image", "graph"}),
    ],
)
def test_the_named_modalities_are_those_of_the_pairs(pairs: dict[str, float] | None, named: set[str]) -> None:
    assert InfoNCE(pairs).named_modalities == named


def test_an_objective_without_pairs_names_no_modality() -> None:
    class Nothing(Objective):
        def forward(self, embeddings: Embeddings) -> Loss:
            return Loss(torch.zeros(()), {})

    assert Nothing().named_modalities == set()


@pytest.mark.parametrize("name", ["", "text", "text-", "-image", "text-text", "text-image-graph", "my text-image"])
def test_names_that_are_not_two_modalities_are_rejected(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name!r} is not a pair of two modalities; write one like 'text-image'"):
        InfoNCE({name: 1.0})


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_a_non_positive_weight_is_rejected(weight: float) -> None:
    with pytest.raises(UsageError, match=r"weight .* of pair 'text-image' must be a positive number"):
        InfoNCE({"text-image": weight})


@pytest.mark.parametrize(
    ("has", "groups", "pairs"),
    [
        pytest.param({"image": [0, 1]}, [0, 0], None, id="one modality"),
        pytest.param({"image": [0, 1], "text": [2]}, [0, 1, 2], None, id="no group in both"),
        pytest.param({"image": [0], "text": [0]}, [0], {"image-graph": 1.0}, id="the chosen pair is absent"),
    ],
)
def test_a_batch_without_any_pair_has_loss_zero_and_gradients_of_zero(
    has: dict[str, list[int]], groups: list[int], pairs: dict[str, float] | None
) -> None:
    embeddings, objective = embeddings_of(has, groups), objective_of(pairs=pairs)
    loss = objective(embeddings)
    loss.total.backward()
    assert loss.total.item() == 0
    assert set(loss.parts) == {"temperature"}
    for tensor in (*embeddings.vectors.values(), objective.temperature.log_scale.value):
        assert torch.equal(gradient(tensor), torch.zeros_like(tensor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scale_in_float32_works_with_vectors_of_either_precision(dtype: torch.dtype) -> None:
    embeddings = embeddings_of({"image": [0, 1], "text": [0, 1]}, [0, 1])
    expected = by_hand(embeddings, -math.log(0.07), {("image", "text"): 1.0}).loss
    total = InfoNCE()(replace(embeddings, vectors={m: v.to(dtype) for m, v in embeddings.vectors.items()})).total
    assert total.dtype == dtype
    assert total.item() == pytest.approx(expected, rel=1e-5)
