"""Pretrained encoders of text from the library sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.registry import register
from multimodal_encoders.hub.huggingface import ModelSource
from multimodal_encoders.hub.weights import load_weights, read_weights
from multimodal_encoders.text.huggingface import (
    SENTENCE_TRANSFORMERS_POOLING,
    is_loadable_by_transformers,
    last_hidden_states,
    pool_tokens,
    text_model,
    transformer_module,
)
from multimodal_encoders.text.pretrained_tokenizer import TokenProcessor

MODES = {theirs: ours for ours, theirs in SENTENCE_TRANSFORMERS_POOLING.items()} | {
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean",
}
KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")  # in names of settings' files
LEGACY_POOLING_MODES = {  # settings of earlier versions, in the order in which their features follow one another
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
SAVED_KEYS = ("transformer", "modules", "prompts", "default_prompt_name")  # the setting config of a model that was read
UNSUPPORTED_SETTINGS = (
    "processing_kwargs", "query_length", "document_length", "query_expansion", "processor_kwargs", "tokenizer_args",
    "config_kwargs", "config_args",
)  # fmt: skip
SUPPORTED = "Transformer, Pooling, Dense, LayerNorm, Dropout, Normalize"


@register("text", "sentence_transformers", extra="huggingface")
class SentenceTransformersText(Encoder):
    """A model of the library sentence-transformers, with the features that the library's ``encode`` returns.

    The library itself is not needed. Its modules Transformer, Pooling (in all its modes), Dense, LayerNorm, Dropout and
    Normalize are read from the model's folder, with its longest text and its prompts; other modules are rejected.

    Args:
        weights: a published name or a folder; null: random weights.
        max_length: longer texts are cut after this many tokens; null: as the model has it.
        prompt: the name of one of the model's prompts, such as query; null: its default, usually no prompt.
        config: without weights, a published name or a folder to take the modules from.

    Examples:
        >>> from sentence_transformers import SentenceTransformer
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "cup": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
        >>> _ = tokenizer.save_pretrained("bert")
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        >>> BertModel(BertConfig(vocab_size=3, **sizes)).save_pretrained("bert")
        >>> SentenceTransformer("bert").save("pooled")  # the library adds mean pooling
        >>> encoder = SentenceTransformersText("pooled")
        >>> encoder(**encoder.processor.collate([encoder.processor("cup")])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        weights: str | None = None,
        max_length: int | None = None,
        prompt: str | None = None,
        config: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        saved = isinstance(config, dict)
        if saved and (weights or not set(SAVED_KEYS) <= set(config)):
            raise UsageError(
                "SentenceTransformersText: config must name a model whose modules to build, and weights must be left out."
            )
        if bool(weights) == bool(config):
            raise UsageError("SentenceTransformersText: set either weights, or config for random weights.")
        source = None if saved else ModelSource.of(weights or str(config), "weights" if weights else "config")
        found: Mapping[str, Any] = config if saved else read_modules(source) if source else {}
        before = _prompt(found, prompt)
        if source is None:
            made = text_model(None, found["transformer"], max_length, prompt=before)
        else:
            own = found["transformer"]
            made = text_model(
                str(source.folder) if weights else None,
                None if weights else str(source.folder),
                max_length,
                subfolder=own["path"],
                prompt=before,
                adapt=lambda tokenizer: _adapt(tokenizer, own),
            )
        self.model, self.processor = made.model, made.processor
        pooling, *entries = found["modules"]
        self.modes = pooling["modes"]
        leave_out = not pooling["include_prompt"] and source is not None
        self.skipped = made.processor.prompt_length() if leave_out else pooling.get("skipped", 0)
        self.hidden_width = made.width
        self.width = made.width * len(self.modes)
        self.steps = nn.ModuleList()
        for entry in entries:
            step = _step(entry, self.width)
            if source is not None and weights and list(step.parameters()):
                _load(step, source, entry)
            self.steps.append(step)
            self.width = entry.get("out_features", self.width)
        modules = [pooling | {"skipped": self.skipped}, *entries]
        self.settings |= {
            "weights": None,
            "config": {name: found[name] for name in SAVED_KEYS} | {"transformer": made.config, "modules": modules},
            "max_length": made.processor.max_length,
        }

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """All ``(n, longest)`` int64, the mask 1 where a token is (from the left on), else 0 -> ``(n, width)``."""
        hidden = last_hidden_states(self.model, input_ids, attention_mask, token_type_ids)[:, self.skipped :]
        mask = attention_mask[:, self.skipped :]
        features = torch.cat([_pooled(hidden, mask, mode, self.skipped) for mode in self.modes], dim=1)
        for step in self.steps:
            features = step(features)
        return features

    def parts(self, library: str) -> dict[str, Any] | None:
        processor = self.processor
        if (
            library != "sentence-transformers"
            or not isinstance(processor, TokenProcessor)
            or not is_loadable_by_transformers(self.model)
        ):
            return None
        from sentence_transformers.sentence_transformer import modules as theirs

        config = self.settings["config"]
        modes: Any = self.modes
        pooling = theirs.Pooling(self.hidden_width, modes, include_prompt=not self.skipped)
        made: list[Any] = [transformer_module(self.model, processor), pooling]
        for step, entry in zip(self.steps, config["modules"][1:], strict=True):
            made.append(_export_step(theirs, step, entry))
        named = {"prompts": {"own": processor.prompt}, "default_prompt_name": "own"} if processor.prompt else {}
        return {"modules": made} | named


def read_modules(source: ModelSource) -> dict[str, Any]:
    """What a model of the library consists of, as JSON values: ``SAVED_KEYS``.

    ``transformer``: where it lies and how it cuts texts. ``modules``: the others in their order, the pooling first.

    Raises:
        MultimodalError: the source is no such model, or has a module that is not supported.
    """
    about = source.json("config_sentence_transformers.json", {})
    kind = about.get("model_type", "SentenceTransformer")
    if source.file("modules.json") is None:
        raise _unsupported_model_error(
            source, "it has no modules.json; take the encoder huggingface, which says how to pool"
        )
    listed = source.json("modules.json")
    names = [_name(source, entry) for entry in listed]
    if kind != "SentenceTransformer" or names[:2] != ["Transformer", "Pooling"]:
        raise _unsupported_model_error(
            source, f"it is a {kind} of {', '.join(names)}, which does not begin with Transformer and Pooling"
        )
    modules = [_describe_module(source, name, _path(source, entry)) for name, entry in zip(names, listed, strict=True)]
    return {
        "transformer": modules[0],
        "modules": modules[1:],
        "prompts": about.get("prompts") or {},
        "default_prompt_name": about.get("default_prompt_name"),
    }


def _name(source: ModelSource, entry: Mapping[str, Any]) -> str:
    package, _, name = str(entry.get("type")).rpartition(".")
    if package.partition(".")[0] != "sentence_transformers":
        raise _unsupported_model_error(source, f"its module {entry.get('type')} is code of its own, which is not run")
    return name


def _path(source: ModelSource, entry: Mapping[str, Any]) -> str:
    path = PurePosixPath(str(entry.get("path", "")))
    if path.is_absolute() or ".." in path.parts:
        raise _unsupported_model_error(source, f"its module at {path} lies outside of it")
    return "" if str(path) == "." else str(path)


def _describe_module(source: ModelSource, name: str, path: str) -> dict[str, Any]:
    inside = f"{path}/" if path else ""
    if name == "Transformer":
        file = next((f for f in (f"{inside}sentence_{name}_config.json" for name in KINDS) if source.file(f)), None)
        return _transformer(source, source.json(file) if file else {}) | {"path": path}
    given = source.json(f"{inside}config.json", {})
    needed = {"Dense": ("in_features", "out_features"), "LayerNorm": ("dimension",)}.get(name, ())
    if missing := [key for key in needed if key not in given]:
        raise _unsupported_model_error(source, f"{inside}config.json has no {missing[0]}")
    entry: dict[str, Any] = {"type": name, "path": path}
    if name == "Pooling":
        old = [mode for setting, mode in LEGACY_POOLING_MODES.items() if given.get(setting)]
        modes = given.get("pooling_mode", old or ["mean"])
        modes = [modes] if isinstance(modes, str) else list(modes)
        if unknown := [mode for mode in modes if mode not in MODES]:
            raise _unsupported_model_error(source, f"its pooling {unknown[0]} is not one of {', '.join(MODES)}")
        return entry | {"modes": modes, "include_prompt": given.get("include_prompt", True)}
    if name == "Dense":
        names = {given.get("module_input_name"), given.get("module_output_name")} - {None, "sentence_embedding"}
        if given.get("use_residual") or names:
            raise _unsupported_model_error(
                source, "its Dense has a residual, or works on something else than the pooled vector"
            )
        sizes = {key: given[key] for key in needed} | {"bias": given.get("bias", True)}
        return entry | sizes | {"activation": _activation(source, given)}
    if name == "LayerNorm":
        return entry | {"dimension": given["dimension"]}
    if name == "Dropout":
        return entry | {"dropout": given.get("dropout", 0.2)}
    if name == "Normalize" and given.get("module_input_name", "sentence_embedding") == "sentence_embedding":
        return entry
    raise _unsupported_model_error(source, f"its module {name} is not one of {SUPPORTED} over pooled vectors")


def _transformer(source: ModelSource, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked settings of the module Transformer: the longest text, and whether it is put in lower case."""
    modalities = given.get(
        "modality_config", {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    )
    text = modalities.get("text", {})
    used = [key for key in UNSUPPORTED_SETTINGS if given.get(key)]
    if given.get("transformer_task", "feature-extraction") != "feature-extraction":
        used.append("transformer_task")
    if "message" in modalities:
        raise _unsupported_model_error(source, "it writes texts into a chat template")
    if text.get("method") != "forward" or text.get("method_output_name") not in (
        "last_hidden_state",
        ["last_hidden_state"],
    ):
        raise _unsupported_model_error(source, "its Transformer does not take texts, or does its own pooling")
    if used:
        raise _unsupported_model_error(source, f"its Transformer has the setting {used[0]}")
    return {"max_length": given.get("max_seq_length"), "lower": bool(given.get("do_lower_case"))}


def _activation(source: ModelSource, given: Mapping[str, Any]) -> str:
    package, _, name = given.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")
    cls = getattr(nn, name, None)
    if not package.startswith("torch.nn") or not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise _unsupported_model_error(
            source, f"its Dense has the activation {given.get('activation_function')}, which torch.nn does not have"
        )
    return name


def _unsupported_model_error(source: ModelSource, why: str) -> MultimodalError:
    return MultimodalError(f"{source.setting}: {source.shown} is not supported: {why}.")


def _prompt(found: Mapping[str, Any], name: str | None) -> str:
    name = name or found["default_prompt_name"]
    if name is None:
        return ""
    if name not in found["prompts"]:
        raise UsageError(f"prompt: the model has no prompt {name!r}.{suggest(name, list(found['prompts']))}")
    return found["prompts"][name] or ""


def _adapt(tokenizer: Any, own: Mapping[str, Any]) -> None:
    """Give a tokenizer the settings of the module Transformer, as the library does."""
    if own["max_length"] is not None:
        tokenizer.model_max_length = own["max_length"]
    if own["lower"]:
        from tokenizers.normalizers import Lowercase, Sequence

        backend = tokenizer.backend_tokenizer
        present = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = Sequence([Lowercase(), *present])


def _pooled(hidden: Tensor, mask: Tensor, mode: str, skipped: int) -> Tensor:
    """As ``pool_tokens``, in all modes of the library; ``skipped`` tokens stood before."""
    ours = MODES[mode]
    if ours not in ("mean_sqrt_len_tokens", "weightedmean"):
        return pool_tokens(hidden, mask, ours)
    kept = mask[..., None].to(hidden.dtype)
    if ours == "mean_sqrt_len_tokens":
        return (hidden * kept).sum(dim=1) / kept.sum(dim=1).sqrt()
    places = torch.arange(skipped + 1, skipped + mask.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)
    kept = kept * places[:, None]
    return (hidden * kept).sum(dim=1) / kept.sum(dim=1)


class _Dense(nn.Module):
    def __init__(self, inputs: int, outputs: int, bias: bool, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias)
        cls = getattr(nn, activation, None)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise UsageError(f"config: the activation {activation!r} is not a module of torch.nn.")
        self.activation = cls()

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.linear(features))


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(features)


class _Normalize(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.normalize(features, dim=-1)


def _step(entry: Mapping[str, Any], width: int) -> nn.Module:
    if entry["type"] == "Dense":
        if entry["in_features"] != width:
            raise UsageError(
                f"config: a Dense with in_features {entry['in_features']} follows a module with {width} features."
            )
        return _Dense(width, entry["out_features"], entry["bias"], entry["activation"])
    if entry["type"] == "LayerNorm":
        return _Norm(width)
    return nn.Dropout(entry["dropout"]) if entry["type"] == "Dropout" else _Normalize()


def _load(step: nn.Module, source: ModelSource, entry: Mapping[str, Any]) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        path = source.file(f"{entry['path']}/{name}")
        if path is not None:
            load_weights(step, read_weights(path), f"{source.shown}/{entry['path']}/{name}")
            return
    raise _unsupported_model_error(source, f"there is no {entry['path']}/model.safetensors")


def _export_step(theirs: Any, step: Any, entry: Mapping[str, Any]) -> Any:
    if entry["type"] == "Dense":
        made = theirs.Dense(
            entry["in_features"], entry["out_features"], entry["bias"], getattr(nn, entry["activation"])()
        )
    elif entry["type"] == "LayerNorm":
        made = theirs.LayerNorm(entry["dimension"])
    else:
        return theirs.Dropout(entry["dropout"]) if entry["type"] == "Dropout" else theirs.Normalize()
    made.load_state_dict(step.state_dict())
    return made
