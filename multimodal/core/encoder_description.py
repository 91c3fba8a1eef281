"""Descriptions of encoders as JSON values, from which they are built again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal.core import registry
from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.model_folder import fingerprint

OWN_MODULE = "multimodal.core.ensemble"  # holds the one encoder that belongs to no modality, and so is not registered


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
        UsageError: no such encoder is registered, and its class path names a module that is not imported.
        MultimodalError: it cannot be built with these settings or this processor state.
    """
    name = registry.saved_encoder_name(modality, described["name"], described["class"])
    if not registry.is_registered(modality, name):
        _require_trust(folder, name)
    try:
        encoder = registry.create(modality, name, **described["settings"])
        encoder.processor.load_state(described["processor"])
    except UsageError:
        raise
    except Exception as error:  # tokenizers' parsers raise plain Exception
        raise MultimodalError(f"The {modality} encoder of {folder} cannot be rebuilt: {error}") from error
    return encoder


def _require_trust(folder: Path, path: str) -> None:
    """Raise a ``UsageError`` if a class path names a module that the user has not imported: a model runs no code of its own."""
    module = path.rpartition(".")[0]
    if module not in sys.modules and module != OWN_MODULE:
        raise UsageError(
            f"The model in {folder} names the encoder {path}, which is not registered; its code is not run. If you trust"
            f" it, import {module} first, or in a command add --trust_module {module}."
        )
