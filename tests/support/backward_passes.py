"""Trains encoders with convolutions for some steps and compares their gradients with those in float64, without oneDNN.

test_backward_passes.py runs it as a program, with an allocator that checks its blocks:

    MALLOC_CHECK_=3 LD_PRELOAD=libc_malloc_debug.so.0 python tests/support/backward_passes.py spectrogram cnn
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from multimodal.core import registry
from multimodal.core.encoder import Encoder

STEPS = 3
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)]
CLIPS = [RNG.normal(0, 0.1, n) for n in (4000, 8000, 20_000)]
SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "CCO", "c1ccccc1"]


def spectrogram(channels: int, mels: int) -> Encoder:
    # 5,120 samples are 64 frames: errors occur at sizes that the strides divide
    return registry.create("audio", "spectrogram", channels=channels, mels=mels, rate=8000, hop=0.01)


def huggingface() -> Encoder:
    from small_sound_models import made

    with tempfile.TemporaryDirectory() as folder:
        return registry.create("audio", "huggingface", weights=made(Path(folder), "wav2vec2 layer"))


def open_clip() -> Encoder:
    from small_clips import VIT

    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    return registry.create("image", "open_clip", config=VIT | {"vision_cfg": vision})


def timm(arch: str) -> Encoder:
    return registry.create("image", "timm", arch=arch, preprocess={"input_size": [3, 64, 64]})


MAKERS: dict[str, tuple[Callable[[], Encoder], list[Any]]] = {
    "spectrogram": (lambda: spectrogram(4, 20), CLIPS),
    "spectrogram of 2 channels": (lambda: spectrogram(2, 64), CLIPS),
    "spectrogram of 8 channels": (lambda: spectrogram(8, 64), CLIPS),
    "cnn": (lambda: registry.create("image", "cnn", size=32, channels=3), PICTURES),
    "small_cnn": (lambda: registry.create("image", "small_cnn", size=48), PICTURES),
    "small_cnn of few channels": (
        lambda: registry.create("image", "small_cnn", size=32, channels=3, widths=[4, 8, 16], depth=2),
        PICTURES,
    ),
    "cnn of bottlenecks": (
        lambda: registry.create("image", "cnn", arch="resnet50", size=64, stem="standard"),
        PICTURES,
    ),
    "drawing": (lambda: registry.create("image", "drawing", size=32), SMILES),
    "torchvision": (lambda: registry.create("image", "torchvision", arch="mobilenet_v3_small"), PICTURES),
    "timm": (lambda: timm("test_resnet"), PICTURES),
    "timm's test_byobnet": (lambda: timm("test_byobnet"), PICTURES),
    "timm's test_efficientnet": (lambda: timm("test_efficientnet"), PICTURES),
    "timm's test_nfnet": (lambda: timm("test_nfnet"), PICTURES),
    "timm's test_convnext": (lambda: timm("test_convnext"), PICTURES),
    "timm's fastvit_t8": (lambda: timm("fastvit_t8"), PICTURES),
    "timm's mobilenetv3": (lambda: timm("mobilenetv3_small_050"), PICTURES),
    "open_clip": (open_clip, PICTURES),
    "huggingface": (huggingface, CLIPS),
}


def gradients(encoder: Encoder, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    encoder.zero_grad()
    torch.manual_seed(1)  # for dropout
    encoder(**inputs).square().mean().backward()
    return {name: p.grad.double() for name, p in encoder.named_parameters() if p.grad is not None}


def train(encoder: Encoder, values: list[Any]) -> None:
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # in a batch of three, normalisation would amplify rounding without bound
    optimizer = torch.optim.SGD(encoder.parameters(), 1e-3)
    inputs = encoder.processor.collate([encoder.processor(value) for value in values])
    exact_inputs = {name: x.double() if x.dtype == torch.float32 else x for name, x in inputs.items()}
    for _ in range(STEPS):
        with torch.backends.mkldnn.flags(enabled=False):
            expected = gradients(copy.deepcopy(encoder).double(), exact_inputs)
        computed = gradients(encoder, inputs)
        largest = max(float(x.norm()) for x in expected.values())
        for name, gradient in expected.items():
            difference = float((computed[name] - gradient).norm())
            assert difference <= 0.01 * float(gradient.norm()) + 1e-5 * largest, (
                name,
                difference,
                float(gradient.norm()),
            )
        optimizer.step()
        del computed, expected


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        print(name, flush=True)
        make, values = MAKERS[name]
        torch.manual_seed(0)
        train(make(), values)
    print("done")
