"""An encoder as JSON values, and built from them again."""

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
    """What builds an encoder again, apart from its weights: registered name, class path, settings, processor state."""
    name, class_path = registry.saved_names(modality, type(encoder))
    return {"name": name, "class": class_path, "settings": encoder.settings, "processor": encoder.processor.state()}


def encoder_fingerprint(encoder: Encoder) -> str:
    """64 hexadecimal digits that identify an encoder by settings, processor state and weights, not by its modality's name."""
    return fingerprint(describe_encoder("", encoder), encoder.state_dict())


def build_encoder(modality: str, described: Mapping[str, Any], folder: Path) -> Encoder:
    """The encoder that ``describe_encoder`` described, with new weights.

    Args:
        modality: what it is registered for.
        described: the description.
        folder: the model's or the run's folder that the description was read from, for errors.

    Raises:
        UsageError: no such encoder is registered, or its class path leads into the model's folder.
        MultimodalError: it cannot be built with these settings or this processor state.
    """
    name = registry.saved_encoder_name(modality, described["name"], described["class"])
    _reject_bundled_code(folder, name)
    try:
        encoder = registry.create(modality, name, **described["settings"])
        encoder.processor.load_state(described["processor"])
    except UsageError:
        raise
    except Exception as error:  # a tokenizer's parser raises no narrower one
        raise MultimodalError(f"The {modality} encoder of {folder} cannot be rebuilt: {error}") from error
    return encoder


def _reject_bundled_code(folder: Path, name: str) -> None:
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
