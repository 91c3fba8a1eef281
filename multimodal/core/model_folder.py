"""A model on disk: settings and fitted processors in JSON, weights in safetensors, no pickle.

``embedder.json`` holds for each modality the encoder's name, settings and processor state, its head and its adapters, the
width of the space and the fingerprint; ``model.safetensors`` the weights. A model folder is written beside its place and
renamed into it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from glob import escape
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multimodal.core import registry
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.files import replace_folder, umask
from multimodal.core.lora import LoRA
from multimodal.core.run_folder import RUN_CONFIG, RUN_MODEL

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder
    from multimodal.core.encoder import Encoder

SETTINGS = "embedder.json"
WEIGHTS = "model.safetensors"
FORMAT = 1
MAX_SETTINGS_BYTES = 256 * 2**20


def describe(embedder: Embedder) -> dict[str, Any]:
    """All that rebuilds an embedder, but the weights; JSON values."""
    encoders: dict[str, dict[str, Any]] = {
        m: {"shares": embedder.shared[m]} if m in embedder.shared else describe_encoder(m, embedder.encoder(m))
        for m in embedder.modalities
    }
    for modality, entry in encoders.items():  # the ordinary case is not mentioned, as in models of earlier versions
        if embedder.head_kinds[modality] != "linear":
            entry["head"] = embedder.head_kinds[modality]
        if modality in embedder.lora:
            entry["lora"] = asdict(embedder.lora[modality])
    return {"format": FORMAT, "dim": embedder.dim, "encoders": encoders}


def describe_encoder(modality: str, encoder: Encoder) -> dict[str, Any]:
    name, class_path = registry.names_of(modality, type(encoder))
    return {"name": name, "class": class_path, "settings": encoder.settings, "processor": encoder.processor.state()}


def fingerprint(embedder: Embedder) -> str:
    """SHA-256 of the description and of every weight's name, dtype, shape and bytes."""
    return _digest(describe(embedder), embedder.state_dict())


def encoder_fingerprint(encoder: Encoder) -> str:
    """The same of one encoder alone, whatever its modality is called."""
    return _digest(describe_encoder("", encoder), encoder.state_dict())


def _digest(description: dict[str, Any], weights: Mapping[str, Tensor]) -> str:
    digest = sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that others may read as any file: the library makes it for its owner alone."""
    save_file(tensors, path, metadata=metadata)
    path.chmod(0o666 & ~umask())


def save(embedder: Embedder, folder: Path) -> None:
    description = describe(embedder) | {"fingerprint": fingerprint(embedder), "multimodal": version("multimodal")}
    # copies: safetensors refuses tensors that share memory, as tied weights do
    weights = {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in embedder.state_dict().items()
    }
    with replace_folder(folder, marker=SETTINGS) as new:
        save_tensors(weights, new / WEIGHTS)
        (new / SETTINGS).write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def model_folder(folder: Path) -> Path:
    """The model's folder for a run folder or a model folder.

    Raises:
        MultimodalError: neither is there; the message says what the folder lacks.
    """
    for candidate in (folder, folder / RUN_MODEL):
        if (candidate / SETTINGS).is_file():
            return candidate
    if not folder.exists():
        raise MultimodalError(f"{folder} does not exist; give a run folder or an exported model folder.")
    if (folder / RUN_CONFIG).is_file():
        raise MultimodalError(
            f"{folder} is a run without a model: training has not come to its first validation."
            " Resume it with `multimodal fit --config ... --ckpt_path last`."
        )
    raise MultimodalError(f"{folder} holds no model: neither {SETTINGS} nor {RUN_MODEL}/{SETTINGS} is there.")


def read_description(folder: Path) -> dict[str, Any]:
    """The checked contents of a model's ``embedder.json``; ``folder`` as in ``model_folder``."""
    path = model_folder(folder) / SETTINGS
    if path.stat().st_size > MAX_SETTINGS_BYTES:
        raise MultimodalError(f"{path} is larger than {MAX_SETTINGS_BYTES >> 20} MiB: not a file of ours.")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        found = description["format"]
        if found == FORMAT:
            _check(description)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MultimodalError(f"{path} is damaged ({error!r}); export the model again.") from error
    if found != FORMAT:
        raise MultimodalError(f"{path} has format {found}; this version of multimodal reads format {FORMAT}.")
    return description


def _check(description: dict[str, Any]) -> None:
    for entry in description["encoders"].values():
        own = description["encoders"][entry["shares"]] if "shares" in entry else entry
        _ = dict(own["settings"]), dict(own["processor"]), str(own["name"]), str(own["class"])
        _ = str(entry.get("head")), dict(entry.get("lora", {}))
    if int(description["dim"]) < 1 or not isinstance(description["fingerprint"], str):
        raise ValueError("dim or fingerprint")


def load(folder: Path, modalities: Sequence[str] | None = None) -> Embedder:
    from multimodal.core.embedder import Embedder

    description = read_description(folder)
    known = list(description["encoders"])
    for modality in modalities or ():
        if modality not in known:
            raise UsageError(f"The model in {folder} has no modality {modality!r}.{suggest(modality, known)}")
    encoders, heads, lora = {}, {}, {}
    made: dict[str, str] = {}  # the modality that an encoder is listed by -> that which it is made for here
    for modality in modalities or known:
        entry = description["encoders"][modality]
        heads[modality] = entry.get("head", "linear")
        listed = entry.get("shares", modality)
        if made.setdefault(listed, modality) != modality:
            encoders[modality] = encoders[made[listed]]
            continue
        entry = description["encoders"][listed]
        name = registry.find_saved(listed, entry["name"], entry["class"])
        _refuse_code_of(folder, name)
        try:
            encoders[modality] = registry.create(listed, name, **entry["settings"])
            encoders[modality].processor.load_state(entry["processor"])
            if "lora" in entry:
                lora[modality] = LoRA(**entry["lora"])
        except UsageError:
            raise
        except Exception as error:  # a tokenizer's parser raises no narrower one
            raise MultimodalError(f"The {modality} encoder of {folder} cannot be rebuilt: {error}") from error
    embedder = Embedder(encoders, int(description["dim"]), heads, lora)
    _load_weights(embedder, model_folder(folder) / WEIGHTS, {made[m]: m for m in made})
    if len(encoders) < len(known):
        embedder.stand_for(description["fingerprint"])
    return embedder.eval()


def _refuse_code_of(folder: Path, name: str) -> None:
    """A class path names code of the user's, never code that came with the model."""
    *modules, _ = name.split(".")
    roots = [Path(known).resolve() for known in sys.path]
    brought = folder.resolve()
    if brought.name == RUN_MODEL and brought.parent not in roots:  # the run came as a whole
        brought = brought.parent
    for place in roots:
        for module in modules:  # no parent is imported to find out: folders without __init__.py are packages too
            place /= module
            if any(
                path.resolve().is_relative_to(brought) for path in (place, *place.parent.glob(f"{escape(module)}.*"))
            ):
                raise UsageError(
                    f"The model in {folder} brings code of its own ({name}), which is not run. If you trust it, move it"
                    " out of the model's folder, to where Python finds it."
                )


def _load_weights(embedder: Embedder, path: Path, listed: Mapping[str, str]) -> None:
    """``listed``: modality -> the one whose name its encoder's weights have in the file."""
    wanted = embedder.state_dict()
    in_file = {name: _name_in_file(name, listed) for name in wanted}
    try:
        with safe_open(path, framework="pt") as file:
            stored = set(file.keys())
            weights = {name: file.get_tensor(there) for name, there in in_file.items() if there in stored}
    except (OSError, SafetensorError) as error:
        raise MultimodalError(
            f"The weights {path} are missing or damaged ({error}); export the model again."
        ) from error
    wrong = [n for n, t in wanted.items() if n not in weights or weights[n].shape != t.shape]
    if wrong:
        raise MultimodalError(
            f"{path} does not fit its {SETTINGS}: {len(wrong)} weights differ, the first is {wrong[0]}."
        )
    wanted.update(weights)  # so that the versions of modules, which torch keeps with them, come along
    embedder.load_state_dict(wanted)


def _name_in_file(name: str, listed: Mapping[str, str]) -> str:
    part, _, rest = name.partition(".")
    modality, _, weight = rest.partition(".")
    return f"{part}.{listed[modality]}.{weight}" if part == "encoders" else name
