"""Columns of types that the datasets library does not have do not keep a table from being read."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimodal.data.samples import Samples
from multimodal.data.stream import StreamedRow
from multimodal.data.tables.open import locate, open_table, stream_rows

pytestmark = pytest.mark.usefixtures("own_cache")

ID = uuid.UUID(int=2**100 + 7)
IDS = pa.array([ID.bytes, None], pa.uuid())
MAP = pa.map_(pa.string(), pa.int64())
COLUMNS = {
    "uuid": (IDS, [str(ID), None]),
    "uuids": (pa.ListArray.from_arrays(pa.array([0, 2, 2]), IDS), [[str(ID), None], []]),
    "map": (pa.array([[("k", 1), ("l", 2)], None], MAP), [{"k": 1, "l": 2}, None]),
    "map of numbers": (pa.array([[(1, b"\x07")], []], pa.map_(pa.int64(), pa.binary())), [[[1, "07"]], []]),
    "struct": (pa.array([{"m": [("k", 1)]}, None], pa.struct([("m", MAP)])), [{"m": [["k", 1]]}, None]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_another_type_is_read_as_json(tmp_path: Path, kind: str) -> None:
    column, expected = COLUMNS[kind]
    file = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"title": ["a", "b"], "extra": column}), file)
    table = open_table(file)
    assert table.columns == ("title", "extra")
    assert [table.value(row, "extra") for row in range(2)] == table.column("extra") == expected
    assert table.present("extra").tolist() == [cell is not None for cell in expected]
    source = locate(file)
    streamed = [StreamedRow(0, file, cells, None).cell("extra") for cells in stream_rows(source, file)]
    assert streamed == expected
    assert dict(Samples.of(file, {"text": "title"})[0].values) == {"text": "a"}


def test_several_files_and_other_columns_are_read(tmp_path: Path) -> None:
    for n in range(2):
        table = pa.table(
            {"n": pa.array([n], pa.int32()), "id": IDS.slice(0, 1), "word": pa.array(["x"]).dictionary_encode()}
        )
        pq.write_table(table, tmp_path / f"{n}.parquet")
    read = open_table(str(tmp_path))
    assert [read.column(name) for name in read.columns] == [[0, 1], [str(ID)] * 2, ["x"] * 2]


@pytest.mark.parametrize("make", [pd.DataFrame, lambda rows: rows])
def test_rows_in_memory_may_have_them_too(make: Any) -> None:
    samples = Samples.of(make([{"id": ID, "title": "a"}, {"id": None, "title": "b"}]), {"text": "title"}, key="id")
    assert [samples.key_of(0), samples.key_of(1)] == [str(ID), "1"]
    assert samples[1].values == {"text": "b"}


def test_a_uuid_is_a_key_and_a_group(tmp_path: Path) -> None:
    pq.write_table(pa.table({"title": ["a", "b"], "id": IDS}), tmp_path / "t.parquet")
    samples = Samples.of(str(tmp_path / "t.parquet"), {"text": "title"}, key="id", group="id")
    assert (samples.key_of(0), samples.group_of(0), samples.group_of(1)) == (str(ID), f"={ID}", "#1")
