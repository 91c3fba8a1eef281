"""The interface of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.core.recording import Recorded
from multimodal.objectives.pairs import Pairs


@dataclass(frozen=True)
class Loss:
    """A loss and its parts.

    Args:
        total: a scalar to minimise.
        parts: name -> detached scalar, for the log.

    Examples:
        >>> import torch
        >>> Loss(torch.tensor(0.5), {"text-image": torch.tensor(0.5)}).total.item()
        0.5
    """

    total: Tensor
    parts: dict[str, Tensor]


class Objective(Recorded, nn.Module, ABC):
    """A loss function of embeddings. Its parameters (such as a temperature) are trained with the model.

    The total must depend on every vector and parameter, if only by a gradient of 0 (see ``zero_with_gradients``), so that
    a batch with nothing to compare can be trained on. An objective that compares pairs of modalities has an attribute
    ``pairs``, which says which ones.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> class Spread(Objective):
        ...     def forward(self, embeddings: Embeddings) -> Loss:
        ...         parts = {m: (v.T @ v).square().mean() for m, v in embeddings.vectors.items()}
        ...         return Loss(sum(parts.values(), start=zero_with_gradients(embeddings, ())), parts)
        >>> rows = torch.arange(2)
        >>> Spread()(Embeddings({"text": torch.eye(2)}, {"text": rows}, groups=rows)).total.item()
        0.5
    """

    progress: float = 0.0
    """The fraction of the training that is done, in [0, 1]; ``set_progress`` sets it."""

    @property
    def _pairs(self) -> Pairs | None:
        pairs = getattr(self, "pairs", None)
        return pairs if isinstance(pairs, Pairs) else None

    @property
    def named_modalities(self) -> set[str]:
        """The modalities named in its settings."""
        return set() if self._pairs is None else self._pairs.modalities

    @property
    def named_targets(self) -> set[str]:
        """The targets named in its settings."""
        return set()

    def compared_pairs(self, modalities: Sequence[str]) -> set[frozenset[str]] | None:
        """Return which pairs of the given modalities it compares, or None if that is unknown."""
        return None if self._pairs is None else {frozenset(pair) for pair in self._pairs.of(modalities)}

    def set_progress(self, progress: float) -> None:
        """Set the fraction of the training that is done, in this objective and those that it contains."""
        for module in self.modules():
            if isinstance(module, Objective):
                module.progress = progress

    @abstractmethod
    def forward(self, embeddings: Embeddings) -> Loss:
        """Compute the loss of a batch's embeddings."""

    def __call__(self, embeddings: Embeddings) -> Loss:
        """Call ``forward`` and check its result, since users write objectives of their own.

        Raises:
            UsageError: the result is not a ``Loss``.
        """
        loss = super().__call__(embeddings)
        if not isinstance(loss, Loss):
            raise UsageError(f"{type(self).__name__} returned a {type(loss).__name__}; return Loss(total, parts).")
        return loss


def zero_with_gradients(embeddings: Embeddings, parameters: Iterable[Tensor]) -> Tensor:
    """Return a scalar 0 whose gradient with respect to every vector and parameter is 0."""
    return sum((t.sum() * 0.0 for t in (*embeddings.vectors.values(), *parameters)), start=torch.zeros(()))
