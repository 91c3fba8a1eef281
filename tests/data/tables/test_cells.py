"""Which cells are missing values, in tables of every kind."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.data.samples import Samples
from multimodal.data.stream import StreamedRow
from multimodal.data.tables.open import locate, open_table, stream_rows

pytestmark = pytest.mark.usefixtures("own_cache")

CELLS = ["a cup", "", " ", None]


def write_empty_cells(folder: Path, form: str) -> Any:
    """Write ``CELLS`` as the column ``t`` of a table with the numbers of the rows."""
    rows = [{"n": str(n), "t": cell} for n, cell in enumerate(CELLS)]
    file = folder / f"t.{form}"
    if form == "csv":
        file.write_text("n,t\n" + "".join(f'{row["n"]},"{row["t"] or ""}"\n' for row in rows))
    elif form == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "mixed.jsonl":  # a column of several types
        file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"n": "4", "t": 5}]))
    elif form in ("parquet", "large.parquet", "view.parquet"):
        kind = {"parquet": pa.string(), "large.parquet": pa.large_string(), "view.parquet": pa.string_view()}[form]
        pq.write_table(pa.table({"n": [row["n"] for row in rows], "t": pa.array(CELLS, kind)}), file)
    elif form == "folder":
        file.mkdir()
        for row in rows:
            (file / f"{row['n']}.png").write_bytes(b"x")
            if row["t"] is not None:
                (file / f"{row['n']}.txt").write_text(row["t"])
        return str(file), "txt"
    elif form == "tar":
        with tarfile.open(file, "w") as tar:
            for row in rows:
                for suffix, text in (("png", "x"), ("txt", row["t"])):
                    if text is not None:
                        info = tarfile.TarInfo(f"{row['n']}.{suffix}")
                        info.size = len(text)
                        tar.addfile(info, io.BytesIO(text.encode()))
        return str(file), "txt"
    elif form == "rows":
        return rows, "t"
    else:
        return pd.DataFrame(rows), "t"
    return str(file), "t"


FORMS = ["csv", "jsonl", "mixed.jsonl", "parquet", "large.parquet", "view.parquet", "folder", "tar", "rows", "frame"]


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_text_is_a_missing_value_in_every_table(tmp_path: Path, form: str) -> None:
    name, column = write_empty_cells(tmp_path, form)
    table = open_table(name)
    assert [table.value(row, column) for row in range(4)] == ["a cup", None, " ", None]
    assert list(table.column(column))[:4] == ["a cup", None, " ", None]
    assert table.present(column).tolist()[:4] == [True, False, True, False]
    samples = Samples.of(table, {"text": column}, group=column)
    assert samples[1].values == {}
    assert [samples.group_of(1), samples.group_of(3)] == ["#1", "#3"]
    if form not in ("folder", "rows", "frame"):
        source = locate(name)
        streamed = [StreamedRow(0, "t", cells, None).cell(column) for cells in stream_rows(source, source.files[0])]
        assert streamed[:4] == ["a cup", None, " ", None]


@given(
    st.lists(
        st.fixed_dictionaries({"bytes": st.none() | st.binary(max_size=2), "path": st.none() | st.text(max_size=2)})
    )
)
@settings(deadline=None, max_examples=50)
def test_files_are_present_as_their_values_are(cells: list[dict[str, Any]]) -> None:
    types = datasets.Features({"f": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    table = open_table(datasets.Dataset.from_dict({"f": cells}, types))
    assert table.present("f").tolist() == [table.value(row, "f") is not None for row in range(len(cells))]
