"""The example in a folder of ONNX files: programs in Python and JavaScript from raw values to vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError
from multimodal.export.example.example import prepare
from multimodal.export.towers import Tower

PROGRAMS = Path(__file__).parent / "example"
FILES = ("example.py", "example.mjs", "pictures.mjs", "texts.mjs", "package.json")
PREPROCESSING = "preprocessing.json"
TOLERANCE = 1e-5  # difference of an input
TEXT = '"a red cup"'
PLACEHOLDERS = {"picture": "cup.png", "numbers": '"[0.1, 0.2, ...]"'}  # of a value in a command; else it is TEXT


def write_example(towers: Sequence[Tower], files: Mapping[str, str], folder: Path) -> None:
    """Write the example's programs, ``preprocessing.json`` and a README next to ONNX files.

    Args:
        towers: the exported towers.
        files: modality -> its ONNX file.
        folder: the folder of the files.

    Raises:
        MultimodalError: the example makes other inputs of a processor's examples than the processor.
    """
    covered: dict[str, dict[str, Any]] = {}
    not_covered: dict[str, str] = {}
    for tower in towers:
        described = _describe(tower)
        if described is None:
            name = type(_encoder(tower).processor).__name__
            not_covered[tower.modality] = f"export.json says how {name} makes the inputs of {files[tower.modality]}"
        else:
            covered[tower.modality] = {"file": files[tower.modality], **described}
    for name in FILES:
        shutil.copyfile(PROGRAMS / name, folder / name)
    found = {"modalities": covered, "not_covered": not_covered}
    (folder / PREPROCESSING).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    (folder / "README.md").write_text(_readme(covered, not_covered), encoding="utf-8")


def _encoder(tower: Tower) -> Encoder:
    assert isinstance(tower.encoder, Encoder)
    return tower.encoder


def _describe(tower: Tower) -> dict[str, Any] | None:
    """Return the processor's description after a check that it makes the same inputs; None if it has none."""
    processor = _encoder(tower).processor
    described = processor.preprocessing()
    if described is None:
        return None
    text = json.dumps(described)
    read = json.loads(text)
    for value in processor.examples():
        expected = {name: tensor.numpy() for name, tensor in processor.collate([processor(value)]).items()}
        if not _are_equal(prepare(read, value), expected):
            raise MultimodalError(
                f"{tower.description} cannot be exported with an example: the preprocessing() of its"
                f" {type(processor).__name__} describes other inputs than it makes."
            )
    return json.loads(text)


def _are_equal(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> bool:
    return set(actual) == set(expected) and all(
        actual[name].shape == array.shape
        and actual[name].dtype == array.dtype
        and np.allclose(actual[name], array, rtol=TOLERANCE, atol=TOLERANCE)
        for name, array in expected.items()
    )


def _readme(covered: Mapping[str, Mapping[str, Any]], not_covered: Mapping[str, str]) -> str:
    values = [f"--{modality} {PLACEHOLDERS.get(d['kind'], TEXT)}" for modality, d in covered.items()]
    python = "\n".join(["pip install numpy onnxruntime pillow tokenizers", *(f"python example.py {v}" for v in values)])
    node = "\n".join(["npm install", *(f"node example.mjs {v}" for v in values)])
    others = "".join(f"- `{modality}` is not covered: {reason}.\n" for modality, reason in not_covered.items())
    commands = f"Each prints a vector as JSON.\n\n```sh\n{python}\n```\n\n```sh\n{node}\n```\n" if covered else ""
    return (
        "# Example\n\n"
        "`example.py` and `example.mjs` (Node 20) turn values into vectors with the ONNX files in this folder and"
        f" `preprocessing.json`. {commands}\n"
        f"{others}"
        "- `embed(modality, value)` of either file is for other programs.\n"
        "- JavaScript reads PNG, JPEG, WebP, GIF and TIFF files of grey or RGB pixels, Python what Pillow reads.\n"
    )
