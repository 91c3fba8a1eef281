"""Rows of numbers and categories become standardised numbers and rows of a table of embeddings."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.tabular import TabularMLP, TabularProcessor
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor

from multimodal.core.embedder import Embedder
from multimodal.core.errors import Unreadable, UsageError

ROWS: list[dict[str, Any]] = [
    {"price": 3, "size": [1.0, 20.0], "colour": "red", "sold": True},
    {"price": 5.5, "size": [2.0, 40.0], "colour": "blue", "sold": False},
    {"price": None, "size": [4.0, None], "colour": "red", "sold": True},
    {"price": 7, "size": [1.5, 10.0], "colour": "", "sold": None},
]


def processor(numbers: int = 6, categories: int = 20, **settings: Any) -> TabularProcessor:
    return TabularProcessor(numbers, categories, **settings)


def fitted(rows: list[dict[str, Any]] = ROWS, **settings: Any) -> TabularProcessor:
    reader = processor(**settings)
    reader.fit(rows)
    return reader


def refusal(reader: TabularProcessor, value: Any) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        reader(value)
    return caught.value


# what is learned


def test_columns_are_recognized_by_what_they_hold() -> None:
    assert list(fitted().state()["numeric"]) == ["price", "size"]
    assert fitted().state()["categorical"] == {"colour": ["blue", "red"], "sold": ["False", "True"]}


def test_columns_may_be_given_by_name() -> None:
    rows = [{"code": 7, "weight": "1.5"}, {"code": 8, "weight": "2.5"}, {"code": 7.0, "weight": ""}]
    reader = fitted(rows, numeric=["weight"], categorical=["code"])
    assert reader.state()["numeric"]["weight"] == {"means": [2.0], "scales": [0.5]}
    assert reader.state()["categorical"] == {"code": ["7", "8"]}
    assert reader({"code": "7"})["categories"] == reader({"code": 7.0})["categories"]


def test_a_column_of_numbers_and_words_is_categorical() -> None:
    reader = fitted([{"floor": 1, "a": 1}, {"floor": "ground", "a": 2}, {"floor": 2, "a": [3]}])
    assert list(reader.state()["categorical"]) == ["a", "floor"]


@given(
    columns=st.lists(
        st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-1000, 1000)), min_size=6, max_size=6),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=40, deadline=None)
def test_numbers_are_standardised_as_scikit_learn_does(columns: list[list[Any]]) -> None:
    columns = [c for c in columns if any(n is not None for n in c) and np.nanstd(np.array(c, dtype=float)) > 1e-3]
    if not columns:
        return
    rows = [{f"c{n}": column[i] for n, column in enumerate(columns)} for i in range(6)]
    reader = fitted([*rows, {"word": "a"}])
    table = np.array(columns, dtype=np.float64).T
    expected = StandardScaler().fit_transform(table)
    for row, wanted in zip(rows, expected, strict=True):
        item = reader(row) if any(v is not None for v in row.values()) else None
        if item is not None:
            np.testing.assert_allclose(item["numbers"][: len(columns)], np.nan_to_num(wanted), atol=1e-4)
            np.testing.assert_array_equal(item["missing"][: len(columns)], np.isnan(wanted))
            assert not item["numbers"][len(columns) :].any()
            assert not item["missing"][len(columns) :].any()


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e300, -7])
def test_a_constant_column_becomes_zero_and_a_new_value_of_it_remains_bounded(constant: float) -> None:
    reader = fitted([{"c": constant, "d": n} for n in range(7)])
    assert reader({"c": constant})["numbers"][0] == pytest.approx(0, abs=1e-12)
    assert reader({"c": 1000 + 1000 * abs(constant)})["numbers"][0] == 10


def test_numbers_near_the_largest_are_standardised_too() -> None:
    reader = fitted([{"c": 1e308}, {"c": -1e308}, {"c": 1.7e308}])
    item = reader({"c": 1.7e308})
    assert item["numbers"].isfinite().all()


def test_a_missing_number_is_the_mean_with_a_flag() -> None:
    item = fitted()({"colour": "red"})
    assert item["missing"].tolist() == [1, 1, 1, 0, 0, 0]
    assert not item["numbers"].any()
    assert fitted()({"price": math.nan, "size": [1, math.nan]})["missing"].tolist() == [1, 0, 1, 0, 0, 0]


def test_every_category_has_a_row_of_its_own_and_so_have_missing_and_unknown() -> None:
    reader = fitted()
    colours = [reader({"price": 1, "colour": c})["categories"][0].item() for c in (None, "green", "blue", "red")]
    sold = [reader({"price": 1, "sold": c})["categories"][1].item() for c in ("", "maybe", False, True)]
    assert colours + sold == list(range(8))


def test_of_too_many_categories_the_rarest_are_unknown() -> None:
    rows = [{"a": "often", "b": "x"}] * 3 + [{"a": "sometimes", "b": "y"}] * 2 + [{"a": "once", "b": "x"}]
    reader = fitted(rows, categories=6)
    assert reader.state()["categorical"] == {"a": ["often"], "b": ["x"]}
    assert reader({"a": "once"})["categories"][0] == reader({"a": "never"})["categories"][0] == 1
    assert max(int(reader(row)["categories"].max()) for row in rows) < 6


def test_what_was_learned_depends_on_the_rows_not_on_their_order() -> None:
    turned = [dict(reversed(row.items())) for row in reversed(ROWS)]
    assert fitted(turned).state()["categorical"] == fitted().state()["categorical"]
    assert list(fitted(turned).state()["numeric"]) == list(fitted().state()["numeric"])


def test_rows_that_cannot_be_read_teach_nothing() -> None:
    assert fitted([*ROWS, "no row", None, {"price": math.inf}]).state() == fitted().state()  # pyright: ignore


def test_too_many_numbers_or_columns_are_refused_with_what_to_set() -> None:
    with pytest.raises(UsageError, match=r"has 3 numbers; set numbers to at least that \(now 2\)"):
        fitted(numbers=2)
    with pytest.raises(UsageError, match=r"2 categorical columns, .* increase categories \(now 3\)"):
        fitted(categories=3)
    with pytest.raises(UsageError, match=r"no column 'prise'\. Did you mean 'price'"):
        fitted(numeric=["prise"])


def test_the_state_holds_all_that_was_learned() -> None:
    reader = fitted()
    other = processor()
    other.load_state(json.loads(json.dumps(reader.state())))
    sent = pickle.loads(pickle.dumps(reader))
    for row in ROWS:
        for name, expected in reader(row).items():
            assert torch.equal(other(row)[name], expected)
            assert torch.equal(sent(row)[name], expected)
    assert other.state() == reader.state()
    assert processor().state() == {}


def test_unlearned_columns_are_reported_with_how_to_learn_them() -> None:
    with pytest.raises(UsageError, match="have not been learned; call fit_processors, train, or load"):
        processor()({"price": 3})


# what is not a row


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        ("red", "wrong type", "a str is not a row; give a mapping"),
        (None, "wrong type", "a NoneType is not a row"),
        ({}, "empty row", "give one at least of price, size, colour, sold"),
        ({"price": None, "colour": " "}, "empty row", "the row has no value"),
        ({"prise": 3}, "no known column", "Did you mean 'price'"),
        ({"price": "cheap"}, "not a number", "column 'price' is numeric, but 'cheap' is not a number"),
        ({"price": {}}, "not a number", "column 'price' is numeric"),
        ({"price": math.inf}, "infinite number", "column 'price' is infinite"),
        ({"size": [1.0]}, "wrong number of numbers", "column 'size' has 1 numbers, not 2"),
        ({"size": 3}, "wrong number of numbers", "column 'size' has 1 numbers, not 2"),
        ({"price": 10**5000}, "number too large", "column 'price' holds <whole number of 16610 bits>"),
        ({"price": 3, "color": "red"}, "unknown column", "'color' is not a column of training. Did you mean 'colour'"),
        ({"Price": 3, "colour": "red"}, "unknown column", "Did you mean 'price', which is missing in the row"),
    ],
)
def test_what_is_not_a_row_is_refused_with_its_reason(value: Any, reason: str, said: str) -> None:
    error = refusal(fitted(), value)
    assert error.reason == reason
    assert said in str(error)


def test_columns_that_training_did_not_have_are_ignored() -> None:
    for more in ({"new": 1}, {"prices": 1}, {"price_before": 1}):
        assert torch.equal(fitted()({"price": 3, **more})["numbers"], fitted()({"price": 3})["numbers"])
    assert fitted()({"colour": 10**5000})["categories"].tolist() == fitted()({"colour": "new"})["categories"].tolist()


# variants for training


@given(seed=st.integers(0, 2**32), cell_drop=st.floats(0, 0.99))
@settings(max_examples=25, deadline=None)
def test_a_variant_hides_cells_as_missing_or_unknown(seed: int, cell_drop: float) -> None:
    reader = fitted(cell_drop=cell_drop)
    item = reader(ROWS[0])
    one, two = (reader.augment(item, np.random.default_rng(seed)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in item)
    hidden = one["missing"] > item["missing"]
    assert not one["numbers"][hidden].any()
    assert torch.equal(one["numbers"][~hidden], item["numbers"][~hidden])
    assert not hidden[3:].any()  # nothing is written there
    changed = one["categories"] != item["categories"]
    assert torch.equal(one["categories"][changed], torch.tensor([1, 5])[changed])


def test_the_share_of_hidden_cells_is_cell_drop() -> None:
    rows = [{f"c{n}": float(n + m) for n in range(300)} | {f"w{n}": "a" for n in range(300)} for m in (0, 1)]
    reader = fitted(rows, numbers=300, categories=900, cell_drop=0.3)
    variant = reader.augment(reader(rows[0]), np.random.default_rng(0))
    assert variant["missing"].mean() == pytest.approx(0.3, abs=0.08)
    assert (variant["categories"] % 3 == 1).float().mean() == pytest.approx(0.3, abs=0.08)


# features


def encoder_of(rows: list[dict[str, Any]] = ROWS, **settings: Any) -> TabularMLP:
    wanted: dict[str, Any] = {"numbers": 6, "categories": 20, "width": 16} | settings
    encoder = TabularMLP(**wanted).eval()
    encoder.processor.fit(rows)
    return encoder


def features(encoder: TabularMLP, *rows: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return encoder(**encoder.processor.collate([encoder.processor(row) for row in rows]))


def test_the_features_of_a_batch_are_those_of_its_rows() -> None:
    encoder = encoder_of()
    together = features(encoder, *ROWS)
    assert together.shape == (4, 16)
    torch.testing.assert_close(together, torch.cat([features(encoder, row) for row in ROWS]), atol=1e-6, rtol=1e-5)
    assert torch.pdist(together).min() > 1e-3


def test_the_first_layer_is_linear_in_numbers_flags_and_one_hot_categories() -> None:
    encoder = encoder_of(layers=0)
    transformer: Any = encoder.processor.linear_features()
    dense = torch.from_numpy(transformer.transform(ROWS))
    weight = encoder.numbers.weight
    columns = torch.cat([weight[:, :3], weight[:, 6:9], encoder.categories.weight[: dense.shape[1] - 6].T], dim=1)
    expected = encoder.norm(dense @ columns.T + encoder.numbers.bias).relu()
    torch.testing.assert_close(features(encoder, *ROWS), expected.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [[{"a": 1.0}, {"a": 2.0}], [{"b": "x"}, {"b": "y"}]], ids=["numbers", "categories"])
def test_rows_of_one_kind_alone_have_features_and_gradients(rows: list[dict[str, Any]]) -> None:
    encoder = encoder_of(rows).train()
    items = [encoder.processor.augment(encoder.processor(row), np.random.default_rng(0)) for row in rows]
    encoder(**encoder.processor.collate(items)).square().sum().backward()
    assert features(encoder, *rows).isfinite().all()


def test_a_saved_model_gives_the_same_vectors(tmp_path: Any) -> None:
    embedder = Embedder({"tabular": encoder_of()}, dim=8)
    embedder.save_pretrained(tmp_path / "model")
    loaded = Embedder.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.encode(tabular=ROWS), embedder.encode(tabular=ROWS))


def test_linear_features_are_standardised_numbers_and_one_hot_categories() -> None:
    reader = fitted()
    found = reader.linear_features().fit_transform(ROWS)
    known: Any = [["", "?", "blue", "red"], ["None", "?", "False", "True"]]
    names = [[str(row["colour"] or ""), str(row["sold"])] for row in ROWS]
    expected = OneHotEncoder(categories=known, sparse_output=False).fit_transform(names)
    np.testing.assert_array_equal(found[:, 6:], expected)
    np.testing.assert_allclose(found[:, :3], torch.stack([reader(row)["numbers"][:3] for row in ROWS]))


@pytest.mark.parametrize(
    "wrong", [{"numbers": 0}, {"categories": 0}, {"width": 0}, {"cell_drop": 1.0}, {"cell_drop": -0.1}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(wrong))} {next(iter(wrong.values()))}"):
        TabularMLP(**wrong)


def test_a_column_cannot_be_both() -> None:
    with pytest.raises(UsageError, match="a cannot be both numeric and categorical"):
        TabularMLP(numeric=["a"], categorical=["a", "b"])


def test_numbers_as_text_are_numbers_until_a_word_is_among_them() -> None:
    rows = [
        {"size": "1", "code": "7"},
        {"size": " 2.5 ", "code": "x"},
        {"size": "", "code": "8"},
        {"size": "1e1", "code": ""},
    ]
    reader = TabularProcessor(4, 16)
    reader.fit(rows)
    assert reader.state()["numeric"]["size"]["means"] == [pytest.approx(4.5)]
    assert reader.state()["categorical"] == {"code": ["7", "8", "x"]}
    assert reader(rows[2])["missing"].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("mark", ["N/A", "nan", "NULL", "None", " - ", "?", "<NA>"])
def test_marks_of_a_missing_number_are_missing_in_columns_of_numbers_alone(mark: str) -> None:
    rows = [{"size": "1", "country": "DK"}, {"size": "3", "country": mark}, {"size": mark, "country": "DE"}]
    reader = TabularProcessor(4, 16)
    reader.fit(rows)
    assert reader.state()["numeric"] == {"size": {"means": [2.0], "scales": [1.0]}}
    assert reader.state()["categorical"] == {"country": sorted(["DK", "DE", mark.strip()])}
    assert reader(rows[2])["missing"].tolist() == [1, 0, 0, 0]
    assert refusal(reader, {"size": mark}).reason == "empty row"


def test_few_words_among_many_numbers_are_reported_and_cannot_be_read() -> None:
    rows = [{"price": str(number), "code": str(number)} for number in range(95)]
    rows += [{"price": "call us" if number else "3", "code": "x1"} for number in range(6)]
    reader = TabularProcessor(4, 200)
    with pytest.warns(UserWarning, match="'price' is taken as numeric.* 5 are not, such as 'call us'"):
        reader.fit(rows)
    assert list(reader.state()["numeric"]) == ["price"]
    assert list(reader.state()["categorical"]) == ["code"]
    assert refusal(reader, rows[-1]).reason == "not a number"


def test_the_text_of_a_json_object_is_a_row() -> None:
    reader = TabularProcessor(4, 16)
    reader.fit([*ROWS, "no row"])
    assert reader.state() == fitted().state()
    for one, other in zip(reader(json.dumps(ROWS[0])).values(), reader(ROWS[0]).values(), strict=True):
        assert torch.equal(one, other)
    assert refusal(reader, "[1]").reason == refusal(reader, "words").reason == "wrong type"
