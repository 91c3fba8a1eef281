"""Rows have equal digests exactly if their encoders get the same."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from multimodal.core.encoder import Inputs, Processor
from multimodal.search.row_digest import row_digest


@dataclass(frozen=True)
class Point:
    """An item of a type that has no digest of its own."""

    place: int


class Points(Processor):
    """Items are points."""

    def __call__(self, value: Any) -> Point:
        return Point(value)

    def collate(self, items: Any) -> Inputs:
        return {"places": torch.tensor([item.place for item in items])}


PROCESSORS = {"a": Points(), "b": Points()}
ROWS: list[dict[str, Any]] = [
    {},
    {"a": [1, 2]},
    {"b": [1, 2]},
    {"a": [[1], 2]},
    {"a": [12]},
    {"a": ["1", "2"]},
    {"a": "1,2"},
    {"a": [1.0, 2.0]},
    {"a": [1, 2], "b": [1, 2]},
    {"a": [1], "b": [2]},
    {"a": np.array([1, 2])},
    {"a": np.array([1, 2], dtype=np.int32)},
    {"a": np.array([[1, 2]])},
    {"a": np.array([[1], [2]])},
    {"a": torch.tensor([1.0, 2.0])},
    {"a": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)},
    {"a": {"x": torch.tensor([1.0]), "y": torch.tensor([2.0])}},
    {"a": {"x": torch.tensor([1.0, 2.0])}},
    {"a": None},
    {"a": b"1"},
    {"a": Point(1)},
    {"a": Point(2)},
    {"a": [Point(1)] * 0},
]


def test_different_items_have_different_digests() -> None:
    digests = [row_digest(row, PROCESSORS) for row in ROWS]
    assert {len(digest) for digest in digests} == {16}
    for (first, one), (second, other) in combinations(zip(digests, ROWS, strict=True), 2):
        assert first != second, (one, other)


@pytest.mark.parametrize("row", ROWS)
def test_equal_items_have_equal_digests(row: dict[str, Any]) -> None:
    copies = {modality: np.copy(item) if isinstance(item, np.ndarray) else item for modality, item in row.items()}
    assert row_digest(dict(reversed(copies.items())), PROCESSORS) == row_digest(row, PROCESSORS)


def test_an_item_of_an_unknown_type_is_judged_by_its_inputs() -> None:
    assert row_digest({"a": Point(7)}, PROCESSORS) == row_digest({"a": Point(7)}, PROCESSORS)
