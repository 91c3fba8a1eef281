"""Which pairs of modalities are compared, how much each weighs, and what is learned for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.tiles import Block

ANY = "*"


@dataclass(frozen=True)
class Pair:
    """The vectors of two modalities in a batch, where some of one match some of the other.

    Shapes: ``a.vectors`` ``(n, d)``, ``b.vectors`` ``(m, d)``; ``rows[0]`` ``(n,)`` and ``rows[1]`` ``(m,)`` int64.
    """

    names: tuple[str, str]
    a: Block
    b: Block
    rows: tuple[Tensor, Tensor]

    @property
    def same_group(self) -> Tensor:
        """``(n, m)`` bool: whether they match."""
        return self.a.groups[:, None] == self.b.groups

    def of_same_rows(self) -> tuple[Tensor, Tensor]:
        """The positions ``(k,)`` int64 in a and in b of the vectors whose row has both."""
        return common(*self.rows)


class Pairs:
    """A choice of pairs of modalities, with weights.

    Args:
        weights: ``"text-image"``-like name -> weight (> 0). In a name ``*`` is any modality: ``{"image-*": 1}`` is
            the star around the image that ImageBind trains (Girdhar et al. 2023), ``{"*-*": 1, "text-image": 2}`` all
            pairs with one of them weighing double. Of several names the one with fewer ``*`` counts, then the first.
            None: all pairs, each with weight 1.
        owner: the name of the objective, for errors.
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
        """Those that the names name."""
        return {modality for pair in self.weights for modality in pair} - {ANY}

    def of(self, modalities: Iterable[str]) -> dict[tuple[str, str], float]:
        """The chosen pairs among some modalities, and their weights."""
        chosen = {}
        for a, b in combinations(modalities, 2):
            name = find_name((a, b), self.weights)
            if name is not None:
                chosen[(a, b) if _fits(name, (a, b)) else (b, a)] = self.weights[name]
        return chosen

    def mean(
        self, embeddings: Embeddings, zero: Tensor, loss_of: Callable[[Pair], Tensor | None]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted mean of a loss over the chosen pairs, and each pair's own loss, detached.

        Pairs of which no vectors match in this batch do not count, nor those whose loss is None.

        Args:
            embeddings: what the batch has.
            zero: a scalar 0 that carries the gradients of 0.
            loss_of: the scalar loss of a pair.
        """
        total, total_weight, parts = zero, 0.0, {}
        for (a, b), weight in self.of(embeddings.vectors).items():
            blocks = [Block(embeddings.vectors[m], embeddings.groups_of(m)) for m in (a, b)]
            if not torch.isin(blocks[0].groups, blocks[1].groups).any():
                continue
            loss = loss_of(Pair((a, b), blocks[0], blocks[1], (embeddings.rows[a], embeddings.rows[b])))
            if loss is None:
                continue
            parts[f"{a}-{b}"] = loss.detach()
            total = total + weight * loss
            total_weight += weight
        return total / total_weight if total_weight else total, parts


class PairParameter(nn.Module):
    """A learned scalar, one for all pairs or one for each name of pairs.

    Args:
        initial: its first value; or for each name (``*`` as in ``Pairs``) a value of its own.
        pairs: every one of these must find its value.
        owner, what: the names of the objective and of the setting, for errors.
    """

    def __init__(self, initial: float | Mapping[str, float], pairs: Pairs, owner: str, what: str) -> None:
        super().__init__()
        self._places: dict[tuple[str, str], int] = {}
        if not isinstance(initial, Mapping):
            self.value = nn.Parameter(torch.tensor(float(initial)))
            return
        self._places = {name: place for place, name in enumerate(parse_names(initial, owner))}
        self.value = nn.Parameter(torch.tensor([float(value) for value in initial.values()]))
        for pair in pairs.weights:
            if find_name(pair, self._places) is None:
                raise UsageError(
                    f"{owner}: {what} has no value for the pair {'-'.join(pair)!r}; give it one, or '*-*'."
                )

    def of(self, pair: tuple[str, str]) -> Tensor:
        """The scalar for a pair."""
        name = find_name(pair, self._places)
        return self.value if name is None else self.value[self._places[name]]

    def named(self) -> dict[str, Tensor]:
        """Each value, detached, under the name of its pairs; under "" if it is one for all."""
        value = self.value.detach()
        return {"-".join(name): value[place] for name, place in self._places.items()} or {"": value}


class Temperature(nn.Module):
    r"""A learned temperature, one for all pairs or one for each name of pairs.

    What is learned is the logarithm t of the logit scale :math:`e^t`, the inverse of the temperature, as in CLIP;
    before each use t is projected onto :math:`[0, \log(\text{max\_scale})]`, so that the scale can neither explode nor
    vanish. One for all pairs is the default: then cosines of different pairs stay comparable, as a search over several
    modalities at once needs; ImageBind has one for each pair.

    Args:
        initial: in [1 / max_scale, 1].
        max_scale: the bound of the logit scale; CLIP's is 100.
        pairs, owner: as in ``PairParameter``.
    """

    def __init__(self, initial: float | Mapping[str, float], max_scale: float, pairs: Pairs, owner: str) -> None:
        super().__init__()
        if not 1 <= max_scale < math.inf:
            raise UsageError(f"{owner}: max_scale {max_scale} must be at least 1, and finite.")
        for temperature in initial.values() if isinstance(initial, Mapping) else [initial]:
            if not 1 / max_scale <= temperature <= 1:
                raise UsageError(
                    f"{owner}: temperature {temperature} lies outside [1 / max_scale, 1] = [{1 / max_scale}, 1]."
                )
        logs = {n: -math.log(t) for n, t in initial.items()} if isinstance(initial, Mapping) else -math.log(initial)
        self.log_scale = PairParameter(logs, pairs, owner, "temperature")
        self.max_log_scale = math.log(max_scale)

    def project(self) -> None:
        """The projection after the optimizer's last step."""
        with torch.no_grad():
            self.log_scale.value.clamp_(0.0, self.max_log_scale)

    def scaled(self, pair: Pair) -> Block:
        """The first vectors of a pair times the logit scale, so that products with the second are logits."""
        scale = self.log_scale.of(pair.names).exp().to(pair.a.vectors.dtype)
        return Block(scale * pair.a.vectors, pair.a.groups)

    def parts(self) -> dict[str, Tensor]:
        """The temperatures, for the log."""
        return {f"temperature/{name}".rstrip("/"): (-t).exp() for name, t in self.log_scale.named().items()}


@dataclass(frozen=True)
class Matches:
    """What is known of the positives without computing a score.

    Shapes: of g shared groups ``counts_a`` and ``counts_b`` ``(g,)`` int64 are how many vectors each side has, ``sums``
    ``(g,)`` is the sum of the scores of its matching vectors; ``of_a`` ``(n,)`` and ``of_b`` ``(m,)`` int64 are how many
    positives each vector has.
    """

    counts_a: Tensor
    counts_b: Tensor
    sums: Tensor
    of_a: Tensor
    of_b: Tensor


def matched_scores(a: Block, b: Block) -> Matches:
    """The sums of the scores of positives, group by group, without computing any score.

    Sums of scores are scores of sums, so that this takes ``O((n + m) d)``.
    """
    groups, inverse = torch.cat([a.groups, b.groups]).unique(return_inverse=True)
    of_a, of_b = inverse.split([len(a.groups), len(b.groups)])
    counts_a, counts_b = (torch.bincount(of, minlength=len(groups)) for of in (of_a, of_b))
    sums_a, sums_b = (
        block.vectors.new_zeros(len(groups), block.vectors.shape[1]).index_add_(0, of, block.vectors)
        for block, of in ((a, of_a), (b, of_b))
    )
    shared = (counts_a > 0) & (counts_b > 0)
    sums = torch.linalg.vecdot(sums_a, sums_b)
    return Matches(counts_a[shared], counts_b[shared], sums[shared], counts_b[of_a], counts_a[of_b])


def common(rows_a: Tensor, rows_b: Tensor) -> tuple[Tensor, Tensor]:
    """The positions ``(k,)`` of the rows that two ascending lists of distinct rows share."""
    return torch.isin(rows_a, rows_b).nonzero()[:, 0], torch.isin(rows_b, rows_a).nonzero()[:, 0]


def parse_names(by_name: Mapping[str, float], owner: str) -> dict[tuple[str, str], float]:
    """Names like "text-image" as pairs of modalities."""
    names: dict[tuple[str, str], float] = {}
    for name, value in by_name.items():
        a, b = _parse_name(name, owner)
        if (b, a) in names:
            raise UsageError(f"{owner}: {f'{b}-{a}'!r} and {name!r} are the same pair; leave one out.")
        names[a, b] = float(value)
    return names


def find_name(pair: tuple[str, str], names: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The name with the fewest ``*`` that fits a pair, in whichever order it names the two."""
    fitting = [n for n in names if _fits(n, pair) or _fits(n, (pair[1], pair[0]))]
    return min(fitting, key=lambda name: name.count(ANY), default=None)


def _fits(name: tuple[str, str], pair: tuple[str, str]) -> bool:
    return all(part in (ANY, modality) for part, modality in zip(name, pair, strict=True))


def _parse_name(name: str, owner: str) -> tuple[str, str]:
    a, _, b = name.partition("-")
    if not all(part == ANY or part.isidentifier() for part in (a, b)) or (a == b != ANY):
        raise UsageError(
            f"{owner}: {name!r} is no pair of two modalities; write one like 'text-image', or 'image-*' for all that "
            "the image is in."
        )
    return a, b
