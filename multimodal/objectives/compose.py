"""Objectives made of objectives: their sum, the same for every prefix of the vectors, or with modalities left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients


@dataclass(frozen=True)
class Ramp:
    """A weight that goes linearly from ``start`` to ``end`` while training goes from ``begin`` to ``finish``.

    The last two are parts of the whole training, in [0, 1]; before and after, the weight stands still.
    """

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.finish <= 1:
            raise UsageError(
                f"Ramp: it must begin and finish within [0, 1], not go from {self.begin} to {self.finish}."
            )

    def at(self, progress: float) -> float:
        done = (progress - self.begin) / (self.finish - self.begin)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, done))


class Sum(Objective):
    """The weighted sum of objectives. The log has their own totals and parts, as ``name`` and ``name/part``.

    Args:
        objectives: name -> objective.
        weights: name -> weight (at least 0), or a ``Ramp``; 1 where there is none.
    """

    def __init__(self, objectives: Mapping[str, Objective], weights: Mapping[str, float | Ramp] | None = None) -> None:
        super().__init__()
        if not objectives:
            raise UsageError("Sum: it needs at least one objective.")
        self.weights = dict(weights or {})
        for name in self.weights:
            if name not in objectives:
                raise UsageError(f"Sum: there is a weight for {name!r}, which is none of {', '.join(objectives)}.")
        for name, weight in self.weights.items():
            ends = (weight.start, weight.end) if isinstance(weight, Ramp) else (weight,)
            if not all(0 <= end < math.inf for end in ends):
                raise UsageError(f"Sum: the weight {weight} of {name!r} must be at least 0, and finite.")
        self.objectives = nn.ModuleDict(objectives)

    @property
    def _objectives(self) -> dict[str, Objective]:
        return {name: each for name, each in self.objectives.items() if isinstance(each, Objective)}

    @property
    def named_modalities(self) -> set[str]:
        return set().union(*(each.named_modalities for each in self._objectives.values()))

    @property
    def named_targets(self) -> set[str]:
        return set().union(*(each.named_targets for each in self._objectives.values()))

    def compared(self, modalities: Sequence[str]) -> set[frozenset[str]] | None:
        pairs: set[frozenset[str]] = set()
        for name, objective in self._objectives.items():
            if self.weights.get(name) == 0.0:
                continue
            of_one = objective.compared(modalities)
            if of_one is None:
                return None
            pairs |= of_one
        return pairs

    def forward(self, embeddings: Embeddings) -> Loss:
        total = zero_with_gradients(embeddings, ())
        parts: dict[str, Tensor] = {}
        for name, objective in self._objectives.items():
            loss = objective(embeddings)
            weight = self.weights.get(name, 1.0)
            total = total + loss.total * (weight.at(self.progress) if isinstance(weight, Ramp) else weight)
            parts[name] = loss.total.detach()
            parts |= {f"{name}/{part}": value for part, value in loss.parts.items()}
        return Loss(total, parts)


class Matryoshka(Objective):
    """The mean of one objective over prefixes of the vectors (Kusupati et al. 2022, eq. 1, with equal weights).

    Each prefix, made a unit vector again, is then itself an embedding: an index may keep the first 64 of 256
    components. The log has the parts as ``64/part`` and the prefix's total as ``64``.

    Args:
        objective: for every prefix the same, with the same temperature and heads.
        dims: the lengths of the prefixes; name the whole width too, to train it.
    """

    def __init__(self, objective: Objective, dims: Sequence[int]) -> None:
        super().__init__()
        if not dims or min(dims) < 1 or len(set(dims)) < len(dims):
            raise UsageError(
                f"Matryoshka: dims {list(dims)} must be different numbers of at least 1, like [64, 128, 256]."
            )
        self.objective, self.dims = objective, sorted(dims)

    @property
    def named_modalities(self) -> set[str]:
        return self.objective.named_modalities

    @property
    def named_targets(self) -> set[str]:
        return self.objective.named_targets

    def compared(self, modalities: Sequence[str]) -> set[frozenset[str]] | None:
        return self.objective.compared(modalities)

    def forward(self, embeddings: Embeddings) -> Loss:
        total = zero_with_gradients(embeddings, ())
        parts: dict[str, Tensor] = {}
        for dim in self.dims:
            loss = self.objective(
                replace(embeddings, vectors={m: prefix(v, dim) for m, v in embeddings.vectors.items()})
            )
            total = total + loss.total / len(self.dims)
            parts[str(dim)] = loss.total.detach()
            parts |= {f"{dim}/{part}": value for part, value in loss.parts.items()}
        return Loss(total, parts)


def prefix(vectors: Tensor, dim: int) -> Tensor:
    """The first ``dim`` components of ``(n, d)`` as unit vectors ``(n, dim)``."""
    if dim > vectors.shape[1]:
        raise UsageError(f"Matryoshka: the vectors have {vectors.shape[1]} components, fewer than the prefix of {dim}.")
    return functional.normalize(vectors[:, :dim], dim=1)


class ModalityDropout(Objective):
    """An objective that in training sees each vector only with some probability.

    A row that has any modality keeps at least one. Dropped vectors have a gradient of 0. Random numbers are torch's.

    Args:
        objective: what to minimise.
        rate: the probability that a vector is dropped, in [0, 1); or modality -> probability, 0 for others.
    """

    def __init__(self, objective: Objective, rate: float | Mapping[str, float] = 0.1) -> None:
        super().__init__()
        for each in rate.values() if isinstance(rate, Mapping) else [rate]:
            if not 0 <= each < 1:
                raise UsageError(f"ModalityDropout: rate {each} lies outside [0, 1).")
        self.objective, self.rate = objective, rate

    @property
    def named_modalities(self) -> set[str]:
        return self.objective.named_modalities | (set(self.rate) if isinstance(self.rate, Mapping) else set())

    @property
    def named_targets(self) -> set[str]:
        return self.objective.named_targets

    def compared(self, modalities: Sequence[str]) -> set[frozenset[str]] | None:
        return self.objective.compared(modalities)

    def forward(self, embeddings: Embeddings) -> Loss:
        if not self.training:
            return self.objective(embeddings)
        loss = self.objective(embeddings.keep(self._draw(embeddings)))
        return Loss(loss.total + zero_with_gradients(embeddings, ()), loss.parts)

    def _draw(self, embeddings: Embeddings) -> dict[str, Tensor]:
        """For each modality which of its vectors stay, ``(n_m,)`` bool."""
        n, rates = len(embeddings.groups), self.rate
        luck = torch.full((len(embeddings.vectors), n), -torch.inf, device=embeddings.groups.device)
        for chances, (modality, rows) in zip(luck, embeddings.rows.items(), strict=True):
            rate = rates.get(modality, 0.0) if isinstance(rates, Mapping) else rates
            chances[rows] = torch.rand(len(rows), device=rows.device) - rate
        best = luck.amax(0) if len(luck) else luck.sum(0)
        stays = (luck >= 0) | (luck == best)
        return {m: stays[place, rows] for place, (m, rows) in enumerate(embeddings.rows.items())}
