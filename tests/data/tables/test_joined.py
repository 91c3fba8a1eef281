"""Several columns are joined to one value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimodal.core import registry
from multimodal.core.errors import UsageError
from multimodal.data.samples import Samples
from multimodal.data.schema import Schema
from multimodal.data.stream import Stream
from multimodal.data.tables.open import locate

ROWS: list[dict[str, Any]] = [
    {"price": 1.5, "colour": "red", "a+b": 1},
    {"price": None, "colour": "blue", "a+b": 2},
    {"price": None, "colour": None, "a+b": 3},
]
CSV = "price,colour\n1.5,red\n,blue\n,\n2.5,red\n"


def test_joined_columns_are_a_mapping_without_missing_values() -> None:
    samples = Samples.of(ROWS, {"tabular": "price + colour"})
    assert [dict(samples[row].values) for row in range(3)] == [
        {"tabular": {"price": 1.5, "colour": "red"}},
        {"tabular": {"colour": "blue"}},
        {},
    ]
    assert samples.present("tabular").tolist() == [True, True, False]
    assert samples.settings["columns"] == {"tabular": "price + colour"}


def test_a_column_whose_name_contains_the_sign_is_not_split() -> None:
    samples = Samples.of(ROWS, {"tabular": "a+b"})
    assert samples[1].values["tabular"] == 2


def test_joined_columns_may_be_alternatives_of_others() -> None:
    samples = Samples.of(ROWS, {"tabular": ["a+b", "price+colour"]})
    assert list(samples.values("tabular", samples.rows("all"))) == [
        1,
        {"price": 1.5, "colour": "red"},
        2,
        {"colour": "blue"},
        3,
    ]


def test_an_unknown_joined_column_is_reported() -> None:
    with pytest.raises(
        UsageError, match=r"columns\.tabular: the table .* has no column 'colou'\. Did you mean 'colour'"
    ):
        Samples.of(ROWS, {"tabular": "price+colou"})
    with pytest.raises(UsageError, match=r"key: the table .* has no column 'price"):
        Samples.of(ROWS, {"tabular": "price"}, key="price+colour")


def test_numbers_and_words_of_a_csv_file_become_items_whether_mapped_or_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "shop.csv").write_text(CSV)
    samples = Samples.of(str(tmp_path / "shop.csv"), {"tabular": "price+colour"})
    encoder = registry.create("tabular", "mlp", width=8)
    encoder.processor.fit(samples.values("tabular", samples.rows("all")))
    assert encoder.processor.state()["numeric"]["price"]["means"] == [2.0]
    assert encoder.processor.state()["categorical"] == {"colour": ["blue", "red"]}
    schema = Schema({"tabular": ("price+colour",)}, None, None, "split", 0)
    stream = Stream(locate(str(tmp_path / "shop.csv")), schema, ("all",))
    streamed = list(stream.values("tabular", encoder.processor))
    assert streamed == list(samples.values("tabular", samples.rows("all")))
