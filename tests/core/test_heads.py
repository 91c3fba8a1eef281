"""The heads between features and the shared space, and their entries in a saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core import registry
from multimodal.core.embedder import Embedder, Head
from multimodal.core.errors import MultimodalError, UsageError


def embedder(heads: dict[str, Head], dim: int = 8) -> Embedder:
    torch.manual_seed(7)
    settings: dict[str, Any] = {"node_features": 2, "edge_features": 1, "width": 8, "layers": 1}
    return Embedder({m: registry.create("graph", "gnn", **settings) for m in ("a", "b", "c")}, dim, heads).eval()


def features(n: int = 5) -> Tensor:
    return torch.randn(n, 8)


def test_linear_is_the_default_and_none_uses_the_features_unchanged() -> None:
    model = embedder({"b": "none"})
    x = features()
    torch.testing.assert_close(model.project("b", x), x / x.norm(dim=1, keepdim=True))
    weight, bias = model.heads["a"].weight, model.heads["a"].bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    torch.testing.assert_close(model.project("a", x), functional.normalize(x @ weight.T + bias, dim=1))
    assert list(model.heads["b"].parameters()) == []


def test_an_mlp_has_a_hidden_layer_of_the_features_width() -> None:
    model = embedder({"a": "mlp"}, dim=3)
    p = dict(model.heads["a"].named_parameters())
    x = features().double()
    hidden = x @ p["0.weight"].double().T + p["0.bias"].double()
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    expected = hidden @ p["2.weight"].double().T + p["2.bias"].double()
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.project("a", x.float()).double(), expected, rtol=1e-5, atol=1e-6)
    assert p["0.weight"].shape == (8, 8)


def test_heads_are_saved_and_the_default_one_is_left_out(tmp_path: Path) -> None:
    model = embedder({"a": "mlp", "b": "none", "c": "linear"})
    model.save_pretrained(tmp_path / "model")
    loaded = Embedder.from_pretrained(tmp_path / "model")
    assert loaded.head_kinds == {"a": "mlp", "b": "none", "c": "linear"}
    assert loaded.fingerprint == model.fingerprint
    path = tmp_path / "model" / "embedder.json"
    described = json.loads(path.read_text())
    assert [entry.get("head") for entry in described["encoders"].values()] == ["mlp", "none", None]
    described["encoders"]["a"]["head"] = "deep"
    del described["digest"]
    path.write_text(json.dumps(described))
    with pytest.raises(MultimodalError, match=r"heads.a: 'deep' is not one of linear, mlp, none"):
        Embedder.from_pretrained(tmp_path / "model")


def test_invalid_heads_are_rejected() -> None:
    with pytest.raises(UsageError, match=r"heads.a is 'none', so its encoder's 8 features .* dim is 6; set dim to 8"):
        embedder({"a": "none"}, dim=6)
    with pytest.raises(UsageError, match="no modality 'd'"):
        embedder({"d": "mlp"})


def test_a_shared_space_without_components_is_refused() -> None:
    with pytest.raises(UsageError, match="dim, the width of the shared space, must be at least 1, got 0"):
        embedder({}, dim=0)
