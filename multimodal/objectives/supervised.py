"""Supervised objectives: a linear head on the shared space predicts a target of the row (class, labels, numbers).

The head's size is that of the shared space and of the training rows' target, unless it is given. It is saved with the model,
see ``heads.trained_predictors``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.core.predictors import Kind, TargetSummary
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients

MAX_INFERRED_CLASSES = 1_000_000  # from numbers; more are taken for a mistake


class Head(nn.Module):
    """A linear layer on the shared space, one for all modalities.

    For a prefix of a vector it uses the same prefix of the weights (the efficient MRL-E of Kusupati et al. 2022), so that it
    works inside ``Matryoshka`` too.

    Args:
        dim: the width of the shared space. None: not known yet, see ``build``.
        outputs: the number of outputs. None: not known yet.
        owner: the name of the objective, for errors.

    Examples:
        >>> import torch
        >>> Head(dim=8, outputs=3, owner="Regression")(torch.ones(2, 4)).shape  # a prefix of 4
        torch.Size([2, 3])
    """

    linear: nn.Linear

    def __init__(self, dim: int | None, outputs: int | None, owner: str) -> None:
        super().__init__()
        self.owner = owner
        if dim is not None and outputs is not None:
            self.build(dim, outputs)

    @property
    def is_built(self) -> bool:
        """Whether its sizes are known."""
        return "linear" in self._modules

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        self._check_built()
        return self.linear.out_features

    def _check_built(self) -> None:
        if not self.is_built:
            raise UsageError(
                f"{self.owner}: its sizes are inferred when training begins; set them where it is used without a trainer."
            )

    def build(self, dim: int, outputs: int) -> None:
        """Create the weights, at random."""
        if dim < 1 or outputs < 1:
            raise UsageError(f"{self.owner}: the width {dim} and the number of outputs {outputs} must be at least 1.")
        self.linear = nn.Linear(dim, outputs)

    def forward(self, vectors: Tensor) -> Tensor:
        """Predict ``(n, outputs)`` from ``(n, d)``, d at most dim."""
        self._check_built()
        if vectors.shape[1] > self.linear.in_features:
            raise UsageError(
                f"{self.owner}: dim {self.linear.in_features} is less than the width {vectors.shape[1]} of the vectors; "
                "leave it out, or give it the dim of the model."
            )
        weight, bias = (p.to(vectors.dtype) for p in (self.linear.weight, self.linear.bias))
        return functional.linear(vectors, weight[:, : vectors.shape[1]], bias)


class TargetObjective(Objective):
    """Base class of objectives with a head that predicts one target of the rows; they do not compare modalities.

    Args:
        target: the name of the target.
        outputs: the number of the head's outputs. None: inferred from the training rows.
        dim: the width of the shared space. None: the model's.
        modalities: those to predict the target from; None: all.

    Attributes:
        kind: what is predicted, see ``core.predictors.Predictions``.
        names: the names of the outputs, as far as they are known.

    Examples:
        >>> Classification("kind", classes=2, dim=2).named_targets
        {'kind'}
    """

    kind: ClassVar[Kind]

    def __init__(self, target: str, outputs: int | None, dim: int | None, modalities: Sequence[str] | None) -> None:
        super().__init__()
        self.target, self.modalities = target, modalities
        self.outputs, self.dim = outputs, dim
        self.names: tuple[str, ...] = ()
        self.head = Head(dim, outputs, type(self).__name__)

    @property
    def named_modalities(self) -> set[str]:
        return set(self.modalities or ())

    @property
    def named_targets(self) -> set[str]:
        return {self.target}

    def compared_pairs(self, modalities: Sequence[str]) -> set[frozenset[str]]:
        return set()

    def learn_sizes(self, dim: int, summary: TargetSummary | None, seed: int) -> None:
        """Name the outputs, and create the head if it is not there.

        Args:
            dim: the width of the shared space, for a head without its own.
            summary: the training rows' target. None: not known.
            seed: of the weights.

        Raises:
            UsageError: the number of outputs is neither given nor known, or is less than the training rows need.
        """
        outputs = self.outputs
        if summary is not None:
            self.names = summary.names
            needed = self._needed_outputs(summary)
            if outputs is None:
                outputs = needed
            elif summary.names and outputs < len(summary.names):
                raise UsageError(
                    f"{type(self).__name__}: {outputs} outputs are too few for the {len(summary.names)} names of the target"
                    f" {self.target!r} in the training split; leave the number out."
                )
        if not self.head.is_built:
            if outputs is None:
                raise UsageError(
                    f"{type(self).__name__}: the number of outputs for the target {self.target!r} is not known before"
                    " training: the rows are not read by a DataModule, or are streamed; set it."
                )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.head.build(dim if self.dim is None else self.dim, outputs)

    @abstractmethod
    def _needed_outputs(self, summary: TargetSummary) -> int | None:
        """Return the number of outputs for the training rows' target; None: it is not known."""

    def weights_in_units(self) -> tuple[Tensor, Tensor]:
        """Return the head's weight ``(outputs, dim)`` and bias ``(outputs,)`` that predict in the target's units."""
        return self.head.linear.weight.detach(), self.head.linear.bias.detach()


class Classification(TargetObjective):
    """Classification: the cross-entropy of a linear head's softmax.

    The total is the mean over the modalities with a labelled vector in the batch; the loss of a modality is the mean over
    its labelled vectors.

    Args:
        target: the name of the target, ``(n,)`` class numbers from 0, NaN where it is not known.
        classes: the number of classes. None: those of the training split.
        dim: the width of the shared space. None: the model's ``dim``.
        modalities: those to predict the target from; None: all.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> rows, known = torch.arange(2), {"kind": torch.tensor([0.0, 1.0])}
        >>> batch = Embeddings({"text": torch.eye(2)}, {"text": rows}, groups=rows, targets=known)
        >>> Classification("kind", classes=2, dim=2)(batch).parts.keys()
        dict_keys(['text'])
    """

    kind = "classes"

    def __init__(
        self,
        target: str,
        classes: int | None = None,
        dim: int | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        super().__init__(target, classes, dim, modalities)

    def _needed_outputs(self, summary: TargetSummary) -> int | None:
        if summary.names:
            return len(summary.names)
        if not (0 <= summary.largest < MAX_INFERRED_CLASSES and summary.width == 1):
            raise UsageError(
                f"Classification: the target {self.target!r} has {summary.width} numbers per row, up to {summary.largest:g};"
                " classes are names, or whole numbers from 0."
            )
        return int(summary.largest) + 1 if summary.complete else None

    def forward(self, embeddings: Embeddings) -> Loss:
        def loss_of(vectors: Tensor, classes: Tensor) -> Tensor:
            number = self.head.outputs
            if not ((classes >= 0) & (classes < number) & (classes == classes.floor())).all():
                raise UsageError(f"Classification: target {self.target!r} must be whole numbers in [0, {number}).")
            return functional.cross_entropy(self.head(vectors), classes.long())

        zero = zero_with_gradients(embeddings, self.parameters())
        return _mean_over_modalities(embeddings, self.modalities, self.target, 1, zero, loss_of)


class MultiLabel(TargetObjective):
    """Multi-label classification: the binary cross-entropy of a linear head's sigmoids.

    The total is the mean over the modalities with a labelled vector in the batch; the loss of a modality is the mean over
    its known labels.

    Args:
        target: the name of the target, ``(n, labels)`` of 0 and 1 (or probabilities), NaN where it is not known.
        labels: the number of labels. None: that of the training rows.
        dim: the width of the shared space. None: the model's ``dim``.
        modalities: those to predict the target from; None: all.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> rows, known = torch.arange(2), {"tags": torch.tensor([[0.0, 1.0], [1.0, 1.0]])}
        >>> batch = Embeddings({"text": torch.eye(2)}, {"text": rows}, groups=rows, targets=known)
        >>> MultiLabel("tags", labels=2, dim=2)(batch).parts.keys()
        dict_keys(['text'])
    """

    kind = "labels"

    def __init__(
        self,
        target: str,
        labels: int | None = None,
        dim: int | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        super().__init__(target, labels, dim, modalities)

    def _needed_outputs(self, summary: TargetSummary) -> int | None:
        return len(summary.names) or summary.width

    def forward(self, embeddings: Embeddings) -> Loss:
        def loss_of(vectors: Tensor, labels: Tensor) -> Tensor:
            known = ~labels.isnan()
            if not ((labels[known] >= 0) & (labels[known] <= 1)).all():
                raise UsageError(f"MultiLabel: target {self.target!r} must lie in [0, 1].")
            return functional.binary_cross_entropy_with_logits(self.head(vectors).view_as(labels)[known], labels[known])

        zero, labels = zero_with_gradients(embeddings, self.parameters()), self.head.outputs
        return _mean_over_modalities(embeddings, self.modalities, self.target, labels, zero, loss_of)


class Regression(TargetObjective):
    """Regression: the mean squared error of a linear head. It works best with standardised targets.

    With ``standardise``, the error is that of the standardised numbers; the saved head predicts in the target's own units.

    The total is the mean over the modalities with a vector that has a target; the loss of a modality is the mean over its
    known numbers.

    Args:
        target: the name of the target, ``(n,)`` or ``(n, outputs)``, NaN where it is not known.
        dim: the width of the shared space. None: the model's ``dim``.
        outputs: how many numbers the target has per row. None: those of the training rows.
        modalities: those to predict the target from; None: all.
        standardise: subtract the mean of the training rows and divide by their standard deviation.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> rows, known = torch.arange(2), {"price": torch.tensor([0.0, 1.0])}
        >>> batch = Embeddings({"text": torch.eye(2)}, {"text": rows}, groups=rows, targets=known)
        >>> Regression("price", dim=2)(batch).parts.keys()
        dict_keys(['text'])
    """

    kind = "numbers"
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        target: str,
        dim: int | None = None,
        outputs: int | None = None,
        modalities: Sequence[str] | None = None,
        standardise: bool = False,
    ) -> None:
        super().__init__(target, 1 if outputs is None and dim is not None else outputs, dim, modalities)
        self.standardise = standardise

    def _needed_outputs(self, summary: TargetSummary) -> int | None:
        if summary.names:
            raise UsageError(
                f"Regression: the target {self.target!r} has names, like {summary.names[0]!r}; it needs numbers."
            )
        return summary.width

    def learn_sizes(self, dim: int, summary: TargetSummary | None, seed: int) -> None:
        super().learn_sizes(dim, summary, seed)
        if not self.standardise:
            return
        if summary is None:
            raise UsageError("Regression: standardise needs training rows that a DataModule reads.")
        deviation = torch.as_tensor(summary.deviation, dtype=torch.float32)
        self.register_buffer("mean", torch.as_tensor(summary.mean, dtype=torch.float32))
        self.register_buffer("deviation", torch.where(deviation > 0, deviation, 1.0))

    def weights_in_units(self) -> tuple[Tensor, Tensor]:
        weight, bias = super().weights_in_units()
        if self.standardise:
            weight, bias = weight * self.deviation[:, None], bias * self.deviation + self.mean
        return weight, bias

    def forward(self, embeddings: Embeddings) -> Loss:
        def loss_of(vectors: Tensor, numbers: Tensor) -> Tensor:
            known = ~numbers.isnan()
            if self.standardise:
                mean, deviation = (part.to(numbers.dtype) for part in (self.mean, self.deviation))
                numbers = ((numbers.view(len(numbers), -1) - mean) / deviation).view_as(numbers)
            return functional.mse_loss(self.head(vectors).view_as(numbers)[known], numbers[known])

        zero, outputs = zero_with_gradients(embeddings, self.parameters()), self.head.outputs
        return _mean_over_modalities(embeddings, self.modalities, self.target, outputs, zero, loss_of)


def _mean_over_modalities(
    embeddings: Embeddings,
    modalities: Sequence[str] | None,
    target: str,
    width: int,
    zero: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> Loss:
    """Average a loss over the modalities with a vector whose target is known, at least in part."""
    parts: dict[str, Tensor] = {}
    total = zero
    for modality, vectors in embeddings.vectors.items():
        if target not in embeddings.targets or (modalities is not None and modality not in modalities):
            continue
        values = embeddings.targets_of(modality, target).to(vectors.dtype)
        if values[:1].numel() != width * len(values[:1]):
            raise UsageError(
                f"Target {target!r} has {values[:1].numel()} numbers per row, but the objective expects {width}."
            )
        known = ~values.isnan().flatten(1).all(1) if values.ndim > 1 else ~values.isnan()
        if known.any():
            loss = loss_of(vectors[known], values[known])
            parts[modality] = loss.detach()
            total = total + loss
    return Loss(total / max(1, len(parts)), parts)
