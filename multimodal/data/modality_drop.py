"""Modality dropout: training rows from which values of some modalities are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

from multimodal.core.errors import UsageError, suggest

P = TypeVar("P")
STREAM = 0xD209  # separates these random numbers from those of the row's augmentation, whose seed is the same


def check_modality_drop(drop: Mapping[str, float], modalities: Iterable[str]) -> None:
    """Check the fractions of modality dropout.

    Args:
        drop: modality -> the fraction of the training rows that it is left out of.
        modalities: those of the data.

    Raises:
        UsageError: a modality is unknown, a fraction is not in [0, 1), or there is one for every modality.
    """
    known = list(modalities)
    for modality, fraction in drop.items():
        if modality not in known:
            raise UsageError(f"modality_drop: the data have no modality {modality!r}.{suggest(modality, known)}")
        if not 0 <= fraction < 1:
            raise UsageError(f"modality_drop of {modality} is a fraction of the rows, in [0, 1); got {fraction}.")
    if set(drop) == set(known):
        raise UsageError("modality_drop names all modalities; leave out at least one, which every row keeps.")


def kept_modalities(processors: Mapping[str, P], drop: Mapping[str, float], seed: tuple[int, ...]) -> Mapping[str, P]:
    """Return the processors of the modalities that a row keeps this time.

    Args:
        processors: modality -> its processor.
        drop: modality -> the probability that it is left out.
        seed: of the row, at this time.

    Source:
        ModDrop (Neverova et al. 2015), https://arxiv.org/abs/1501.00102, with a fraction for each modality.

    Examples:
        >>> rows = [list(kept_modalities({"image": 1, "graph": 2}, {"graph": 0.75}, (0, row))) for row in range(100)]
        >>> sum("image" in row for row in rows), sum("graph" in row for row in rows)
        (100, 30)
    """
    if not drop:
        return processors
    drawn = np.random.default_rng([*seed, STREAM]).random(len(drop))
    left_out = {modality for modality, number in zip(drop, drawn, strict=True) if number < drop[modality]}
    return {modality: processor for modality, processor in processors.items() if modality not in left_out}
