"""Items of similar cost are batched together, and each vector is at the position of its value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.encoding import BATCHES_PER_WINDOW, batches_by_cost, windows_of_items
from multimodal.core.errors import MultimodalError, Unreadable, UsageError

costs = st.lists(st.floats(0.05, 20), min_size=1, max_size=60)


class Lengths(Processor):
    """A processor that turns n into n ones; negative numbers cannot be read."""

    def __call__(self, value: Any) -> Tensor:
        if value < 0:
            raise Unreadable("negative", f"{value} is negative.")
        return torch.ones(int(value))

    def cost(self, item: Tensor) -> float:
        return len(item) / 4

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        return {"rows": torch.nn.utils.rnn.pad_sequence(list(items), batch_first=True)}


class Sums(Encoder):
    """An encoder with the features 1, sum and squared sum, which records the shapes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor = 3, Lengths()
        self.shapes: list[tuple[int, ...]] = []
        self.weight = torch.nn.Parameter(torch.ones(3, 3))

    def forward(self, rows: Tensor) -> Tensor:
        self.shapes.append(tuple(rows.shape))
        total = rows.sum(dim=1)
        return torch.stack([torch.ones_like(total), total, total**2 / 50], dim=1) @ (self.weight + torch.eye(3))


def embedder() -> tuple[Embedder, Sums]:
    encoder = Sums()
    return Embedder({"number": encoder}, 3, {"number": "none"}), encoder


@given(costs=costs, limit=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_item_is_in_one_batch_and_no_batch_exceeds_the_limit(costs: list[float], limit: int) -> None:
    batches = batches_by_cost(costs, limit)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(costs)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * max(costs[i] for i in rows) <= limit
    sorted_costs = [costs[i] for i in np.concatenate(batches)]
    assert sorted_costs == sorted(costs, reverse=True)


def test_items_of_equal_cost_are_batched_at_the_given_size_without_waiting() -> None:
    class EqualCosts(Lengths):
        def cost(self, item: Tensor) -> float:
            return 1.0

    sizes = [len(items) for items, _ in windows_of_items(EqualCosts(), "number", list(range(10)), 4)]
    assert sizes == [4, 4, 2]
    assert [rows.tolist() for rows in batches_by_cost([1.0] * 6, 4)] == [[0, 1, 2, 3], [4, 5]]


def test_the_number_of_waiting_items_is_bounded() -> None:
    values = [4, 8] * 4 * BATCHES_PER_WINDOW  # of cost 1 and 2
    windows = list(windows_of_items(Lengths(), "number", values, 3))
    assert [value for items, _ in windows for value in map(len, items)] == values
    assert all(sum(costs) <= BATCHES_PER_WINDOW * 3 + 6 for _, costs in windows)
    assert len(windows) >= 4


@given(values=st.lists(st.integers(1, 40), min_size=1, max_size=80), batch_size=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_the_vectors_are_in_the_order_of_their_values(values: list[int], batch_size: int) -> None:
    model, _ = embedder()
    alone = np.concatenate([model.encode(number=[value]) for value in values])
    np.testing.assert_allclose(model.encode(batch_size=batch_size, number=values), alone, atol=1e-6)


def test_long_values_are_in_small_batches_and_short_ones_in_large_ones() -> None:
    model, encoder = embedder()
    model.encode(batch_size=8, number=[1, 32, 31] + [1] * 39 + [4] * 8)
    assert encoder.shapes == [(1, 32), (1, 31), (8, 4), (32, 1), (8, 1)]


def test_an_unreadable_value_in_a_later_batch_is_named_by_its_position() -> None:
    with pytest.raises(MultimodalError, match=r"number value 5: -1 is negative"):
        embedder()[0].encode(batch_size=2, number=[3, 2, 4, 1, 1, -1, -1])
    with pytest.raises(MultimodalError, match=r"^number: -1 is negative"):
        embedder()[0].encode(number=[-1])


def test_encoding_in_bfloat16_returns_float32() -> None:
    model, _ = embedder()
    exact, fast = model.encode(number=[3, 7]), model.encode(precision="bfloat16", number=[3, 7])
    assert fast.dtype == np.float32
    assert 0 < np.abs(exact - fast).max() < 0.02
    with pytest.raises(UsageError, match="a precision of float32 or bfloat16, got 'half'"):
        model.encode(precision="half", number=[3])  # pyright: ignore[reportArgumentType]


def test_items_are_encoded_as_their_values_are_in_batches_of_similar_cost() -> None:
    whole, encoder = embedder()
    values = [9, 1, 30, 2, 8, 1]
    expected = whole.encode(number=values, batch_size=4)
    shapes, encoder.shapes = encoder.shapes, []
    items = whole.processors["number"].process(values)
    assert np.array_equal(whole.encode_items("number", items, batch_size=4), expected)
    assert encoder.shapes == shapes
    assert whole.encode_items("number", []).shape == (0, 3)
    with pytest.raises(UsageError, match="batch_size of at least 1, got 0"):
        whole.encode_items("number", items, batch_size=0)
