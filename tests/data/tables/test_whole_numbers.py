"""Whole numbers are kept exactly, or the table is refused: rounded, they would be other rows' keys."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multimodal.core.errors import MultimodalError
from multimodal.data.samples import Samples
from multimodal.data.tables.open import locate, open_table, stream_rows

pytestmark = pytest.mark.usefixtures("own_cache")

CHANGED = [
    ([2**64 - 1, 2**64 - 2], 2**64 - 1),
    ([1, 2**63], 2**63),
    ([-(2**63) - 1, 0], -(2**63) - 1),
    ([2**53 + 1, 0.5], 2**53 + 1),
    ([0.5, -(2**53) - 1], -(2**53) - 1),
    ([2**70, 1], 2**70),
]
KEPT = [[2**63 - 1, -(2**63)], [2**53 + 1, 2**53], [2**53, 0.5], [1e20, 0.5], [1e300, 1.0]]


def write_lines(file: Path, cells: list[Any]) -> str:
    file.write_text("".join(json.dumps({"id": cell}) + "\n" for cell in cells))
    return str(file)


def write_array(file: Path, cells: list[Any]) -> str:
    file.write_text(json.dumps([{"id": cell} for cell in cells], indent=1))
    return str(file)


def write_compressed(file: Path, cells: list[Any]) -> str:
    file = file.with_suffix(".jsonl.gz")
    file.write_bytes(gzip.compress("".join(json.dumps({"id": cell}) + "\n" for cell in cells).encode("utf-8-sig")))
    return str(file)


@pytest.mark.parametrize("write", [write_lines, write_array, write_compressed])
@pytest.mark.parametrize("inside", [lambda v: v, lambda v: [v], lambda v: {"a": [{"b": v}]}])
@pytest.mark.parametrize(("cells", "number"), CHANGED)
def test_json_with_a_number_that_would_be_changed_is_refused(
    tmp_path: Path, write: Any, inside: Any, cells: list[Any], number: int
) -> None:
    name = write(tmp_path / ("t.jsonl" if write is write_lines else "t.json"), [inside(cell) for cell in cells])
    row = cells.index(number)
    with pytest.raises(MultimodalError, match=rf"the whole number {number} .*\(row {row} of .* write it as text\.$"):
        open_table(name)
    source = locate(name)
    with pytest.raises(MultimodalError, match=rf"the whole number {number} .*write it as text"):
        list(stream_rows(source, source.files[0]))


@pytest.mark.parametrize("write", [write_lines, write_array, write_compressed])
@pytest.mark.parametrize("cells", KEPT)
def test_numbers_that_json_keeps_are_read(tmp_path: Path, write: Any, cells: list[Any]) -> None:
    name = write(tmp_path / ("t.jsonl" if write is write_lines else "t.json"), cells)
    assert open_table(name).column("id") == cells


def test_a_number_late_in_a_file_is_found(tmp_path: Path) -> None:
    name = write_lines(tmp_path / "t.jsonl", [*([0.5] * 30_000), 2**53 + 1])
    with pytest.raises(MultimodalError, match=r"row 30000 of .* is next to fractions"):
        open_table(name, {"chunksize": 1 << 16})


def test_a_large_fraction_next_to_a_large_whole_number_of_another_field_is_read(tmp_path: Path) -> None:
    cell = {"price": 1e20, "id": 2**60 + 1}
    assert open_table(write_lines(tmp_path / "t.jsonl", [cell])).column("id") == [cell]


def test_the_rows_of_a_field_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"rows": [{"id": 2**53 + 1}, {"id": 0.5}]}))
    with pytest.raises(MultimodalError, match="the whole number 9007199254740993 in the column 'id'"):
        open_table(str(tmp_path / "t.json"), {"field": "rows"})


@pytest.mark.parametrize(("cells", "number"), CHANGED)
def test_rows_in_memory_with_such_a_number_are_refused(cells: list[Any], number: int) -> None:
    objects = pd.DataFrame({"id": pd.Series(cells, dtype=object)})
    for table in ([{"id": cell} for cell in cells], [{"id": [cell]} for cell in cells], objects):
        with pytest.raises(
            MultimodalError, match=rf"the whole number {number} in the column 'id' .*; write it as text"
        ):
            open_table(table)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
def test_unsigned_numbers_of_typed_columns_are_keys_and_groups(tmp_path: Path, ids: list[int]) -> None:
    pq.write_table(pa.table({"id": pa.array(ids, pa.uint64()), "t": ["a"] * len(ids)}), tmp_path / "t.parquet")
    frame = pd.DataFrame({"id": np.array(ids, dtype=np.uint64), "t": "a"})
    (tmp_path / "t.csv").write_text("id,t\n" + "".join(f"{n},a\n" for n in ids))
    for table in (str(tmp_path / "t.parquet"), frame, str(tmp_path / "t.csv")):
        samples = Samples.of(table, {"text": "t"}, key="id", group="id")
        assert [samples.key_of(row) for row in range(len(ids))] == [str(n) for n in ids]
        assert [samples.group_of(row) for row in range(len(ids))] == [f"={n}" for n in ids]


def test_a_later_parquet_file_of_whole_numbers_is_not_rounded(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [0.5]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"id": [2**53 + 1]}), tmp_path / "1.parquet")
    with pytest.raises(MultimodalError, match=r"as text\.$"):
        open_table(str(tmp_path))
