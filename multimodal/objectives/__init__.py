"""Objectives: embeddings -> loss. They see vectors, rows, groups and targets, never the model.

1. A formula is a function of tensors, such as ``infonce.info_nce`` or ``ranking.margin_ranking``; one family a file.
2. An ``Objective`` applies a formula to ``Embeddings``. ``pairs`` chooses the pairs of modalities to compare and their
   weights, ``temperature`` holds their temperatures; ``tiles`` reduces all n x m scores without keeping them.
3. ``compose`` combines and wraps objectives.
"""

from multimodal.core.embeddings import Embeddings
from multimodal.objectives.backward_compatible import BackwardCompatible
from multimodal.objectives.compose import Matryoshka, ModalityDropout, Ramp, Sum
from multimodal.objectives.distillation import Distillation
from multimodal.objectives.infonce import InfoNCE
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients
from multimodal.objectives.pairs import Pair, Pairs
from multimodal.objectives.ranking import Triplet
from multimodal.objectives.redundancy import BarlowTwins, VICReg
from multimodal.objectives.sigmoid import Sigmoid
from multimodal.objectives.supervised import Classification, MultiLabel, Regression
from multimodal.objectives.text_pretraining import CBOW, MaskedTokens, SkipGram

__all__ = [
    "CBOW",
    "BackwardCompatible",
    "BarlowTwins",
    "Classification",
    "Distillation",
    "Embeddings",
    "InfoNCE",
    "Loss",
    "MaskedTokens",
    "Matryoshka",
    "ModalityDropout",
    "MultiLabel",
    "Objective",
    "Pair",
    "Pairs",
    "Ramp",
    "Regression",
    "Sigmoid",
    "SkipGram",
    "Sum",
    "Triplet",
    "VICReg",
    "zero_with_gradients",
]
