"""Warnings of settings that have no effect here."""

from __future__ import annotations

import sys
from typing import Any

from multimodal.core.errors import suggest
from multimodal.core.layers import parameter_names_by_depth
from multimodal.training.module import EmbedderModule


def warn_of_unused_settings(model: Any, data: Any) -> None:
    """Warn of settings that have no effect with this model, but may have where a configuration is shared with others.

    Args:
        model: the Lightning module.
        data: its ``DataModule``.
    """
    if not isinstance(model, EmbedderModule):
        return
    modalities = model.embedder.modalities
    for modality in model.layer_decay:
        if len(parameter_names_by_depth(model.embedder.encoder(modality))) == 1:
            print(
                f"Warning: layer_decay.{modality} has nothing to decay over, as no row of like blocks was found in its"
                " encoder; all of it learns at one rate.",
                file=sys.stderr,
            )
    for modality in data.schema.columns:
        if modality not in modalities:
            print(
                f"Warning: columns names {modality!r}, for which the model has no encoder; it is not used."
                f"{suggest(modality, modalities)}",
                file=sys.stderr,
            )
