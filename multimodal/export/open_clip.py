"""Export of a pair of towers for open_clip: ``open_clip.create_model_from_pretrained("local-dir:FOLDER")``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError
from multimodal.core.model_folder import save_tensors
from multimodal.export.towers import Tower, check_difference

LIBRARY = "open_clip"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"  # open_clip's names
TEMPERATURE = 0.07  # open_clip's initial temperature; vectors do not depend on it


def save_open_clip(embedder: Embedder, towers: Sequence[Tower], folder: Path) -> dict[str, dict[str, Any]]:
    """Write two towers as a model folder of open_clip.

    Args:
        embedder: the model, on the CPU.
        towers: the image and the text tower of one model of open_clip, without heads.
        folder: an existing folder to write to.

    Returns:
        modality -> its "file" and "max_difference", the largest difference of open_clip's vectors from the model's.

    Raises:
        MultimodalError: the towers do not form one model of open_clip, have heads, or return other vectors there.
    """
    parts = {tower.modality: _parts(embedder, tower) for tower in towers}
    by_tower = {part["tower"]: modality for modality, part in parts.items()}
    configs = [part["model_cfg"] for part in parts.values()]
    if len(towers) != 2 or set(by_tower) != {"image", "text"} or configs[0] != configs[1]:
        raise MultimodalError(
            f"An open_clip model has the image and the text tower of one configuration; {', '.join(parts)} are not such a"
            " pair. Choose two with --modality, or another format."
        )
    weights = _logit_parameters(configs[0])
    for part in parts.values():
        weights |= {
            name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in part["state"].items()
        }
    save_tensors(weights, folder / WEIGHTS)
    config = {"model_cfg": configs[0], "preprocess_cfg": parts[by_tower["image"]].get("preprocess_cfg", {})}
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    for part in parts.values():
        for name, content in part.get("files", {}).items():
            (folder / name).write_text(content, encoding="utf-8")
    actual = _vectors_of_open_clip(folder, embedder, by_tower)
    entries = {}
    for tower in towers:
        expected = embedder.encode(
            batch_size=256, precision="float32", **{tower.modality: _examples(embedder, tower.modality)}
        )
        entries[tower.modality] = {
            "file": WEIGHTS,
            "max_difference": check_difference(tower, actual[tower.modality], torch.from_numpy(expected), LIBRARY),
        }
    return entries


def _logit_parameters(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the initial scale and bias of similarities that the configuration defines."""
    values = {
        "logit_scale": config.get("init_logit_scale", math.log(1 / TEMPERATURE)),
        "logit_bias": config.get("init_logit_bias"),
    }
    shape = [1] if config.get("nonscalar_logit_scale") else []
    return {name: torch.full(shape, float(value)) for name, value in values.items() if value is not None}


def _parts(embedder: Embedder, tower: Tower) -> Any:
    assert isinstance(tower.encoder, Encoder)
    parts = tower.encoder.parts(LIBRARY)
    if parts is None:
        raise MultimodalError(
            f"{tower.description} is not an open_clip tower; export it to onnx or torch-export, or leave it out by naming"
            " the others with --modality."
        )
    if embedder.head_kinds[tower.modality] != "none":
        raise MultimodalError(
            f"{tower.description} has a projection head, which an open_clip model cannot hold; train it with"
            f" heads: {{{tower.modality}: none}}, or export it to onnx or torch-export."
        )
    return parts


def _examples(embedder: Embedder, modality: str) -> list[Any]:
    return embedder.encoder(modality).processor.examples()


@torch.no_grad()
def _vectors_of_open_clip(folder: Path, embedder: Embedder, modality: dict[str, str]) -> dict[str, Tensor]:
    """Return open_clip's vectors of the processors' examples, computed with its own preprocessing."""
    import open_clip

    name = f"local-dir:{folder}"
    loaded: Any = open_clip.create_model_from_pretrained(name, device="cpu")
    model, preprocess = loaded
    tokenize: Any = open_clip.get_tokenizer(name)
    model.eval()
    pictures = [
        value if isinstance(value, Image.Image) else Image.fromarray(np.asarray(value))
        for value in _examples(embedder, modality["image"])
    ]
    return {
        modality["image"]: model.encode_image(torch.stack([preprocess(p) for p in pictures]), normalize=True),
        modality["text"]: model.encode_text(tokenize(_examples(embedder, modality["text"])), normalize=True),
    }
