"""The shape of an embedding space: how close partners are, how much of the space is used, hubs, and the modality gap.

These measures need no labels. They explain retrieval measures rather than replace them: a low effective rank or many hubs are
usual reasons for low recall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from scipy.stats import skew
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings

BLOCK = 2**24  # numbers in memory at a time: 64 MiB


def alignment(x: Tensor, y: Tensor) -> float:
    r"""Return the mean squared distance of partners, :math:`\frac1n \sum_i \|x_i - y_i\|^2`, in [0, 4]; lower is better.

    Args:
        x, y: ``(n, dim)`` unit vectors; row i of one is the partner of row i of the other.

    Source: Wang and Isola 2020, section 4.1, with alpha = 2.

    Examples:
        >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        2.0
    """
    return (x.double() - y.double()).square().sum(dim=1).mean().item()


def uniformity(x: Tensor) -> float:
    r"""Return how evenly vectors are spread: :math:`\log \frac{2}{n(n-1)} \sum_{i<j} e^{-2 \|x_i - x_j\|^2}`, in [-8, 0].

    Lower is more even. 0: all vectors are equal. Vectors drawn evenly from a sphere of many dimensions reach about -4.

    Args:
        x: ``(n, dim)`` unit vectors.

    Returns:
        The uniformity; NaN for fewer than two vectors.

    Source: Wang and Isola 2020, section 4.1, with t = 2.

    Examples:
        >>> round(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), 4)  # as far apart as two can be: log(exp(-2 * 4))
        -8.0
    """
    if len(x) < 2:
        return float("nan")
    x, total = x.float(), 0.0
    for rows in torch.arange(len(x)).split(max(1, BLOCK // len(x))):
        squared = (2 - 2 * (x[rows] @ x.T)).clamp(min=0)
        squared[torch.arange(len(rows)), rows] = torch.inf  # a vector with itself does not count
        total += torch.exp(-2 * squared).sum(dtype=torch.float64).item()
    return float(torch.tensor(total / (len(x) * (len(x) - 1)), dtype=torch.float64).log())


def spectrum(x: Tensor) -> Tensor:
    """Return which fraction of the vectors' squared length lies in each principal direction, ``(min(n, dim),)``, descending.

    Args:
        x: ``(n, dim)``; its mean is not subtracted.
    """
    squared = torch.linalg.svdvals(x.double()).square()
    return squared / squared.sum()


def effective_rank(x: Tensor) -> float:
    r"""Return the number of directions that vectors use: :math:`e^{-\sum_k p_k \log p_k}`, p the normalized singular values.

    Args:
        x: ``(n, dim)``.

    Returns:
        From 1 (all on one line) to min(n, dim) (all directions alike).

    Source: Roy and Vetterli 2007; as a measure of embeddings, Garrido et al. 2023 (RankMe).

    Examples:
        >>> round(effective_rank(torch.eye(5)), 6)
        5.0
    """
    values = torch.linalg.svdvals(x.double())
    p = values / values.sum()
    return torch.special.entr(p).sum().exp().item()


def k_occurrences(queries: Tensor, candidates: Tensor, k: int = 10) -> Tensor:
    """Return how many queries have each candidate among their k nearest, ``(c,)`` int64.

    Args:
        queries, candidates: ``(q, dim)`` and ``(c, dim)`` unit vectors.
        k: number of neighbours; at most c are counted.
    """
    counts = torch.zeros(len(candidates), dtype=torch.int64)
    candidates = candidates.float()
    for rows in queries.float().split(max(1, BLOCK // max(1, len(candidates)))):
        nearest = (rows @ candidates.T).topk(min(k, len(candidates)), dim=1).indices
        counts += torch.bincount(nearest.flatten().cpu(), minlength=len(counts))
    return counts


def hubness(queries: Tensor, candidates: Tensor, k: int = 10) -> float:
    """Return the skewness of the k-occurrences: the higher, the more a few candidates (hubs) are near to most queries.

    It also grows where there are fewer queries than candidates: compare values of equal numbers only.

    Args:
        queries, candidates: ``(q, dim)`` and ``(c, dim)`` unit vectors.
        k: number of neighbours.

    Returns:
        The skewness; 0 if all candidates occur equally often, NaN if there are none.

    Source: Radovanović et al. 2010, equation 1.
    """
    if not len(candidates):
        return float("nan")
    counts = k_occurrences(queries, candidates, k).double()
    return 0.0 if bool((counts == counts[0]).all()) else float(skew(counts.numpy()))


def modality_means(embeddings: Embeddings) -> dict[str, Tensor]:
    """Return the mean vector of each modality, ``(dim,)`` float32."""
    return {m: v.double().mean(dim=0).float() for m, v in embeddings.vectors.items()}


def modality_gap(means: Mapping[str, Tensor], a: str, b: str) -> float:
    """Return the distance between the means of two modalities, in [0, 2].

    Args:
        means: modality -> its mean vector, as ``modality_means`` returns them.
        a, b: the two modalities.

    Source: Liang et al. 2022, section 4.

    Examples:
        >>> modality_gap({"text": torch.tensor([0.5, 0.0]), "image": torch.tensor([0.0, 0.0])}, "text", "image")
        0.5
    """
    return (means[a].double() - means[b].double()).norm().item()


def close_gap(embeddings: Embeddings, means: Mapping[str, Tensor]) -> Embeddings:
    """Subtract each modality's mean from its vectors and scale them to unit length again.

    Args:
        embeddings: the embeddings.
        means: modality -> ``(dim,)``, of embeddings other than the measured ones, such as those of the training split. A
            modality without a mean is left as it is.
    """
    centred = {
        m: functional.normalize(v.float() - means[m].to(v.device), dim=1) if m in means else v
        for m, v in embeddings.vectors.items()
    }
    return replace(embeddings, vectors=centred)
