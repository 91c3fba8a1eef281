"""A model on disk, as dicts and tensors: settings and fitted processors in JSON, weights in safetensors, no pickle.

``embedder.json`` holds for each modality the encoder's name, settings and processor state, its head and its adapters, the
width of the space, the heads that predict targets, the calibration of scores, the fingerprint and digests of itself and of
the weights; ``model.safetensors`` holds the weights. The fingerprint is that of the vectors: it does not depend on the heads
and the calibration. A model folder is written under another name and then renamed. ``Embedder`` builds the model from it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from multimodal.core.calibration import Calibration
from multimodal.core.digests import FILES, check_document, check_file, describe_files, with_digest
from multimodal.core.errors import MultimodalError
from multimodal.core.files import atomic_folder, interrupted_replacement, no_such_model, umask
from multimodal.core.json_file import read_json
from multimodal.core.lora import LoRA
from multimodal.core.manifests import MODEL as MODEL_JSON
from multimodal.core.manifests import WEIGHTS
from multimodal.core.predictors import check_predictors
from multimodal.core.run_folder import RUN_CONFIG, RUN_MODEL

FORMAT = 1
MAX_SETTINGS_BYTES = 64 * 2**20  # above the size of the weights
EXPORT_AGAIN = "Copy or export the model again."
EDITED = f'{EXPORT_AGAIN} If you edited it, remove its "digest".'


def fingerprint(description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a description and of each weight's name, dtype, shape and bytes, as 64 hexadecimal digits.

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
    """Write a safetensors file with the usual permissions; the library makes it readable only for its owner.

    Args:
        tensors: name -> tensor.
        path: the file.
        metadata: strings to store in the file's header.
    """
    save_file(tensors, path, metadata=metadata)
    path.chmod(0o666 & ~umask())


def model_folder(folder: Path) -> Path:
    """Return the model folder of a run folder, or the given folder if it is a model folder.

    Raises:
        MultimodalError: there is no model; the message says what is missing.
    """
    for candidate in (folder, folder / RUN_MODEL):
        if (candidate / MODEL_JSON).is_file():
            return candidate
    if not folder.exists():
        raise no_such_model(folder)
    if lost := interrupted_replacement(folder / RUN_MODEL):
        raise MultimodalError(f"{folder / RUN_MODEL} does not exist.{lost}")
    if (folder / RUN_CONFIG).is_file():
        raise MultimodalError(
            f"{folder} is a run without a model: one is saved at the first validation, and at the end of training."
            " Resume it with `multimodal fit --config ... --ckpt_path last`."
        )
    raise MultimodalError(f"{folder} contains no model: neither {MODEL_JSON} nor {RUN_MODEL}/{MODEL_JSON} exists.")


def write_model(
    folder: Path, description: Mapping[str, Any], weights: Mapping[str, Tensor], model_fingerprint: str
) -> None:
    """Write a model folder atomically; an existing model is replaced.

    Args:
        folder: the model's folder.
        description: the contents of ``embedder.json``, JSON values; the format, the fingerprint and the version are added.
        weights: name -> tensor; copies are written, as safetensors rejects tensors that share memory (tied weights).
        model_fingerprint: the fingerprint to store.

    Raises:
        MultimodalError: the folder contains something other than a model.
    """
    description = {"format": FORMAT, **description}
    added = {"fingerprint": model_fingerprint, "multimodal": version("multimodal")}
    copies = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in weights.items()}
    with atomic_folder(folder, marker=MODEL_JSON) as new:
        save_tensors(copies, new / WEIGHTS)
        description = with_digest(description | added | {FILES: describe_files(new, [WEIGHTS])})
        (new / MODEL_JSON).write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check the ``embedder.json`` of a model folder or run folder.

    Raises:
        MultimodalError: there is no model, or the file is too large, damaged, or of another format.
    """
    path = model_folder(folder) / MODEL_JSON
    try:
        weights = path.with_name(WEIGHTS)  # a vocabulary has weights, which are larger
        description = read_json(path, MAX_SETTINGS_BYTES + (weights.stat().st_size if weights.is_file() else 0))
        format_found = description["format"]
        if format_found == FORMAT:
            check_document(description, path, EDITED)
            _check_description(description)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise MultimodalError(f"{path} is damaged ({error!r}); export the model again.") from error
    if format_found != FORMAT:
        raise MultimodalError(f"{path} has format {format_found}; this version of multimodal reads format {FORMAT}.")
    return description


def _check_description(description: dict[str, Any]) -> None:
    for entry in description["encoders"].values():
        encoder = description["encoders"][entry["shares"]] if "shares" in entry else entry
        _ = dict(encoder["settings"]), dict(encoder["processor"]), "lora" in entry and LoRA(**entry["lora"])
        if not all(isinstance(name, str) for name in (encoder["name"], encoder["class"], entry.get("head", ""))):
            raise TypeError("a name is not a text")
    if not isinstance(description.get(FILES, {}), dict):
        raise TypeError(f"{FILES} is not a mapping")
    if int(description["dim"]) < 1 or not isinstance(description["fingerprint"], str):
        raise ValueError("dim or fingerprint is invalid")
    check_predictors(description)
    Calibration.from_json(description.get("calibration", {}))


def check_weights(folder: Path, description: Mapping[str, Any]) -> Path:
    """Compare the weights file of a model folder or run folder with its digest, and return it.

    Args:
        folder: a model folder or run folder.
        description: the contents of its ``embedder.json``; without digests, as in models of earlier versions, nothing is
            compared.

    Raises:
        MultimodalError: the file is missing or damaged.
    """
    path = model_folder(folder) / WEIGHTS
    check_file(path, description.get(FILES, {}).get(WEIGHTS), EXPORT_AGAIN)
    return path


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """Open a weights file for reading.

    Raises:
        MultimodalError: it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise MultimodalError(
            f"The weights {path} are missing or damaged ({' '.join(str(error).split())}); export the model again."
        ) from error


def read_weights(
    path: Path, description: Mapping[str, Any], names: Mapping[str, str], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Read the weights of a model.

    Args:
        path: their file.
        description: the contents of ``embedder.json``.
        names: name of a weight in the model that is being built -> its name in the file.
        expected: name of a weight in the model -> a tensor of the shape that it must have.

    Returns:
        Name of a weight in the model -> its values, on the CPU.

    Raises:
        MultimodalError: the file is missing, damaged, or does not fit.
    """
    with open_weights(path) as file:
        available = set(file.keys())
        weights = {name: file.get_tensor(stored) for name, stored in names.items() if stored in available}
    wrong = [n for n, t in expected.items() if n not in weights or weights[n].shape != t.shape]
    if wrong:
        raise MultimodalError(
            f"{path} does not fit its {MODEL_JSON}: {len(wrong)} weights are missing or of another shape, the first is"
            f" {wrong[0]}. Copy both files from the same model."
        )
    if FILES not in description:
        _compare_fingerprint(path, description)
    return weights


def _compare_fingerprint(path: Path, description: Mapping[str, Any]) -> None:
    """Warn if a model of an earlier version, which has no digests, is not what its fingerprint was computed of.

    A part of a model that was saved again has the fingerprint of the whole model, so this is not an error.
    """
    described = {name: description[name] for name in ("format", "dim", "encoders")}
    if fingerprint(described, load_file(path)) != description["fingerprint"]:
        warnings.warn(
            f"{path.parent} does not have the fingerprint of its contents: it is a part of a model, saved by an earlier"
            " version, or it was changed or damaged. Saving it again ends this warning.",
            stacklevel=2,
        )
