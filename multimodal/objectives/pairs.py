"""Which pairs of modalities are compared, and the weight of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.tiles import Block

ANY = "*"


@dataclass(frozen=True)
class Pair:
    """The vectors of two modalities in a batch, of which some match.

    Args:
        names: the two modalities.
        a: n vectors ``(n, d)`` of the first and their groups.
        b: m vectors ``(m, d)`` of the second and their groups.
        rows: the rows of the vectors in the batch, ``(n,)`` and ``(m,)`` int64.

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

    @property
    def same_group(self) -> Tensor:
        """Whether each two vectors match, ``(n, m)`` bool."""
        return self.a.groups[:, None] == self.b.groups

    def of_same_rows(self) -> tuple[Tensor, Tensor]:
        """Return the positions ``(k,)`` int64, in a and in b, of the vectors whose row has both."""
        return shared_rows(*self.rows)


class Pairs:
    """A choice of pairs of modalities, with weights.

    Args:
        weights: weight (> 0) of each pair, by a name like ``"text-image"``. ``*`` matches any modality: ``{"image-*": 1}``
            is the star around the image that ImageBind trains (Girdhar et al. 2023), ``{"*-*": 1, "text-image": 2}`` all
            pairs, one with double weight. Of several matching names the one with fewer ``*`` counts, then the first.
            None: all pairs, with weight 1.
        owner: the name of the objective, for errors.

    Examples:
        >>> Pairs({"image-*": 1.0}, "InfoNCE").of(["image", "text", "graph"])
        {('image', 'text'): 1.0, ('image', 'graph'): 1.0}
    """

    def __init__(self, weights: Mapping[str, float] | None, owner: str) -> None:
        if weights is not None and not weights:
            raise UsageError(f"{owner}: pairs is empty; leave it out to take all pairs.")
        for name, weight in (weights or {}).items():
            if not (math.isfinite(weight) and weight > 0):
                raise UsageError(f"{owner}: the weight {weight} of pair {name!r} must be a positive number.")
        self.weights = parse_names({f"{ANY}-{ANY}": 1.0} if weights is None else weights, owner)

    @property
    def modalities(self) -> set[str]:
        """The modalities that the names mention."""
        return {modality for pair in self.weights for modality in pair} - {ANY}

    def of(self, modalities: Iterable[str]) -> dict[tuple[str, str], float]:
        """Return the chosen pairs among the given modalities, with their weights."""
        chosen = {}
        for a, b in combinations(modalities, 2):
            name = match_pair_name((a, b), self.weights)
            if name is not None:
                chosen[(a, b) if _matches(name, (a, b)) else (b, a)] = self.weights[name]
        return chosen

    def mean(
        self, embeddings: Embeddings, zero: Tensor, loss_of: Callable[[Pair], Tensor | None]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted mean of a loss over the chosen pairs, and each pair's loss, detached.

        Pairs without matching vectors in this batch do not count, nor those whose loss is None.

        Args:
            embeddings: of the batch.
            zero: a scalar 0 with gradients of 0.
            loss_of: computes the scalar loss of a pair.
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
    return Pair((a, b), of_a, of_b, (embeddings.rows[a], embeddings.rows[b]))


def _some_match(pair: Pair, rows: int) -> bool:
    """Whether some vector of one modality matches one of the other, in a batch of this number of rows."""
    if len(pair.rows[0]) + len(pair.rows[1]) > rows:  # some row has both: nothing has to be read from the device
        return True
    return bool(_GroupNumbers.of(pair.a.groups, pair.b.groups).known.any())


@dataclass(frozen=True)
class Matches:
    """Sums and counts of the positives, which need no scores.

    Args:
        counts_a: ``(n + 1,)`` int64, the number of vectors of a in each group of a, by rising group; unused places are 0.
        counts_b: ``(n + 1,)`` int64, the number of vectors of b in these groups, and last of those in no group of a.
        sums: ``(n + 1,)``, the sum of the scores of a group's matching vectors; 0 if a side has none.
        of_a: ``(n,)`` int64, the number of positives of each vector of a.
        of_b: ``(m,)`` int64, the number of positives of each vector of b.
    """

    counts_a: Tensor
    counts_b: Tensor
    sums: Tensor
    of_a: Tensor
    of_b: Tensor


def sum_matched_scores(a: Block, b: Block) -> Matches:
    """Sum the scores of the positives in each group, in ``O((n + m) d)``: sums of scores are scores of sums.

    All shapes are known beforehand, so that nothing waits for a GPU.
    """
    numbers, places = _GroupNumbers.of(a.groups, b.groups), len(a.groups) + 1
    counts_a, counts_b = (
        of.new_zeros(places).scatter_add_(0, of, torch.ones_like(of)) for of in (numbers.of_a, numbers.of_b)
    )
    sums_a, sums_b = (
        block.vectors.new_zeros(places, block.vectors.shape[1]).index_add_(0, of, block.vectors)
        for block, of in ((a, numbers.of_a), (b, numbers.of_b))
    )
    sums = torch.linalg.vecdot(sums_a, sums_b)
    return Matches(counts_a, counts_b, sums, counts_b[numbers.of_a], counts_a[numbers.of_b])


@dataclass(frozen=True)
class _GroupNumbers:
    """The groups of a, numbered from 0 by rising group.

    Shapes: ``of_a`` ``(n,)`` and ``of_b`` ``(m,)`` int64 are the numbers of the vectors' groups, n for groups that a has
    not; ``known`` ``(m,)`` bool: whether a has it.
    """

    of_a: Tensor
    of_b: Tensor
    known: Tensor

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> _GroupNumbers:
        ordered, order = a.sort()
        begins = torch.ones_like(ordered, dtype=torch.bool)
        begins[1:] = ordered[1:] != ordered[:-1]
        number = begins.cumsum(0) - 1
        place = torch.searchsorted(ordered, b)  # n: it is greater than all
        known = (place < len(a)) & (functional.pad(ordered, (0, 1))[place] == b)
        of_b = functional.pad(number, (0, 1))[place].masked_fill(~known, len(a))
        return cls(torch.empty_like(order).scatter_(0, order, number), of_b, known)


def shared_rows(rows_a: Tensor, rows_b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions ``(k,)`` of the rows that two ascending lists of distinct rows share."""
    return torch.isin(rows_a, rows_b).nonzero()[:, 0], torch.isin(rows_b, rows_a).nonzero()[:, 0]


def parse_names(by_name: Mapping[str, float], owner: str) -> dict[tuple[str, str], float]:
    """Parse names like "text-image" into pairs of modalities."""
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
            f"{owner}: {name!r} is not a pair of two modalities; write one like 'text-image', or 'image-*' for all that "
            "the image is in."
        )
    return a, b
