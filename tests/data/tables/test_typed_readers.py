"""Values that come later in a table are kept as they stand, or told."""

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
def test_values_of_a_later_file_are_not_made_others(tmp_path: Path, first: Any, later: Any) -> None:
    for number, row in enumerate((first, later)):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(MultimodalError, match=r"the values of the column 'code' are .* later on; write them alike"):
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
    ("found", "wanted"),
    [
        (pa.int32(), pa.int64()), (pa.int64(), pa.float64()), (pa.float32(), pa.float64()), (pa.null(), pa.string()),
        (pa.string(), pa.large_string()), (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.list_(pa.int32()), pa.large_list(pa.int64())), (pa.struct({"a": pa.int8()}), pa.struct({"a": pa.int64()})),
        (pa.timestamp("s"), pa.timestamp("us")), (pa.string(), pa.json_()),
    ],
)  # fmt: skip
def test_what_keeps_its_values_is_cast(found: Any, wanted: Any) -> None:
    assert preserves_values(found, wanted)


def test_texts_that_are_not_utf_8_are_told_as_the_table_is_opened(tmp_path: Path) -> None:
    (tmp_path / "k.jsonl").write_bytes(b'{"k": "\xfc1"}\n{"k": "b"}\n')
    with pytest.raises(MultimodalError, match=r"k\.jsonl.*UTF8.*Set data\.options\.encoding"):
        open_table(str(tmp_path / "k.jsonl"))
    assert open_table(str(tmp_path / "k.jsonl"), {"encoding": "latin-1"}).column("k") == ["ü1", "b"]
