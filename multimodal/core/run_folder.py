"""What a run folder holds, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions.safetensors"

RUN_MODEL = "model"  # where a run folder holds its exported model
RUN_CONFIG = "config.yaml"  # and the full configuration that training leaves in it
