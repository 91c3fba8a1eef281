"""The towers of open_clip: CLIP (Radford et al. 2021) and its kin, of pictures and of texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multimodal.core.encoder import Corruption, Encoder, Inputs, Processor
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal.media.corruptions.text import TEXT_CORRUPTIONS
from multimodal.media.parts.words import word_parts
from multimodal_encoders.hub.weights import download_error
from multimodal_encoders.image.pretrained_preprocessing import Fit, Normalize, PretrainedImageProcessor
from multimodal_encoders.open_clip.models import HF_CONFIG, Model, require_transformers, resolve_model
from multimodal_encoders.text.pretrained_tokenizer import TYPICAL_TOKENS, has_vocabulary
from multimodal_encoders.text.raw_text import characters_read, read_text, word_counts

LIBRARY = "open_clip"
SAVED_TOKENIZER = "saved_tokenizer"  # in a config: the tokenizer comes with the processor's state


@register("image", "open_clip")
class OpenClipImages(Encoder):
    """The image tower of a model of open_clip, with its projection: any architecture, published or local weights.

    Args:
        arch: open_clip's name of the architecture: ViT-B-32, ViT-B-16-SigLIP, RN50, ...
        weights: with an arch, a tag that open_clip publishes (laion2b_s34b_b79k) or a checkpoint (.safetensors, .pt);
            without one, a folder in open_clip's format or hf-hub:owner/name; null for random weights.
        config: in place of an arch, the model's description (``model_cfg`` of open_clip), or a file or folder that holds it.
        preprocess: settings of open_clip's ``preprocess_cfg`` other than the weights' own: mean, std, interpolation,
            resize_mode (shortest, longest, squash), fill_color.
        background: what transparent pictures lie on: a colour's name, or ``#rrggbb``.
        augment: in training, transforms of ``torchvision.transforms.v2`` in order, by their names and settings.

    Examples:
        >>> vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64}
        >>> text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
        >>> config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
        >>> encoder = OpenClipImages(config=config)
        >>> encoder(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([1, 16])
    """

    def __init__(
        self,
        arch: str | None = None,
        weights: str | None = None,
        config: dict[str, Any] | str | None = None,
        preprocess: dict[str, Any] | None = None,
        background: str = "white",
        augment: list[dict[str, dict[str, Any]]] | None = None,
    ) -> None:
        super().__init__()
        model = resolve_model(arch, weights, config)
        self.visual: Any = model.tower("visual")
        self.width = int(model.config["embed_dim"])
        preprocess_cfg, fit = _preprocessing(model, self.visual.image_size, preprocess or {})
        height, width = preprocess_cfg["size"]
        self.processor = PretrainedImageProcessor(
            LIBRARY, preprocess_cfg, fit, (height, width), background, augment or ()
        )
        self.normalised = Normalize(preprocess_cfg["mean"], preprocess_cfg["std"])
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.settings |= {"arch": None, "weights": None, "config": model.config, "preprocess": preprocess_cfg}

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` ``(n, 3, height, width)`` uint8 -> ``(n, width)``, in the space that the texts share."""
        return self.visual(self.normalised(pixels, next(self.parameters()).dtype))

    def parts(self, library: str) -> dict[str, Any] | None:
        if library != LIBRARY:
            return None
        return {
            "tower": "image",
            "model_cfg": _published_config(self.settings["config"]),
            "preprocess_cfg": self.settings["preprocess"],
            "state": {f"visual.{name}": tensor for name, tensor in self.visual.state_dict().items()},
        }


def _preprocessing(model: Model, size: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], Fit]:
    """open_clip's ``preprocess_cfg`` as JSON values, and what it does to a picture."""
    from open_clip.transform import MaybeConvertMode, PreprocessCfg, image_transform_v2, merge_preprocess_dict

    size = [size, size] if isinstance(size, int) else list(size)
    found = merge_preprocess_dict(PreprocessCfg(), dict(model.preprocess)) | {"size": size}
    known = [key for key in found if key != "mode"]
    for key, value in given.items():
        if key not in found:
            raise UsageError(f"open_clip: preprocess has no setting {key!r}; it has {', '.join(known)}.")
        if key == "size" and value not in (size, size[0] if size[0] == size[1] else None):
            raise UsageError(
                f"open_clip: the model takes pictures of {size[0]} x {size[1]}; set preprocess.size to that."
            )
    found = merge_preprocess_dict(found, {key: value for key, value in given.items() if key != "size"})
    found = json.loads(json.dumps(found))
    try:
        transform: Any = image_transform_v2(PreprocessCfg(**found | {"size": tuple(size)}), is_train=False)
    except AssertionError as error:
        raise UsageError(
            "open_clip: preprocess takes interpolation bicubic or bilinear, resize_mode shortest, longest or squash;"
            f" got {found['interpolation']!r} and {found['resize_mode']!r}."
        ) from error
    from torchvision.transforms import Compose

    return found, Compose(list(takewhile(lambda step: not isinstance(step, MaybeConvertMode), transform.transforms)))


@register("text", "open_clip")
class OpenClipTexts(Encoder):
    """The text tower of a model of open_clip, with its projection and tokenizer: any architecture, published or local weights.

    Args:
        arch: open_clip's name of the architecture: ViT-B-32, ViT-B-16-SigLIP, RN50, ...
        weights: with an arch, a tag that open_clip publishes (laion2b_s34b_b79k) or a checkpoint (.safetensors, .pt);
            without one, a folder in open_clip's format or hf-hub:owner/name; null for random weights.
        config: in place of an arch, the model's description (``model_cfg`` of open_clip), or a file or folder that holds it.

    Examples:
        >>> vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64}
        >>> text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
        >>> config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
        >>> encoder = OpenClipTexts(config=config)
        >>> encoder(**encoder.processor.collate([encoder.processor("a red cup")])).shape
        torch.Size([1, 16])
    """

    def __init__(
        self,
        arch: str | None = None,
        weights: str | None = None,
        config: dict[str, Any] | str | None = None,
    ) -> None:
        super().__init__()
        model = resolve_model(arch, weights, config)
        self.text: Any = model.tower("text")
        self.width = int(model.config["embed_dim"])
        cut, mark = _truncation_rule(model.config, self.text)
        self.processor = ClipTokens(model, cut, mark)
        self._causal = cut in ("argmax", "eos")
        named = bool(model.config["text_cfg"].get("hf_tokenizer_name"))
        saved = model.config | ({SAVED_TOKENIZER: True} if named else {})
        self.settings |= {"arch": None, "weights": None, "config": saved}

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens`` ``(n, length)`` int64 -> ``(n, width)``, in the space that the pictures share."""
        if not self._causal:
            return self.text(tokens)
        from open_clip.transformer import text_global_pool

        # The tower's own forward, but for texts of any length: what is behind the pooled token changes nothing. Places are
        # selected, not sliced: a slice of them all is a special case to torch.export.
        tower, places = self.text, torch.arange(tokens.shape[1], device=tokens.device)
        dtype = tower.transformer.get_cast_dtype()
        hidden = tower.token_embedding(tokens).to(dtype)
        hidden = hidden + tower.positional_embedding.index_select(0, places).to(dtype)
        mask = tower.attn_mask.index_select(0, places).index_select(1, places)
        hidden = tower.ln_final(tower.transformer(hidden, attn_mask=mask))
        pooled = text_global_pool(hidden, tokens, self.text.pool_type, self.text.eos_id)
        projection = self.text.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection

    def parts(self, library: str) -> dict[str, Any] | None:
        if library != LIBRARY:
            return None
        config = _published_config(self.settings["config"])
        custom = config.get("custom_text", False) or "hf_model_name" in config["text_cfg"]
        prefix = "text." if custom else ""  # CLIP has the parts of the text tower next to those of the image tower
        return {
            "tower": "text",
            "model_cfg": config,
            "state": {prefix + name: tensor for name, tensor in self.text.state_dict().items()},
            "files": self.processor.state().get("files", {}),
        }


def _published_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as open_clip knows it."""
    return {key: value for key, value in config.items() if key not in (HF_CONFIG, SAVED_TOKENIZER)}


Truncation = Literal["argmax", "eos", "padding", "none"]


def _truncation_rule(config: Mapping[str, Any], tower: Any) -> tuple[Truncation, int]:
    """Return how texts are truncated, and the token at which they are."""
    if config["text_cfg"].get("hf_model_name"):
        pad = tower.config.pad_token_id
        return ("none", 0) if pad is None else ("padding", pad)  # it is masked
    causal = tower.attn_mask is not None and tower.cls_emb is None and not tower.use_pad_mask
    return (tower.pool_type, tower.eos_id) if causal and tower.pool_type in ("argmax", "eos") else ("none", 0)


class ClipTokens(Processor):
    """Turns texts into token numbers of open_clip's tokenizer, truncated at the model's context length as open_clip does it.

    Raw values are strings with at least one visible character.

    Args:
        model: the model of the tokenizer.
        cut: what is left out after a text because it has no effect: in causal towers, everything after the pooled token
            ("argmax", the highest number; "eos", the first ``mark``), in masked ones the "padding" ``mark``; "none".
        mark: a token's number.

    Examples:
        >>> vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64}
        >>> text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
        >>> config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
        >>> processor = ClipTokens(Model(config), "none", 0)
        >>> processor.collate([processor("a red cup")])["tokens"].shape
        torch.Size([1, 16])
    """

    def __init__(self, model: Model, cut: Truncation, mark: int) -> None:
        text_cfg = model.config["text_cfg"]
        self.cut: Truncation = cut
        self.mark = mark
        self.context_length = int(text_cfg.get("context_length", 77))
        self._characters = characters_read(self.context_length)
        self._options = dict(text_cfg.get("tokenizer_kwargs") or {})
        self._mode = text_cfg.get("tokenizer_mode")
        self._files: dict[str, str] = {}
        self._tokenize: Callable[[list[str]], Tensor] | None = None
        name = text_cfg.get("hf_tokenizer_name")
        if not name:
            self._tokenize = self._simple()
        elif SAVED_TOKENIZER not in model.config:
            self._take(self._downloaded(model.tokenizer or name, name))

    def _simple(self) -> Callable[[list[str]], Tensor]:
        from open_clip import SimpleTokenizer

        if "bpe_path" in self._options:
            raise UsageError("open_clip: tokenizer_kwargs.bpe_path would not be saved with the model; leave it out.")
        return SimpleTokenizer(context_length=self.context_length, **self._options)

    def _take(self, files: dict[str, str]) -> None:
        """A tokenizer of Hugging Face by the files that it is saved as."""
        if any(Path(name).name != name for name in files):
            raise ValueError(f"the tokenizer's files are {sorted(files)}, which lie in other folders")
        self._files = files
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_text(content, encoding="utf-8")
            self._tokenize = self._of_hugging_face(folder)

    def _of_hugging_face(self, source: str) -> Any:
        require_transformers()
        from open_clip.tokenizer import HFTokenizer

        options: dict[str, Any] = self._options | {"trust_remote_code": False}
        made = HFTokenizer(source, self.context_length, tokenizer_mode=self._mode, **options)
        if not has_vocabulary(made.tokenizer):
            raise ValueError(f"{source} has no tokenizer.json or other vocabulary file")
        return made

    def _downloaded(self, source: str, published: str) -> dict[str, str]:
        """The files of a tokenizer in a folder or on the hub; ``published`` is its name there."""
        try:
            tokenizer = self._of_hugging_face(source)
        except MultimodalError:
            raise
        except Exception as error:  # whatever transformers and the hub's client raise
            put = (
                f"Download tokenizer.json, tokenizer_config.json and special_tokens_map.json from https://huggingface.co/{published}"
                " to a folder with the weights and open_clip_config.json, and set weights to it."
            )
            raise download_error(f"the files of the tokenizer {source}", error, put) from error
        files = {}
        with TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            for file in sorted(Path(folder).iterdir()):
                with suppress(UnicodeDecodeError):  # a sentencepiece model, whose contents tokenizer.json has as well
                    files[file.name] = file.read_text(encoding="utf-8")
        if "tokenizer.json" not in files:
            raise MultimodalError(
                f"The tokenizer {source} cannot be saved with a model: transformers cannot write it as tokenizer.json."
            )
        return files

    def state(self) -> dict[str, Any]:
        return {"files": self._files} if self._files else {}

    def load_state(self, state: dict[str, Any]) -> None:
        if state:
            self._take(state["files"])

    def __call__(self, value: Any) -> Tensor:
        """The text's tokens as far as they count."""
        assert self._tokenize is not None
        (tokens,) = self._tokenize([read_text(value, self._characters)])
        if self.cut == "argmax":
            return tokens[: int(tokens.argmax()) + 1]
        if self.cut == "none":
            return tokens
        at = (tokens == self.mark if self.cut == "eos" else tokens != self.mark).nonzero()
        if not len(at):
            return tokens
        return tokens[: int(at[0 if self.cut == "eos" else -1]) + 1]

    def parts(self, value: Any) -> Parts:
        return word_parts(read_text(value, self._characters), self)

    def corruptions(self) -> Mapping[str, Corruption]:
        return TEXT_CORRUPTIONS

    def cost(self, item: Tensor) -> float:
        """In ordinary texts, by the number of tokens."""
        return len(item) / TYPICAL_TOKENS

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        """``tokens``: ``(n, length of the longest)`` int64, the number of the padding after the end."""
        padding = self.mark if self.cut == "padding" else 0
        return {"tokens": nn.utils.rnn.pad_sequence(list(items), batch_first=True, padding_value=padding)}

    def examples(self) -> list[Any]:
        return ["a black heart", "a rightwards arrow with a tail, and one that has none", "fox"]

    def linear_features(self) -> Any:
        return word_counts()
