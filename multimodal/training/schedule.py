"""Learning-rate schedules as functions of the step and the number of steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from multimodal.core.errors import UsageError
from multimodal.core.recording import Recorded


class Schedule(Recorded, ABC):
    """The factor of the learning rate at each step.

    Examples:
        >>> class Halves(Schedule):
        ...     def factor(self, step: int, total: int) -> float:
        ...         return 0.5 ** (10 * step // total)
        >>> Halves().factor(30, 100)
        0.125
    """

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """Return a number in [0, 1] for a step in [0, total)."""


class WarmupCosine(Schedule):
    r"""Linear warm-up, then half a cosine down to ``final`` (Loshchilov and Hutter 2017, without restarts).

    With w warm-up steps of N: :math:`(i + 1) / w` for i < w, then
    :math:`f + (1 - f) (1 + \cos(\pi (i - w) / (N - w))) / 2`.

    Args:
        warmup: the fraction of the steps that warms up, in [0, 1).
        final: the factor at the end, in [0, 1].

    Examples:
        >>> [round(WarmupCosine(warmup=0.5).factor(step, 4), 2) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """

    def __init__(self, warmup: float = 0.1, final: float = 0.0) -> None:
        if not (0 <= warmup < 1 and 0 <= final <= 1):
            raise UsageError(f"WarmupCosine: warmup {warmup} must lie in [0, 1) and final {final} in [0, 1].")
        self.warmup, self.final = warmup, final

    def factor(self, step: int, total: int) -> float:
        warmup_steps = round(self.warmup * total)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        fraction = min((step - warmup_steps) / max(total - warmup_steps, 1), 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * fraction)) / 2


class Constant(Schedule):
    """The same learning rate at every step.

    Examples:
        >>> Constant().factor(7, 10)
        1.0
    """

    def factor(self, step: int, total: int) -> float:
        return 1.0
