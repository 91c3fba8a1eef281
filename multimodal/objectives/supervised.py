"""Supervised objectives: a linear head on the shared space predicts a target of the row (class, labels, numbers)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients


class Head(nn.Module):
    """A linear layer on the shared space, one for all modalities.

    For a prefix of a vector it uses the same prefix of the weights (the efficient MRL-E of Kusupati et al. 2022), so that it
    works inside ``Matryoshka`` too.

    Args:
        dim: the width of the shared space.
        outputs: the number of outputs.
        owner: the name of the objective, for errors.

    Examples:
        >>> import torch
        >>> Head(dim=8, outputs=3, owner="Regression")(torch.ones(2, 4)).shape  # a prefix of 4
        torch.Size([2, 3])
    """

    def __init__(self, dim: int, outputs: int, owner: str) -> None:
        super().__init__()
        if dim < 1 or outputs < 1:
            raise UsageError(f"{owner}: the width {dim} and the number of outputs {outputs} must be at least 1.")
        self.owner = owner
        self.linear = nn.Linear(dim, outputs)

    def forward(self, vectors: Tensor) -> Tensor:
        """Predict ``(n, outputs)`` from ``(n, d)``, d at most dim."""
        if vectors.shape[1] > self.linear.in_features:
            raise UsageError(
                f"{self.owner}: dim {self.linear.in_features} is less than the width {vectors.shape[1]} of the vectors; "
                "give it the dim of the model."
            )
        weight, bias = (p.to(vectors.dtype) for p in (self.linear.weight, self.linear.bias))
        return functional.linear(vectors, weight[:, : vectors.shape[1]], bias)


class _TargetObjective(Objective):
    """A head that predicts one target of the rows; it does not compare modalities."""

    def __init__(self, target: str, outputs: int, dim: int, modalities: Sequence[str] | None) -> None:
        super().__init__()
        self.target, self.modalities = target, modalities
        self.head = Head(dim, outputs, type(self).__name__)

    @property
    def named_modalities(self) -> set[str]:
        return set(self.modalities or ())

    @property
    def named_targets(self) -> set[str]:
        return {self.target}

    def compared_pairs(self, modalities: Sequence[str]) -> set[frozenset[str]]:
        return set()


class Classification(_TargetObjective):
    """Classification: the cross-entropy of a linear head's softmax.

    The total is the mean over the modalities with a labelled vector in the batch; the loss of a modality is the mean over
    its labelled vectors.

    Args:
        target: the name of the target, ``(n,)`` class numbers from 0, NaN where it is not known.
        classes: the number of classes.
        dim: the width of the shared space, the model's ``dim``.
        modalities: those to predict the target from; None: all.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> rows, known = torch.arange(2), {"kind": torch.tensor([0.0, 1.0])}
        >>> batch = Embeddings({"text": torch.eye(2)}, {"text": rows}, groups=rows, targets=known)
        >>> Classification("kind", classes=2, dim=2)(batch).parts.keys()
        dict_keys(['text'])
    """

    def __init__(self, target: str, classes: int, dim: int, modalities: Sequence[str] | None = None) -> None:
        super().__init__(target, classes, dim, modalities)

    def forward(self, embeddings: Embeddings) -> Loss:
        def loss_of(vectors: Tensor, classes: Tensor) -> Tensor:
            number = self.head.linear.out_features
            if not ((classes >= 0) & (classes < number) & (classes == classes.floor())).all():
                raise UsageError(f"Classification: target {self.target!r} must be whole numbers in [0, {number}).")
            return functional.cross_entropy(self.head(vectors), classes.long())

        zero = zero_with_gradients(embeddings, self.parameters())
        return _mean_over_modalities(embeddings, self.modalities, self.target, 1, zero, loss_of)


class MultiLabel(_TargetObjective):
    """Multi-label classification: the binary cross-entropy of a linear head's sigmoids.

    The total is the mean over the modalities with a labelled vector in the batch; the loss of a modality is the mean over
    its known labels.

    Args:
        target: the name of the target, ``(n, labels)`` of 0 and 1 (or probabilities), NaN where it is not known.
        labels: the number of labels.
        dim: the width of the shared space, the model's ``dim``.
        modalities: those to predict the target from; None: all.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> rows, known = torch.arange(2), {"tags": torch.tensor([[0.0, 1.0], [1.0, 1.0]])}
        >>> batch = Embeddings({"text": torch.eye(2)}, {"text": rows}, groups=rows, targets=known)
        >>> MultiLabel("tags", labels=2, dim=2)(batch).parts.keys()
        dict_keys(['text'])
    """

    def __init__(self, target: str, labels: int, dim: int, modalities: Sequence[str] | None = None) -> None:
        super().__init__(target, labels, dim, modalities)

    def forward(self, embeddings: Embeddings) -> Loss:
        def loss_of(vectors: Tensor, labels: Tensor) -> Tensor:
            known = ~labels.isnan()
            if not ((labels[known] >= 0) & (labels[known] <= 1)).all():
                raise UsageError(f"MultiLabel: target {self.target!r} must lie in [0, 1].")
            return functional.binary_cross_entropy_with_logits(self.head(vectors).view_as(labels)[known], labels[known])

        zero, labels = zero_with_gradients(embeddings, self.parameters()), self.head.linear.out_features
        return _mean_over_modalities(embeddings, self.modalities, self.target, labels, zero, loss_of)


class Regression(_TargetObjective):
    """Regression: the mean squared error of a linear head. It works best with standardised targets.

    The total is the mean over the modalities with a vector that has a target; the loss of a modality is the mean over its
    known numbers.

    Args:
        target: the name of the target, ``(n,)`` or ``(n, outputs)``, NaN where it is not known.
        dim: the width of the shared space, the model's ``dim``.
        outputs: how many numbers the target has per row.
        modalities: those to predict the target from; None: all.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> rows, known = torch.arange(2), {"price": torch.tensor([0.0, 1.0])}
        >>> batch = Embeddings({"text": torch.eye(2)}, {"text": rows}, groups=rows, targets=known)
        >>> Regression("price", dim=2)(batch).parts.keys()
        dict_keys(['text'])
    """

    def __init__(self, target: str, dim: int, outputs: int = 1, modalities: Sequence[str] | None = None) -> None:
        super().__init__(target, outputs, dim, modalities)

    def forward(self, embeddings: Embeddings) -> Loss:
        def loss_of(vectors: Tensor, numbers: Tensor) -> Tensor:
            known = ~numbers.isnan()
            return functional.mse_loss(self.head(vectors).view_as(numbers)[known], numbers[known])

        zero, outputs = zero_with_gradients(embeddings, self.parameters()), self.head.linear.out_features
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
