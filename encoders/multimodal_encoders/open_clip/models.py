"""Models of open_clip by what people call them: an architecture, published weights, a checkpoint, a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from torch import nn

from multimodal.core.checkpoint_cache import load_once
from multimodal.core.errors import MultimodalError, UsageError
from multimodal_encoders.hub.weights import download_error, load_weights, read_weights

Side = Literal["visual", "text"]

CONFIG_FILE = "open_clip_config.json"
HF_CONFIG = "hf_config"  # in addition to open_clip's keys: what transformers needs to rebuild a text tower
LOGITS = ("logit_scale", "logit_bias")
DECODER = "text_decoder."  # of CoCa, which writes captions; not in either tower
FOLDER = f"a folder with {CONFIG_FILE} and the weights, as open_clip saves it"


@dataclass
class Checkpoint:
    """The contents of a checkpoint: the towers that no encoder has used yet, and the scale and bias of similarities.

    Scale and bias are not in a tower; they are kept with the config, by open_clip's names for the initial values of a model.
    """

    towers: dict[str, nn.Module]
    logits: dict[str, float]


class Towers(nn.ModuleDict):
    """Both towers, by their names in a checkpoint.

    Examples:
        >>> [*Towers({"visual": nn.Identity(), "text": nn.Identity()})]
        ['visual', 'text']
    """


@dataclass(frozen=True)
class Model:
    """A model of open_clip: its configuration, preprocessing and the place of its weights.

    Args:
        config: open_clip's ``model_cfg``.
        preprocess: open_clip's ``preprocess_cfg``.
        checkpoint: the file of the weights; None: it starts from random ones.
        tokenizer: folder or hub name of its own tokenizer of Hugging Face. None: the one that the config names.

    Examples:
        >>> vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64}
        >>> text = {"vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
        >>> model = Model({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
        >>> model.checkpoint is None
        True
    """

    config: dict[str, Any]
    preprocess: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    tokenizer: str | None = None

    def tower(self, side: Side) -> nn.Module:
        """One of its towers, with the checkpoint's weights; both are read at once and kept for the other's encoder."""
        if self.checkpoint is None:
            return build(self.config, side)
        key = ("open_clip", str(self.checkpoint.resolve()), json.dumps(self.config, sort_keys=True))
        read = load_once(key, self._read)
        if side not in read.towers:  # two encoders of one tower
            read.towers.update(self._read().towers)
        self.config.update(read.logits)
        return read.towers.pop(side)

    def _read(self) -> Checkpoint:
        from open_clip.convert import convert_state_dict
        from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

        assert self.checkpoint is not None
        weights = read_weights(self.checkpoint)
        if next(iter(weights)).startswith("module."):  # as data-parallel training names them
            weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
        model: Any = Towers({side: build(self.config, side) for side in ("visual", "text")})
        weights = convert_to_custom_text_state_dict(convert_state_dict(model, weights))
        logits = {f"init_{name}": weights[name].item() for name in LOGITS if name in weights}
        weights = {n: t for n, t in weights.items() if not n.startswith((DECODER, *LOGITS))}
        if not hasattr(model["text"], "positional_embedding"):  # transformers computes its numbers of positions
            weights.pop("text.transformer.embeddings.position_ids", None)
        resize_pos_embed(weights, model)
        resize_text_pos_embed(weights, model)
        load_weights(model, weights, f"{self.checkpoint}")
        return Checkpoint(dict(model.items()), logits)


def build(config: Mapping[str, Any], side: Side) -> nn.Module:
    """A tower with random weights; its ``forward`` gives the projected features alone."""
    from open_clip.model import _build_text_tower, _build_vision_tower

    tower = dict(config["vision_cfg" if side == "visual" else "text_cfg"])
    quick = bool(config.get("quick_gelu", False))
    try:
        if side == "visual":
            return _build_vision_tower(config["embed_dim"], tower | {"timm_model_pretrained": False}, quick)  # pyright: ignore[reportArgumentType]
        if tower.get("hf_model_name"):
            return _text_tower_of_hugging_face(config, tower)
        return _build_text_tower(config["embed_dim"], tower, quick)  # pyright: ignore[reportArgumentType]
    except (TypeError, KeyError, AssertionError, RuntimeError) as error:
        raise UsageError(f"open_clip cannot build the {side} tower that is described ({error!r}).") from error


def _text_tower_of_hugging_face(config: Mapping[str, Any], tower: Mapping[str, Any]) -> nn.Module:
    """open_clip reads the architecture from a name; ours is in the config, so it is given a folder that has it."""
    from open_clip.hf_model import HFTextEncoder

    require_transformers()
    with TemporaryDirectory() as folder:
        described = {key: value for key, value in config[HF_CONFIG].items() if key != "auto_map"}  # names code to run
        Path(folder, "config.json").write_text(json.dumps(described), encoding="utf-8")
        return HFTextEncoder(
            folder,
            output_dim=config["embed_dim"],
            pooler_type=tower.get("hf_pooler_type", "mean_pooler"),
            proj_type=tower.get("hf_proj_type", "mlp"),
            pretrained=False,
        )


def require_transformers() -> None:
    """Raise a ``UsageError`` that says how to install transformers if it is missing."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "This open_clip model needs a tokenizer of transformers: pip install 'multimodal[huggingface]'"
        ) from error


def resolve_model(arch: str | None, weights: str | None, config: Mapping[str, Any] | str | None) -> Model:
    """Find the model that settings name.

    Args:
        arch: open_clip's name of the architecture.
        weights: a published tag, a checkpoint, a folder, or hf-hub:owner/name.
        config: the model's description, or a file or folder that holds it.

    Raises:
        UsageError: they name no model, or one twice.
        MultimodalError: a file is missing or damaged, or what is published cannot be downloaded.
    """
    model = _resolve(arch, weights, config)
    hf_model = model.config["text_cfg"].get("hf_model_name")
    if hf_model and HF_CONFIG not in model.config:
        model.config[HF_CONFIG] = _hf_config(hf_model)
    for tower in ("vision_cfg", "text_cfg"):
        model.config[tower].pop("output_tokens", None)
    if "multimodal_cfg" in model.config:  # CoCa: what is left without its decoder is a model of two towers
        del model.config["multimodal_cfg"]
        model.config["custom_text"] = True
    return model


def _resolve(arch: str | None, weights: str | None, config: Mapping[str, Any] | str | None) -> Model:
    path = None if weights is None else Path(weights.removeprefix("local-dir:")).expanduser()
    if path is not None and path.is_dir():
        _check_folder_alone(weights, arch, config)
        return _in_folder(path)
    if arch is not None and config is not None:
        raise UsageError("open_clip: arch and config both name an architecture; give one of them.")
    if arch is None and config is None:
        if weights is None:
            raise UsageError(
                "open_clip: no model is named; give arch (ViT-B-32) and weights (laion2b_s34b_b79k, or a file), or as weights"
                f" {FOLDER}, or hf-hub:owner/name."
            )
        return _on_hub(weights)
    if config is not None:
        described = _read_config(Path(config)) if isinstance(config, str) else {"model_cfg": deepcopy(dict(config))}
        model_cfg, preprocess = _model_cfg(described, "config"), described.get("preprocess_cfg", {})
    else:
        assert arch is not None
        model_cfg, preprocess = _architecture(arch), _published_preprocess(arch)
    if path is None:
        return Model(model_cfg, preprocess)
    if path.is_file():
        return Model(model_cfg, preprocess, path)
    if arch is None:
        raise UsageError(f"open_clip: weights {weights!r} is not a file; with a config of your own, name a checkpoint.")
    return _published(arch, str(weights), model_cfg)


def _check_folder_alone(weights: str | None, arch: str | None, config: Any) -> None:
    if arch is not None or config is not None:
        raise UsageError(f"open_clip: the folder {weights!r} names its architecture; leave out arch and config.")


def _in_folder(folder: Path) -> Model:
    from open_clip.factory import _find_checkpoint_in_dir

    described = _read_config(folder)
    checkpoint = _find_checkpoint_in_dir(folder)
    if checkpoint is None:
        raise MultimodalError(
            f"{folder} has no weights next to its {CONFIG_FILE}; put open_clip_model.safetensors there."
        )
    model_cfg = _model_cfg(described, str(folder))
    return Model(model_cfg, described.get("preprocess_cfg", {}), Path(checkpoint), str(folder))


def _read_config(path: Path) -> dict[str, Any]:
    """The contents of a file of open_clip's, or of the one in a folder."""
    file = path / CONFIG_FILE if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise MultimodalError(
            f"{file} cannot be read as an open_clip configuration ({error}); name {FOLDER}."
        ) from error
    if not isinstance(found, dict):
        raise MultimodalError(f"{file} is not an open_clip configuration: it is not a JSON object.")
    return found if "model_cfg" in found else {"model_cfg": found}


def _model_cfg(described: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = described["model_cfg"]
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in found]
    if missing:
        raise UsageError(f"open_clip: {where} does not describe a model; {', '.join(missing)} is missing.")
    return found


def _architecture(arch: str) -> dict[str, Any]:
    import open_clip

    found = open_clip.get_model_config(arch) if ":" not in arch else None
    if found is None:
        close = get_close_matches(arch, open_clip.list_models(), n=4, cutoff=0.4)
        raise UsageError(
            f"open_clip has no arch {arch!r}. Did you mean {' or '.join(map(repr, close)) or 'ViT-B-32'}?"
            f" open_clip.list_models() names all; for {FOLDER}, give it as weights alone."
        )
    return found


def _published_preprocess(arch: str) -> dict[str, Any]:
    """What all published weights of an architecture share: a file of them that was downloaded by hand needs it too."""
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    tags = open_clip.list_pretrained_tags_by_model(arch)
    found = [merge_preprocess_dict(PreprocessCfg(), open_clip.get_pretrained_cfg(arch, tag)) for tag in tags]
    return found[0] if found and all(each == found[0] for each in found) else {}


def _published(arch: str, tag: str, model_cfg: dict[str, Any]) -> Model:
    import open_clip

    published = open_clip.get_pretrained_cfg(arch, tag)
    if not published:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise UsageError(
            f"open_clip: weights {tag!r} is neither a file nor a folder here, nor weights published for {arch}"
            f" ({', '.join(tags) or 'there are none'})."
        )
    # The tag says what it was trained with. open_clip only warns where the architecture says otherwise.
    model_cfg["quick_gelu"] = published.get("quick_gelu", False)
    try:
        checkpoint = open_clip.download_pretrained(published)
    except Exception as error:  # whatever its ways of downloading raise
        raise download_error(f"the weights {tag} of {arch}", error, _manual_download_hint(arch, published)) from error
    return Model(model_cfg, published, Path(checkpoint))


def _manual_download_hint(arch: str, published: Mapping[str, Any]) -> str:
    """Say how to get published weights by hand, with the settings that their file does not contain."""
    repository, _, file = str(published.get("hf_hub", "")).rpartition("/")
    if repository:
        return (
            f"Download {CONFIG_FILE}, {file or 'open_clip_model.safetensors'} and, if they are there, the tokenizer's files"
            f" from https://huggingface.co/{repository} to a folder, and set weights to it, without arch."
        )
    quick = arch if arch.endswith("-quickgelu") or not published.get("quick_gelu") else f"{arch}-quickgelu"
    preprocess = {key: list(published[key]) for key in ("mean", "std") if published.get(key) is not None}
    more = f", and preprocess to {json.dumps(preprocess)}" if preprocess else ""
    return f"Download {published.get('url')}, and set weights to the file's path, arch to {quick}{more}."


def _on_hub(weights: str) -> Model:
    """A repository in open_clip's format."""
    from open_clip.pretrained import download_pretrained_from_hf

    name = weights.removeprefix("hf-hub:")
    put = f"Download the files of https://huggingface.co/{name} to a folder, and set weights to it."
    if weights == name:
        put = f"There is no file or folder of that name either. {put}"
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise UsageError(
            f"open_clip: there is no file or folder {weights!r}; give {FOLDER}, hf-hub:owner/name, or arch with weights."
        )
    try:
        described = _read_config(Path(download_pretrained_from_hf(name, filename=CONFIG_FILE)))
        checkpoint = download_pretrained_from_hf(name)
    except MultimodalError:
        raise
    except Exception as error:  # whatever the hub's client raises
        raise download_error(f"the files of {name}", error, put) from error
    return Model(_model_cfg(described, name), described.get("preprocess_cfg", {}), Path(checkpoint), name)


def _hf_config(name: str) -> dict[str, Any]:
    """The architecture of a text tower of Hugging Face, as JSON values."""
    require_transformers()
    from transformers import AutoConfig

    try:
        return json.loads(AutoConfig.from_pretrained(name, trust_remote_code=False).to_json_string(use_diff=False))
    except Exception as error:  # whatever transformers and the hub's client raise
        put = f"Download https://huggingface.co/{name}/resolve/main/config.json to a folder, and name it as hf_model_name."
        raise download_error(f"the settings of the text tower {name}", error, put) from error
