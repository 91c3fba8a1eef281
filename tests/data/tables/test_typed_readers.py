"""Later values of a table are kept unchanged, or the table is rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimodal.core.errors import MultimodalError
from multimodal.data.tables.open import open_table
from multimodal.data.tables.typed_readers import preserves_values

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file"),
]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ({"code": 12}, {"code": "007"}),
        ({"code": 1}, {"code": True}),
        ({"code": "a word"}, {"code": "2020-01-01"}),
        ({"code": [7]}, {"code": ["007"]}),
        ({"code": {"n": 7}}, {"code": {"n": "007"}}),
    ],
)
def test_values_of_a_later_file_are_not_converted(tmp_path: Path, first: Any, later: Any) -> None:
    for number, row in enumerate((first, later)):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(
        MultimodalError,
        match=r"the values of the column 'code' are .* later; write all rows and files",
    ):
        open_table(str(tmp_path))
    if not isinstance(first["code"], dict | list):
        rows = tmp_path / "parquet"
        rows.mkdir()
        for number, row in enumerate((first, later)):
            pq.write_table(pa.table({"code": [row["code"]]}), rows / f"{number}.parquet")
        if later["code"] != "2020-01-01":  # which Parquet says is a text
            with pytest.raises(MultimodalError, match="the values of the column 'code' are"):
                open_table(str(rows))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pa.int32(), pa.int64()), (pa.int64(), pa.float64()), (pa.float32(), pa.float64()), (pa.null(), pa.string()),
        (pa.string(), pa.large_string()), (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.list_(pa.int32()), pa.large_list(pa.int64())), (pa.struct({"a": pa.int8()}), pa.struct({"a": pa.int64()})),
        (pa.timestamp("s"), pa.timestamp("us")), (pa.string(), pa.json_()),
    ],
)  # fmt: skip
def test_casts_that_keep_all_values_are_allowed(found: Any, expected: Any) -> None:
    assert preserves_values(found, expected)


def test_invalid_utf_8_is_reported_when_the_table_is_opened(tmp_path: Path) -> None:
    (tmp_path / "k.jsonl").write_bytes(b'{"k": "\xfc1"}\n{"k": "b"}\n')
    with pytest.raises(MultimodalError, match=r"k\.jsonl.*UTF8.*Set options\.encoding"):
        open_table(str(tmp_path / "k.jsonl"))
    assert open_table(str(tmp_path / "k.jsonl"), {"encoding": "latin-1"}).column("k") == ["ü1", "b"]
