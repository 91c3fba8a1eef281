"""Objectives without negatives: a row's vectors should agree, and their components be spread out and uncorrelated."""

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
    r"""VICReg: variance, invariance, covariance (Bardes et al. 2022, eq. 6), averaged over pairs of modalities.

    .. math:: L = \lambda\, s(Z, Z') + \frac{\mu}{2} (v(Z) + v(Z')) + \nu (c(Z) + c(Z'))

    with ``invariance`` s, ``variance`` v and ``covariance`` c, over the rows that have both modalities; a pair with fewer
    than two such rows is left out. Z are the unit vectors times :math:`\sqrt{d}`, so that the widest possible spread has
    standard deviation 1 in every component, the target of v. The factor 1/2 follows the authors' code.

    Args:
        pairs: weight (> 0) of each pair, by a name like ``"text-image"``; ``*`` matches any modality, see ``Pairs``.
            None: every pair, with weight 1.
        invariance: :math:`\lambda`, at least 0.
        variance: :math:`\mu`, at least 0.
        covariance: :math:`\nu`, at least 0.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> vectors, rows = torch.eye(2), torch.arange(2)  # two rows whose image and text agree
        >>> batch = Embeddings({"image": vectors, "text": vectors}, {"image": rows, "text": rows}, groups=rows)
        >>> VICReg(variance=0.0, covariance=0.0)(batch).total.item()  # equal vectors
        0.0
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
        if (paired := _scaled_pairs(pair)) is None:
            return None
        x, y = paired
        spread = (variance(x) + variance(y)) / 2
        return (
            self.invariance * invariance(x, y)
            + self.variance * spread
            + self.covariance * (covariance(x) + covariance(y))
        )


class BarlowTwins(Objective):
    r"""Barlow Twins: the cross-correlation of two modalities should be the identity (Zbontar et al. 2021, eq. 1 and 2).

    .. math:: L = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \ne i} C_{ij}^2

    with C the ``cross_correlation`` over the rows that have both modalities; a pair with fewer than two such rows is left
    out.

    Args:
        pairs: as in ``VICReg``.
        redundancy: :math:`\lambda`, at least 0.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> vectors, rows = torch.eye(2), torch.arange(2)  # two rows whose image and text agree
        >>> batch = Embeddings({"image": vectors, "text": vectors}, {"image": rows, "text": rows}, groups=rows)
        >>> round(BarlowTwins(redundancy=0.0)(batch).total.item(), 4)
        0.0
    """

    def __init__(self, pairs: Mapping[str, float] | None = None, redundancy: float = 0.005) -> None:
        super().__init__()
        _check_non_negative("BarlowTwins", redundancy=redundancy)
        self.pairs = Pairs(pairs, "BarlowTwins")
        self.redundancy = redundancy

    def forward(self, embeddings: Embeddings) -> Loss:
        return Loss(*self.pairs.mean(embeddings, zero_with_gradients(embeddings, ()), self._of_pair))

    def _of_pair(self, pair: Pair) -> Tensor | None:
        if (paired := _scaled_pairs(pair)) is None:
            return None
        c = cross_correlation(*paired)
        return ((1 - c.diagonal()) ** 2).sum() + self.redundancy * _off_diagonal(c).square().sum()


def invariance(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of ``(n, d)`` and ``(n, d)``, over rows and components (Bardes et al. 2022, eq. 5)."""
    return functional.mse_loss(x, y)


def variance(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    r"""Shortfall from 1 of the standard deviations of the components of ``(n, d)`` (eq. 1 and 2).

    .. math:: \frac{1}{d} \sum_j \max\Big(0, 1 - \sqrt{\mathrm{Var}(x_j) + \epsilon}\Big)
    """
    return (1 - (x.var(dim=0) + epsilon).sqrt()).relu().mean()


def covariance(x: Tensor) -> Tensor:
    r"""Sum of the squared covariances of different components of ``(n, d)``, divided by d (eq. 3 and 4)."""
    centred = x - x.mean(dim=0)
    return _off_diagonal(centred.T @ centred / (len(x) - 1)).square().sum() / x.shape[1]


def cross_correlation(x: Tensor, y: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Correlation of each component of one modality with each component of the other.

    Args:
        x: ``(n, d)``.
        y: ``(n, d)``.
        epsilon: added to the variances (over n), as batch normalisation does in the authors' code.

    Returns:
        ``(d, d)``.
    """
    x, y = ((z - z.mean(dim=0)) / (z.var(dim=0, correction=0) + epsilon).sqrt() for z in (x, y))
    return x.T @ y / len(x)


def _off_diagonal(square: Tensor) -> Tensor:
    return square - square.diagonal().diag()


def _scaled_pairs(pair: Pair) -> tuple[Tensor, Tensor] | None:
    """Return the vectors of the rows that have both, times the square root of their width; None for fewer than two rows."""
    of_a, of_b = pair.of_same_rows()
    if len(of_a) < 2:
        return None
    root = math.sqrt(pair.a.vectors.shape[1])
    return root * pair.a.vectors[of_a], root * pair.b.vectors[of_b]


def _check_non_negative(owner: str, **weights: float) -> None:
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise UsageError(f"{owner}: {name} {weight} must be at least 0, and finite.")
