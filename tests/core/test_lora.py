"""Low-rank adapters: zero at first, then the paper's formula; saved with the model and merged into its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.errors import UsageError
from multimodal.core.lora import LoRA, add_lora, merge_adapters

TARGETS = {"image": r"net.layer4", "graph": r"convs", "text": r"tokens|layers"}
SETTINGS: dict[str, dict[str, Any]] = {
    "image": {"size": 16},
    "graph": {"node_features": 2, "edge_features": 1, "width": 8, "layers": 1},
    "text": {"vocab_size": 60, "width": 8, "layers": 1, "heads": 2, "max_length": 8},
}
NAMES = {"image": "cnn", "graph": "gnn", "text": "transformer"}


def adapted(values: dict[str, list[Any]], learn: bool = True) -> Embedder:
    """An embedder whose encoders all have adapters; with ``learn``, their products are not zero."""
    torch.manual_seed(3)
    encoders = {m: registry.create(m, name, **SETTINGS[m]) for m, name in NAMES.items()}
    embedder = Embedder(encoders, 6, lora={m: LoRA(targets, rank=2) for m, targets in TARGETS.items()})
    embedder.fit_processors(values)
    if learn:
        for name, parameter in embedder.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name or "lora_embedding_A" in name:
                nn.init.normal_(parameter, std=0.3)
    return embedder.eval()


class Numbers(Processor):
    def __call__(self, value: Any) -> Tensor:
        return torch.tensor(value)

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.stack(items)}


class One(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor, self.linear = 4, Numbers(), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def test_an_adapted_layer_computes_the_formula_of_the_paper() -> None:
    encoder = One()
    weight, bias = encoder.linear.weight.detach().double(), encoder.linear.bias.detach().double()
    add_lora(encoder, LoRA("linear", rank=2, alpha=6.0), "a")
    a, b = (encoder.get_parameter(f"linear.lora_{x}.default.weight") for x in "AB")
    nn.init.normal_(b)
    x = torch.randn(5, 3)
    expected = x.double() @ (weight + 6.0 / 2 * b.double() @ a.double()).T + bias
    torch.testing.assert_close(encoder(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert {name for name, p in encoder.named_parameters() if p.requires_grad} == {
        "linear.lora_A.default.weight",
        "linear.lora_B.default.weight",
    }


def test_untrained_adapters_do_not_change_the_features(values: dict[str, list[Any]]) -> None:
    plain = Embedder({m: registry.create(m, name, **SETTINGS[m]) for m, name in NAMES.items()}, 6).eval()
    plain.fit_processors(values)
    before = {m: plain.encode(batch_size=256, precision="float32", **{m: values[m]}) for m in NAMES}
    for m in NAMES:
        add_lora(plain.encoder(m), LoRA(TARGETS[m]), m)
    plain.eval()
    for m in NAMES:
        np.testing.assert_allclose(
            plain.encode(batch_size=256, precision="float32", **{m: values[m]}), before[m], atol=1e-6
        )


@pytest.mark.parametrize("modality", NAMES)
def test_merged_weights_equal_the_adapters_with_and_without_gradients(
    modality: str, values: dict[str, list[Any]]
) -> None:
    embedder = adapted(values)
    encoder = embedder.encoder(modality)
    plain = merge_adapters(encoder)
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]
    assert (
        plain.state_dict().keys()
        == registry.create(modality, NAMES[modality], **SETTINGS[modality]).state_dict().keys()
    )
    inputs = encoder.processor.collate([encoder.processor(value) for value in values[modality]])
    expected = encoder(**inputs)
    torch.testing.assert_close(plain(**inputs), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():  # a transformer uses another code path then
        torch.testing.assert_close(encoder(**inputs), expected, rtol=1e-4, atol=1e-5)
    untrained = adapted(values, learn=False).encoder(modality)
    assert (untrained(**inputs) - expected).abs().max() > 1e-3


def test_a_loaded_model_with_adapters_equals_the_saved_one(values: dict[str, list[Any]], tmp_path: Path) -> None:
    embedder = adapted(values)
    embedder.save_pretrained(tmp_path / "model")
    loaded = Embedder.from_pretrained(tmp_path / "model")
    assert loaded.fingerprint == embedder.fingerprint
    assert loaded.lora == embedder.lora
    for m in NAMES:
        np.testing.assert_array_equal(
            loaded.encode(batch_size=256, precision="float32", **{m: values[m]}),
            embedder.encode(batch_size=256, precision="float32", **{m: values[m]}),
        )
    assert sorted(path.suffix for path in (tmp_path / "model").iterdir()) == [".json", ".safetensors"]


def test_modules_that_cannot_be_adapted_are_rejected(make_embedder: Callable[..., Embedder]) -> None:
    encoder = make_embedder("text").encoder("text")
    with pytest.raises(UsageError, match=r"lora.text.targets: 'attention' matches no module .* begin with tokens"):
        add_lora(encoder, LoRA("attention"), "text")
    with pytest.raises(UsageError, match=r"'layers.norm' matches no linear, convolution"):
        add_lora(encoder, LoRA("layers.norm"), "text")
    with pytest.raises(UsageError, match="rank 0 must be at least 1"):
        LoRA("x", rank=0)


class Attending(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor = 8, Numbers()
        self.attention, self.grouped = nn.MultiheadAttention(8, 2, batch_first=True), nn.Conv1d(8, 8, 1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.grouped(self.attention(x, x, x)[0].mT).mean(dim=2)


def test_attention_weights_are_restored_exactly() -> None:
    torch.manual_seed(0)
    encoder = Attending()
    before = {name: p.clone() for name, p in encoder.state_dict().items()}
    add_lora(encoder, LoRA(".*", rank=2), "image")
    learned = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.01)
    x = torch.randn(4, 3, 8)
    plain = encoder(x).detach()
    for _ in range(20):
        optimizer.zero_grad()
        encoder(x).square().sum().backward()
        optimizer.step()
    assert not torch.allclose(encoder(x), plain)
    after = {name.replace(".base_layer", ""): p for name, p in encoder.state_dict().items() if "lora" not in name}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not [name for name, _ in encoder.named_parameters() if "grouped" in name and "lora" in name]
    torch.testing.assert_close(merge_adapters(encoder)(x), encoder(x), rtol=1e-5, atol=1e-6)
