"""From raw values to vectors: items of similar cost go through an encoder together, to keep padding low.

1. An argument of any supported type becomes a sequence of raw values (``as_values``).
2. Raw values are read until items for several batches are waiting (``windows_of_items``).
3. The waiting items are sorted by cost and cut into batches of about equal work (``batches_by_cost``).
4. The vectors of each batch are put at the positions of their values (``encode_values``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, ValuesView
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.core.encoder import Inputs, Processor
from multimodal.core.errors import MultimodalError, UsageError

BATCHES_PER_WINDOW = 64  # batches of work that may wait


def as_values(given: Any, processor: Processor) -> tuple[Any, bool]:
    """Return a sequence of raw values, and whether ``given`` was one value.

    A list, tuple or any other sequence, an iterator, and a column of pandas or Arrow are several values; so is an array
    or tensor (along its first axis). If it is one value for the processor (pixels of a picture, samples of a sound,
    components of a vector), it is one. Anything else is one value: a string, bytes, a path, a picture, a mapping, a graph.

    Args:
        given: an argument of ``Embedder.encode``.
        processor: the modality's processor.

    Raises:
        UsageError: it is a table of several columns.
    """
    if isinstance(given, str | bytes):
        return [given], True
    if isinstance(given, np.generic):
        return [given.item()], True
    if isinstance(given, np.ndarray) and given.dtype == object and given.ndim == 1:
        given = given.tolist()
    if isinstance(given, np.ndarray | Tensor) and given.ndim == 0:
        return [given.item()], True
    if isinstance(given, np.ndarray | Tensor | list | tuple) and processor.is_one_value(given):
        return [given], True
    if isinstance(given, Sequence | np.ndarray | Tensor):
        return given, False
    if isinstance(given, Iterator | ValuesView):
        return list(given), False
    if hasattr(given, "columns") and hasattr(given, "shape"):
        raise UsageError(
            f"encode() takes the values of one column, or a list of mappings, but a {type(given).__name__} has several"
            " columns."
        )
    for name in ("to_pylist", "to_list", "tolist"):  # of Arrow; of pandas and polars; of arrays of pandas
        if hasattr(given, name):
            return getattr(given, name)(), False
    return [given.as_py()] if hasattr(given, "as_py") else [given], True  # a cell of Arrow


def encode_values(
    processor: Processor,
    modality: str,
    values: Sequence[Any],
    batch_size: int,
    vectors_of: Callable[[Sequence[Any]], Tensor],
    dim: int,
) -> np.ndarray:
    """Encode raw values to vectors ``(n, dim)`` float32, in the same order.

    Args:
        processor: the modality's processor.
        modality: its name, for errors.
        values: n raw values.
        batch_size: the number of items of ordinary cost in a batch.
        vectors_of: computes the vectors ``(items, dim)`` of the items of one batch.
        dim: the width of the vectors.

    Raises:
        MultimodalError: a value cannot be read; the message says which.
    """
    done, vectors = 0, np.empty((len(values), dim), dtype=np.float32)
    places, encoded = np.empty(0, dtype=np.int64), torch.empty(0, dim)
    for items, costs in windows_of_items(processor, modality, values, batch_size):
        vectors[places] = encoded.float().cpu().numpy()  # a GPU was computing them while these items were read
        batches = batches_by_cost(costs, batch_size)
        encoded = torch.cat([vectors_of([items[i] for i in rows]) for rows in batches])
        places = done + np.concatenate(batches)
        done += len(items)
    vectors[places] = encoded.float().cpu().numpy()
    return vectors


class ReadItems(Processor):
    """Passes items of another processor through, as if they were raw values.

    Args:
        processor: the processor that returned them.

    Examples:
        >>> from multimodal import create
        >>> ReadItems(create("image", "small_cnn").processor)("an item")
        'an item'
    """

    def __init__(self, processor: Processor) -> None:
        self._processor = processor

    def __call__(self, value: Any) -> Any:
        return value

    def cost(self, item: Any) -> float:
        return self._processor.cost(item)

    def collate(self, items: Sequence[Any]) -> Inputs:
        return self._processor.collate(items)


def windows_of_items(
    processor: Processor, modality: str, values: Sequence[Any], batch_size: int
) -> Iterator[tuple[list[Any], list[float]]]:
    """Yield items and their costs in the order of the values: one batch at a time if all cost the same, else several.

    Args:
        processor: the modality's processor.
        modality: its name, for errors.
        values: the raw values.
        batch_size: the number of items of ordinary cost in a batch.

    Raises:
        MultimodalError: a value cannot be read; the message says which.
    """
    items: list[Any] = []
    costs: list[float] = []
    for start in range(0, len(values), batch_size):
        of_batch = [values[i] for i in range(start, min(start + batch_size, len(values)))]
        processed = _process_or_locate_error(processor, modality, start, of_batch, alone=len(values) == 1)
        items += processed
        costs += map(processor.cost, processed)
        if min(costs) == max(costs) or sum(costs) >= BATCHES_PER_WINDOW * batch_size:
            yield items, costs
            items, costs = [], []
    if items:
        yield items, costs


def batches_by_cost(costs: Sequence[float], limit: float) -> list[np.ndarray]:
    """Cut positions, sorted by falling cost, into batches whose size times largest cost is at most ``limit``.

    A batch has at least one item. The most costly come first, so that a batch that does not fit into memory fails early.
    """
    order = np.argsort(-np.asarray(costs), kind="stable")
    batches, start = [], 0
    while start < len(order):
        count = max(int(limit / costs[order[start]]), 1)
        batches.append(order[start : start + count])
        start += count
    return batches


def _process_or_locate_error(
    processor: Processor, modality: str, start: int, values: list[Any], alone: bool
) -> list[Any]:
    """Process values; an error names the position of the first one that cannot be read, counted from ``start``, if any."""
    try:
        return processor.process(values)
    except MultimodalError:
        for position, value in enumerate(values, start):
            try:
                processor(value)
            except MultimodalError as error:
                named = modality if alone else f"{modality} value {position}"
                raise MultimodalError(f"{named}: {error}") from None
        raise
