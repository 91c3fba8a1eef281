"""A table seen as samples: values, keys, groups and splits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.samples import Samples

CELLS: dict[str, Sequence[Any]] = {
    "picture": ["a.png", None, "c.png", None],
    "title": ["cup", "mug", None, None],
    "sku": ["s-0", "s-1", "s-2", "s-3"],
    "product": [7, 7, None, 8],
    "part": ["train", "test", "train", "test"],
}
COLUMNS = {"image": "picture", "text": "title"}


class ShopTable:
    """Columns of cells."""

    name = "shop"
    metadata_columns = ("title", "product")

    def __init__(self, cells: dict[str, Sequence[Any]]) -> None:
        self.cells, self.columns = cells, tuple(cells)

    def __len__(self) -> int:
        return len(next(iter(self.cells.values())))

    def value(self, row: int, column: str) -> Any:
        return self.cells[column][row]


def samples_of(cells: dict[str, Sequence[Any]], columns: dict[str, str], **options: str) -> Samples:
    with patch("multimodal.data.samples.open_table", return_value=ShopTable(cells)):
        return Samples("shop", columns, **options)


@pytest.fixture
def shop() -> Samples:
    return samples_of(CELLS, COLUMNS, key="sku", group="product", split="part")


def test_a_sample_has_the_values_that_its_row_has(shop: Samples) -> None:
    assert len(shop) == 4
    assert shop.modalities == ["image", "text"]
    assert [dict(shop[row].values) for row in range(4)] == [
        {"image": "a.png", "text": "cup"},
        {"text": "mug"},
        {"image": "c.png"},
        {},
    ]


def test_only_the_asked_modalities_are_read(shop: Samples) -> None:
    assert dict(shop.read(0, ["text"]).values) == {"text": "cup"}


def test_keys_and_groups_are_the_cells_of_their_columns(shop: Samples) -> None:
    assert [(s.key, s.group) for s in map(shop.__getitem__, range(4))] == [
        ("s-0", "=7"),
        ("s-1", "=7"),
        ("s-2", "#2"),  # no group: alone under its number
        ("s-3", "=8"),
    ]


def test_without_a_key_and_a_group_column_a_row_is_its_number_and_alone() -> None:
    bare = samples_of(CELLS, COLUMNS)
    assert [(s.key, s.group) for s in map(bare.__getitem__, range(4))] == [(n, f"#{n}") for n in "0123"]


@given(st.lists(st.sampled_from([None, 0, 1, 2, "2", "=2", "#2", "#", "None"]), min_size=3, max_size=12))
def test_a_row_without_a_group_is_alone_whatever_the_groups_are_called(groups: list[Any]) -> None:
    samples = samples_of({"title": groups, "product": groups}, {"text": "title"}, group="product")
    of = [samples.group_of(row) for row in range(len(groups))]
    for row, group in enumerate(groups):
        alike = [row] if group is None else [r for r, g in enumerate(groups) if g is not None and str(g) == str(group)]
        assert [r for r, name in enumerate(of) if name == of[row]] == alike


def test_rows_with_a_missing_key_are_named_by_their_number() -> None:
    samples = samples_of({"title": ["cup", "mug", "pot"], "sku": [None, "s-1", None]}, {"text": "title"}, key="sku")
    assert [samples.key_of(row) for row in range(3)] == ["0", "s-1", "2"]
    assert len({samples.group_of(row) for row in range(3)}) == 3


def test_the_settings_are_json_values_that_make_the_same_samples(shop: Samples) -> None:
    settings = {"table": "shop", "columns": COLUMNS, "key": "sku", "group": "product", "split": "part"}
    assert json.loads(json.dumps(shop.settings)) == shop.settings == settings
    with patch("multimodal.data.samples.open_table", return_value=ShopTable(CELLS)):
        assert Samples(**shop.settings) == shop
    assert samples_of(CELLS, COLUMNS).settings == {"table": "shop", "columns": COLUMNS} | dict.fromkeys(
        ("key", "group", "split")
    )


def test_the_metadata_are_the_cells_that_the_table_names(shop: Samples) -> None:
    assert shop.metadata(2) == {"title": None, "product": None}
    assert shop.metadata(0) == {"title": "cup", "product": 7}


def test_values_skips_the_missing_ones(shop: Samples) -> None:
    assert list(shop.values("image", np.arange(4))) == ["a.png", "c.png"]
    assert list(shop.values("text", np.array([1, 2]))) == ["mug"]


@given(st.lists(st.sampled_from(["train", "test", "dev", ""]), min_size=1, max_size=30))
def test_splits_hold_their_rows_in_ascending_order(names: list[str]) -> None:
    samples = samples_of({"title": names, "part": names}, {"text": "title"}, split="part")
    expected: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        expected.setdefault(name, []).append(row)
    assert {name: rows.tolist() for name, rows in samples.splits.items()} == expected
    for name, rows in expected.items():
        assert samples.rows(name).tolist() == rows
    assert samples.rows("all").tolist() == list(range(len(names)))


def test_without_a_split_column_there_is_all_alone() -> None:
    bare = samples_of(CELLS, COLUMNS)
    assert list(bare.splits) == ["all"]
    assert bare.rows("all").tolist() == [0, 1, 2, 3]
    with pytest.raises(UsageError, match=r"no split 'test'.*Known: all"):
        bare.rows("test")


def test_an_unknown_split_is_answered_with_the_close_and_the_known_ones(shop: Samples) -> None:
    with pytest.raises(UsageError, match=r"'shop' has no split 'tests'.*Did you mean 'test'\?.*all, test, train"):
        shop.rows("tests")


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"image": "pictures"}, {}, r"columns\.image: .*'shop' has no column 'pictures'.*Did you mean 'picture'\?"),
        (COLUMNS, {"key": "skus"}, r"key: .*'skus'.*Did you mean 'sku'\?"),
        (COLUMNS, {"group": "products"}, r"group: .*'products'.*Did you mean 'product'.*\?"),
        (COLUMNS, {"split": "qqq"}, r"split: .*'qqq'\. Known: part, picture, product, sku, title"),
        ({}, {}, "need columns"),
    ],
)
def test_a_missing_column_is_answered_with_the_option_and_the_columns(
    columns: dict[str, str], options: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        samples_of(CELLS, columns, **options)


def test_a_failure_is_told_with_its_table_row_key_and_column(shop: Samples) -> None:
    error = shop.failed(1, "text", MultimodalError("it is empty."))
    assert str(error) == "table 'shop', row 1 (key s-1), column 'title': it is empty."
