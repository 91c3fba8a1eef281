"""Exported towers return the model's vectors for batches of every size in other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.lora import LoRA
from multimodal.export.folder import export

RNG = np.random.default_rng(0)
TEXTS = ["fox", "a quick brown fox", "LAZY dogs, 17 of them", "jump!", "over the fence and far away again"]
ROWS = [{"price": i / 2, "colour": "red" if i % 2 else "blue"} for i in range(5)]
SMILES = ["CCO", "c1ccccc1", "CC(=O)[O-]", "C", "N#CC1CC1"]


def graphs(edge_features: int) -> list[Any]:
    """Return graphs of one to five nodes; the first has no edge."""
    return [
        {
            "x": RNG.normal(size=(n + 1, 2)).tolist(),
            "edge_index": RNG.integers(0, n + 1, (2, 2 * n)).tolist(),
            "edge_attr": RNG.normal(size=(2 * n, edge_features)).tolist(),
        }
        for n in range(5)
    ]


def gnn(conv: str, pooling: str) -> tuple[str, str, dict[str, Any], list[Any]]:
    settings = {"conv": conv, "pooling": pooling, "node_features": 2, "edge_features": 1, "width": 8, "layers": 2}
    return "graph", "gnn", settings, graphs(1)


CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 20, "width": 16, "heads": 2, "layers": 2},
}
GPS = {"node_features": 2, "edge_features": 1, "width": 8, "layers": 2, "walks": 4}
PYG = {"in_channels": 2, "hidden_channels": 8, "num_layers": 2, "edge_dim": 1, "norm": "batch_norm"}
PICTURES = [RNG.integers(0, 256, (9 + n, 12), dtype=np.uint8) for n in range(5)]
CASES: dict[str, tuple[str, str, dict[str, Any], list[Any]]] = {
    "cnn": ("image", "cnn", {"size": 16}, PICTURES),
    "transformer": ("text", "transformer", {"vocab_size": 60, "width": 8, "layers": 2, "heads": 2}, TEXTS),
    "bag": ("text", "bag", {}, [*TEXTS, *TEXTS]),
    "spectrogram": ("audio", "spectrogram", {"channels": 4}, [RNG.normal(size=4000 + 1700 * n) for n in range(4)]),
    "tabular": ("row", "mlp", {"width": 8}, ROWS),
    "molecule": ("graph", "molecule", {"width": 8, "layers": 2, "virtual_node": True}, SMILES),
    "drawing": ("image", "drawing", {"size": 32}, SMILES),
    "gine": gnn("gine", "attention"),
    "gin": gnn("gin", "sum"),
    "gat": gnn("gat", "mean"),
    "gcn": gnn("gcn", "max"),
    "clip_pictures": ("image", "open_clip", {"config": CLIP}, PICTURES),
    "clip_texts": ("text", "open_clip", {"config": CLIP}, TEXTS),
    "timm": ("image", "timm", {"arch": "test_vit"}, PICTURES),
    "torchvision": (
        "image",
        "torchvision",
        {"arch": "squeezenet1_1", "preprocess": {"resize_size": 40, "crop_size": 32}},
        PICTURES,
    ),
    "sage": gnn("sage", "attention"),
    "pna": gnn("pna", "mean"),
    "gps": ("graph", "gps", {**GPS, "attention": "multihead"}, graphs(1)),
    "performer": ("graph", "gps", {**GPS, "attention": "performer"}, graphs(1)),
    "pyg": ("graph", "pyg", {"arch": "PNA", "config": PYG}, graphs(1)),
    "molecule gps": ("graph", "molecule", {"conv": "gps", "walks": 4, "width": 8, "layers": 2}, SMILES),
    "precomputed": ("vector", "precomputed", {"width": 3}, list(RNG.normal(size=(5, 3)))),
    "word vectors": ("text", "word_vectors", {"width": 8, "vocab_size": 5, "pooling": "sif"}, TEXTS),
}


def embedder_of(case: str, **settings: Any) -> tuple[Embedder, str, list[Any]]:
    modality, name, given, values = CASES[case]
    torch.manual_seed(1)
    if case == "tabular":
        modality, name = next((r.modality, r.name) for r in registry.registrations() if r.cls.__name__ == "TabularMLP")
    embedder = Embedder({modality: registry.create(modality, name, **given)}, 6, **settings)
    if case == "word vectors":  # as a file would have set
        embedder.processors[modality].load_state({"words": ["fox", "brown", "and", "over", "dogs"]})
    embedder.fit_processors({modality: values})
    for module in embedder.modules():  # as if trained
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.1)  # pyright: ignore[reportArgumentType]
    return embedder.eval(), modality, values


def vectors(folder: Path, modality: str, to: str, inputs: dict[str, Tensor]) -> np.ndarray:
    """Return the vectors that another program computes."""
    described = json.loads((folder / "export.json").read_text())["modalities"][modality]
    assert set(described["inputs"]) == set(inputs)
    if to == "torch-export":
        return torch.export.load(folder / described["file"]).module()(**inputs).detach().numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / described["file"], providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["vectors"]
    return np.asarray(session.run(None, {i.name: inputs[i.name].numpy() for i in session.get_inputs()})[0])


SLOW = [
    "drawing",
    "gps",
    "timm",
    "torchvision",
    "clip_pictures",
    "gin",
    "gat",
    "gcn",
    "sage",
    "pna",
    "performer",
    "molecule gps",
    "pyg",
]


@pytest.mark.parametrize(
    ("case", "to"),
    [pytest.param(c, "onnx", marks=[pytest.mark.slow] if c in SLOW else []) for c in CASES]
    + [pytest.param(c, "torch-export", marks=[pytest.mark.slow] if c in SLOW else []) for c in CASES],
)
def test_every_encoder_returns_the_same_vectors_for_batches_of_any_size(case: str, to: Any, tmp_path: Path) -> None:
    embedder, modality, values = embedder_of(case)
    export(embedder, to, tmp_path / "out")
    processor = embedder.processors[modality]
    for chosen in (values[1:2], values[2:], values[::-1]):
        inputs = processor.collate([processor(value) for value in chosen])
        expected = embedder.encode(batch_size=256, precision="float32", **{modality: chosen})
        np.testing.assert_allclose(vectors(tmp_path / "out", modality, to, inputs), expected, atol=1e-4)


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_texts_as_long_as_the_context_are_supported(to: Any, tmp_path: Path) -> None:
    embedder, modality, _ = embedder_of("clip_texts")
    export(embedder, to, tmp_path / "out")
    processor: Any = embedder.processors[modality]
    texts = ["a fox and a dog " * 40, "a fox"]
    inputs = processor.collate([processor(text) for text in texts])
    assert inputs["tokens"].shape == (2, processor.context_length)
    expected = embedder.encode(batch_size=256, precision="float32", **{modality: texts})
    np.testing.assert_allclose(vectors(tmp_path / "out", modality, to, inputs), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        ("transformer", {"tokens": ["batch", "tokens_1"]}),
        ("tabular", {"numbers": ["batch", 64], "missing": ["batch", 64], "categories": ["batch", 1]}),
    ],
)
def test_dynamic_sizes_have_names_in_onnx(case: str, sizes: dict[str, list[Any]], tmp_path: Path) -> None:
    import onnxruntime

    embedder, modality, _ = embedder_of(case)
    export(embedder, "onnx", tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / f"{modality}.onnx", providers=["CPUExecutionProvider"])
    assert {value.name: value.shape for value in session.get_inputs()} == sizes
    assert [value.shape for value in session.get_outputs()] == [["batch", embedder.dim]]


def test_heads_and_adapters_are_part_of_the_export(tmp_path: Path) -> None:
    embedder, modality, values = embedder_of(
        "transformer", heads={"text": "mlp"}, lora={"text": LoRA("layers", rank=2)}
    )
    for name, parameter in embedder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    export(embedder, "onnx", tmp_path / "out")
    processor = embedder.processors[modality]
    inputs = processor.collate([processor(value) for value in values])
    expected = embedder.encode(text=values)
    np.testing.assert_allclose(vectors(tmp_path / "out", modality, "onnx", inputs), expected, atol=1e-4)


def test_the_description_lists_inputs_and_preprocessing(tmp_path: Path) -> None:
    embedder, _, _ = embedder_of("transformer")
    exported = export(embedder, "torch-export", tmp_path / "out")
    assert exported.files == {"text": "text.pt2"}
    assert 0 <= exported.differences["text"] < 1e-4
    described = json.loads((tmp_path / "out" / "export.json").read_text())
    assert {key: described[key] for key in ("to", "dim", "fingerprint")} == {
        "to": "torch-export",
        "dim": 6,
        "fingerprint": embedder.fingerprint,
    }
    text = described["modalities"]["text"]
    assert text["inputs"] == {"tokens": {"dtype": "int64", "shape": [None, None]}}
    assert text["preprocessing"]["settings"] == {
        "vocab_size": 60,
        "max_length": 64,
        "word_drop": 0.0,
        "word_split": 0.0,
    }
    assert text["preprocessing"]["state"] == embedder.processors["text"].state()
    assert "sub-word numbers" in text["preprocessing"]["values"]
    assert text["encoder"]["settings"]["heads"] == 2


class Numbers(Processor):
    def __call__(self, value: Any) -> Tensor:
        return torch.tensor(float(value))

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.stack(items)[:, None]}


class WithExamples(Numbers):
    def examples(self) -> list[Any]:
        return [1, 2]


class Plain(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor, self.linear = 3, Numbers(), nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class OfValues(Plain):
    """Branch on the values, which exported programs cannot do."""

    def __init__(self) -> None:
        super().__init__()
        self.processor = WithExamples()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if float(x.sum()) > 100 else -self.linear(x)


class Random(OfValues):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + torch.rand(len(x), 3)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (Plain, r"The a encoder \(Plain\) cannot be exported: its Numbers has no examples\(\)"),
        (OfValues, r"The a encoder \(OfValues\) cannot be exported to torch-export .* leave it out with --modality"),
        (Random, r"The a encoder \(Random\) gives other vectors after the export|cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_reported_and_leaves_nothing(encoder: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match=message):
        export(Embedder({"a": encoder()}, 2), "torch-export", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_rejected(tmp_path: Path) -> None:
    wrong: Any = "onx"
    with pytest.raises(UsageError, match=r"no format 'onx'. Did you mean 'onnx'"):
        export(embedder_of("cnn")[0], wrong, tmp_path / "out")
