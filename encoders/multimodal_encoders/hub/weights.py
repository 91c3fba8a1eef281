"""Weights from files, and what to say where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from multimodal.core.errors import MultimodalError

MAX_NAMES_SHOWN = 3  # weights that differ, in an error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of one written by ``torch.save``, by their names.

    Of torch's format nothing but tensors and plain containers is built (``weights_only``); the tensors may lie under
    ``state_dict`` or ``model``, as in checkpoints of training programs.

    Raises:
        MultimodalError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise MultimodalError(f"There is no file of weights at {path}.")
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except UnpicklingError as error:  # torch advises to read it nevertheless
        raise MultimodalError(
            f"{path} cannot be read as weights: it is damaged, or holds Python objects, which could run arbitrary code."
            " Its author can save the tensors alone, with save_file(model.state_dict(), ...) of safetensors.torch."
        ) from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise MultimodalError(
            f"{path} cannot be read as weights ({first}); give a .safetensors file, or one that torch.save wrote of a"
            " state dict."
        ) from error
    if isinstance(found, Mapping):
        found = next((found[key] for key in ("state_dict", "model") if isinstance(found.get(key), Mapping)), found)
    if not (isinstance(found, Mapping) and found and all(isinstance(t, Tensor) for t in found.values())):
        raise MultimodalError(f"{path} holds no weights by name; save the model's state_dict().")
    return {str(name): tensor for name, tensor in found.items()}


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Load all weights of a module; none may be missing, unexpected or of another shape.

    Args:
        module: the module.
        weights: name -> tensor.
        what: their name, for errors.

    Raises:
        MultimodalError: they do not fit.
    """
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - weights.keys())
    unexpected = sorted(weights.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    faults = [
        f"{len(names)} {fault} ({', '.join(names[:MAX_NAMES_SHOWN])}{', ...' if len(names) > MAX_NAMES_SHOWN else ''})"
        for fault, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise MultimodalError(
            f"{what} does not fit the {type(module).__name__} that the settings describe: {'; '.join(faults)}."
            " Name the architecture that it was made for."
        )
    module.load_state_dict(weights)


def download_error(what: str, error: Exception, put: str) -> MultimodalError:
    """The error where weights are not on this machine and cannot be had.

    Args:
        what: "the weights IMAGENET1K_V1 of resnet18".
        error: why they could not be downloaded.
        put: how to bring them by hand: from which address to which file, and the setting that names a local one.
    """
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    sentence = what[0].upper() + what[1:]
    return MultimodalError(f"{sentence} are not on this machine and could not be downloaded ({first}). {put}")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
