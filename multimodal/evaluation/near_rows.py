"""Rows that are nearer to each other than to any other row: perhaps one item under two names."""

from __future__ import annotations

import torch
from torch import Tensor

NEAREST = 3  # neighbours of a row that are considered, and among which the distance is usual
LEAST_DISTANCE = 1e-4  # of cosines; equal inputs differ by rounding
BLOCK = 2**24  # similarities in memory at a time


def near_rows(vectors: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the pairs of rows that are near for their surroundings, and how much.

    The strength of a pair is :math:`\ln \frac{r_i r_j}{d_{ij}^2}`, where d is one minus the cosine, and r the geometric mean of
    a row's distances to its next neighbours: a pair that is near among rows that are all near is not suspected.

    Args:
        vectors: ``(n, d)`` unit vectors.
        groups: ``(n,)`` int64; rows of equal group are known to be one item.

    Returns:
        ``(p, 2)`` int64 pairs of row numbers, the smaller first, and ``(p,)`` strengths, descending; only pairs of strength
        above 0, each row with its ``NEAREST`` neighbours at most.

    Source: local scaling of distances, Zelnik-Manor and Perona 2004; CSLS, Conneau et al. 2018, equation 3.

    Examples:
        >>> angles = torch.tensor([0.0, 0.05, 1.0, 2.0, 3.0])
        >>> pairs, strength = near_rows(torch.stack([angles.cos(), angles.sin()], dim=1), torch.arange(5))
        >>> pairs[0].tolist()
        [0, 1]
    """
    n = len(vectors)
    if n < 3:
        return torch.zeros((0, 2), dtype=torch.int64), torch.zeros(0)
    vectors = vectors.float()
    kept = min(NEAREST + 1, n - 1)
    distances, columns = [], []
    for rows in torch.arange(n).split(max(1, BLOCK // n)):
        scores = vectors[rows] @ vectors.T
        scores[groups[rows][:, None] == groups] = -torch.inf
        top = scores.topk(kept, dim=1)
        distances.append((1 - top.values).clamp(min=LEAST_DISTANCE))
        columns.append(top.indices)
    logs, nearest = torch.cat(distances).log(), torch.cat(columns)
    further, known = (
        logs[:, 1:],
        logs[:, 1:].isfinite(),
    )  # without the nearest; in few groups, not all are rows of others
    usual = further.masked_fill(~known, 0.0).sum(dim=1) / known.sum(dim=1)  # NaN without any: never suspected
    first = torch.arange(n)[:, None].expand(-1, kept)[logs < torch.inf]
    second, log = nearest[logs < torch.inf], logs[logs < torch.inf]
    strength = usual[first] + usual[second] - 2 * log
    pairs = torch.stack([torch.minimum(first, second), torch.maximum(first, second)], dim=1)[strength > 0]
    pairs, number = pairs.unique(dim=0, return_inverse=True)
    best = torch.full((len(pairs),), -torch.inf).scatter_reduce(0, number, strength[strength > 0], "amax")
    order = best.argsort(descending=True, stable=True)
    return pairs[order], best[order]
