"""Objectives without negatives: vectors of a row shall agree while their components are spread and not redundant."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients
from multimodal.objectives.pairs import Pair, Pairs


class VICReg(Objective):
    r"""Variance, invariance, covariance (Bardes et al. 2022, eq. 6), weighted over pairs of modalities.

    .. math:: L = \lambda\, s(Z, Z') + \frac{\mu}{2} (v(Z) + v(Z')) + \nu (c(Z) + c(Z'))

    over the rows that have both modalities, at least two of them, with ``invariance`` s, ``variance`` v and
    ``covariance`` c. Z are the unit vectors times :math:`\sqrt{d}`, so that a spread as wide as it can be has the
    standard deviation 1 in every component, which v asks for. The half is that of the authors' code.

    Args:
        pairs: ``"text-image"``-like name -> weight (> 0); ``*`` is any modality, see ``Pairs``. None: every pair of
            modalities, each with weight 1.
        invariance: :math:`\lambda`.
        variance: :math:`\mu`.
        covariance: :math:`\nu`.
    """

    def __init__(
        self,
        pairs: Mapping[str, float] | None = None,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__()
        _check_non_negative("VICReg", invariance=invariance, variance=variance, covariance=covariance)
        self.pairs = Pairs(pairs, "VICReg")
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def forward(self, embeddings: Embeddings) -> Loss:
        return Loss(*self.pairs.mean(embeddings, zero_with_gradients(embeddings, ()), self._of_pair))

    def _of_pair(self, pair: Pair) -> Tensor | None:
        if (both := _scaled_pairs(pair)) is None:
            return None
        x, y = both
        spread = (variance(x) + variance(y)) / 2
        return (
            self.invariance * invariance(x, y)
            + self.variance * spread
            + self.covariance * (covariance(x) + covariance(y))
        )


class BarlowTwins(Objective):
    r"""The cross-correlation of two modalities shall be the identity (Zbontar et al. 2021, eq. 1 and 2).

    .. math:: L = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \ne i} C_{ij}^2

    with C the ``cross_correlation`` over the rows that have both modalities, at least two of them.

    Args:
        pairs: as in ``VICReg``.
        redundancy: :math:`\lambda`.
    """

    def __init__(self, pairs: Mapping[str, float] | None = None, redundancy: float = 0.005) -> None:
        super().__init__()
        _check_non_negative("BarlowTwins", redundancy=redundancy)
        self.pairs = Pairs(pairs, "BarlowTwins")
        self.redundancy = redundancy

    def forward(self, embeddings: Embeddings) -> Loss:
        return Loss(*self.pairs.mean(embeddings, zero_with_gradients(embeddings, ()), self._of_pair))

    def _of_pair(self, pair: Pair) -> Tensor | None:
        if (both := _scaled_pairs(pair)) is None:
            return None
        c = cross_correlation(*both)
        return ((1 - c.diagonal()) ** 2).sum() + self.redundancy * _off_diagonal(c).square().sum()


def invariance(x: Tensor, y: Tensor) -> Tensor:
    """The mean squared difference of ``(n, d)`` and ``(n, d)``, over rows and components (Bardes et al. 2022, eq. 5)."""
    return functional.mse_loss(x, y)


def variance(x: Tensor, least: float = 1e-4) -> Tensor:
    r"""By how much the standard deviations of the components of ``(n, d)`` fall short of 1 (eq. 1 and 2).

    .. math:: \frac{1}{d} \sum_j \max\Big(0, 1 - \sqrt{\mathrm{Var}(x_j) + \epsilon}\Big)
    """
    return (1 - (x.var(dim=0) + least).sqrt()).relu().mean()


def covariance(x: Tensor) -> Tensor:
    r"""The squared covariances of different components of ``(n, d)``, summed, over d (eq. 3 and 4)."""
    centred = x - x.mean(dim=0)
    return _off_diagonal(centred.T @ centred / (len(x) - 1)).square().sum() / x.shape[1]


def cross_correlation(x: Tensor, y: Tensor, least: float = 1e-5) -> Tensor:
    """``(d, d)``: the correlation of each component of ``(n, d)`` with each of the other ``(n, d)``.

    Variances are over n and ``least`` is added to them, as batch normalisation does in the authors' code.
    """
    x, y = ((z - z.mean(dim=0)) / (z.var(dim=0, correction=0) + least).sqrt() for z in (x, y))
    return x.T @ y / len(x)


def _off_diagonal(square: Tensor) -> Tensor:
    return square - square.diagonal().diag()


def _scaled_pairs(pair: Pair) -> tuple[Tensor, Tensor] | None:
    """The vectors of the rows that have both, times the root of their width; None if there are fewer than two."""
    of_a, of_b = pair.of_same_rows()
    if len(of_a) < 2:
        return None
    root = math.sqrt(pair.a.vectors.shape[1])
    return root * pair.a.vectors[of_a], root * pair.b.vectors[of_b]


def _check_non_negative(owner: str, **weights: float) -> None:
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise UsageError(f"{owner}: {name} {weight} must be at least 0, and finite.")
