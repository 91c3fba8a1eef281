"""Fine-tuning: freezing, learning rates, adapters, and steps that recompute activations."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from multimodal.core import registry
from multimodal.core.batch import Batch, Sample
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.errors import UsageError
from multimodal.core.lora import LoRA
from multimodal.training.activation_checkpointing import recompute_activations
from multimodal.training.callbacks.averaging import AveragedWeights
from multimodal.training.callbacks.summary import ModelTable
from multimodal.training.freezing import Freezing
from multimodal.training.module import EmbedderModule
from multimodal.training.parameter_groups import apply_rate_factors, parameter_groups

pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # Lightning's warning about frozen parts


class VectorProcessor(Processor):
    def __call__(self, value: Any) -> Tensor:
        return torch.tensor(value, dtype=torch.float32)

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.stack(list(items))}


class Block(nn.Module):
    calls = 0

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(width, width), nn.BatchNorm1d(width), nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return x + self.drop(self.norm(self.linear(x)).relu())


class Deep(Encoder):
    """A stem, two blocks, a final norm."""

    def __init__(self, width: int = 4, drop: float = 0.3) -> None:
        super().__init__()
        self.width, self.processor = width, VectorProcessor()
        self.stem = nn.Linear(3, width)
        self.blocks = nn.Sequential(Block(width, drop), Block(width, drop))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.stem(x)))


def batch(n: int = 8) -> Batch:
    values = torch.randn(n, 2, 3, generator=torch.Generator().manual_seed(1))
    samples = [Sample(str(i), {"a": a, "b": b}, str(i)) for i, (a, b) in enumerate(values)]
    return Batch.collate(samples, {"a": VectorProcessor(), "b": VectorProcessor()})


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.1, weight_decay=0.5)


def fit(steps: int = 3, callbacks: list[Any] | None = None, drop: float = 0.3, **settings: Any) -> EmbedderModule:
    import lightning.pytorch as pl

    torch.manual_seed(0)
    chosen: dict[str, Any] = {"optimizer": sgd} | settings
    module = EmbedderModule({"a": Deep(drop=drop), "b": Deep(drop=drop)}, dim=4, **chosen)
    trainer = pl.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    batches: Any = [batch()] * steps
    trainer.fit(module, DataLoader(batches, batch_size=None), DataLoader(batches[:1], batch_size=None))
    return module


def changed(steps: int, **settings: Any) -> set[str]:
    """Return the first two parts of the names of parameters and buffers that training changes in modality a."""
    torch.manual_seed(0)
    before = Embedder({"a": Deep(), "b": Deep()}, 4, lora=settings.get("lora"))
    after = fit(steps, **settings).embedder.state_dict()
    different = {name for name, t in before.state_dict().items() if not torch.equal(t, after[name])}
    return {".".join(name.split(".")[2:4]) for name in different if name.startswith("encoders.a.")}


ALL = {"stem.weight", "stem.bias", "blocks.0", "blocks.1", "norm.weight", "norm.bias"}


@pytest.mark.parametrize(
    ("freeze", "steps", "trained"),
    [
        ("none", 1, ALL),
        ("all", 3, set()),
        ("stem|blocks.0", 3, {"blocks.1", "norm.weight", "norm.bias"}),
        ({0: "all", 2: "stem|blocks", 4: "none"}, 2, set()),
        ({0: "all", 2: "stem|blocks", 4: "none"}, 4, {"norm.weight", "norm.bias"}),
        ({0: "all", 2: "stem|blocks", 4: "none"}, 5, ALL),
        ({1: "all"}, 1, ALL),
    ],
)
def test_frozen_parts_and_statistics_are_unchanged_until_their_step(freeze: Any, steps: int, trained: set[str]) -> None:
    assert changed(steps, freeze={"a": freeze}) == trained


def test_the_summary_reports_what_is_trained_later_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    fit(1, [ModelTable()], freeze={"a": {0: "all", 2: "none"}})
    printed = capsys.readouterr().err
    assert printed.endswith(f"Run folder: {Path.cwd()}\n")  # the Trainer's default
    a, b = (line.split() for line in printed.splitlines() if " Deep " in line)
    count = sum(p.numel() for p in Deep().parameters())
    assert (a[:-3], b[:-3]) == (
        ["a", "Deep", f"{count}", "0,", "later", f"{count}"],
        ["b", "Deep", f"{count}", f"{count}"],
    )


def test_a_frozen_part_is_in_evaluation_mode_and_returns_to_training_mode() -> None:
    embedder = Embedder({"a": Deep()}, 4)
    freezing = Freezing(embedder, {"a": {0: "blocks.0", 5: "none"}})
    first, second = embedder.encoder("a").get_submodule("blocks").children()
    assert not first.get_submodule("drop").training
    assert second.get_submodule("drop").training
    embedder.eval().train()
    assert (first.training, second.training, embedder.training) == (False, True, True)
    assert not freezing.apply(4)
    assert freezing.apply(5)
    assert first.get_submodule("drop").training
    assert freezing.always_frozen == frozenset()
    assert Freezing(embedder, {"a": "all"}).always_frozen == {"a"}
    assert Freezing(embedder, {"a": {0: "all", 9: "none"}}).always_frozen == frozenset()


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ({"c": "all"}, "no modality 'c'"),
        ({"a": "layer4"}, "freeze.a: 'layer4' matches no module .* begin with stem.weight, stem.bias, blocks.0"),
        ({"a": {-1: "all"}}, "freeze.a: give at least one step, each at least 0"),
        ({"b": "all"}, "lora.b freezes the encoder's own weights already"),
    ],
)
def test_freezing_unknown_parts_is_rejected(freeze: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Freezing(Embedder({"a": Deep(), "b": Deep()}, 4, lora={"b": LoRA("stem")}), freeze)


def test_only_the_adapters_of_an_encoder_are_trained() -> None:
    assert changed(3, lora={"a": LoRA("stem|blocks", rank=2)}) == {"stem.lora_A", "stem.lora_B", "blocks.0", "blocks.1"}
    torch.manual_seed(0)
    module = fit(3, lora={"a": LoRA("blocks", rank=2)})
    encoder = module.embedder.encoder("a")
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert len(trained) == 4
    assert all("lora" in name for name in trained)
    assert int(encoder.get_buffer("blocks.0.norm.num_batches_tracked")) == 0


def test_rates_fall_by_a_factor_a_layer_and_norms_and_biases_do_not_decay() -> None:
    module = EmbedderModule({"a": Deep(), "b": Deep()}, dim=4)
    trained = list(module.parameters())
    groups = parameter_groups(module, module.embedder, trained, {"a": 0.5, "b": 2.0}, {"a": 0.1})
    found = {p: (group["rate"], "weight_decay" not in group) for group in groups for p in group["params"]}
    assert len(found) == len(trained) == sum(len(group["params"]) for group in groups)
    depths = {"stem": 2, "blocks.0": 1, "blocks.1": 0, "norm": 0}
    for name, parameter in module.named_parameters():
        rate = 1.0
        if name.startswith("embedder.encoders.a."):
            part = name.removeprefix("embedder.encoders.a.")
            rate = 0.5 * 0.1 ** next(depth for start, depth in depths.items() if part.startswith(start))
        elif name.startswith("embedder.encoders.b."):
            rate = 2.0
        decays = name.endswith("weight") and "norm" not in name
        assert found[parameter] == (pytest.approx(rate), decays), name


def test_norms_and_biases_of_several_dimensions_do_not_decay_either() -> None:
    class Odd(Deep):
        def __init__(self) -> None:
            super().__init__()
            self.square = nn.LayerNorm([2, 2])
            self.relative_bias = nn.Parameter(torch.zeros(3, 3))

    module = EmbedderModule({"a": Odd()}, dim=4)
    (undecayed,) = [
        group
        for group in parameter_groups(module, module.embedder, list(module.parameters()), {}, {})
        if "weight_decay" in group
    ]
    encoder = module.embedder.encoder("a")
    for name in ("square.weight", "relative_bias"):
        assert any(encoder.get_parameter(name) is p for p in undecayed["params"])


def test_a_step_moves_each_part_by_its_rate() -> None:
    def moved(**settings: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        before = EmbedderModule({"a": Deep(), "b": Deep()}, dim=4).state_dict()
        after = fit(1, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1), **settings).state_dict()
        return {name: after[name] - before[name] for name in before if before[name].is_floating_point()}

    plain, scaled = moved(), moved(rates={"a": 0.5}, layer_decay={"a": 0.2})
    for name, factor in [
        ("a.norm.weight", 0.5),
        ("a.blocks.0.linear.weight", 0.1),
        ("a.stem.weight", 0.02),
        ("b.stem.weight", 1),
    ]:
        name = f"embedder.encoders.{name}"
        torch.testing.assert_close(scaled[name], factor * plain[name], rtol=1e-3, atol=1e-7)


def test_the_optimizer_step_is_fused_unless_configured_otherwise() -> None:
    def groups() -> list[Any]:
        return [{"params": [nn.Parameter(torch.zeros(2, 2))], "rate": 0.5}]

    for optimizer, fused in (
        (torch.optim.AdamW(groups(), lr=0.1), True),
        (torch.optim.SGD(groups(), lr=0.1), True),
        (torch.optim.AdamW(groups(), lr=0.1, fused=False), False),
        (torch.optim.AdamW(groups(), lr=0.1, foreach=True), None),
        (torch.optim.Adagrad(groups(), lr=0.1), None),  # has no kernel on GPUs
        (torch.optim.Rprop(groups(), lr=0.1), None),
    ):
        apply_rate_factors(optimizer)
        (group,) = optimizer.param_groups
        assert (group.get("fused"), group["lr"]) == (fused, 0.05), optimizer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rates": {"c": 1.0}}, "no modality 'c'"),
        ({"rates": {"a": 0.0}}, r"rates.a 0.0 must be above 0 .* use freeze"),
        ({"layer_decay": {"a": 1.5}}, r"layer_decay.a 1.5 in \(0, 1\]"),
    ],
)
def test_invalid_rates_are_rejected(settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(1, **settings)


def test_recomputed_steps_equal_plain_steps_and_run_the_blocks_twice() -> None:
    Block.calls = 0
    plain = fit(3)
    once = Block.calls
    recomputed = fit(3, gradient_checkpointing=True)
    assert Block.calls - once == once + 3 * 4  # 3 steps, 2 encoders of 2 blocks; validation has no backward pass
    for name, tensor in plain.state_dict().items():  # including dropout and batch normalisation's statistics
        torch.testing.assert_close(recomputed.state_dict()[name], tensor, rtol=1e-6, atol=1e-7)


def test_blocks_that_recompute_keep_only_their_inputs() -> None:
    def kept(recompute: bool) -> int:
        encoder = registry.create("text", "transformer", vocab_size=10, width=32, layers=4, heads=2)
        if recompute:
            recompute_activations([encoder])
        found: dict[int, int] = {}

        def record(tensor: Tensor) -> Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            features = encoder.train()(torch.ones(16, 20, dtype=torch.int64))
        assert features.requires_grad
        return sum(size for pointer, size in found.items() if pointer not in own)

    assert kept(True) < kept(False) / 4


def test_a_copy_of_an_encoder_that_recomputes_is_independent() -> None:
    encoder = registry.create("text", "transformer", vocab_size=10, width=8, layers=2, heads=2)
    recompute_activations([encoder])
    copied = copy.deepcopy(encoder)
    for parameter in copied.parameters():
        nn.init.zeros_(parameter)
    tokens = torch.tensor([[2, 3]])
    assert copied.train()(tokens).abs().max() == 0
    assert encoder.train()(tokens).abs().max() > 0


def test_averaging_works_with_freezing_adapters_and_recomputing() -> None:
    settings: dict[str, Any] = {"lora": {"a": LoRA("blocks")}, "freeze": {"b": {0: "all", 2: "stem"}}}
    module = fit(4, [AveragedWeights(0.9)], gradient_checkpointing=True, **settings)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_compile_compiles_every_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(Encoder, "compile", lambda self: compiled.append(self))
    encoders: dict[str, Encoder] = {"a": Deep(), "b": Deep()}
    EmbedderModule(encoders, dim=4)
    assert compiled == []
    EmbedderModule(encoders, dim=4, compile=True)
    assert compiled == list(encoders.values())


def test_batch_normalisation_is_rejected_with_compile_and_recomputing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "compile", lambda self: None)
    with pytest.raises(UsageError, match="cannot recompute the batch normalisation of the a encoder"):
        EmbedderModule({"a": Deep()}, dim=4, compile=True, gradient_checkpointing=True)
    text = registry.create("text", "transformer", vocab_size=10, width=8, layers=2, heads=2)
    EmbedderModule({"text": text}, dim=4, compile=True, gradient_checkpointing=True)


@pytest.mark.slow
def test_compiled_blocks_recompute() -> None:
    import torch._dynamo

    torch._dynamo.reset()
    tokens = torch.tensor([[2, 3, 4], [5, 6, 0]])

    def gradients(**settings: Any) -> list[Tensor]:
        torch.manual_seed(0)
        encoder = registry.create("text", "transformer", vocab_size=10, width=8, layers=2, heads=2, drop=0.0)
        EmbedderModule({"text": encoder}, dim=4, **settings)
        encoder.train()(tokens).square().sum().backward()
        return [p.grad for p in encoder.parameters() if p.grad is not None]

    compiled = gradients(compile=True, gradient_checkpointing=True)
    torch.testing.assert_close(compiled, gradients(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_steps_equal_plain_steps() -> None:
    import torch._dynamo

    settings: dict[str, Any] = {"drop": 0.0, "freeze": {"b": {0: "all", 1: "none"}}}
    plain = fit(2, **settings).state_dict()
    torch._dynamo.reset()
    compiled = fit(2, compile=True, **settings).state_dict()
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-5)
