"""The classification models of torchvision as picture encoders."""

from __future__ import annotations

import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import register
from multimodal_encoders.hub.weights import download_error, read_weights
from multimodal_encoders.image.fit_steps import all_or_none, crop_step, resize_step
from multimodal_encoders.image.image_processor import check_edge
from multimodal_encoders.image.pretrained_preprocessing import Normalize, PretrainedImageProcessor

AUXILIARY = ("aux1", "aux2", "AuxLogits")  # further classifiers, of GoogLeNet and Inception, for training alone
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")  # names in the published files
MAX_NAMES_SHOWN = 3  # weights that differ, in an error


@register("image", "torchvision")
class Torchvision(Encoder):
    """Any classification model of torchvision, without its classifier.

    Args:
        arch: torchvision's name: resnet50, efficientnet_b0, vit_b_16, swin_t, convnext_tiny, ...
        weights: a name of torchvision's (DEFAULT, IMAGENET1K_V2), or a local file of a state dict; null for random weights.
        config: further arguments of the architecture: image_size (of vit_*), transform_input, ...
        preprocess: settings of the preprocessing other than the weights' own: resize_size, crop_size, mean, std, interpolation
            (nearest, bilinear, bicubic), antialias.
        background: what transparent pictures lie on: a colour's name, or ``#rrggbb``.
        augment: in training, transforms of ``torchvision.transforms.v2`` in their order, by their names and settings.

    Examples:
        >>> encoder = Torchvision("squeezenet1_1")  # random weights
        >>> encoder.width
        512
    """

    def __init__(
        self,
        arch: str = "resnet50",
        weights: str | None = None,
        config: dict[str, Any] | None = None,
        preprocess: dict[str, Any] | None = None,
        background: str = "white",
        augment: list[dict[str, dict[str, Any]]] | None = None,
    ) -> None:
        super().__init__()
        described = _weights_entry(arch, weights)
        config = dict(config or {})
        self.net = _created(arch, config)
        classifier = _classifier(self.net)
        last: Any = self.net.get_submodule(classifier)
        self.width = int(last.in_features if isinstance(last, nn.Linear) else last.in_channels)
        self.net.set_submodule(classifier, nn.Identity())
        for name in AUXILIARY:
            if hasattr(self.net, name):
                setattr(self.net, name, None)
                self.net.aux_logits = False
        if weights is not None:
            if hasattr(self.net, "transform_input"):  # all that torchvision publishes of these was trained with it
                self.net.transform_input = config.setdefault("transform_input", True)
            self._load(*_load_state(arch, weights, described), classifier)
        found = _preprocessing(described, getattr(self.net, "image_size", None), preprocess or {})
        crop = found["crop_size"]
        size = (crop, crop) if isinstance(crop, int) else (crop[0], crop[1])
        self.processor = PretrainedImageProcessor(
            "torchvision", found, _Preprocess.of(found), size, background, augment or ()
        )
        self.normalised = Normalize(found["mean"], found["std"])
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.settings |= {"weights": None, "config": config, "preprocess": found}

    def _load(self, state: Mapping[str, Tensor], what: str, classifier: str) -> None:
        left = tuple(f"{name}." for name in (classifier, *AUXILIARY))
        kept = OrderedDict((OLD_DENSENET.sub(r"\1\2", n), t) for n, t in state.items() if not n.startswith(left))
        # without the versions that torch keeps with a state dict, MNASNet rejects it and ViT accepts older names
        versions = getattr(self.net.state_dict(), "_metadata", {})
        kept._metadata = {"": versions.get("", {})}  # pyright: ignore[reportAttributeAccessIssue]
        try:
            missing, unexpected = self.net.load_state_dict(kept, strict=False)
        except RuntimeError as error:
            shown = " ".join(str(error).split())[:300]
            raise MultimodalError(
                f"{what} does not fit {self.settings['arch']}: {shown}. Set arch to the one it was made for."
            ) from error
        wrong = [*missing, *unexpected]
        if wrong:
            raise MultimodalError(
                f"{what} does not fit {self.settings['arch']}: {len(missing)} weights are missing and {len(unexpected)}"
                f" unexpected ({', '.join(wrong[:MAX_NAMES_SHOWN])}). Set arch to the one it was made for."
            )

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` ``(n, 3, height, width)`` uint8 -> ``(n, width)``."""
        return self.net(self.normalised(pixels, next(self.parameters()).dtype))


def _created(arch: str, config: Mapping[str, Any]) -> Any:
    from torchvision import models

    try:
        with warnings.catch_warnings():  # that the way in which random weights are drawn may change some day
            warnings.simplefilter("ignore", FutureWarning)
            return models.get_model(arch, weights=None, **config)
    except (TypeError, ValueError) as error:
        raise UsageError(f"torchvision cannot build {arch} with the arguments in config ({error}).") from error


def _classifier(net: nn.Module) -> str:
    """The name of the last layer with weights: in every classification model it makes the classes."""
    layers = [name for name, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return layers[-1]


def _weights_entry(arch: str, weights: str | None) -> Any:
    """The entry of torchvision's table of weights: the one named, the one whose file is given, else the preferred one."""
    from torchvision import models

    known = models.list_models(module=models)
    if arch not in known:
        close = get_close_matches(arch, known, n=4, cutoff=0.4)
        raise UsageError(
            f"torchvision has no classification model {arch!r}. Did you mean {' or '.join(map(repr, close)) or 'resnet50'}?"
            f" It has {', '.join(known)}."
        )
    table: Any = models.get_model_weights(arch)
    if weights is None:
        return table["DEFAULT"]
    if weights in table.__members__:
        return table[weights]
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UsageError(
            f"torchvision: weights {weights!r} is neither a file here nor one of {arch}'s: {', '.join(table.__members__)}."
        )
    return next((entry for entry in table if entry.url.rpartition("/")[2] == path.name), table["DEFAULT"])


def _load_state(arch: str, weights: str, described: Any) -> tuple[Mapping[str, Tensor], str]:
    path = Path(weights).expanduser()
    if path.is_file():
        return read_weights(path), str(path)
    what = f"the weights {described.name} of {arch}"
    try:
        return described.get_state_dict(progress=False, check_hash=True), what
    except Exception as error:  # of the network, of the file system, of a file that is cut off
        cached = Path(torch.hub.get_dir(), "checkpoints", described.url.rpartition("/")[2])
        put = f"Download {described.url} to {cached}, or anywhere and set weights to the file's path."
        raise download_error(what, error, put) from error


@dataclass(frozen=True)
class _Preprocess:
    """What torchvision's ``ImageClassification`` does to a picture before it becomes a tensor."""

    resize_size: list[int]
    crop_size: list[int]
    interpolation: Any
    antialias: bool | None

    @classmethod
    def of(cls, preprocess: Mapping[str, Any]) -> _Preprocess:
        from torchvision.transforms import InterpolationMode

        try:
            interpolation = InterpolationMode(preprocess["interpolation"])
        except ValueError as error:
            modes = ", ".join(mode.value for mode in InterpolationMode)
            raise UsageError(f"torchvision: preprocess.interpolation is one of {modes}: {error}.") from error
        resize, crop = ([v] if isinstance(v, int) else v for v in (preprocess["resize_size"], preprocess["crop_size"]))
        for edge in (*resize, *crop):
            check_edge("torchvision", edge)
        return cls(resize, crop, interpolation, preprocess["antialias"])

    def __call__(self, picture: Image.Image) -> Image.Image:
        from torchvision.transforms import functional

        resized = functional.resize(
            picture,  # pyright: ignore[reportArgumentType]
            self.resize_size,
            interpolation=self.interpolation,
            antialias=self.antialias,
        )
        return functional.center_crop(resized, self.crop_size)  # pyright: ignore[reportReturnType]

    def steps(self) -> list[dict[str, Any]] | None:
        """Describe it for programs without torchvision."""
        return all_or_none([resize_step(self.resize_size, self.interpolation), crop_step(self.crop_size)])


def _preprocessing(described: Any, image_size: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of torchvision's ``ImageClassification`` as JSON values."""
    own = described.transforms()
    found: dict[str, Any] = {
        "resize_size": own.resize_size[0],
        "crop_size": own.crop_size[0],
        "mean": own.mean,
        "std": own.std,
        "interpolation": own.interpolation.value,
        "antialias": own.antialias,
    }
    if image_size is not None and image_size != found["crop_size"]:  # a transformer of another size than published
        found |= {"resize_size": image_size, "crop_size": image_size}
    for key in given:
        if key not in found:
            raise UsageError(f"torchvision: preprocess has no setting {key!r}; it has {', '.join(found)}.")
    return json.loads(json.dumps(found | dict(given)))
