"""A model on disk, as dicts and tensors: settings and fitted processors in JSON, weights in safetensors, no pickle.

``embedder.json`` holds for each modality the encoder's name, settings and processor state, its head and its adapters, the
width of the space and the fingerprint; ``model.safetensors`` holds the weights. A model folder is written next to its place
and renamed into it. ``Embedder`` builds the model from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multimodal.core.errors import MultimodalError
from multimodal.core.files import atomic_folder, umask
from multimodal.core.lora import LoRA
from multimodal.core.run_folder import RUN_CONFIG, RUN_MODEL

if TYPE_CHECKING:
    pass

MODEL_JSON = "embedder.json"
WEIGHTS = "model.safetensors"
FORMAT = 1
MAX_SETTINGS_BYTES = 256 * 2**20


def fingerprint(description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of a description and of every weight's name, dtype, shape and bytes; 64 hexadecimal digits.

    Args:
        description: JSON values.
        weights: name -> tensor of any shape and dtype.
    """
    digest = sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file with the usual permissions; the library makes it readable for its owner alone.

    Args:
        tensors: name -> tensor.
        path: the file.
        metadata: strings that are kept in the file's header.
    """
    save_file(tensors, path, metadata=metadata)
    path.chmod(0o666 & ~umask())


def model_folder(folder: Path) -> Path:
    """Find the model's folder in a run folder or a model folder.

    Raises:
        MultimodalError: neither is there; the message says what is missing.
    """
    for candidate in (folder, folder / RUN_MODEL):
        if (candidate / MODEL_JSON).is_file():
            return candidate
    if not folder.exists():
        raise MultimodalError(f"{folder} does not exist; give a run folder or an exported model folder.")
    if (folder / RUN_CONFIG).is_file():
        raise MultimodalError(
            f"{folder} is a run without a model: training has not come to its first validation."
            " Resume it with `multimodal fit --config ... --ckpt_path last`."
        )
    raise MultimodalError(f"{folder} holds no model: neither {MODEL_JSON} nor {RUN_MODEL}/{MODEL_JSON} is there.")


def write_model(
    folder: Path, description: Mapping[str, Any], weights: Mapping[str, Tensor], model_fingerprint: str
) -> None:
    """Write a model folder as a whole, in place of the one that is there.

    Args:
        folder: the model's folder.
        description: what ``embedder.json`` holds, JSON values; the format, the fingerprint and the version are added.
        model_fingerprint: of the model that the folder is to be known by.
        weights: name -> tensor; copies are written, as safetensors refuses tensors that share memory (tied weights).

    Raises:
        MultimodalError: the folder holds other things than a model.
    """
    description = {"format": FORMAT, **description}
    added = {"fingerprint": model_fingerprint, "multimodal": version("multimodal")}
    copies = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in weights.items()}
    with atomic_folder(folder, marker=MODEL_JSON) as new:
        save_tensors(copies, new / WEIGHTS)
        (new / MODEL_JSON).write_text(json.dumps(description | added, indent=1, ensure_ascii=False), encoding="utf-8")


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check a model's ``embedder.json``; ``folder`` as in ``model_folder``."""
    path = model_folder(folder) / MODEL_JSON
    if path.stat().st_size > MAX_SETTINGS_BYTES:
        raise MultimodalError(
            f"{path} is larger than {MAX_SETTINGS_BYTES >> 20} MiB: it was not written by this package."
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        found = description["format"]
        if found == FORMAT:
            _check_description(description)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MultimodalError(f"{path} is damaged ({error!r}); export the model again.") from error
    if found != FORMAT:
        raise MultimodalError(f"{path} has format {found}; this version of multimodal reads format {FORMAT}.")
    return description


def _check_description(description: dict[str, Any]) -> None:
    for entry in description["encoders"].values():
        own = description["encoders"][entry["shares"]] if "shares" in entry else entry
        _ = dict(own["settings"]), dict(own["processor"]), str(own["name"]), str(own["class"])
        _ = str(entry.get("head")), "lora" in entry and LoRA(**entry["lora"])
    if int(description["dim"]) < 1 or not isinstance(description["fingerprint"], str):
        raise ValueError("dim or fingerprint")


def read_weights(folder: Path, names: Mapping[str, str], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model folder.

    Args:
        folder: as in ``model_folder``.
        names: name of a weight in the model that is being built -> its name in the file.
        wanted: name -> a tensor of the shape that it must have.

    Raises:
        MultimodalError: the file is missing, damaged, or does not fit.
    """
    path = model_folder(folder) / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            stored = set(file.keys())
            weights = {name: file.get_tensor(there) for name, there in names.items() if there in stored}
    except (OSError, SafetensorError) as error:
        raise MultimodalError(
            f"The weights {path} are missing or damaged ({error}); export the model again."
        ) from error
    wrong = [n for n, t in wanted.items() if n not in weights or weights[n].shape != t.shape]
    if wrong:
        raise MultimodalError(
            f"{path} does not fit its {MODEL_JSON}: {len(wrong)} weights differ, the first is {wrong[0]}."
        )
    return weights
