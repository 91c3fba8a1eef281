"""Samples of a table have the right values, keys, groups, splits, targets and negatives."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.batch import Sample
from multimodal.core.encoder import Inputs, Processor
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.registry import create
from multimodal.core.rejects import Reject
from multimodal.core.table import Table
from multimodal.data.samples import Samples

CELLS: dict[str, Sequence[Any]] = {
    "picture": ["a.png", None, "c.png", None],
    "title": ["cup", "mug", None, None],
    "sku": ["s-0", "s-1", "s-2", "s-3"],
    "product": [7, 7, None, 8],
    "part": ["train", "test", "train", "test"],
}
COLUMNS = {"image": "picture", "text": "title"}


class ShopTable(Table):
    """Columns of cells."""

    name = "shop"
    metadata_columns = ("title", "product")

    def __init__(self, cells: Mapping[str, Sequence[Any]]) -> None:
        self.cells, self.columns = cells, tuple(cells)

    def __len__(self) -> int:
        return len(next(iter(self.cells.values())))

    def value(self, row: int, column: str) -> Any:
        return self.cells[column][row]


def samples_of(cells: Mapping[str, Sequence[Any]], columns: Mapping[str, Any], **options: Any) -> Samples:
    return Samples.of(ShopTable(cells), columns, **options)


@pytest.fixture
def shop() -> Samples:
    return samples_of(CELLS, COLUMNS, key="sku", group="product", split="part")


def test_samples_show_their_table_and_the_meaning_of_its_columns(shop: Samples) -> None:
    columns = "image from picture, text from title"
    assert repr(shop) == f"Samples of 4 rows of 'shop': {columns}; key sku; group product; split part"
    shared = samples_of(CELLS, {"text": ["title", "sku"]}, split={"train": 0.75, "test": 0.25})
    assert repr(shared) == "Samples of 4 rows of 'shop': text from title or sku; split train 0.75, test 0.25"


def test_a_sample_has_the_values_of_its_row(shop: Samples) -> None:
    assert len(shop) == 4
    assert shop.modalities == ["image", "text"]
    assert [dict(shop[row].values) for row in range(4)] == [
        {"image": "a.png", "text": "cup"},
        {"text": "mug"},
        {"image": "c.png"},
        {},
    ]


def test_keys_and_groups_are_the_cells_of_their_columns(shop: Samples) -> None:
    assert [(s.key, s.group) for s in map(shop.__getitem__, range(4))] == [
        ("s-0", "=7"),
        ("s-1", "=7"),
        ("s-2", "#2"),  # no group: alone under its number
        ("s-3", "=8"),
    ]


def test_without_a_key_and_a_group_column_a_row_has_its_number_and_is_alone() -> None:
    bare = samples_of(CELLS, COLUMNS)
    assert [(s.key, s.group) for s in map(bare.__getitem__, range(4))] == [(n, f"#{n}") for n in "0123"]


@given(st.lists(st.sampled_from([None, 0, 1, 2, "2", "=2", "#2", "#", "None"]), min_size=3, max_size=12))
def test_a_row_without_a_group_is_alone_for_any_names_of_groups(groups: list[Any]) -> None:
    samples = samples_of({"title": groups, "product": groups}, {"text": "title"}, group="product")
    names = [samples.group_of(row) for row in range(len(groups))]
    for row, group in enumerate(groups):
        alike = [row] if group is None else [r for r, g in enumerate(groups) if g is not None and str(g) == str(group)]
        assert [r for r, name in enumerate(names) if name == names[row]] == alike


def test_rows_with_a_missing_key_are_named_by_their_number() -> None:
    samples = samples_of({"title": ["cup", "mug", "pot"], "sku": [None, "s-1", None]}, {"text": "title"}, key="sku")
    assert [samples.key_of(row) for row in range(3)] == ["0", "s-1", "2"]
    assert len({samples.group_of(row) for row in range(3)}) == 3


def test_the_settings_are_json_values_that_create_the_same_samples() -> None:
    shop = samples_of(CELLS, {"image": "picture", "text": ["title", "sku"]}, key="sku", split={"a": 0.5, "b": 0.5})
    settings = shop.settings
    assert json.loads(json.dumps(settings)) == settings
    assert settings["table"] == "shop"
    again = Samples.of(**(settings | {"table": ShopTable(CELLS)}))  # pyright: ignore[reportArgumentType]
    assert again.settings == settings
    assert {name: rows.tolist() for name, rows in again.splits.items()} == {
        name: rows.tolist() for name, rows in shop.splits.items()
    }


def test_the_metadata_are_the_cells_that_the_table_names(shop: Samples) -> None:
    assert shop.metadata(2) == {"title": None, "product": None}
    assert shop.metadata(0) == {"title": "cup", "product": 7}


def test_the_values_of_a_key_name_files_as_processors_read_them(tmp_path: Path) -> None:
    (tmp_path / "c.png").write_bytes(b"...")
    (tmp_path / "shop.csv").write_text("sku,picture,title\ns-0,no.png,cup\ns-1,c.png,\n")
    samples = Samples.of(tmp_path / "shop.csv", {"image": "picture", "text": "title"}, key="sku")
    processors = {"image": create("image", "small_cnn").processor, "text": create("text", "bag").processor}
    assert samples.values_of("s-1", processors) == {"image": tmp_path / "c.png"}
    assert samples.values_of("s-0", {}) == {"image": "no.png", "text": "cup"}
    with pytest.raises(Unreadable, match=r"no.png does not exist"):
        samples.values_of("s-0", processors)
    with pytest.raises(UsageError, match=r"No row of the table .* has the key 's-2'"):
        samples.values_of("s-2", processors)


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


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 8)), min_size=1, max_size=40),
    st.sampled_from([None, {"train": 0.9, "test": 0.1}, {"a": 0.2, "b": 0.3, "c": 0.5}]),
    st.integers(0, 3),
)
def test_without_a_split_column_groups_are_assigned(
    groups: list[Any], shares: dict[str, float] | None, seed: int
) -> None:
    cells = {"title": groups, "product": groups}
    assigned = samples_of(cells, {"text": "title"}, group="product", split=shares, split_seed=seed)
    names = set(shares or ("train", "validation", "test"))
    assert set(assigned.splits) <= names
    assert sorted(row for rows in assigned.splits.values() for row in rows.tolist()) == list(range(len(groups)))
    split_of_row = {row: name for name, rows in assigned.splits.items() for row in rows.tolist()}
    for row, group in enumerate(groups):  # no group is in two splits, and its split does not depend on other rows
        if group is None:
            continue
        assert {split_of_row[r] for r, g in enumerate(groups) if g == group} == {split_of_row[row]}
        alone = samples_of(
            {"title": [group], "product": [group]}, {"text": "title"}, group="product", split=shares, split_seed=seed
        )
        assert list(alone.splits) == [split_of_row[row]]


def test_the_shares_of_assigned_splits_are_met() -> None:
    many = samples_of({"title": list(range(20_000))}, {"text": "title"}, split={"train": 0.7, "test": 0.3})
    assert len(many.rows("test")) / 20_000 == pytest.approx(0.3, abs=0.015)
    other = samples_of(
        {"title": list(range(20_000))}, {"text": "title"}, split={"train": 0.7, "test": 0.3}, split_seed=1
    )
    both = len(np.intersect1d(many.rows("test"), other.rows("test")))
    assert both / 20_000 == pytest.approx(0.09, abs=0.015)  # independent


@pytest.mark.parametrize("shares", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}])
def test_invalid_shares_are_rejected(shares: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"split: the shares .* must be positive and add up to 1"):
        samples_of(CELLS, COLUMNS, split=shares)


def test_several_splits_are_read_as_one(shop: Samples) -> None:
    assert shop.rows(["test", "train"]).tolist() == [0, 1, 2, 3]
    assert shop.rows(["test"]).tolist() == [1, 3]


def test_an_unknown_split_is_rejected_with_close_and_known_ones(shop: Samples) -> None:
    with pytest.raises(UsageError, match=r"'shop' has no split 'tests'.*Did you mean 'test'\?.*all, test, train"):
        shop.rows("tests")


def test_a_split_that_chance_gave_no_row_is_explained() -> None:
    one = samples_of({"title": ["cup"]}, {"text": "title"})
    empty = next(name for name in ("train", "validation", "test") if name not in one.splits)
    with pytest.raises(
        UsageError, match=r"rows \(1\) were assigned to splits at random, by the shares train 0\.8, val"
    ):
        one.rows(empty)
    with pytest.raises(UsageError, match=r"Known: all, \w+\.$"):
        one.rows("unknown")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"image": "pictures"}, {}, r"columns\.image: .*'shop' has no column 'pictures'.*Did you mean 'picture'\?"),
        (COLUMNS, {"key": "skus"}, r"key: .*'skus'.*Did you mean 'sku'\?"),
        (COLUMNS, {"group": "products"}, r"group: .*'products'.*Did you mean 'product'.*\?"),
        (COLUMNS, {"split": "qqq"}, r"split: .*'qqq'\. Known: part, picture, product, sku, title"),
        ({}, {}, "need columns"),
    ],
)
def test_a_missing_column_is_rejected_with_the_option_and_the_columns(
    columns: dict[str, str], options: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        samples_of(CELLS, columns, **options)


class Words(Processor):
    """Returns a word unchanged, in training in capitals; "?" cannot be read."""

    def __call__(self, value: Any) -> str:
        if value == "?":
            raise Unreadable("question", "it asks.")
        return value

    def augment(self, item: str, rng: np.random.Generator) -> str:
        return item.upper()

    def collate(self, items: Sequence[str]) -> Inputs:
        raise NotImplementedError


ALTERNATIVES: dict[str, Sequence[Any]] = {
    "name": ["cup", None, "pot", None, "?"],
    "words": ["mug", "jug", None, None, "x"],
    "picture": ["a", "b", "c", "d", "e"],
}
PROCESSORS = {"image": Words(), "text": Words()}


@pytest.fixture
def worded() -> Samples:
    return samples_of(ALTERNATIVES, {"image": "picture", "text": ["name", "words"]})


def test_evaluation_uses_all_columns_of_a_modality_as_one_group(worded: Samples) -> None:
    items = [worded.items(row, PROCESSORS) for row in range(4)]
    assert [[dict(s.values) for s in row if isinstance(s, Sample)] for row in items] == [
        [{"image": "a", "text": "cup"}, {"text": "mug"}],
        [{"image": "b", "text": "jug"}],
        [{"image": "c", "text": "pot"}],
        [{"image": "d"}],
    ]
    assert {(s.key, s.group) for s in items[0] if isinstance(s, Sample)} == {("0", "#0")}


def test_training_draws_one_of_the_columns_and_eventually_each(worded: Samples) -> None:
    drawn = set()
    for epoch in range(40):
        (sample,) = worded.items(0, PROCESSORS, seed=(0, epoch, 0))
        assert isinstance(sample, Sample)
        assert [sample] == worded.items(0, PROCESSORS, seed=(0, epoch, 0))
        drawn.add(sample.values["text"])
    assert drawn == {"CUP", "MUG"}
    assert worded[0].values["text"] == "cup"


def test_a_row_that_cannot_be_read_is_a_reject_with_its_reason(worded: Samples) -> None:
    (reject,) = worded.items(4, PROCESSORS)
    assert reject == Reject(4, "4", "name", "?", "question", "it asks.")


class BrokenTable(ShopTable):
    """A table whose second title cannot be read."""

    def value(self, row: int, column: str) -> Any:
        if (row, column) == (1, "title"):
            raise Unreadable("broken", "it is broken.")
        return super().value(row, column)


def test_an_unreadable_cell_rejects_only_its_own_value() -> None:
    samples = Samples.of(BrokenTable(CELLS | {"picture": ["a", "b", "c", "d"]}), COLUMNS, key="title", group="title")
    (reject,) = samples.items(1, PROCESSORS)
    assert reject == Reject(1, "1", "title", "None", "broken", "it is broken.")
    assert list(samples.values("text", np.arange(4))) == ["cup"]
    assert samples.metadata(1) == {"product": 7}
    assert samples.group_of(1) == "#1"


def test_a_row_has_a_modality_if_any_of_its_columns_has_a_value(worded: Samples) -> None:
    assert worded.present("text").tolist() == [True, True, True, False, True]
    assert worded.present("image").all()


def test_processors_are_fitted_on_all_columns(worded: Samples) -> None:
    assert list(worded.values("text", np.arange(3))) == ["cup", "mug", "jug", "pot"]


def test_a_settings_error_while_reading_is_raised(worded: Samples) -> None:
    class Wrong(Words):
        def __call__(self, value: Any) -> str:
            raise UsageError("the extra is missing.")

    with pytest.raises(UsageError, match="extra"):
        worded.items(0, {"text": Wrong()})


KNOWN: dict[str, Sequence[Any]] = {
    "title": ["cup", "mug", "pot"],
    "price": ["1.5", None, "3"],
    "kind": ["b", "a", None],
    "marks": [[1, 0], [0, 1], [1, 1]],
    "unlike": ["cap", None, "?"],
}


def test_targets_are_numbers_lists_or_class_indices() -> None:
    samples = samples_of(KNOWN, {"text": "title"}, targets={"price": "price", "kind": "kind", "marks": "marks"})
    items = [samples.items(row, {"text": Words()})[0] for row in range(3)]
    assert [s.targets for s in items if isinstance(s, Sample)] == [
        {"price": 1.5, "kind": 1, "marks": [1.0, 0.0]},
        {"kind": 0, "marks": [0.0, 1.0]},
        {"price": 3.0, "marks": [1.0, 1.0]},
    ]
    assert samples.classes == {"kind": {"a": 0, "b": 1}}


def test_a_few_words_among_numbers_are_not_classes_and_gaps_in_a_list_are_unknown() -> None:
    prices = [str(n / 4) for n in range(39)]
    known = {"title": ["cup"] * 41, "price": [*prices, "n/a", None], "marks": [[1, None]] * 41}
    samples = samples_of(known, {"text": "title"}, targets={"price": "price", "marks": "marks"})
    assert samples.classes == {}
    items = [samples.items(row, {"text": Words()})[0] for row in (3, 39, 40)]
    assert isinstance(items[0], Sample)
    assert items[0].targets["price"] == 0.75
    np.testing.assert_array_equal(items[0].targets["marks"], [1.0, np.nan])
    assert isinstance(items[1], Reject)
    assert (items[1].reason, items[1].value) == ("not a number", "n/a")
    assert isinstance(items[2], Sample)
    assert "price" not in items[2].targets
    of_two = samples_of(
        {"title": ["a"] * 3, "price": ["1", "2", "dear"]}, {"text": "title"}, targets={"price": "price"}
    )
    assert of_two.classes == {"price": {"1": 0, "2": 1, "dear": 2}}


def test_rows_whose_group_is_not_a_number_are_alone() -> None:
    rows = [{"title": "cup", "product": value} for value in (1.0, math.nan, math.nan, 1.0)]
    samples = Samples.of(rows, {"text": "title"}, group="product")
    assert samples.group_numbers.tolist() == [0, 1, 2, 0]
    assert samples.group_of(1) == "#1"


def test_negatives_are_read_in_training_each_in_its_own_group() -> None:
    samples = samples_of(KNOWN, {"text": "title"}, group="kind", negatives={"text": "unlike"})
    (sample,) = samples.items(0, {"text": Words()}, seed=(0, 0, 0))
    assert isinstance(sample, Sample)
    (negative,) = sample.negatives
    assert negative == Sample("0 not unlike", {"text": "CAP"}, "!0 unlike")
    (reject,) = samples.items(2, {"text": Words()}, seed=(0, 0, 2))
    assert isinstance(reject, Reject)
    assert (reject.column, reject.reason) == ("unlike", "question")
    assert samples.items(0, {"text": Words()}) == [Sample("0", {"text": "cup"}, "=b")]
