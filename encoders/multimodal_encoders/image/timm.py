"""The picture encoders of timm (Wightman 2019): about a thousand architectures with their published weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import register
from multimodal_encoders.hub.weights import download_error, load_weights, read_weights
from multimodal_encoders.image.pretrained_preprocessing import Fit, Normalize, PretrainedImageProcessor

DEFAULT = "default"  # the weights that timm prefers for an architecture
FOLDER = "a folder with config.json and model.safetensors, as timm's save_for_hf writes it"
MIN_CROP = 0.1  # of a picture's edge; most models keep 0.875 to 1
SET_BY_US = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")  # arguments that load weights
SAVED = ("model.safetensors", "pytorch_model.bin")  # the weights in such a folder


@register("image", "timm")
class Timm(Encoder):
    """Any image encoder of timm, without its classifier.

    Args:
        arch: timm's name: resnet50, vit_small_patch16_224, convnext_tiny, ..., perhaps with a tag (resnet50.a1_in1k).
        weights: with an arch, "default", a tag that timm publishes (a1_in1k) or a local file (.safetensors, .pth);
            without one, a folder that timm saved or hf-hub:owner/name; null for random weights.
        config: further arguments of the architecture: img_size, drop_path_rate, global_pool, ...
        preprocess: settings of timm's data config other than the weights' own: input_size ([3, height, width]), interpolation,
            mean, std, crop_pct, crop_mode (center, squash, border).
        background: what transparent pictures lie on: a colour's name, or ``#rrggbb``.
        augment: in training, transforms of ``torchvision.transforms.v2`` in their order, by their names and settings.

    Examples:
        >>> import numpy as np
        >>> encoder = Timm("test_resnet")  # a tiny architecture of timm, with random weights
        >>> encoder.processor(np.zeros((20, 30, 3), np.uint8)).shape, encoder.width
        (torch.Size([160, 160, 3]), 96)
    """

    def __init__(
        self,
        arch: str | None = None,
        weights: str | None = None,
        config: dict[str, Any] | None = None,
        preprocess: dict[str, Any] | None = None,
        background: str = "white",
        augment: list[dict[str, dict[str, Any]]] | None = None,
    ) -> None:
        super().__init__()
        import timm
        from timm.models import get_model_args

        name, described, args, local = _resolve_model(arch, weights)
        if taken := sorted(set(config or {}) & set(SET_BY_US)):
            raise UsageError(f"timm: config cannot have {taken[0]!r}; weights are set by arch and weights.")
        args |= config or {}
        args.pop("num_classes", None)
        if args.get("in_chans", 3) != 3:
            raise UsageError(f"timm: pictures are RGB, so in_chans is 3; config has {args['in_chans']}.")
        made: dict[str, Any] = {"pretrained_cfg": described, **args}
        self.net = _create_model(name, num_classes=0, **made)
        if local is not None:
            _load(self.net, _file_weights(name, local, made), str(local))
        elif weights is not None:
            _load(self.net, _published_weights(name, weights, made), f"{weights} of {name}")
        self.width = int(getattr(self.net, "head_hidden_size", self.net.num_features))
        data_config, fit = _preprocessing(self.net, args, preprocess or {})
        _, height, width = data_config["input_size"]
        self.processor = PretrainedImageProcessor("timm", data_config, fit, (height, width), background, augment or ())
        self.normalised = Normalize(data_config["mean"], data_config["std"])
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        rebuilt = json.loads(json.dumps(get_model_args(self.net) | args))
        rebuilt.pop("num_classes", None)
        self.settings |= {
            "arch": timm.models.get_arch_name(name),
            "weights": None,
            "config": rebuilt,
            "preprocess": data_config,
        }

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` ``(n, 3, height, width)`` uint8 -> ``(n, width)``."""
        features = self.net(self.normalised(pixels, next(self.parameters()).dtype))
        if features.ndim != 2:
            raise UsageError(
                f"timm: {self.settings['arch']} gives features of shape {tuple(features.shape[1:])} per picture, not a"
                " vector; choose another arch, or set global_pool in config where it has one."
            )
        return features


def _resolve_model(arch: str | None, weights: str | None) -> tuple[str, Any, dict[str, Any], Path | None]:
    """Name, pretrained config (or its tag), arguments and local file of the model that settings name."""
    from timm.models import is_model, list_models, split_model_name_tag
    from timm.models._hub import load_model_config_from_path

    path = None if weights is None else Path(weights.removeprefix("local-dir:")).expanduser()
    if arch is None:
        if weights is None:
            raise UsageError(
                "timm: no model is named; give arch (resnet50) and weights (default, a tag, or a file), or as weights"
                f" {FOLDER}, or hf-hub:owner/name."
            )
        assert path is not None
        if not path.is_dir():
            return _on_hub(weights)
        file = next((path / name for name in SAVED if (path / name).is_file()), None)
        if file is None or not (path / "config.json").is_file():
            raise MultimodalError(f"{path} is not a timm model; give {FOLDER}.")
        try:
            described, name, args = load_model_config_from_path(path)
        except (ValueError, KeyError, TypeError) as error:
            raise MultimodalError(f"{path / 'config.json'} cannot be read as timm's ({error!r}).") from error
        return name, described | {"file": None, "source": None}, dict(args or {}), file
    name, tag = split_model_name_tag(arch)
    if not is_model(name):
        close = get_close_matches(name, list_models(), n=4, cutoff=0.4)
        raise UsageError(
            f"timm has no arch {arch!r}. Did you mean {' or '.join(map(repr, close)) or 'resnet50'}? timm.list_models()"
            f" names all; for {FOLDER}, give it as weights alone."
        )
    if path is not None and path.is_file():
        return name, tag or None, {}, path
    if path is not None and path.is_dir():
        raise UsageError(f"timm: the folder {weights!r} names its architecture; leave out arch.")
    if weights not in (None, DEFAULT):
        tag = _tag(name, str(weights))
    return name, tag or None, {}, None


def _tag(name: str, weights: str) -> str:
    from timm.models import get_arch_pretrained_cfgs

    tags = [known.partition(".")[2] for known in get_arch_pretrained_cfgs(name)]
    if weights not in tags:
        raise UsageError(
            f"timm: weights {weights!r} is neither a file here nor weights published for {name}"
            f" ({', '.join(tag for tag in tags if tag) or 'only default'})."
        )
    return weights


def _on_hub(weights: str) -> tuple[str, Any, dict[str, Any], Path | None]:
    from timm.models import load_model_config_from_hf

    repository = weights.removeprefix("hf-hub:")
    if repository.count("/") != 1 or repository.startswith(("/", ".", "~")):
        raise UsageError(
            f"timm: there is no folder {weights!r}; give {FOLDER}, hf-hub:owner/name, or arch with weights."
        )
    try:
        described, name, args = load_model_config_from_hf(repository)
    except Exception as error:  # whatever the hub's client raises
        raise download_error(f"the files of {repository}", error, _manual_download_hint(repository, weights)) from error
    return name, described, dict(args or {}), None


def _manual_download_hint(repository: str, weights: str) -> str:
    put = f"Download the files of https://huggingface.co/{repository} to a folder, and set weights to it, without arch."
    return put if weights.startswith("hf-hub:") else f"There is no folder of that name either. {put}"


def _create_model(name: str, **settings: Any) -> Any:
    import timm

    try:
        return timm.create_model(name, **settings)
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(f"timm cannot build {name} with the arguments in config ({error}).") from error


def _published_weights(name: str, weights: str, made: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights, classifier included: timm checks that all fit where the classifier is as published."""
    import timm

    try:
        return timm.create_model(name, pretrained=True, **made).state_dict()
    except Exception as error:  # whatever its ways of downloading raise
        described = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
        if isinstance(made["pretrained_cfg"], str):
            described = timm.models.get_pretrained_cfg(f"{name}.{made['pretrained_cfg']}")
        repository = getattr(described, "hf_hub_id", None) or weights.removeprefix("hf-hub:")
        raise download_error(
            f"the weights {weights} of {name}", error, _manual_download_hint(repository, "hf-hub:")
        ) from error


def _file_weights(name: str, file: Path, made: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a file by timm's names, classifier included if it has one; older names are translated by timm."""
    import timm
    from timm.models import clean_state_dict, get_pretrained_cfg

    weights = clean_state_dict(read_weights(file))
    described = made["pretrained_cfg"]
    if not isinstance(described, Mapping):
        found = get_pretrained_cfg(f"{name}.{described}" if described else name)
        described = found.to_dict() if found else {}
    classifier = described.get("classifier") or ""
    head = weights.get(f"{classifier if isinstance(classifier, str) else classifier[0]}.weight")
    # the classifier may have its own number of classes, none at all, or another name in the file
    numbers = [head.shape[0]] if head is not None else [0, described.get("num_classes", 1000)]
    faults = []
    for classes in numbers:
        overlay = {"state_dict": weights, "num_classes": classes, "label_offset": 0, "custom_load": False}
        settings = dict(made) | {"num_classes": classes, "pretrained_cfg_overlay": overlay}
        try:
            return timm.create_model(name, pretrained=True, **settings).state_dict()
        except RuntimeError as error:
            faults.append(" ".join(str(error).split())[:300])
    raise MultimodalError(f"{file} does not fit timm's {name}: {faults[-1]}. Set arch to the one it was made for.")


def _load(net: Any, whole: Mapping[str, Tensor], what: str) -> None:
    load_weights(net, {key: whole[key] for key in net.state_dict() if key in whole}, what)


def _preprocessing(net: Any, args: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], Fit]:
    """The data config of timm as JSON values, and what its evaluation does to a picture."""
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform
    from torchvision.transforms import Compose

    found: dict[str, Any] = resolve_model_data_config(net)
    size = args.get("img_size")
    if size is not None:
        found["input_size"] = (3, size, size) if isinstance(size, int) else (3, *size)
    for key in given:
        if key not in found:
            raise UsageError(f"timm: preprocess has no setting {key!r}; it has {', '.join(found)}.")
    found = json.loads(json.dumps(found | dict(given)))
    if len(found["input_size"]) != 3 or found["input_size"][0] != 3:
        raise UsageError(
            f"timm: input_size must be [3, height, width], as pictures are RGB; got {found['input_size']}."
        )
    if (found.get("crop_pct") or 1.0) < MIN_CROP:  # pictures are resized to the size divided by it
        raise UsageError(f"timm: crop_pct {found['crop_pct']} must be at least {MIN_CROP}.")
    try:
        transform: Any = create_transform(**found, is_training=False, normalize=False)
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f"timm cannot preprocess with {found} ({error!r}).") from error
    return found, Compose(transform.transforms[:-1])  # the last makes a tensor
