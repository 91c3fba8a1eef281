"""Objectives: embeddings -> loss. They see vectors, rows and groups, never a model."""

from multimodal.objectives.infonce import InfoNCE
from multimodal.objectives.objective import Loss, Objective

__all__ = ["InfoNCE", "Loss", "Objective"]
