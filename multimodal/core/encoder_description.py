"""Descriptions of encoders as JSON values, from which they are built again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Any

from multimodal.core import registry
from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.model_folder import fingerprint
from multimodal.core.run_folder import RUN_MODEL


def describe_encoder(modality: str, encoder: Encoder) -> dict[str, Any]:
    """Return what builds an encoder again, except its weights: registered name, class path, settings, processor state."""
    name, class_path = registry.saved_names(modality, type(encoder))
    return {"name": name, "class": class_path, "settings": encoder.settings, "processor": encoder.processor.state()}


def encoder_fingerprint(encoder: Encoder) -> str:
    """Hash an encoder's settings, processor state and weights, not its modality's name, to 64 hexadecimal digits."""
    return fingerprint(describe_encoder("", encoder), encoder.state_dict())


def build_encoder(modality: str, described: Mapping[str, Any], folder: Path) -> Encoder:
    """Build the encoder that ``describe_encoder`` described, with new weights.

    Args:
        modality: the modality that it is registered for.
        described: the description.
        folder: the folder of the model or run that the description was read from.

    Raises:
        UsageError: no such encoder is registered, or its class path is inside the model's folder.
        MultimodalError: it cannot be built with these settings or this processor state.
    """
    name = registry.saved_encoder_name(modality, described["name"], described["class"])
    _reject_bundled_code(folder, name)
    try:
        encoder = registry.create(modality, name, **described["settings"])
        encoder.processor.load_state(described["processor"])
    except UsageError:
        raise
    except Exception as error:  # tokenizers' parsers raise plain Exception
        raise MultimodalError(f"The {modality} encoder of {folder} cannot be rebuilt: {error}") from error
    return encoder


def _reject_bundled_code(folder: Path, name: str) -> None:
    """Raise a ``UsageError`` if a class path names code in the model's folder: only the user's own code is imported."""
    *modules, _ = name.split(".")
    import_roots = [Path(entry).resolve() for entry in sys.path]
    bundle = folder.resolve()
    if bundle.name == RUN_MODEL and bundle.parent not in import_roots:  # the model came with its run
        bundle = bundle.parent
    for path in import_roots:
        for module in modules:  # parents are not imported to find out: folders without __init__.py are packages too
            path /= module
            candidates = (path, *path.parent.glob(f"{escape(module)}.*"))
            if any(candidate.resolve().is_relative_to(bundle) for candidate in candidates):
                raise UsageError(
                    f"The model in {folder} contains code ({name}), which is not run. If you trust it, move it"
                    " out of the model's folder, to where Python finds it."
                )
