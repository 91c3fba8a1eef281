"""Every processor takes its values apart into items that it collates, and corrupts them into values that it reads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from multimodal_encoders.audio.spectrogram import SpectrogramProcessor
from multimodal_encoders.graph.gnn import GraphProcessor
from multimodal_encoders.graph.structure import StructureProcessor
from multimodal_encoders.image.image_processor import ImageProcessor
from multimodal_encoders.image.pretrained_preprocessing import PretrainedImageProcessor
from multimodal_encoders.tabular import TabularProcessor
from multimodal_encoders.text.bag_of_words import BagProcessor
from multimodal_encoders.text.transformer import SubwordProcessor
from multimodal_encoders.vectors.precomputed import VectorProcessor
from PIL import Image

from multimodal.core.encoder import Processor
from multimodal.core.errors import Unreadable
from multimodal.core.registry import create

TEXT = "A red cup, with a “handle” and größe 茶碗"
GRAPH = {
    "x": [[0.0], [1.0], [2.0], [3.0]],
    "edge_index": [[0, 1, 1, 2, 0, 3], [1, 0, 2, 1, 0, 1]],
    "edge_attr": [[1.0, 0.0]] * 6,
}
PICTURE = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
WAVE = np.sin(np.arange(12_000) ** 1.2)
ROW = {"price": 3.0, "size": [1.0, 2.0], "colour": "red", "kind": ""}


def fitted(processor: Processor, *values: Any) -> Processor:
    processor.fit(values)
    return processor


CASES: dict[str, tuple[Callable[[], Processor], Any, int]] = {  # -> processor, value, number of parts
    "bag": (lambda: fitted(BagProcessor(99, 2, 3, 0.0), TEXT, TEXT), TEXT, 10),
    "sub-words": (lambda: fitted(SubwordProcessor(99, 32, 0.0), TEXT), TEXT, 10),
    "picture": (lambda: ImageProcessor(24, 1), PICTURE, 64),
    "small picture": (lambda: ImageProcessor(4, 3), PICTURE, 16),
    "pretrained picture": (
        lambda: PretrainedImageProcessor("mine", {}, lambda picture: picture.resize((9, 17)), (17, 9)), PICTURE, 64,
    ),
    "graph": (lambda: GraphProcessor(1, 2), GRAPH, 8),
    "graph without edge features": (lambda: GraphProcessor(1, 0), GRAPH, 8),
    "graph with walks": (lambda: StructureProcessor(GraphProcessor(1, 2), walks=3, places=True), GRAPH, 8),
    "sound": (lambda: SpectrogramProcessor(8000, 20, 0.025, 0.01, 10.0), WAVE, 8),
    "row": (lambda: fitted(TabularProcessor(4, 16), ROW, ROW | {"price": 5.0}), ROW, 3),
    "vector": (lambda: VectorProcessor(5, None, None, "length"), [1.0, 2.0, 3.0, 4.0, 5.0], 5),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Processor, Any, int]:
    make, value, count = CASES[request.param]
    return make(), value, count


def same(a: Any, b: Any) -> bool:
    """Whether a processor's inputs are equal."""
    return a.keys() == b.keys() and all(a[n].shape == b[n].shape and torch.equal(a[n], b[n]) for n in a)


def test_the_items_without_each_part_are_collated(case: tuple[Processor, Any, int]) -> None:
    processor, value, count = case
    before = copy.deepcopy(value)
    whole = processor(value)
    parts = processor.parts(value)
    assert parts is not None
    assert len(parts) == count
    items = [parts.without(number) for number in range(count)]
    inputs = processor.collate([whole, *items])
    assert all(torch.isfinite(t).all() for t in inputs.values() if t.is_floating_point())
    alone = processor.collate([whole])
    assert not all(same(alone, processor.collate([item])) for item in items)
    assert same(alone, processor.collate([processor(value)]))  # removing changes neither the value nor the item
    assert np.array_equal(value, before) if isinstance(value, np.ndarray) else value == before


def test_drawings_are_self_contained(case: tuple[Processor, Any, int]) -> None:
    processor, value, count = case
    parts = processor.parts(value)
    assert parts is not None
    if parts.draw is None:  # a row, a vector, a graph without places
        return
    drawing = parts.draw([0.5, float("nan"), -0.25] + [0.0] * (count - 3))
    assert "+0.500" in drawing
    assert "-0.250" in drawing
    assert "not known" in drawing
    assert not [
        word for word in ("http", "<script", "url(", "nan") if word in drawing.lower().replace("data:image/png", "")
    ]


def test_values_that_cannot_be_read_do_not_come_apart(case: tuple[Processor, Any, int]) -> None:
    processor, _, _ = case
    with pytest.raises(Unreadable):
        processor.parts(object())


def test_corrupted_values_are_read_and_differ(case: tuple[Processor, Any, int]) -> None:
    processor, value, _ = case
    before = copy.deepcopy(value)
    plain = processor.collate([processor(value)])
    corruptions = processor.corruptions()
    assert len(corruptions) >= 2
    for name, corrupt in corruptions.items():
        first, again, *others = (corrupt(value, np.random.default_rng(seed)) for seed in (0, 0, *range(1, 8)))
        inputs = processor.collate([processor(first)])
        assert same(inputs, processor.collate([processor(again)])), name
        assert {n: (t.dtype, t.ndim) for n, t in inputs.items()} == {n: (t.dtype, t.ndim) for n, t in plain.items()}
        changed = [not same(plain, processor.collate([processor(other)])) for other in (first, *others)]
        # a bag of words sees neither the order nor the case, a spectrogram of relative loudness not the volume
        blind = name in ("upper case", "words in another order", "low volume")
        assert any(changed) or blind, name
        processor.corruptions()[name](first, np.random.default_rng(0))  # a corrupted value is a raw value
    assert np.array_equal(value, before) if isinstance(value, np.ndarray) else value == before


def test_small_values_can_be_corrupted(case: tuple[Processor, Any, int]) -> None:
    """One word, one node, one pixel: what is left can be read."""
    processor, value, _ = case
    small = {str: "茶", dict: {"x": [[1.0]], "edge_index": [[], []], "edge_attr": []}, np.ndarray: PICTURE[:1, :1]}
    if "colour" in value or isinstance(value, list) or value is WAVE:
        return
    for name, corrupt in processor.corruptions().items():
        for seed in range(10):
            item = processor(corrupt(small[type(value)], np.random.default_rng(seed)))
            assert processor.collate([item]), name


def test_transparent_pictures_are_laid_on_the_ground() -> None:
    picture = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    corrupt = ImageProcessor(16, 3, background="#00ff00").corruptions()["blur"]
    assert corrupt(picture, np.random.default_rng(0)).getpixel((8, 8)) == (0, 255, 0)


def test_places_of_nodes_are_read_in_all_forms() -> None:
    from torch_geometric.data import Data

    node_link = {
        "nodes": [{"id": n, "weight": 1.0, "x": float(n), "y": 2.0 * n} for n in range(3)],
        "links": [{"source": 0, "target": 1}],
    }
    of_node_link = GraphProcessor(3, 0).parts(node_link)
    pos = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
    data = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1], [1, 0]]), pos=pos)
    of_data = GraphProcessor(1, 0).parts(data)
    worth = [0.1, 0.2, 0.3, 0.4]
    assert of_node_link.draw is not None
    assert of_data.draw is not None
    assert of_node_link.names == ["node 0", "node 1", "node 2", "edge 0-1"]
    assert of_data.names == ["node 1", "node 2", "node 3", "edge 1-2"]
    drawn = of_node_link.draw(worth)
    for old, new in zip(of_node_link.names, of_data.names, strict=True):
        drawn = drawn.replace(f"<title>{old}:", f"<title>={new}:")
    assert drawn.replace("<title>=", "<title>") == of_data.draw(worth)
    assert GraphProcessor(1, 0).parts({"x": [[1.0]], "edge_index": [[], []]}).draw is None


def test_a_large_outline_comes_apart_into_strokes_alone() -> None:
    lines = "".join(f"M{n} 0 h.5 v.5 z" for n in range(300))
    processor = create("graph", "gnn").processor
    parts = processor.parts(f"<svg viewBox='0 0 300 10'><path d='{lines}'/></svg>")
    assert parts is not None
    assert len(parts) == 300
    assert set(parts.kinds) == {"stroke"}
    assert parts.draw is not None
    assert parts.draw([0.1] * 300).count("<line") == 2 * 900


def test_a_recording_with_silence_around_it_keeps_its_times() -> None:
    silence = np.zeros(4000)
    parts = SpectrogramProcessor(8000, 20, 0.025, 0.01, 10.0).parts(np.concatenate([silence, WAVE, silence]))
    assert parts.names[0].split(" ")[0] in ("0.49", "0.50")


def test_pretrained_sound_is_silenced_in_the_wave() -> None:
    transformers = pytest.importorskip("transformers")
    from multimodal_encoders.audio.huggingface import HuggingFaceAudioProcessor

    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    processor = HuggingFaceAudioProcessor(extractor, max_seconds=10.0, shortest=400)
    parts = processor.parts((WAVE, 16_000))
    assert parts.names[2] == "0.20 to 0.30 s"
    values, _ = parts.without(2)
    assert not values[3200:4800].any()
    assert torch.equal(values[:3200], processor((WAVE, 16_000))[0][:3200])
    with pytest.raises(Unreadable, match="is silent"):
        SpectrogramProcessor(8000, 20, 0.025, 0.01, 10.0).parts(np.zeros(100))
