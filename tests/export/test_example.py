"""The example in an export to ONNX makes the model's vectors, in Python and in JavaScript, without this package."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.image.fit_steps import describe_steps
from multimodal_encoders.image.image_processor import ImageProcessor
from multimodal_encoders.image.pretrained_preprocessing import PretrainedImageProcessor
from multimodal_encoders.text.pretrained_tokenizer import TokenProcessor
from node_programs import inputs_of_node, link_packages, run_node, vectors_of_node
from odd_pictures import write_pictures
from PIL import Image
from small_transformers import tokenizer as small_tokenizer
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.errors import MultimodalError
from multimodal.core.registry import create
from multimodal.export.example.example import prepare
from multimodal.export.folder import export

NAMES = ["a red cup", "a blue cup, chipped", "DOTS-1256", "the old red jug", "Σίσυφος and the stone", "naïve café"] * 2
TEXTS = [
    "a red cup",
    "RED   cups, 17 of them!",
    "x",
    "[PAD] and [UNK] [SEP]",
    "Σίσυφος ΣΑΣ",
    "é is e\u0301, a\u0301\u0323 too",
    "ﬁne ＦＵＬＬ ① ² Ⅷ ٣",
    "👩‍👩‍👧 a 😀",
    "漢字 and कृष्ण",
    "a\u0085b\ufeffc\u2003d\x1ce",
    "İstanbul STRASSE ẞ",
    "- -- (…) “quoted” don't",
    "▁a▁▁b ▁",
    "\u200b",
    "\u0301",
    "word " * 3000,
    "x" * 5000,
    " " * 5000 + "cup" + " " * 3000 + "jug",
]
CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cn"])


@dataclass
class Exported:
    """A model of a picture, a text and a graph encoder, and the folder that it was exported to."""

    embedder: Embedder
    folder: Path
    example: Any


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    encoders = {
        "image": create("image", "small_cnn", size=24, widths=[4, 8], background="#3080c0"),
        "text": create("text", "transformer", vocab_size=90, width=16, layers=1, heads=2, max_length=12),
        "row": create("vector", "precomputed", width=3),
        "length": _Lengths(),
    }
    embedder = Embedder(encoders, 8)
    embedder.fit_processors({"text": NAMES})
    for module in embedder.modules():
        if isinstance(module, nn.LayerNorm | nn.Embedding):
            nn.init.normal_(module.weight)
    embedder.eval()
    folder = tmp_path_factory.mktemp("example") / "out"
    export(embedder, "onnx", folder)
    specification = importlib.util.spec_from_file_location("exported_example", folder / "example.py")
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    return Exported(embedder, folder, example)


def vector_of(embedder: Embedder, modality: str, value: Any) -> np.ndarray:
    values: dict[str, Any] = {modality: [value]}
    return np.asarray(embedder.encode(precision="float32", **values))[0]


def test_texts_have_the_models_vectors(exported: Exported) -> None:
    for text in TEXTS:
        expected = vector_of(exported.embedder, "text", text)
        np.testing.assert_allclose(exported.example.embed("text", text), expected, atol=1e-4, err_msg=text[:50])


@settings(deadline=None, max_examples=60)
@given(text=st.text(CHARACTERS, min_size=1, max_size=80).filter(str.strip))
def test_any_text_has_the_models_vector(exported: Exported, text: str) -> None:
    expected = vector_of(exported.embedder, "text", text)
    np.testing.assert_allclose(exported.example.embed("text", text), expected, atol=1e-4)


def test_pictures_have_the_models_vectors(exported: Exported, tmp_path: Path) -> None:
    for path in write_pictures(tmp_path):
        expected = vector_of(exported.embedder, "image", path.read_bytes())
        np.testing.assert_allclose(exported.example.embed("image", path), expected, atol=1e-4, err_msg=path.name)


def test_numbers_have_the_models_vectors(exported: Exported) -> None:
    expected = vector_of(exported.embedder, "row", [1.0, -2.0, 0.5])
    np.testing.assert_allclose(exported.example.embed("row", "[1, -2, 0.5]"), expected, atol=1e-4)


def test_the_program_needs_neither_torch_nor_this_package(exported: Exported, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = sys.modules['multimodal'] = None"
    start = f"{blocked}; import runpy; runpy.run_path('example.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", start, "--text", "a red cup"], cwd=exported.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = vector_of(exported.embedder, "text", "a red cup")
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "  "], "the text is empty"),
        (["--image", __file__], "test_example.py is not a picture that can be read"),
        (["--image", f"{__file__}.png"], "No such file or directory"),
        (["--row", "[1, 2]"], "give a list of 3 finite numbers"),
        (["--row", "[NaN, 1, 2]"], "give a list of 3 finite numbers"),
        (["--length", "cup"], "this example cannot read length: export.json says how _LengthProcessor"),
        (["--colour", "red"], "there is no modality 'colour'; there is image, text, row"),
        (["--text"], "Usage: python example.py --MODALITY VALUE"),
    ],
)
def test_what_cannot_be_read_is_one_line(exported: Exported, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        exported.example.main(arguments)
    assert message in str(exit_.value)
    assert "\n" not in str(exit_.value)


def test_the_readme_names_commands_and_what_is_not_covered(exported: Exported) -> None:
    readme = (exported.folder / "README.md").read_text()
    assert 'python example.py --text "a red cup"' in readme
    assert "node example.mjs --image cup.png" in readme
    assert "`length` is not covered: export.json says how _LengthProcessor" in readme
    listed = json.loads((exported.folder / "export.json").read_text())["files"]
    assert {"example.py", "example.mjs", "pictures.mjs", "texts.mjs", "package.json", "preprocessing.json"} <= set(
        listed
    )


def test_other_formats_have_no_example(exported: Exported, tmp_path: Path) -> None:
    export(exported.embedder, "torch-export", tmp_path / "out", ["row"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "row.pt2"]


class _LengthProcessor(Processor):
    def __call__(self, value: str) -> int:
        return len(value)

    def collate(self, items: Sequence[int]) -> dict[str, Tensor]:
        return {"lengths": torch.tensor(items)}

    def examples(self) -> list[str]:
        return ["a", "abc"]


class _Lengths(Encoder):
    """An encoder without ``preprocessing()``."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor, self.linear = 2, _LengthProcessor(), nn.Linear(1, 2)

    def forward(self, lengths: Tensor) -> Tensor:
        return self.linear(lengths[:, None].float())


class _Wrong(ImageProcessor):
    def preprocessing(self) -> dict[str, Any]:
        return super().preprocessing() | {"background": [0, 0, 0]}


class _WrongPictures(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor, self.linear = 2, _Wrong(4, 1), nn.Linear(16, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.linear(pixels.flatten(1).float())


def test_a_description_of_other_inputs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match=r"preprocessing\(\) of its _Wrong describes other inputs than it makes"):
        export(Embedder({"image": _WrongPictures()}, 2), "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_transforms_without_a_description_are_not_covered() -> None:
    assert describe_steps(Compose([Resize(8), CenterCrop(8), lambda picture: picture])) is None
    assert describe_steps(Compose([Resize(8, interpolation=InterpolationMode.NEAREST)])) is None
    assert describe_steps(lambda picture: picture) is None


def _pretrained(*transforms: Any) -> PretrainedImageProcessor:
    return PretrainedImageProcessor("mine", {}, Compose(list(transforms)), (16, 12), "#ffe0c0")


PICTURE_PROCESSORS: dict[str, Processor] = {
    "grey": ImageProcessor(20, 1),
    "grey on colour": ImageProcessor(33, 1, background="#3080c0"),
    "colour": ImageProcessor(20, 3, background="#3080c0"),
    "large": ImageProcessor(150, 3),
    "bilinear": _pretrained(Resize(18), CenterCrop((16, 12))),
    "bicubic": _pretrained(Resize(20, InterpolationMode.BICUBIC), CenterCrop((16, 12))),
    "lanczos": _pretrained(Resize((16, 12), InterpolationMode.LANCZOS)),
    "hamming": _pretrained(Resize((16, 12), InterpolationMode.HAMMING)),
    "box": _pretrained(Resize((16, 12), InterpolationMode.BOX)),
    "black border": _pretrained(Resize(11), CenterCrop((16, 12))),
}


def text_processors(folder: Path) -> dict[str, Processor]:
    """Return fitted processors of texts of every kind."""
    made: dict[str, Processor] = {}
    for kind, settings_ in {
        "transformer": {"vocab_size": 90, "max_length": 12},
        "bag": {"vocab_size": 500},
        "bag with pairs": {"vocab_size": 500, "word_pairs": True},
        "svd": {"vocab_size": 300, "longest": 0},
        "word_vectors": {"vocab_size": 6, "width": 4, "pooling": "sif"},
    }.items():
        encoder = create("text", kind.partition(" ")[0], **settings_)
        if kind == "word_vectors":  # as a file would have set
            encoder.processor.load_state({"words": ["red", "cup", "Σίσυφος", "naïve", "कृष्ण", "the"]})
        encoder.processor.fit(NAMES)
        made[kind] = encoder.processor
    kinds = {"bert": ("bert", ""), "prompt": ("bert", "query: "), "gpt2": ("gpt2", "")}
    for name, (kind, prompt) in kinds.items():
        made[name] = TokenProcessor(10, prompt)
        made[name].take(small_tokenizer(folder / name, kind))  # pyright: ignore[reportAttributeAccessIssue]
    left = made["left"] = TokenProcessor(10)
    left.take(small_tokenizer(folder / "left", truncation_side="left", split_special_tokens=True))
    return made


def random_texts(number: int) -> list[str]:
    """Return texts of characters of Unicode 3.2, which every program knows, and of those with special rules."""
    rng = np.random.default_rng(0)
    known = [chr(n) for n in range(0x20, 0x30000) if unicodedata.ucd_3_2_0.category(chr(n)) not in ("Cn", "Cs", "Co")]
    special = [
        " ",
        "\t",
        "-",
        ".",
        "'",
        "1",
        "Σ",
        "ς",
        "e\u0301",
        "\u0301",
        "\u200d",
        "😀",
        "[PAD]",
        "▁",
        "a",
        "B",
        "cup",
    ]
    drawn = [rng.choice(known if n % 2 else special, rng.integers(1, 25)) for n in range(number)]
    return [text for parts in drawn if (text := "".join(parts)).strip()]


def assert_same(actual: Any, processor: Processor, value: Any, what: str) -> None:
    expected = processor.collate([processor(value)])
    assert not isinstance(actual, str), f"{what}: {actual}"
    assert set(actual) == set(expected), what
    for name, tensor in expected.items():
        assert actual[name].shape == tuple(tensor.shape), (what, name)
        np.testing.assert_allclose(actual[name], tensor.numpy(), atol=1e-6, err_msg=f"{what}: {name}")


def described(processor: Processor) -> dict[str, Any]:
    found = processor.preprocessing()
    assert found is not None
    return json.loads(json.dumps(found))


@pytest.mark.parametrize("name", PICTURE_PROCESSORS)
def test_pictures_become_the_same_pixels(name: str, tmp_path: Path) -> None:
    description = described(PICTURE_PROCESSORS[name])
    for path in write_pictures(tmp_path):
        assert_same(prepare(description, path), PICTURE_PROCESSORS[name], path.read_bytes(), path.name)


def test_texts_become_the_same_numbers(tmp_path: Path) -> None:
    for name, processor in text_processors(tmp_path).items():
        description = described(processor)
        for text in TEXTS:
            assert_same(prepare(description, text), processor, text, f"{name}: {text[:50]!r}")


@pytest.mark.parametrize("scale", ["length", "standard", "none"])
def test_numbers_are_scaled_the_same(scale: str) -> None:
    processor = create("vector", "precomputed", width=3, scale=scale).processor
    processor.fit([[1.0, 2.0, 3.0], [2.0, 2.0, -3.0]])
    assert_same(prepare(described(processor), [4.0, -1.0, 0.25]), processor, [4.0, -1.0, 0.25], scale)


def test_a_picture_of_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.new("L", (400, 300)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90_000)
    with pytest.raises(Image.DecompressionBombWarning):
        prepare(described(PICTURE_PROCESSORS["grey"]), tmp_path / "large.png")


# JavaScript


@pytest.fixture(scope="module")
def node_folder(exported: Exported) -> Path:
    link_packages(exported.folder)
    return exported.folder


def test_node_prints_the_models_vectors(exported: Exported, node_folder: Path, tmp_path: Path) -> None:
    done = run_node(node_folder, "example.mjs", "--text", "a red cup")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), vector_of(exported.embedder, "text", "a red cup"), atol=1e-4)
    values: list[tuple[str, Any]] = [("text", text) for text in TEXTS]
    values += [("row", "[1, -2, 0.5]"), *(("image", str(path)) for path in write_pictures(tmp_path))]
    for (modality, value), found in zip(values, vectors_of_node(node_folder, values), strict=True):
        read = {"image": lambda path: Path(path).read_bytes(), "row": json.loads, "text": str}[modality]
        expected = vector_of(exported.embedder, modality, read(value))
        assert not isinstance(found, str), f"{value[:50]!r}: {found}"
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=value[:50])


def test_node_makes_the_same_inputs(node_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    pictures = [str(path) for path in write_pictures(tmp_path / "pictures")]
    texts = text_processors(tmp_path)
    processors = PICTURE_PROCESSORS | texts
    values = [(name, text) for name in texts for text in [*TEXTS, *random_texts(60)]]
    values += [(name, path) for name in PICTURE_PROCESSORS for path in pictures]
    found = inputs_of_node(node_folder, {name: described(p) for name, p in processors.items()}, values)
    for (name, value), inputs in zip(values, found, strict=True):
        given_ = Path(value).read_bytes() if name in PICTURE_PROCESSORS else value
        assert_same(inputs, processors[name], given_, f"{name}: {value[-50:]!r}")


def test_node_says_what_it_cannot_read(node_folder: Path, tmp_path: Path) -> None:
    Image.new("CMYK", (40, 30)).save(tmp_path / "cmyk.jpg")
    header = bytearray((write_pictures(tmp_path)[0].parent / "small.png").read_bytes())
    header[16:24] = (50_000).to_bytes(4, "big") * 2  # width and height
    (tmp_path / "bomb.png").write_bytes(header)
    (tmp_path / "cut.png").write_bytes((tmp_path / "rgba.png").read_bytes()[:200])
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "odd.jpg").read_bytes()[:100])
    expected = {
        ("text", "  "): "the text is empty",
        ("text", "\ud800"): "not valid Unicode",
        ("image", str(tmp_path / "cmyk.jpg")): "type cmyk",
        ("image", str(tmp_path / "bomb.png")): "more than 89478485 pixels",
        ("image", str(tmp_path / "cut.png")): "is not a picture that can be read",
        ("image", str(tmp_path / "cut.jpg")): "the JPEG is damaged",
        ("image", str(node_folder / "example.py")): "is not a picture that can be read",
        ("image", str(tmp_path / "none.png")): "no such file",
        ("row", "[1, 2]"): "give a list of 3 finite numbers",
        ("length", "cup"): "this example cannot read length",
        ("colour", "red"): "there is no modality colour; there is image, text, row",
        ("__proto__", "red"): "there is no modality",
    }
    found = vectors_of_node(node_folder, list(expected))
    for (value, message), error in zip(expected.items(), found, strict=True):
        assert isinstance(error, str), value
        assert message in error
