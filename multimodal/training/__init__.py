"""Training: the classes that a configuration names and that your own program can pass to a Lightning trainer."""

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
