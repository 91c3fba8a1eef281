"""Predictors: the trained heads of supervised objectives, as they are saved with a model and used after training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from multimodal.core.errors import MultimodalError, UsageError, suggest

Kind = Literal["classes", "labels", "numbers"]
PREFIX = "predictors"  # of the names of their weights in a model's file
LIKELY = 0.5  # probability from which a row has a label of several


@dataclass(frozen=True)
class TargetSummary:
    """What the training rows say of a target, from which a head's size, names and units follow.

    Args:
        names: the names of the classes or labels, sorted; empty: the target is numeric.
        width: the numbers that a row has; 1 for a class.
        largest: the largest number.
        mean: ``(width,)`` mean of the known numbers.
        deviation: ``(width,)`` their standard deviation.
        complete: whether all training rows were read; of a stream, only the first are.

    Examples:
        >>> TargetSummary.of([[1.0], [3.0]], ["1", "3"]).deviation.tolist()
        [1.0]
    """

    names: tuple[str, ...]
    width: int
    largest: float
    mean: np.ndarray
    deviation: np.ndarray
    complete: bool = True

    @classmethod
    def of(cls, numbers: list[list[float]], names: list[str], complete: bool = True) -> TargetSummary:
        """Summarise the numbers of rows, at least one.

        Args:
            numbers: a row's numbers, as many for each row; NaN: not known.
            names: the names of the classes or labels; empty: the target is numeric.
            complete: whether these are all training rows.
        """
        values = np.array(numbers, dtype=np.float64)
        known = ~np.isnan(values)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, values, 0).sum(0) / count
        deviation = np.sqrt((np.where(known, values - mean, 0) ** 2).sum(0) / count)
        return cls(tuple(names), values.shape[1], float(np.nanmax(values, initial=-np.inf)), mean, deviation, complete)


@dataclass(frozen=True)
class Predictions:
    """The predicted target of n values, or of one.

    Args:
        target: the name of the target.
        kind: "classes" (one of several), "labels" (any of several) or "numbers".
        names: c names: of the classes, of the labels, or of the numbers.
        values: ``(n, c)`` float32, or ``(c,)`` for one value: probabilities in [0, 1], or numbers in the target's units.

    Examples:
        >>> predictions = Predictions("kind", "classes", ("cup", "jug"), np.array([[0.9, 0.1], [0.2, 0.8]]))
        >>> predictions.labels
        ['cup', 'jug']
        >>> predictions[1].labels
        'jug'
    """

    target: str
    kind: Kind
    names: tuple[str, ...]
    values: np.ndarray

    @property
    def labels(self) -> Any:
        """The most probable class of each value, or the list of its labels of probability 0.5 and more.

        Raises:
            UsageError: the target is numeric.
        """
        if self.kind == "numbers":
            raise UsageError(f"{self.target!r} is a target of numbers, which are in `values`; it has no labels.")
        if self.values.ndim > 1:
            return [self[row].labels for row in range(len(self))]
        if self.kind == "classes":
            return self.names[int(self.values.argmax())]
        return [self.names[position] for position in np.flatnonzero(self.values >= LIKELY)]

    def __len__(self) -> int:
        return len(self.values) if self.values.ndim > 1 else 1

    def __getitem__(self, row: int) -> Predictions:
        return Predictions(self.target, self.kind, self.names, np.atleast_2d(self.values)[row])


@dataclass(frozen=True)
class Predictor:
    """A linear layer from a vector of the shared space to a target.

    Args:
        target: the name of the target.
        kind: see ``Predictions``.
        names: see ``Predictions``.
        weight: ``(c, d)`` float32; it reads the first d components, scaled to unit length.
        bias: ``(c,)`` float32.
        modalities: those that it was trained on; empty: all.

    Examples:
        >>> predictor = Predictor("kind", "classes", ("cup", "jug"), np.eye(2), np.zeros(2))
        >>> predictor(np.array([0.0, 1.0])).labels
        'jug'
    """

    target: str
    kind: Kind
    names: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray
    modalities: tuple[str, ...] = ()

    def __call__(self, vectors: np.ndarray) -> Predictions:
        """Predict the target from unit vectors ``(n, dim)`` or ``(dim,)``."""
        vectors = np.asarray(vectors, dtype=np.float64)
        used = vectors[..., : self.weight.shape[1]]
        if used.shape[-1] < vectors.shape[-1]:
            used = used / np.maximum(np.linalg.norm(used, axis=-1, keepdims=True), 1e-12)
        scores = used @ self.weight.T.astype(np.float64) + self.bias
        if self.kind == "classes":
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
        elif self.kind == "labels":
            scores = 0.5 * (1 + np.tanh(scores / 2))  # the sigmoid, without overflow
        return Predictions(self.target, self.kind, self.names, scores.astype(np.float32))


def find_predictor(predictors: Mapping[str, Predictor], target: str | None) -> Predictor:
    """Return the predictor of a target; None: the only one.

    Raises:
        UsageError: there is none, or there are several and none is named.
    """
    if not predictors:
        raise UsageError(
            "This model predicts no target: it was trained without Classification, MultiLabel or Regression, or by a version"
            " that did not save their heads."
        )
    if target is None and len(predictors) > 1:
        raise UsageError(f"This model predicts {', '.join(predictors)}: say which one, by target.")
    name = next(iter(predictors)) if target is None else target
    if name not in predictors:
        raise UsageError(f"This model predicts no target {name!r}.{suggest(name, list(predictors))}")
    return predictors[name]


def describe_predictors(predictors: Mapping[str, Predictor]) -> dict[str, Any]:
    """Return the entry of a model's description, empty without predictors: JSON values."""
    described = {
        name: {
            "target": p.target,
            "kind": p.kind,
            "names": list(p.names),
            "modalities": list(p.modalities),
            "dim": p.weight.shape[1],
        }
        for name, p in predictors.items()
    }
    return {PREFIX: described} if described else {}


def predictor_weights(predictors: Mapping[str, Predictor]) -> dict[str, Tensor]:
    """Return the weights by their names in a model's file."""
    return {
        f"{PREFIX}.{name}.{part}": torch.from_numpy(np.asarray(values, dtype=np.float32))
        for name, p in predictors.items()
        for part, values in (("weight", p.weight), ("bias", p.bias))
    }


def expected_predictor_weights(description: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return tensors without memory, of the shapes that the weights of a description must have."""
    return {
        f"{PREFIX}.{name}.{part}": torch.empty(shape, device="meta")
        for name, entry in description.get(PREFIX, {}).items()
        for part, shape in (("weight", (len(entry["names"]), entry["dim"])), ("bias", (len(entry["names"]),)))
    }


def build_predictors(description: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Predictor]:
    """Build the predictors of a model that was read; see ``describe_predictors`` and ``predictor_weights``."""
    predictors = {}
    for name, entry in description.get(PREFIX, {}).items():
        weight, bias = (weights[f"{PREFIX}.{name}.{part}"].float().numpy() for part in ("weight", "bias"))
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise MultimodalError(f"The head that predicts {name!r} has weights that are not finite.")
        names, modalities = tuple(entry["names"]), tuple(entry["modalities"])
        predictors[name] = Predictor(entry["target"], entry["kind"], names, weight, bias, modalities)
    return predictors


def check_predictors(description: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` if the entry of a model's description is malformed."""
    for name, entry in description.get(PREFIX, {}).items():
        texts = [entry["target"], entry["kind"], *entry["names"], *entry["modalities"]]
        has_dim = isinstance(entry["dim"], int) and 1 <= entry["dim"] <= description["dim"]
        if not has_dim or not entry["names"] or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"the predictor {name!r} is invalid")
        if entry["kind"] not in get_args(Kind):
            raise ValueError(f"the predictor {name!r} has an unknown kind")
