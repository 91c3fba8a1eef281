"""What the encoders of Hugging Face share: models of the library transformers from a published name, a folder or a config.

1. A *source* is a published name, kept by Hugging Face's own cache, or a folder of the library's files.
2. A model that was loaded is described by its config as JSON values, and rebuilt from them without its source.
3. Code that comes with a model is never run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from multimodal.core.errors import MultimodalError, UsageError, shown, suggest
from multimodal_encoders.hub.weights import MAX_NAMES_SHOWN, download_error

ADAPTER = "adapter_config.json"
NUMBER = re.compile(r"\.\d+\.")  # of a layer, in a name of a weight
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # a name on the hub: owner/name, of the oldest models the name alone
IGNORED_FILES = ("onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.gguf", "coreml/*")
IGNORED_CONFIG_KEYS = (  # in a config: its origin, and settings of heads that the encoder does not have
    "_name_or_path", "architectures", "auto_map", "transformers_version", "id2label", "label2id", "problem_type",
)  # fmt: skip


def import_library(name: str = "transformers") -> Any:
    """Import a library, or raise a ``UsageError`` that says how to install it."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"Models of Hugging Face need the library {name} ({error}): pip install 'multimodal[huggingface]'."
        ) from error


@dataclass(frozen=True)
class ModelSource:
    """The files of a model.

    Args:
        folder: holds its files.
        setting: the user's setting that named it, for errors.
        subfolder: the folder of this part of the model, in ``folder``.

    Examples:
        >>> ModelSource(Path("models/bert"), "text").file("config.json") is None  # there is no such file
        True
    """

    folder: Path
    setting: str
    subfolder: str = ""

    @classmethod
    def of(cls, name: str, setting: str, subfolder: str = "") -> ModelSource:
        """Find a model by its folder or published name; a published model is downloaded into Hugging Face's cache.

        Args:
            name: a folder, or a name on the hub.
            setting: the user's setting, for errors.
            subfolder: the folder of a part of the model, in the model's folder.

        Raises:
            UsageError: the name is neither a folder nor can be a published name.
            MultimodalError: the model is not in the cache and cannot be downloaded.
        """
        if Path(name).is_file():
            raise UsageError(f"{setting}: {name} is a file; name the folder that holds it and config.json.")
        if not Path(name).is_dir() and not HUB_NAME.fullmatch(name):
            raise UsageError(f"{setting}: there is no folder {name}, and it is not a valid name of a published model.")
        source = cls(Path(name) if Path(name).is_dir() else _download(name, setting), setting, subfolder)
        if source.file(ADAPTER) is not None:  # transformers would put it into the model, with all weights frozen
            raise MultimodalError(
                f"{setting}: {source.shown} holds a peft adapter ({ADAPTER}); merge it into the model"
                " (AutoPeftModel.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER), and the tokenizer) and name"
                " that folder, or remove the adapter."
            )
        return source

    @property
    def shown(self) -> str:
        """The folder, for messages."""
        return str(self.folder / self.subfolder)

    def load(self, what: str, files: str, loader: Callable[..., Any], **settings: Any) -> Any:
        """Load a part of the model by a function of the library.

        Args:
            what: "config", "weights" or "tokenizer", for errors.
            files: the files that usually hold it, for errors.
            loader: of the library, such as ``AutoModel.from_pretrained``.
            **settings: its further arguments.

        Raises:
            MultimodalError: they are not there, damaged, or need code that comes with the model.
        """
        if self.subfolder:
            settings["subfolder"] = self.subfolder
        try:
            with silence_transformers():
                return loader(str(self.folder), local_files_only=True, trust_remote_code=False, **settings)
        except Exception as error:  # the library raises whatever its files make it raise
            raise self.error(what, files, error) from error

    def error(self, what: str, files: str, error: Exception) -> MultimodalError:
        """Explain an error of the library.

        Args:
            what: the part that was loaded.
            files: the files that usually hold it.
            error: what the library raised.
        """
        if "trust_remote_code" in str(error):
            return MultimodalError(
                f"{self.setting}: {self.shown} contains code of its own, which is not run;"
                " use a model that transformers includes."
            )
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        if "weights_only" in str(error):  # torch advises to read it nevertheless
            first = "they hold Python objects, which could run arbitrary code, or are damaged"
        if "ignore_mismatched_sizes" in str(error):  # the report that the library points to is not shown
            first = "some have other shapes than the config says"
        return MultimodalError(
            f"{self.setting}: the {what} in the folder {self.shown} cannot be read ({first}); they are expected in {files}."
        )

    def file(self, name: str) -> Path | None:
        """Return the path of a file; None if there is none."""
        path = self.folder / self.subfolder / name
        return path if path.is_file() else None

    def json(self, name: str, default: Any = None) -> Any:
        """The contents of a JSON file; ``default``, if given, where there is none."""
        path = self.file(name)
        if path is None and default is not None:
            return default
        try:
            if path is None:
                raise FileNotFoundError(f"there is no {name}")
            return json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise self.error("settings", name, error) from error

    def config(self) -> Any:
        """The model's config."""
        return self.load("config", "config.json", import_library().AutoConfig.from_pretrained)

    def model(self, auto: Any, config: Any, keep: Callable[[Any], nn.Module]) -> nn.Module:
        """A model in float32 with its weights.

        Args:
            auto: the class, such as ``AutoModel``.
            config: of this source.
            keep: takes of it what the encoder consists of.

        Raises:
            MultimodalError: weights are missing or damaged.
        """
        files = "model.safetensors"
        model, found = self.load(
            "weights",
            files,
            auto.from_pretrained,
            config=_prepare_config(config),
            dtype=torch.float32,
            output_loading_info=True,
        )
        names = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
        kept = keep(model)
        taken = {names[id(tensor)] for tensor in kept.state_dict(keep_vars=True).values() if id(tensor) in names}
        own = f"{model.base_model_prefix}."
        faults = {
            "are missing": {n for n in taken & set(found["missing_keys"]) if not n.endswith("num_batches_tracked")},
            "are of layers that the config does not have": _unexpected_layer_names(
                {name.removeprefix(own) for name in found["unexpected_keys"]},
                {name.removeprefix(own) for name in taken},
            ),
        }
        for fault, wrong in faults.items():
            if wrong:
                shown = ", ".join(sorted(wrong)[:MAX_NAMES_SHOWN]) + (", ..." if len(wrong) > MAX_NAMES_SHOWN else "")
                raise self.error("weights", files, ValueError(f"{len(wrong)} {fault}: {shown}"))
        return kept.eval()


def _unexpected_layer_names(left: set[str], taken: set[str]) -> set[str]:
    """Names of weights that are like those that were taken but for the number of the layer."""
    kinds = {NUMBER.sub(".#.", name) for name in taken}
    return {name for name in left if NUMBER.search(name) and NUMBER.sub(".#.", name) in kinds}


def _download(name: str, setting: str) -> Path:
    """The folder of a published model in Hugging Face's cache."""
    fetch = import_library("huggingface_hub").snapshot_download
    try:
        folder = Path(fetch(name, ignore_patterns=[*IGNORED_FILES, "pytorch_model*.bin"]))
        if not any(folder.glob("*.safetensors")):  # of a model of early days
            folder = Path(fetch(name, ignore_patterns=[*IGNORED_FILES]))
        return folder
    except Exception as error:  # of the network, the hub or the disk
        raise download_error(
            f"the files of {name} (no folder of that name is here)",
            error,
            f"Put those of https://huggingface.co/{name}/tree/main (config.json, model.safetensors and the .json and .txt"
            f" files) into a folder such as {Path.cwd() / name.rpartition('/')[2]}, and set {setting} to it.",
        ) from error


def with_changes(config: Any, changes: Mapping[str, Any]) -> Any:
    """Change entries of a config; raise a ``UsageError`` if it has no such entry."""
    for name, value in changes.items():
        if not hasattr(config, name):
            known = [key for key in config.to_dict() if not key.startswith("_")]
            raise UsageError(f"config: a {config.model_type} has no entry {name!r}.{suggest(name, known)}")
        setattr(config, name, value)
    return config


def config_to_json(config: Any) -> dict[str, Any]:
    """Write a config as JSON values, without entries that are not the model's; ``random_model`` rebuilds the model."""
    values = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in values.items() if name not in IGNORED_CONFIG_KEYS} | {"dtype": "float32"}


def config_from_json(values: Mapping[str, Any]) -> Any:
    """Rebuild the config that ``config_to_json`` wrote; raise a ``UsageError`` if it is invalid."""
    try:
        known = {name: value for name, value in values.items() if name != "auto_map"}  # names code
        return import_library().AutoConfig.for_model(**known)
    except Exception as error:  # each model's config checks its values in its own way
        first = shown(str(error).strip().partition("\n")[0])
        raise UsageError(f"config: {first}; give the entries of a config.json, with its model_type.") from error


def random_model(auto: Any, config: Any, keep: Callable[[Any], nn.Module]) -> nn.Module:
    """Make a model in float32 with random weights.

    Args:
        auto: the library's class, such as ``AutoModel``.
        config: of the model.
        keep: returns the part of the model that is kept.
    """
    with silence_transformers():
        make = auto._from_config if issubclass(auto, import_library().PreTrainedModel) else auto.from_config
        return keep(make(_prepare_config(config), dtype=torch.float32))


def drop_unused_parameters(model: Any) -> Any:
    """Remove parts of other tasks from a model: unused parameters break distributed training and averaging."""
    idle = ["pooler", "mask_emb"]  # of classification; of XLNet's pretraining
    if not getattr(model.config, "apply_spec_augment", False):
        idle.append("masked_spec_embed")  # of wav2vec2's
    for name in idle:
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
    return model


def _prepare_config(config: Any) -> Any:
    if hasattr(config, "use_cache"):
        config.use_cache = False  # of a decoder, for the next token
    config._attn_implementation = None  # the best that every machine has: scaled dot product, where the model can
    return config


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Neither progress bars nor reports of heads that are left out; what matters is checked and raised."""
    logging = import_library("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
