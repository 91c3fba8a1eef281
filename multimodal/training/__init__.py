"""Training: what a configuration names, and what a program of your own puts under a Lightning trainer."""

from multimodal.training.callbacks.averaging import AveragedWeights
from multimodal.training.module import EmbedderModule
from multimodal.training.schedule import Constant, Schedule, WarmupCosine
from multimodal.training.text_pretraining import TextPretrainingModule
from multimodal.training.training_module import TrainingModule

__all__ = [
    "AveragedWeights",
    "Constant",
    "EmbedderModule",
    "Schedule",
    "TextPretrainingModule",
    "TrainingModule",
    "WarmupCosine",
]
