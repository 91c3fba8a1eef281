"""A search that finds nothing says which condition no row meets, with the values that come close."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from multimodal.search import no_hits
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.index import Index
from multimodal.search.no_hits import explain_no_hits

ROWS = [{"shelf": f"s{n % 20}", "price": n, "colour": "ab"[n % 2]} for n in range(40)]


@pytest.fixture(scope="module", params=["exact", "qdrant-edge"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    names = [str(n) for n in range(40)]
    items = {"key": names, "group": names, "metadata": [json.dumps(row) for row in ROWS], "modality": ["text"] * 40}
    made = Index(ExactEngine(np.tile(np.array([1, 0], np.float32), (40, 1)), pa.table(items)), "f" * 64)
    folder: Path = tmp_path_factory.mktemp("index") / "index"
    made.save(folder, engine=request.param)
    return Index.open(folder)


def test_a_value_that_no_row_has_is_named_with_those_that_come_close(index: Index) -> None:
    (sentence,) = explain_no_hits(index, {"shelf": "s77", "colour": "a"})
    assert sentence.startswith("No row has 's77' in the column 'shelf'. Did you mean 's7' or 's17'")
    assert sentence.endswith(" and 5 others.")
    assert explain_no_hits(index, {"colour": ["x", "y", "z"], "price": {"gte": 100}}) == [
        "No row has 'x' or 2 other values in the column 'colour'. Known: a, b.",
        "No row has a value in the range of 'price'.",
    ]


def test_how_many_values_there_are_is_not_said_where_not_all_are_counted(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(no_hits, "MAX_VALUES", 3)
    assert explain_no_hits(index, {"shelf": "x"}) == ["No row has 'x' in the column 'shelf'."]
    (sentence,) = explain_no_hits(index, {"shelf": "s"})
    assert "Did you mean 's" in sentence
    assert "Known" not in sentence


def test_conditions_that_exclude_one_another_are_met_by_themselves(index: Index) -> None:
    assert explain_no_hits(index, {"shelf": "s0", "colour": "b", "price": {"lt": 5}}) == []
    assert explain_no_hits(index, {"price": [500, 3]}) == []
