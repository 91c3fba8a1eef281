"""Training one encoder for two modalities: its gradient is the sum over both, and a configuration can set it."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from vector_encoders import TwoLayers, VectorProcessor

from multimodal.cli.main import main
from multimodal.core.batch import Batch, MicroBatches, Sample
from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.objectives import InfoNCE
from multimodal.training.freezing import Freezing
from multimodal.training.gradient_cache import GradientCache
from multimodal.training.module import EmbedderModule
from multimodal.training.parameter_groups import parameter_groups


def batch(rows: range) -> Batch:
    values = torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    samples = [Sample(str(i), {"title": values[i, 0], "body": values[i, 1]}, str(i)) for i in rows]
    return Batch.collate(samples, {"title": VectorProcessor(), "body": VectorProcessor()})


def gradients(embedder: Embedder, size: int | None) -> dict[str, Tensor]:
    """Return InfoNCE's gradients over the eight rows, by name; with ``size``, in parts by the gradient cache."""
    objective = InfoNCE().double()
    if size is None:
        objective(embedder.embed(batch(range(8)))).total.backward()
    else:
        parts = MicroBatches(tuple(batch(range(start, start + size)) for start in range(0, 8, size)))
        cache = GradientCache(embedder, parts, 0, torch.enable_grad)
        objective(cache.embeddings).total.backward()
        cache.backward()
    return {name: p.grad for name, p in embedder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [None, 2])
def test_the_gradient_of_a_shared_encoder_is_the_sum_over_two_copies(size: int | None) -> None:
    torch.manual_seed(0)
    encoder = TwoLayers().double()
    two = Embedder({"title": encoder, "body": copy.deepcopy(encoder)}, dim=4).double()
    one = Embedder({"title": encoder, "body": encoder}, dim=4).double()
    one.heads.load_state_dict(two.heads.state_dict())
    expected = {name: gradient.clone() for name, gradient in gradients(two, None).items()}
    one.zero_grad()
    for name, found in gradients(one, size).items():
        summed = expected[name]
        if name.startswith("encoders.title."):
            summed = summed + expected[name.replace("title", "body")]
        torch.testing.assert_close(found, summed, rtol=1e-10, atol=1e-12)


def test_settings_belong_to_the_first_modality() -> None:
    encoder = TwoLayers()
    embedder = Embedder({"title": encoder, "body": encoder}, dim=4)
    assert Freezing(embedder, {"title": "all"}).always_frozen == {"title", "body"}
    with pytest.raises(UsageError, match=r"freeze.body: body shares the encoder of title; set freeze.title instead"):
        Freezing(embedder, {"body": "all"})
    with pytest.raises(UsageError, match=r"rates.body: .* set rates.title"):
        parameter_groups(embedder, embedder, [*embedder.parameters()], {"body": 0.1}, {})


@pytest.mark.parametrize("shared", [{"body": "titel"}, {"title": "other"}])
def test_only_the_encoder_of_another_modality_can_be_shared(shared: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"^shared: .* encoders must have"):
        EmbedderModule({"title": TwoLayers(), "other": TwoLayers()}, shared=shared)


def test_a_configuration_trains_one_text_encoder_for_titles_and_bodies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fox", "dog", "crow", "bear", "owl", "ant", "bee", "cat"]
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["title", "body", "split"])
        table.writerows([word, f"this is a {word}", "train"] for word in words)
        table.writerows([word, f"there was one {word}", "validation"] for word in words)
    text = {
        "class_path": "multimodal_encoders.text.transformer.TextTransformer",
        "init_args": {"width": 16, "layers": 1, "heads": 2},
    }
    config = {
        "run": str(tmp_path / "run"),
        "data": {
            "table": str(tmp_path / "pairs.csv"),
            "columns": {"title": "title", "body": "body"},
            "split": "split",
            "batch_size": 8,
        },
        "model": {"dim": 8, "encoders": {"title": text}, "shared": {"body": "title"}},
        "trainer": {"max_steps": 3, "enable_progress_bar": False},
    }
    (tmp_path / "shared.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "shared.yaml")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--split", "validation", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["pairs"]) == {"title->body", "body->title"}
    model = Embedder.from_pretrained(tmp_path / "run")
    assert model.shared == {"body": "title"}
    assert "this" in str(model.processors["title"].state())  # a word that only bodies contain
