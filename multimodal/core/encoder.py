"""The interface of a modality: a processor for the data workers, an encoder for the model.

1. raw value -> ``Processor.__call__`` -> item (what one sample contributes; small, picklable);
2. items -> ``Processor.collate`` -> inputs (a dict of tensors, ready for the device);
3. inputs -> ``Encoder.forward`` -> features ``(n, width)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Signature, signature
from typing import Any

import numpy as np
from torch import Tensor, nn

from multimodal.core.batch_norm import use_running_stats_for_single_values
from multimodal.core.parts import Parts
from multimodal.core.recording import record_arguments
from multimodal.core.strided_convolutions import avoid_damaging_convolutions

Inputs = dict[str, Tensor]
Corruption = Callable[[Any, np.random.Generator], Any]  # a raw value -> a corrupted one


class Processor(ABC):
    """The cheap, picklable half of an encoder: raw value -> item, items -> inputs.

    Subclasses document the raw values that they accept (a path, a string, an array, ...). For a value that they cannot read
    they raise an ``Unreadable`` that says what would be right; the reader adds the row and column.

    Attributes:
        reads_files: whether a string in a table is the path of a file, relative to the table; else it is the value.

    Examples:
        >>> import torch
        >>> class Lengths(Processor):
        ...     def __call__(self, value: str) -> int:
        ...         return len(value)
        ...     def collate(self, items):
        ...         return {"lengths": torch.tensor(items)}
        >>> processor = Lengths()
        >>> processor.collate(processor.process(["cup", "teapot"]))
        {'lengths': tensor([3, 6])}
    """

    reads_files: bool = False

    @abstractmethod
    def __call__(self, value: Any) -> Any:
        """Turn one raw value into an item."""

    def is_one_value(self, given: np.ndarray | Tensor | list[Any] | tuple[Any, ...]) -> bool:
        """Whether an array, list or tuple is one raw value, such as a picture; by default it holds several.

        Args:
            given: what ``Embedder.encode`` was given.
        """
        return False

    def process(self, values: Sequence[Any]) -> list[Any]:
        """Turn raw values into items; override it if processing many values at once is faster."""
        return [self(value) for value in values]

    def cost(self, item: Any) -> float:
        """Return the relative cost of encoding an item; an ordinary item costs 1.

        Items are padded to the longest of a batch. ``Embedder.encode`` batches items of similar cost, so that batches cost
        about the same.
        """
        return 1.0

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Inputs:
        """Turn items (at least one) into the keyword arguments of the encoder's ``forward``, as tensors."""

    def augment(self, item: Any, rng: np.random.Generator) -> Any:
        """Return a random variant of an item, for training only. By default the item itself."""
        return item

    def fit(self, values: Iterable[Any]) -> None:  # noqa: B027 (most processors learn nothing)
        """Fit to the raw values of the training split (a vocabulary, a mean)."""

    def examples(self) -> list[Any]:
        """Return raw values to test an exported encoder with: at least two, of different sizes (above 1) if sizes vary."""
        return []

    def preprocessing(self) -> dict[str, Any] | None:
        """Describe how a raw value becomes inputs, as JSON values for the example of an export to ONNX; None: it has none.

        ``kind`` is what ``multimodal/export/example`` does with a value ("picture", "subwords", "tokens", "terms", "words"
        or "numbers"); the rest are its settings. The inputs of a batch of one value must be those of ``collate``.
        """
        return None

    def linear_features(self) -> Any | None:
        """Return a scikit-learn transformer, raw values -> ``(n, f)`` features, for the linear baseline; or None."""
        return None

    def parts(self, value: Any) -> Parts | None:
        """Take a raw value apart, so that ``explain`` can say which part made it match; None: it cannot be taken apart.

        ``multimodal.media.parts`` does so for texts, pictures, sounds and graphs.

        Args:
            value: a raw value, as ``__call__`` reads it.

        Raises:
            Unreadable: the value cannot be read.

        Examples:
            >>> from multimodal import create
            >>> processor = create("image", "small_cnn", size=16).processor
            >>> parts = processor.parts(np.zeros((16, 16), np.uint8))
            >>> len(parts), parts.names[0]
            (64, 'row 1, column 1')
        """
        return None

    def corruptions(self) -> Mapping[str, Corruption]:
        """Return named corruptions of raw values, under which ``Robustness`` measures the retrieval; by default none.

        Each takes a raw value and a random generator, does not change the value, and returns another value that
        ``__call__`` reads. ``multimodal.media.corruptions`` has some for texts, pictures, sounds and graphs.
        """
        return {}

    def drawing(self, value: Any) -> str | None:
        """Return a raw value as an SVG drawing, for reports. By default None: texts, pictures and sounds are shown as such.

        Args:
            value: a raw value that this processor reads.
        """
        return None

    def neighbour_features(self) -> Any | None:
        """Return a transformer for finding like values by the cosines of its features; or None, see ``linear_features``."""
        return self.linear_features()

    def state(self) -> dict[str, Any]:
        """Return what ``fit`` learned, as JSON values; it is saved with the model and in checkpoints."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state to load, got {sorted(state)}.")


class Encoder(nn.Module, ABC):
    """An ``nn.Module`` for one modality: inputs -> features ``(n, width)``.

    A subclass sets ``width`` and ``processor`` in its constructor. The constructor's arguments are its configuration:
    JSON values (numbers, strings, booleans, None, lists, dicts), recorded as ``settings`` and saved with the model, which is
    rebuilt by calling the constructor with them. A constructor that reads files (pretrained weights, their configuration)
    replaces the file names in ``settings`` by the contents, except weights, so that the saved model does not need the files.

    Attributes:
        width: the number of features.
        processor: turns raw values into inputs.
        init_args: the constructor's arguments.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> class Bags(Encoder):
        ...     def __init__(self, width: int = 4) -> None:
        ...         super().__init__()
        ...         self.width, self.table = width, nn.Embedding(10, width)
        ...     def forward(self, tokens):  # (n, length) -> (n, width)
        ...         return self.table(tokens).mean(dim=1)
        >>> encoder = Bags(width=8)
        >>> encoder.settings, encoder(tokens=torch.ones(2, 3, dtype=torch.long)).shape
        ({'width': 8}, torch.Size([2, 8]))
    """

    width: int
    processor: Processor
    init_args: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments that rebuild the encoder, with names of files replaced by their contents."""
        return vars(self).setdefault("_settings", dict(self.init_args))

    @settings.setter
    def settings(self, settings: dict[str, Any]) -> None:
        vars(self)["_settings"] = settings

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = record_arguments(cls.__init__, _adapt)

    @abstractmethod
    def forward(self, **inputs: Tensor) -> Tensor:
        """Compute features ``(n, width)`` from the tensors that ``processor.collate`` returns for n items."""

    def fit(self, values: Iterable[Any]) -> None:
        """Fit the processor, and buffers that depend on it, to the raw values of the training split."""
        self.processor.fit(values)

    def forward_signature(self) -> Signature:
        """Return the signature of ``forward``: its parameters name the inputs of an exported encoder."""
        return signature(self.forward)

    def parts(self, library: str) -> dict[str, Any] | None:
        """Return the parts that a library's own format needs, for export. None: it is not an encoder of that library.

        For "open_clip": ``tower`` ("image" or "text"), ``model_cfg`` (open_clip's configuration of the complete model),
        ``state`` (the tower's weights by their names in that model), optionally ``preprocess_cfg`` for the image tower, and
        optionally ``files`` for the text tower: name -> contents of the files of its tokenizer.
        For "sentence-transformers": ``modules``, the library's modules that compute the features of texts, and further
        arguments of ``SentenceTransformer`` such as ``prompts``.
        """
        return None


def _adapt(encoder: Encoder) -> None:
    """Prepare a newly built encoder for training."""
    use_running_stats_for_single_values(encoder)
    avoid_damaging_convolutions(encoder)
