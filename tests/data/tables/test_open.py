"""Tables of files, of folders and of objects in memory are read as they were written."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.table import Table
from multimodal.data.tables.open import locate, open_table, stream_rows

ROWS = [
    {"id": "007", "title": "a “red” cup, large", "photo": "photos/cup.png"},
    {"id": "008", "title": None, "photo": "photos/mug.png"},
    {"id": "NA", "title": "null", "photo": None},
]


# the datasets library does not close files that it cannot read
pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file"),
]


def cells(table: Table) -> list[dict[str, Any]]:
    return [{c: table.value(row, c) for c in table.columns} for row in range(len(table))]


def write(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    frame = pd.DataFrame(list(rows))
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".tsv":
        frame.to_csv(path, index=False, sep="\t", quoting=3)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("access", ["mapped", "memory"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_a_table_file_is_read_unchanged(tmp_path: Path, suffix: str, access: Any) -> None:
    path = write(tmp_path / f"shop{suffix}")
    table = open_table(str(path), access=access)
    assert (table.name, table.columns, table.base) == (str(path), ("id", "title", "photo"), str(tmp_path))
    assert cells(table) == ROWS
    assert table.column("id") == ["007", "008", "NA"]
    assert table.present("title").tolist() == [True, False, True]
    assert table.metadata_columns == table.columns


def test_an_unknown_access_is_wrong_usage() -> None:
    for table in ("glyphs", ROWS):
        with pytest.raises(UsageError, match=r"access 'stream' is not one of mapped, memory, streamed"):
            open_table(table, access="stream")  # pyright: ignore[reportArgumentType]


def test_compressed_and_several_files_and_urls(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"part-{number}.parquet", [ROWS[number]])
    assert cells(open_table(f"{tmp_path}/part-*.parquet")) == ROWS
    assert cells(open_table(str(tmp_path))) == ROWS  # a folder of them
    pd.DataFrame(ROWS).to_csv(tmp_path / "shop.csv.gz", index=False)
    assert cells(open_table(str(tmp_path / "shop.csv.gz"))) == ROWS
    assert cells(open_table(f"file://{tmp_path}/part-*.parquet")) == ROWS


def test_a_table_in_the_memory_file_system_of_fsspec_is_read_by_its_url() -> None:
    with fsspec.open("memory://shop/rows.jsonl", "w") as file:
        file.write("".join(json.dumps(row) + "\n" for row in ROWS))  # pyright: ignore[reportAttributeAccessIssue]
    table = open_table("memory://shop/rows.jsonl")
    assert cells(table) == ROWS
    assert table.base == "memory:///shop"


def test_missing_numbers_are_missing_by_row_and_by_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": np.array([1.5, np.nan])}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"n": 1.5}\n{"n": NaN}\n')
    for name in ("a.parquet", "b.jsonl"):
        table = open_table(str(tmp_path / name))
        assert table.column("n") == [1.5, None] == [row["n"] for row in cells(table)]
        assert table.present("n").tolist() == [True, False]


def test_files_of_a_csv_table_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a\n1\n")
    (tmp_path / "2.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"2\.csv has the columns a, b, but .*1\.csv has a: all files of a table must"):
        open_table(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("a,b\n-,2\n", {"na_values": ["-"]}, {"a": None, "b": "2"}),
        ("a, b\n1, 2\n", {"skipinitialspace": True}, {"a": "1", "b": "2"}),
        ("a,b\n1,2\n", {"column_names": ["x", "y"], "header": 0}, {"x": "1", "y": "2"}),
        ("a,b\n1,2\n", {"usecols": ["b"]}, {"b": "2"}),
    ],
)
def test_every_setting_of_the_csv_reader_applies(tmp_path: Path, content: str, options: Any, expected: Any) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert cells(open_table(str(tmp_path / "a.csv"), options)) == [expected]
    (tmp_path / "a.tsv").write_text("a;b\n1;2\n")
    assert cells(open_table(str(tmp_path / "a.tsv"), {"sep": ";"})) == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(("name", "content"), [("a.csv", "a,b\n"), ("a.jsonl", ""), ("a.jsonl", "\n\n")])
def test_a_table_without_rows_is_reported(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(MultimodalError, match=rf"{name}' has no rows"):
        open_table(str(tmp_path / name))


def test_packed_parquet_is_not_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(UsageError, match=r"format of .* is unknown: it does not end in \.csv"):
        open_table(str(tmp_path / "a.parquet.gz"))


def test_classes_are_read_as_their_names(tmp_path: Path) -> None:
    features = datasets.Features({"kind": datasets.ClassLabel(names=["cup", "jug"]), "n": datasets.Value("int64")})
    data = datasets.Dataset.from_dict({"kind": [1, 0, None, -1], "n": [1, 2, 3, 4]}, features)
    data.to_parquet(str(tmp_path / "rows.parquet"))
    source = locate(str(tmp_path / "rows.parquet"))
    for rows in (open_table(data), open_table(source.name)):
        assert rows.column("kind") == ["jug", "cup", None, None]
        assert [row["kind"] for row in cells(rows)] == ["jug", "cup", None, None]
        assert rows.present("kind").tolist() == [True, True, False, False]
    assert [row["kind"] for row in stream_rows(source, source.files[0])] == ["jug", "cup", None, None]


def test_an_invalid_json_line_is_reported_by_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' * 6 + '{"a": 1\n' + '{"a": 1}\n' * 3)
    with pytest.raises(MultimodalError, match=r"Line 7 of .*rows\.jsonl is not JSON: Expecting ','"):
        open_table(str(path))


def test_options_are_passed_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_bytes("id;title\n1;caf\xe9\n".encode("latin-1"))
    table = open_table(str(tmp_path / "odd.csv"), {"delimiter": ";", "encoding": "latin-1"})
    assert cells(table) == [{"id": "1", "title": "café"}]
    with pytest.raises(MultimodalError, match=r"odd\.csv.*Set options\.encoding"):
        open_table(str(tmp_path / "odd.csv"), {"delimiter": ";"})
    with pytest.raises(UsageError, match=r"options .*delimitr"):
        open_table(str(tmp_path / "odd.csv"), {"delimitr": ";"})


def test_quotes_in_a_tsv_are_ordinary_characters_and_backslashes_may_escape(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text('smiles\ttext\nC\\\\C\t"a" 5"-thing\nCC\tb\n')
    assert cells(open_table(str(tmp_path / "m.tsv"), {"escapechar": "\\"})) == [
        {"smiles": "C\\C", "text": '"a" 5"-thing'},
        {"smiles": "CC", "text": "b"},
    ]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.csv")
    assert len(open_table(str(path))) == 3
    write(path, ROWS[:2])
    assert cells(open_table(str(path))) == ROWS[:2]


def test_a_folder_of_files_has_a_row_for_each_stem(tmp_path: Path) -> None:
    folder = tmp_path / "things"
    for name, content in {
        "cups/red.png": b"1", "cups/red.txt": "röd".encode(), "mugs/red.png": b"2", "lone.wav": b"3", ".hidden": b"4",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    table = open_table(str(folder))
    assert cells(table) == [
        {"key": "cups/red", "name": "red", "folder": "cups", "png": "cups/red.png", "txt": "röd", "wav": None},
        {"key": "lone", "name": "lone", "folder": None, "png": None, "txt": None, "wav": "lone.wav"},
        {"key": "mugs/red", "name": "red", "folder": "mugs", "png": "mugs/red.png", "txt": None, "wav": None},
    ]
    assert table.base == str(folder)


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(file, "png")
    return file.getvalue()


def test_data_sets_of_the_datasets_library_on_disk_and_in_memory(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list([dict(row) for row in ROWS])
    assert cells(open_table(data)) == ROWS
    assert cells(open_table(data.select([2, 0]))) == [ROWS[2], ROWS[0]]
    data.save_to_disk(str(tmp_path / "one"))
    assert cells(open_table(str(tmp_path / "one"))) == ROWS
    datasets.DatasetDict({"train": data.select([0, 1]), "test": data.select([2])}).save_to_disk(str(tmp_path / "both"))
    assert open_table(str(tmp_path / "both")).column("split") == ["train", "train", "test"]


def test_frames_and_lists_are_tables() -> None:
    assert cells(open_table([dict(row) for row in ROWS])) == ROWS
    assert cells(open_table(pd.DataFrame({"n": [1.5, np.nan]}))) == [{"n": 1.5}, {"n": None}]
    with pytest.raises(UsageError, match="int is not a table"):
        open_table(5)


def test_a_list_of_dicts_has_the_columns_of_all_of_them() -> None:
    table = open_table([{"title": "a"}, {"title": "b", "photo": "x.png"}])
    assert table.columns == ("title", "photo")
    assert [table.value(row, "photo") for row in range(2)] == [None, "x.png"]


@pytest.mark.parametrize("access", ["mapped", "memory"])
def test_values_of_several_types_in_one_column_are_kept(tmp_path: Path, access: Any) -> None:
    rows = [
        {"a": 1, "b": "img/7.png", "n": [1, 2], "d": {"k": 1}},
        {"a": "z", "b": 2, "n": ["q"], "d": {"k": "w"}},
        {"a": None, "b": "x", "n": None, "d": None},
    ]
    file = tmp_path / "mixed.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = open_table(str(file), access=access)
    assert [{c: table.value(n, c) for c in table.columns} for n in range(3)] == rows
    assert list(table.column("a")) == [1, "z", None]
    assert table.present("a").tolist() == [True, True, False]
    assert list(stream_rows(locate(str(file)), str(file))) == rows


@pytest.mark.parametrize("late", [{"a": "z", "b": "late"}, {"a": "z", "n": "no null"}])
def test_keys_that_first_appear_late_in_a_file_are_found_with_a_larger_chunk(
    tmp_path: Path, late: dict[str, str]
) -> None:
    file = tmp_path / "late.jsonl"
    line = json.dumps({"a": "x" * 1000, "n": None}) + "\n"
    file.write_text(line * 40 + json.dumps(late) + "\n")
    small = {"chunksize": 20_000}
    with pytest.raises(MultimodalError, match=r"late\.jsonl.*set options\.chunksize to its size"):
        open_table(str(file), small)
    table = open_table(str(file), {"chunksize": 100_000})
    assert {c: table.value(40, c) for c in late} == late


@pytest.mark.slow
def test_a_million_rows_open_in_seconds_and_take_no_memory(tmp_path: Path) -> None:
    """Measured in its own process, without the time and memory of the imports, at the first opening and again."""
    number = np.arange(1_000_000)
    rows = pa.table({
        "image": pa.array(number.astype(str)), "graph": pa.array(number.astype(str)), "text": pa.array(number.astype(str)),
    })  # fmt: skip
    pq.write_table(rows, tmp_path / "million.parquet")
    program = """
import resource, sys, time
import datasets, pandas, pyarrow.parquet
import multimodal.data.samples as samples
datasets.disable_progress_bars()
samples.Samples.of([{"a": "b"}], {"text": "a"})
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
made = samples.Samples.of(sys.argv[1], {"image": "image", "graph": "graph", "text": "text"})
assert dict(made[999_999].values) == {"image": "999999", "graph": "999999", "text": "999999"}
print(time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    for _ in range(2):
        command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "million.parquet")]
        seconds, mebibytes = map(float, subprocess.check_output(command, text=True).split())
        assert seconds < 2
        assert mebibytes < 300


@pytest.mark.parametrize("content", ["a,b\n1,2,3\n4,5,6\n", "a,b\n1,2\n4,5,6\n"])
def test_fields_beyond_the_header_are_an_error_and_shift_no_column(tmp_path: Path, content: str) -> None:
    file = tmp_path / "long.csv"
    file.write_text(content)
    with pytest.raises(MultimodalError, match=r"long\.csv.*fields"):
        open_table(str(file))
    with pytest.raises(MultimodalError, match=r"long\.csv.*fields"):
        list(stream_rows(locate(str(file)), str(file)))
    file.write_text("a,b\n1,2,\n4,5,\n")
    assert list(open_table(str(file)).column("a")) == ["1", "4"]


def test_empty_file_cells_and_nan_are_missing(tmp_path: Path) -> None:
    photos = [{"bytes": b"x", "path": None}, {"bytes": None, "path": None}, None, {"bytes": None, "path": "p.png"}]
    table = pa.table({"photo": photos, "size": pa.array([1.0, float("nan"), None, 0.0])})
    pq.write_table(table, tmp_path / "t.parquet")
    opened = open_table(str(tmp_path / "t.parquet"))
    assert opened.present("photo").tolist() == [True, False, False, True]
    assert opened.present("size").tolist() == [True, False, False, True]
    assert [opened.value(row, "photo") for row in range(4)] == [b"x", None, None, "p.png"]


def test_files_of_a_folder_that_would_be_one_cell_are_reported(tmp_path: Path) -> None:
    for name in ("a.key", "a.png", "b.png"):
        (tmp_path / name).touch()
    table = open_table(str(tmp_path))
    assert [table.value(row, "key") for row in range(2)] == ["a", "b"]
    assert [table.value(row, "key file") for row in range(2)] == ["a.key", None]
    (tmp_path / "b.PNG").touch()
    with pytest.raises(UsageError, match="two files for the column 'png' of 'b'"):
        open_table(str(tmp_path))


def test_images_in_a_data_set_are_read_as_files() -> None:
    data = datasets.Dataset.from_list([{"p": png("red")}]).cast_column("p", datasets.Image())
    assert open_table(data).value(0, "p") == png("red")
    assert open_table(data).metadata_columns == ()


def test_an_unknown_table_is_rejected_with_suggestions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no table 'glyph'.*Did you mean 'glyphs'\?.*\.csv.*a folder, a URL"):
        open_table("glyph")
    (tmp_path / "table.xls").write_bytes(b"1")
    with pytest.raises(UsageError, match=r"format of .* is unknown: it does not end in \.csv"):
        open_table(str(tmp_path / "table.xls"))
    write(tmp_path / "a.csv")
    write(tmp_path / "b.jsonl")
    with pytest.raises(UsageError, match=r"several table formats \(\.csv, \.jsonl\)"):
        open_table(str(tmp_path))
    with pytest.raises(MultimodalError, match="no-such-protocol"):
        open_table("no-such-protocol://x/y.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("more.csv", b"a,b\n1,2\n1,2,3\n"),
        ("quote.csv", b'a,b\n1,"2\n'),
        ("cut.jsonl", b'{"a": 1}\n{"a": '),
        ("no.parquet", b"PAR1 not so"),
        ("no.tar", b"\x00\x01" * 700),
        ("no.csv.gz", b"abc"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MultimodalError) as caught:
        open_table(str(tmp_path / name))
    assert name in str(caught.value)


@given(
    st.binary(max_size=300) | st.text(alphabet='a1,;"\n\r\\\t {}[]:é\x00', max_size=120).map(str.encode),
    st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet", ".tar"]),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_content_is_a_table_or_a_clear_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(content)
    try:
        table = open_table(str(path), access="memory")
    except MultimodalError:
        return
    cells(table)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    for name in ("pairs [1].csv", "pairs [a-z]?.csv", "pairs *.csv"):
        (tmp_path / name).write_text(f"name\n{name}\n")
        assert cells(open_table(str(tmp_path / name))) == [{"name": name}]
        assert open_table(str(tmp_path / name)).base == str(tmp_path)
        source = locate(str(tmp_path / name))
        assert [row["name"] for file in source.files for row in stream_rows(source, file)] == [name]
    assert len(open_table(f"{tmp_path}/pairs [[]*.csv")) == 2
    assert open_table(f"{tmp_path}/pair? [[]1].csv").base == str(tmp_path)


def test_json_next_to_other_files_is_not_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "things"
    (folder / "cups").mkdir(parents=True)
    (folder / "a.json").write_text('[{"n": 1}]')
    assert cells(open_table(str(folder))) == [{"n": 1}]
    (folder / ".hidden").write_text("")
    assert cells(open_table(str(folder))) == [{"n": 1}]
    (folder / "cups" / "a.png").write_bytes(b"png")
    assert open_table(str(folder)).columns == ("key", "name", "folder", "json", "png")
    (folder / "pairs.csv").write_text("m\n2\n")
    assert cells(open_table(str(folder))) == [{"m": "2"}]


@pytest.mark.parametrize("name", ["glyphs", "hf:owner/name", "folder"])
def test_tables_without_table_files_are_not_streamed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(b"png")
    with pytest.raises(UsageError, match=r"leave out access: streamed") as caught:
        locate(name)
    assert ("hf://datasets/owner/name/**/*.parquet" in str(caught.value)) == (name == "hf:owner/name")
