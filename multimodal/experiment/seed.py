"""One seed for everything random, set before the encoders are made."""

from __future__ import annotations

import lightning.pytorch as pl


def seed_everything(seed: int = 0) -> None:
    """Seed Python, numpy and torch, as ``multimodal fit`` does before it makes the encoders.

    The weights of new encoders are drawn from torch's generator: called first, the same program makes the same model. The
    order of the samples, augmentation and dropout have a seed of their own, ``EmbedderModule(seed=...)``.

    Args:
        seed: from 0 to 2^32 - 1.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
