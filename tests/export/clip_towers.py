"""Encoders for the tests: the two halves of a model of open_clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor

from multimodal.core.encoder import Encoder, Inputs, Processor

TEXTS = ["a black heart", "a rightwards arrow with a tail, and one that has none", "fox"]
PREPROCESS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}


class Pictures(Processor):
    def __init__(self, size: int) -> None:
        self.transform: Any = open_clip.image_transform(size, is_train=False, **PREPROCESS)  # pyright: ignore

    def __call__(self, value: Any) -> Tensor:
        return self.transform(Image.fromarray(np.asarray(value)).convert("RGB"))

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        return {"pixels": torch.stack(list(items))}

    def examples(self) -> list[Any]:
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (20 + n, 17, 3), dtype=np.uint8) for n in range(3)]


class Tokens(Processor):
    def __init__(self, length: int) -> None:
        self.tokenize = open_clip.SimpleTokenizer(context_length=length)

    def __call__(self, value: Any) -> Tensor:
        return self.tokenize([value])[0]

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        return {"tokens": torch.stack(list(items))}

    def examples(self) -> list[Any]:
        return TEXTS


class ClipTower(Encoder):
    """One half of a model of open_clip: the "image" or the "text" tower of a configuration, or of a folder in its format."""

    def __init__(self, tower: str, config: dict[str, Any] | None = None, folder: str | None = None) -> None:
        super().__init__()
        if folder is not None:
            config = json.loads(Path(folder, "open_clip_config.json").read_text())["model_cfg"]
            made: Any = open_clip.create_model(f"local-dir:{folder}", device="cpu")
        else:
            made = open_clip.CLIP(**(config or {}))
        self.tower, self.model, self.config = tower, made, config
        self.width = made.text_projection.shape[1]
        if tower == "image":
            size = made.visual.image_size
            self.processor = Pictures(size if isinstance(size, int) else size[0])
            del made.transformer, made.token_embedding, made.ln_final, made.positional_embedding, made.text_projection
        else:
            self.processor = Tokens(made.context_length)
            del made.visual
        del made.logit_scale

    def forward(self, **inputs: Tensor) -> Tensor:
        return (self.model.encode_image if self.tower == "image" else self.model.encode_text)(*inputs.values())

    def parts(self, library: str) -> dict[str, Any] | None:
        if library != "open_clip":
            return None
        state = self.model.state_dict()
        return {"tower": self.tower, "model_cfg": self.config, "preprocess_cfg": PREPROCESS, "state": state}
