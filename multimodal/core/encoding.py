"""Items of like cost go through an encoder together, so that little of a batch is padding.

1. Raw values are read until the items wait for some batches of work (``windows``).
2. Those that wait are sorted by cost and cut into batches of about equal work (``batches``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError

WINDOW = 64  # batches of work that may wait


def windows(
    processor: Processor, modality: str, values: Sequence[Any], batch_size: int
) -> Iterator[tuple[list[Any], list[float]]]:
    """The items of raw values in their order, and their costs, some batches of work at a time; one where all cost the same.

    Raises:
        MultimodalError: a value cannot be read; the message says which.
    """
    items: list[Any] = []
    costs: list[float] = []
    for start in range(0, len(values), batch_size):
        read = _items(
            processor, modality, start, [values[i] for i in range(start, min(start + batch_size, len(values)))]
        )
        items += read
        costs += map(processor.cost, read)
        if min(costs) == max(costs) or sum(costs) >= WINDOW * batch_size:
            yield items, costs
            items, costs = [], []
    if items:
        yield items, costs


def batches(costs: Sequence[float], limit: float) -> list[np.ndarray]:
    """Positions of the items by falling cost, in batches in which their number times the largest cost is at most ``limit``.

    A batch has one item at least. The costliest come first: what does not fit into memory fails at once.
    """
    order = np.argsort(-np.asarray(costs), kind="stable")
    made, start = [], 0
    while start < len(order):
        count = max(int(limit / costs[order[start]]), 1)
        made.append(order[start : start + count])
        start += count
    return made


def _items(processor: Processor, modality: str, start: int, values: list[Any]) -> list[Any]:
    try:
        return processor.process(values)
    except MultimodalError:
        for position, value in enumerate(values, start):
            try:
                processor(value)
            except MultimodalError as error:
                raise MultimodalError(f"{modality} value {position}: {error}") from error
        raise
