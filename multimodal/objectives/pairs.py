"""Which pairs of modalities are compared, and the weight of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.tiles import Block

ANY = "*"


class GivenNegatives(NamedTuple):
    """Hard negatives from the data, of one modality, for the vectors of another: each is wrong for one of them alone.

    Args:
        anchors: ``(k,)`` int64, the position of the vector that it is a negative of.
        vectors: ``(k, d)``.

    Examples:
        >>> negatives = GivenNegatives(torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
        >>> negatives.scores(torch.eye(2))
        tensor([1.])
    """

    anchors: Tensor
    vectors: Tensor

    def scores(self, vectors: Tensor) -> Tensor:
        """Return the score of each negative, ``(k,)``, with its own of the ``(n, d)`` vectors."""
        return torch.linalg.vecdot(vectors[self.anchors], self.vectors)


@dataclass(frozen=True)
class Pair:
    """The vectors of two modalities of a batch; two of them match if their groups are equal.

    Hard negatives from the data are apart from them. What is known of one is that it does not match its own row: it may
    well match another row of the batch, as when it is that row's value.

    Args:
        names: the two modalities.
        a: ``(n, d)`` vectors of the first modality and their groups.
        b: ``(m, d)`` vectors of the second modality and their groups.
        rows: for each vector its row in the batch, ``(n,)`` and ``(m,)`` int64, ascending.
        negatives_of_a: hard negatives of the vectors of ``a``, in the second modality. None: there are none.
        negatives_of_b: hard negatives of the vectors of ``b``, in the first modality.

    Examples:
        >>> import torch
        >>> block = Block(torch.eye(2), groups=torch.tensor([7, 8]))
        >>> Pair(("text", "image"), block, block, (torch.arange(2), torch.arange(2))).same_group.tolist()
        [[True, False], [False, True]]
    """

    names: tuple[str, str]
    a: Block
    b: Block
    rows: tuple[Tensor, Tensor]
    negatives_of_a: GivenNegatives | None = None
    negatives_of_b: GivenNegatives | None = None

    @property
    def same_group(self) -> Tensor:
        """Whether vector i of ``a`` and vector j of ``b`` match, ``(n, m)`` bool."""
        return self.a.groups[:, None] == self.b.groups

    def of_same_rows(self) -> tuple[Tensor, Tensor]:
        """Return the positions, in ``a`` and in ``b``, of the vectors whose row has both modalities: ``(k,)`` int64 each."""
        return shared_rows(*self.rows)


class Pairs:
    """Which pairs of modalities to compare, and their weights.

    Args:
        weights: weight (> 0) of each pair, by a name like ``"text-image"``. ``*`` matches any modality: ``{"image-*": 1}``
            is the star around the image that ImageBind trains (Girdhar et al. 2023), ``{"*-*": 1, "text-image": 2}`` is all
            pairs, one with double weight. If several names match, the one with the fewest ``*`` counts, then the first.
            None: all pairs, with weight 1.
        owner: the name of the objective, for errors.

    Examples:
        >>> Pairs({"image-*": 1.0}, "InfoNCE").of(["image", "text", "graph"])
        {('image', 'text'): 1.0, ('image', 'graph'): 1.0}
    """

    def __init__(self, weights: Mapping[str, float] | None, owner: str) -> None:
        if weights is not None and not weights:
            raise UsageError(f"{owner}: pairs is empty; leave it out to compare all pairs.")
        for name, weight in (weights or {}).items():
            if not (math.isfinite(weight) and weight > 0):
                raise UsageError(f"{owner}: the weight {weight} of pair {name!r} must be a positive number.")
        self.weights = parse_names({f"{ANY}-{ANY}": 1.0} if weights is None else weights, owner)

    @property
    def modalities(self) -> set[str]:
        """The modalities named, without ``*``."""
        return {modality for pair in self.weights for modality in pair} - {ANY}

    def of(self, modalities: Iterable[str]) -> dict[tuple[str, str], float]:
        """Return the chosen pairs of the given modalities, with their weights."""
        chosen = {}
        for a, b in combinations(modalities, 2):
            name = match_pair_name((a, b), self.weights)
            if name is not None:
                chosen[(a, b) if _matches(name, (a, b)) else (b, a)] = self.weights[name]
        return chosen

    def mean(
        self, embeddings: Embeddings, zero: Tensor, loss_of: Callable[[Pair], Tensor | None]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Average a loss over the chosen pairs, weighted.

        Pairs without matching vectors in this batch, and those whose loss is None, are left out.

        Args:
            embeddings: the embeddings of the batch.
            zero: what ``zero_with_gradients`` returns; the mean is added to it.
            loss_of: computes the scalar loss of a pair, or None if the pair has nothing to compare.

        Returns:
            The weighted mean, a scalar (``zero`` if no pair is left), and the loss of each pair, detached, by a name like
            ``"text-image"``.
        """
        total, total_weight, parts = zero, 0.0, {}
        for (a, b), weight in self.of(embeddings.vectors).items():
            pair = _pair(embeddings, a, b)
            loss = loss_of(pair) if _some_match(pair, len(embeddings.groups)) else None
            if loss is None:
                continue
            parts[f"{a}-{b}"] = loss.detach()
            total = total + weight * loss
            total_weight += weight
        return total / total_weight if total_weight else total, parts


def _pair(embeddings: Embeddings, a: str, b: str) -> Pair:
    of_a, of_b = (Block(embeddings.vectors[m], embeddings.groups_of(m)) for m in (a, b))
    rows_a, rows_b = embeddings.rows[a], embeddings.rows[b]
    if embeddings.negative_of is None:
        return Pair((a, b), of_a, of_b, (rows_a, rows_b))
    owners_a, owners_b = embeddings.negative_of[rows_a], embeddings.negative_of[rows_b]
    own_a, own_b = owners_a < 0, owners_b < 0
    samples_a, samples_b = rows_a[own_a], rows_b[own_b]
    return Pair(
        (a, b),
        of_a.part(own_a),
        of_b.part(own_b),
        (samples_a, samples_b),
        _given_negatives(samples_a, owners_b, of_b.vectors),
        _given_negatives(samples_b, owners_a, of_a.vectors),
    )


def _given_negatives(rows: Tensor, owners: Tensor, vectors: Tensor) -> GivenNegatives | None:
    """Find the hard negatives of the vectors of one modality among the vectors of another.

    Args:
        rows: ``(n,)`` the rows of the vectors, ascending.
        owners: ``(m,)`` for each vector of the other modality the row that it is a negative of, or -1.
        vectors: ``(m, d)`` of the other modality.
    """
    known = torch.isin(owners, rows).nonzero()[:, 0]
    if not len(known):
        return None
    return GivenNegatives(torch.searchsorted(rows, owners[known]), vectors[known])


def _some_match(pair: Pair, rows: int) -> bool:
    """Whether any vector of one modality matches one of the other, in a batch of ``rows`` rows."""
    if len(pair.rows[0]) + len(pair.rows[1]) > rows:  # some row has both: no need to wait for the GPU
        return True
    return bool(_GroupNumbers.of(pair.a.groups, pair.b.groups).in_a.any())


@dataclass(frozen=True)
class Matches:
    """Sums and counts of the positives of n vectors ``a`` and m vectors ``b``, computed without the n x m scores.

    ``counts_a``, ``counts_b`` and ``sums`` have one entry per group. The g groups that occur in ``a`` come first, in
    ascending order; entries g to n - 1 are 0, and entry n stands for the groups that occur only in ``b``.

    Args:
        counts_a: ``(n + 1,)`` int64, how many vectors of ``a`` are in each group; entry n is 0.
        counts_b: ``(n + 1,)`` int64, how many vectors of ``b`` are in each group.
        sums: ``(n + 1,)`` floating point, the sum of the scores of all positive pairs of each group; entry n is 0.
        of_a: ``(n,)`` int64, how many positives each vector of ``a`` has.
        of_b: ``(m,)`` int64, how many positives each vector of ``b`` has.
    """

    counts_a: Tensor
    counts_b: Tensor
    sums: Tensor
    of_a: Tensor
    of_b: Tensor


def sum_matched_scores(a: Block, b: Block) -> Matches:
    """Sum the scores of the positives of each group in ``O((n + m) d)``: the sum of the scores is the score of the sums.

    No shape depends on the values, so nothing waits for the GPU.

    Args:
        a: n vectors ``(n, d)`` and their groups.
        b: m vectors ``(m, d)`` and their groups.
    """
    numbers, entries = _GroupNumbers.of(a.groups, b.groups), len(a.groups) + 1
    counts_a, counts_b = (
        of.new_zeros(entries).scatter_add_(0, of, torch.ones_like(of)) for of in (numbers.of_a, numbers.of_b)
    )
    sums_a, sums_b = (
        block.vectors.new_zeros(entries, block.vectors.shape[1]).index_add_(0, of, block.vectors)
        for block, of in ((a, numbers.of_a), (b, numbers.of_b))
    )
    sums = torch.linalg.vecdot(sums_a, sums_b)
    return Matches(counts_a, counts_b, sums, counts_b[numbers.of_a], counts_a[numbers.of_b])


@dataclass(frozen=True)
class _GroupNumbers:
    """The distinct groups of ``a`` numbered from 0, in ascending order.

    Args:
        of_a: ``(n,)`` int64, the number of the group of each vector of ``a``.
        of_b: ``(m,)`` int64, the same for each vector of ``b``; n if its group does not occur in ``a``.
        in_a: ``(m,)`` bool, whether the group of each vector of ``b`` occurs in ``a``.
    """

    of_a: Tensor
    of_b: Tensor
    in_a: Tensor

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> _GroupNumbers:
        """Number the groups ``a`` ``(n,)`` and ``b`` ``(m,)``, int64."""
        ascending, order = a.sort()
        is_first = torch.ones_like(ascending, dtype=torch.bool)
        is_first[1:] = ascending[1:] != ascending[:-1]
        numbers = is_first.cumsum(0) - 1
        position = torch.searchsorted(ascending, b)  # n if it is greater than all
        in_a = (position < len(a)) & (functional.pad(ascending, (0, 1))[position] == b)
        of_b = functional.pad(numbers, (0, 1))[position].masked_fill(~in_a, len(a))
        return cls(torch.empty_like(order).scatter_(0, order, numbers), of_b, in_a)


def shared_rows(rows_a: Tensor, rows_b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of the common rows in two ascending lists of distinct rows: ``(k,)`` int64 each."""
    return torch.isin(rows_a, rows_b).nonzero()[:, 0], torch.isin(rows_b, rows_a).nonzero()[:, 0]


def parse_names(by_name: Mapping[str, float], owner: str) -> dict[tuple[str, str], float]:
    """Parse names like "text-image" into pairs of modalities; ``owner`` is the name of the objective, for errors."""
    names: dict[tuple[str, str], float] = {}
    for name, value in by_name.items():
        a, b = _parse_name(name, owner)
        if (b, a) in names:
            raise UsageError(f"{owner}: {f'{b}-{a}'!r} and {name!r} are the same pair; leave one out.")
        names[a, b] = float(value)
    return names


def match_pair_name(pair: tuple[str, str], names: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """Return the name with the fewest ``*`` that matches a pair, in either order."""
    fitting = [n for n in names if _matches(n, pair) or _matches(n, (pair[1], pair[0]))]
    return min(fitting, key=lambda name: name.count(ANY), default=None)


def _matches(name: tuple[str, str], pair: tuple[str, str]) -> bool:
    return all(part in (ANY, modality) for part, modality in zip(name, pair, strict=True))


def _parse_name(name: str, owner: str) -> tuple[str, str]:
    a, _, b = name.partition("-")
    if not all(part == ANY or part.isidentifier() for part in (a, b)) or (a == b != ANY):
        raise UsageError(
            f"{owner}: {name!r} is not a pair of two modalities; write one like 'text-image', or 'image-*' for all pairs "
            "with the image."
        )
    return a, b
