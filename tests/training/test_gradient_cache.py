"""The gradients of a batch in parts equal those of the full batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from multimodal.core.batch import Batch, MicroBatches, Sample
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.encoder import Encoder, Processor
from multimodal.objectives import InfoNCE, Objective, Sigmoid, tiles
from multimodal.training.gradient_cache import GradientCache


class VectorProcessor(Processor):
    def __call__(self, value: Any) -> Tensor:
        return torch.as_tensor(value)

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.stack(list(items))}


class Small(Encoder):
    """A small encoder that counts its forward passes."""

    def __init__(self, drop: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.width, self.processor = 5, VectorProcessor()
        self.net = nn.Sequential(
            nn.Linear(3, 5), nn.BatchNorm1d(5) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(drop)
        )
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.net(x)


MODALITIES = ("a", "b", "c")
PROCESSORS = {m: VectorProcessor() for m in MODALITIES}


def embedder(dtype: torch.dtype = torch.float64, **settings: Any) -> Embedder:
    torch.manual_seed(3)
    return Embedder({m: Small(**settings) for m in MODALITIES}, dim=4).to(dtype)


def samples(rows: list[tuple[bool, bool, bool, int]], dtype: torch.dtype = torch.float64) -> list[Sample]:
    made = torch.randn(len(rows), 3, 3, generator=torch.Generator().manual_seed(5)).to(dtype)
    return [
        Sample(str(n), {m: made[n, i] for i, m in enumerate(MODALITIES) if has[i]}, str(group))
        for n, (*has, group) in enumerate(rows)
    ]


def parts(rows: list[Sample], size: int) -> MicroBatches:
    return MicroBatches(
        tuple(Batch.collate(rows[start : start + size], PROCESSORS) for start in range(0, len(rows), size))
    )


def gradients(model: Embedder, objective: Objective) -> dict[str, Tensor]:
    found = [*model.named_parameters(), *objective.named_parameters()]
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in found}


def full_batch(model: Embedder, objective: Objective, rows: list[Sample]) -> tuple[Tensor, dict[str, Tensor]]:
    loss = objective(model.embed(Batch.collate(rows, PROCESSORS))).total
    loss.backward()
    return loss.detach(), gradients(model, objective)


def cached(
    model: Embedder, objective: Objective, batch: MicroBatches, seed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    step = GradientCache(model, batch, seed, contextlib.nullcontext)
    loss = objective(step.embeddings).total
    loss.backward()
    step.backward()
    return loss.detach(), gradients(model, objective)


ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 6)), min_size=1, max_size=14)
PAIRS = st.sampled_from([None, {"a-b": 1.0}, {"a-c": 2.0, "b-c": 0.5}, {"a-*": 1.0}])
OBJECTIVES: dict[str, Callable[[Any], Objective]] = {
    "InfoNCE": InfoNCE,
    "with hard negatives": lambda pairs: InfoNCE(pairs, {"*-*": 0.2, "a-b": 0.5}, smoothing=0.1, hardness=0.5),
    "Sigmoid": lambda pairs: Sigmoid(pairs, bias=-1.0),
}


@given(ROWS, st.integers(1, 15), PAIRS, st.sampled_from(list(OBJECTIVES)), st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_loss_and_gradients_in_parts_and_tiles_equal_the_full_batch(
    rows: list[tuple[bool, bool, bool, int]], size: int, pairs: dict[str, float] | None, name: str, tile: int
) -> None:
    made = samples(rows)
    expected = full_batch(embedder(), OBJECTIVES[name](pairs).double(), made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        found = cached(embedder(), OBJECTIVES[name](pairs).double(), parts(made, size))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@given(ROWS, st.integers(1, 15), PAIRS, st.sampled_from(list(OBJECTIVES)), st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_in_float32_they_agree_to_five_digits(
    rows: list[tuple[bool, bool, bool, int]], size: int, pairs: dict[str, float] | None, name: str, tile: int
) -> None:
    loss, gradient = full_batch(embedder(), OBJECTIVES[name](pairs).double(), samples(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        made = parts(samples(rows, torch.float32), size)
        found_loss, found = cached(embedder(torch.float32), OBJECTIVES[name](pairs), made)
    assert found_loss.item() == pytest.approx(loss.item(), rel=1e-5, abs=2e-6)  # a score of 14 has steps of 1e-6
    expected = torch.cat([gradient[name].flatten() for name in found])
    error = torch.cat([g.flatten() for g in found.values()]).double() - expected
    assert error.norm() <= 1e-5 * expected.norm() + 1.4e-5  # scores of up to 14, known to 1e-6, scale it by 14


@pytest.mark.parametrize("size", [1, 4, 7, 32])
def test_in_float32_they_agree_for_several_part_sizes(size: int) -> None:
    made = samples([(True, n % 3 > 0, n % 4 > 0, n // 2) for n in range(32)], torch.float32)
    expected = full_batch(embedder(torch.float32), InfoNCE(), made)
    found = cached(embedder(torch.float32), InfoNCE(), parts(made, size))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


FULL = [(True, True, True, n) for n in range(12)]


def test_dropout_is_the_same_in_both_passes() -> None:
    """With one mask a part, the gradient of the cached loss is its numerical derivative."""
    made, objective = samples(FULL), InfoNCE().double()
    model = embedder(drop=0.5)
    _, found = cached(model, objective, parts(made, 5), seed=7)
    weight = model.heads["a"].weight
    assert isinstance(weight, Tensor)
    step = torch.zeros_like(weight)
    step[1, 2] = 1e-6
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step
            losses.append(objective(GradientCache(model, parts(made, 5), 7, contextlib.nullcontext).embeddings).total)
            weight -= sign * step
    assert found["heads.a.weight"][1, 2].item() == pytest.approx(((losses[0] - losses[1]) / 2e-6).item(), rel=1e-5)
    other = GradientCache(model, parts(made, 5), 8, contextlib.nullcontext).embeddings
    same = GradientCache(model, parts(made, 5), 7, contextlib.nullcontext).embeddings
    again = GradientCache(model, parts(made, 5), 7, contextlib.nullcontext).embeddings
    assert same.vectors["a"].equal(again.vectors["a"])
    assert not same.vectors["a"].equal(other.vectors["a"])


@pytest.mark.parametrize("frozen", [False, True])
def test_running_statistics_of_batch_norm_record_each_part_once(frozen: bool) -> None:
    made = samples([(n not in (5, 7), True, True, n) for n in range(14)])
    once, twice = embedder(norm=True), embedder(norm=True)
    for model in (once, twice):
        model.encoder("b").requires_grad_(not frozen)
    for part in parts(made, 4).parts:
        once.embed(part)
    cached(twice, InfoNCE().double(), parts(made, 4))
    for (name, expected), found in zip(once.named_buffers(), twice.buffers(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)
    assert all(layer.momentum == 0.1 for layer in twice.modules() if isinstance(layer, nn.BatchNorm1d))


def test_batch_norm_in_parts_has_correct_gradients() -> None:
    """Each part is normalised by its own mean and variance, as if the parts were embedded plainly."""
    made = samples(FULL)
    plain, objective = embedder(norm=True), InfoNCE().double()
    objective(Embeddings.cat([plain.embed(part) for part in parts(made, 4).parts])).total.backward()
    found = cached(embedder(norm=True), InfoNCE().double(), parts(made, 4))[1]
    torch.testing.assert_close(found, gradients(plain, objective), rtol=1e-10, atol=1e-10)


def test_a_process_without_any_row_has_no_gradient() -> None:
    loss, found = cached(embedder(), InfoNCE().double(), MicroBatches(()))
    assert loss.item() == 0
    assert not any(g.any() for g in found.values())


def test_an_encoder_without_trainable_parameters_runs_once() -> None:
    made, objective = samples(FULL), InfoNCE().double()
    frozen, plain = embedder(), embedder()
    for model in (frozen, plain):
        model.encoder("b").requires_grad_(False)
    found = cached(frozen, objective, parts(made, 4))
    assert [frozen.encoder(m).passes for m in MODALITIES] == [5, 3, 5]  # three parts; the graph of the first is kept
    torch.testing.assert_close(found, full_batch(plain, InfoNCE().double(), made), rtol=1e-10, atol=1e-10)
    assert frozen.encoder("b").net[0].weight.grad is None  # pyright: ignore
    assert frozen.heads["b"].weight.grad.abs().sum() > 0  # pyright: ignore


def test_bf16_has_the_gradients_of_the_plain_step_at_that_precision() -> None:
    made = samples(FULL, torch.float32)

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16)

    plain, model, objective = embedder(torch.float32), embedder(torch.float32), InfoNCE()
    with autocast():
        embeddings = plain.embed(Batch.collate(made, PROCESSORS))
    objective(embeddings).total.backward()
    expected = gradients(plain, objective)
    objective = InfoNCE()
    step = GradientCache(model, parts(made, 5), 0, autocast)
    objective(step.embeddings).total.backward()
    step.backward()
    for name, found in gradients(model, objective).items():
        torch.testing.assert_close(found, expected[name], rtol=0.05, atol=5e-3, msg=name)
