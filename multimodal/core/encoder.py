"""The contract of a modality: a processor for the data workers, an encoder for the model.

1. raw value -> ``Processor.__call__`` -> item (what one sample contributes; small, picklable);
2. items -> ``Processor.collate`` -> inputs (a dict of tensors, ready for the device);
3. inputs -> ``Encoder.forward`` -> features ``(n, width)``.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from multimodal.core.layers import let_single_rows_pass
from multimodal.core.strided_convolutions import avoid_damaging_convolutions

Inputs = dict[str, Tensor]


class Processor(ABC):
    """The cheap, picklable half of an encoder: raw value -> item, items -> inputs.

    Subclasses say what raw values they take (a path, a string, an array, ...). What they cannot read they refuse with
    an ``Unreadable`` that says what would be right; the reader adds the row and column.
    """

    reads_files: bool = False  # a string in a table is a file's path, relative to the table; else it is the value

    @abstractmethod
    def __call__(self, value: Any) -> Any:
        """One raw value -> one item."""

    def process(self, values: Sequence[Any]) -> list[Any]:
        """Many raw values -> their items, as they are one by one; for processors that are faster with many at once."""
        return [self(value) for value in values]

    def cost(self, item: Any) -> float:
        """What an item costs its encoder, where an ordinary one costs 1: items are padded to the longest of a batch.

        ``Embedder.encode`` puts items of like cost together, and as many in a batch as cost the same in all.
        """
        return 1.0

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Inputs:
        """Items (at least one) -> the keyword arguments of the encoder's ``forward``, as tensors."""

    def augment(self, item: Any, rng: np.random.Generator) -> Any:
        """A random variant of an item, drawn for training only. By default the item itself."""
        return item

    def fit(self, values: Iterable[Any]) -> None:  # noqa: B027 (most processors learn nothing)
        """Learn from the raw values of the training split (a vocabulary, a mean)."""

    def examples(self) -> list[Any]:
        """Raw values to try an exported encoder with: two at least, of different sizes (above 1) where values have a size."""
        return []

    def linear_features(self) -> Any | None:
        """A fresh scikit-learn transformer, raw values -> ``(n, f)`` features, for the linear baseline; None: there is none."""
        return None

    def state(self) -> dict[str, Any]:
        """What ``fit`` learned, as JSON values; saved with the model and in checkpoints."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state to load, got {sorted(state)}.")


class Encoder(nn.Module, ABC):
    """An ``nn.Module`` for one modality: inputs -> features ``(n, width)``.

    A subclass sets ``width`` and ``processor`` in its constructor. The constructor's arguments are its configuration:
    they must be JSON values (numbers, strings, booleans, None, lists, dicts), are recorded as ``settings`` and saved
    with the model, which is rebuilt by calling the constructor with them. A constructor that reads files (pretrained
    weights, their configuration) replaces in ``settings`` what names these by what they hold, weights aside, so that the
    saved model does without them.
    """

    width: int
    processor: Processor
    settings: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)

    @abstractmethod
    def forward(self, **inputs: Tensor) -> Tensor:
        """The tensors of ``processor.collate`` for n items -> features ``(n, width)``."""

    def fit(self, values: Iterable[Any]) -> None:
        """Learn from the raw values of the training split: what the processor learns, and buffers that depend on it."""
        self.processor.fit(values)

    def parts(self, library: str) -> dict[str, Any] | None:
        """What of this encoder a library's own format consists of, for export; None: it is no encoder of that library.

        For "open_clip": ``tower`` ("image" or "text"), ``model_cfg`` (open_clip's configuration of the whole model),
        ``state`` (the tower's weights by their names in that model), of the image tower perhaps ``preprocess_cfg``, and of
        the text tower perhaps ``files``, texts by their names, which its tokenizer is read from.
        For "sentence-transformers": ``modules``, the library's modules that make the features of texts, and further
        arguments of ``SentenceTransformer`` such as ``prompts``.
        """
        return None


def _recording(init: Any) -> Any:
    signature = inspect.signature(init)
    kinds = {p.kind: p.name for p in signature.parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        raise TypeError(f"{init.__qualname__}: an encoder's settings have names; it can take no *arguments.")
    more = kinds.get(inspect.Parameter.VAR_KEYWORD, "")  # the name of **settings

    @functools.wraps(init)
    def recording_init(self: Encoder, *args: Any, **kwargs: Any) -> None:
        outermost = not hasattr(self, "settings")
        if outermost:  # its arguments are the ones to call again
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            settings = {name: v for name, v in bound.arguments.items() if name != "self"}
            settings |= settings.pop(more, {})
            object.__setattr__(self, "settings", settings)  # nn.Module's own needs its constructor to have run
        init(self, *args, **kwargs)
        if outermost:
            let_single_rows_pass(self)
            avoid_damaging_convolutions(self)

    return recording_init
