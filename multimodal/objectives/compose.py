"""Objectives that contain objectives: a weighted sum, a mean over prefixes of the vectors, dropout of modalities."""

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
    """A weight that changes linearly between two points of the training, and is constant before and after.

    Args:
        start: the weight before it changes.
        end: the weight after it has changed.
        begin: the fraction of the training at which it begins to change, in [0, 1].
        finish: the fraction at which it has changed, in [0, 1], above ``begin``.

    Examples:
        >>> Ramp(start=1.0, end=0.0, begin=0.5).at(0.75)
        0.5
    """

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.finish <= 1:
            raise UsageError(
                f"Ramp: begin {self.begin} and finish {self.finish} must satisfy 0 <= begin < finish <= 1."
            )

    def at(self, progress: float) -> float:
        """Return the weight at a fraction of the training, in [0, 1]."""
        fraction = (progress - self.begin) / (self.finish - self.begin)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, fraction))


class Sum(Objective):
    """Weighted sum of objectives. Their totals and parts are logged as ``name`` and ``name/part``.

    Args:
        objectives: name -> objective.
        weights: name -> weight (at least 0) or a ``Ramp``; an objective that is not named has weight 1.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> from multimodal.objectives import InfoNCE, VICReg
        >>> vectors, rows = torch.eye(2), torch.arange(2)
        >>> batch = Embeddings({"image": vectors, "text": vectors}, {"image": rows, "text": rows}, groups=rows)
        >>> objective = Sum({"contrast": InfoNCE(temperature=1.0), "spread": VICReg()}, {"spread": 0.0})
        >>> round(objective(batch).total.item(), 4)
        0.3133
    """

    def __init__(self, objectives: Mapping[str, Objective], weights: Mapping[str, float | Ramp] | None = None) -> None:
        super().__init__()
        if not objectives:
            raise UsageError("Sum: objectives is empty; give at least one.")
        self.weights = dict(weights or {})
        for name in self.weights:
            if name not in objectives:
                raise UsageError(f"Sum: there is a weight for {name!r}, which is not one of {', '.join(objectives)}.")
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

    def compared_pairs(self, modalities: Sequence[str]) -> set[frozenset[str]] | None:
        pairs: set[frozenset[str]] = set()
        for name, objective in self._objectives.items():
            if self.weights.get(name) == 0.0:
                continue
            pairs_of_one = objective.compared_pairs(modalities)
            if pairs_of_one is None:
                return None
            pairs |= pairs_of_one
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
    """Mean of one objective over prefixes of the vectors (Kusupati et al. 2022, eq. 1, with equal weights).

    Each prefix, scaled to unit length, is an embedding itself: an index may keep only the first 64 of 256 components. The
    total of a prefix is logged as ``64``, its parts as ``64/part``.

    Args:
        objective: applied to every prefix, with the same temperature and heads.
        dims: the numbers of components of the prefixes; include the full width to train it too.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> from multimodal.objectives import InfoNCE
        >>> vectors, rows = torch.eye(2), torch.arange(2)  # two rows whose image and text agree
        >>> batch = Embeddings({"image": vectors, "text": vectors}, {"image": rows, "text": rows}, groups=rows)
        >>> [*Matryoshka(InfoNCE(), [1, 2])(batch).parts][:2]
        ['1', '1/temperature']
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

    def compared_pairs(self, modalities: Sequence[str]) -> set[frozenset[str]] | None:
        return self.objective.compared_pairs(modalities)

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
    """Return the first ``dim`` components of ``(n, d)`` as unit vectors ``(n, dim)``."""
    if dim > vectors.shape[1]:
        raise UsageError(f"Matryoshka: the vectors have {vectors.shape[1]} components, fewer than the {dim} in dims.")
    return functional.normalize(vectors[:, :dim], dim=1)


class ModalityDropout(Objective):
    """Drop vectors at random in training before an objective sees them.

    Each row keeps at least one of its modalities. Dropped vectors have a gradient of 0. In evaluation, nothing is dropped.
    Random numbers come from torch's default generator.

    Args:
        objective: applied to the vectors that are kept.
        rate: the probability that a vector is dropped, in [0, 1); or modality -> probability, 0 for those not named.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> from multimodal.objectives import InfoNCE
        >>> vectors, rows = torch.eye(2), torch.arange(2)  # two rows whose image and text agree
        >>> batch = Embeddings({"image": vectors, "text": vectors}, {"image": rows, "text": rows}, groups=rows)
        >>> ModalityDropout(InfoNCE(), rate=0.5).eval()(batch).total.item() == InfoNCE()(batch).total.item()
        True
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

    def compared_pairs(self, modalities: Sequence[str]) -> set[frozenset[str]] | None:
        return self.objective.compared_pairs(modalities)

    def forward(self, embeddings: Embeddings) -> Loss:
        if not self.training:
            return self.objective(embeddings)
        loss = self.objective(embeddings.keep(self._draw_kept(embeddings)))
        return Loss(loss.total + zero_with_gradients(embeddings, ()), loss.parts)

    def _draw_kept(self, embeddings: Embeddings) -> dict[str, Tensor]:
        """Draw the vectors of each modality that are kept, ``(n_m,)`` bool."""
        n, rates = len(embeddings.groups), self.rate
        keep_scores = torch.full((len(embeddings.vectors), n), -torch.inf, device=embeddings.groups.device)
        for scores, (modality, rows) in zip(keep_scores, embeddings.rows.items(), strict=True):
            rate = rates.get(modality, 0.0) if isinstance(rates, Mapping) else rates
            scores[rows] = torch.rand(len(rows), device=rows.device) - rate
        best = keep_scores.amax(0) if len(keep_scores) else keep_scores.sum(0)
        kept = (keep_scores >= 0) | (keep_scores == best)
        return {m: kept[position, rows] for position, (m, rows) in enumerate(embeddings.rows.items())}
