"""Tar shards of any writer are read, and unreadable values and files are reported."""

from __future__ import annotations

import csv
import datetime
import gc
import gzip
import io
import json
import tarfile
import wave
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.cli.main import main
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.core.table import Table
from multimodal.data.tables import webdataset as shards
from multimodal.data.tables.cells import decode_json_cell, encode_json_cell, raw_value, unreadable_cell
from multimodal.data.tables.open import locate, open_table, stream_rows
from multimodal.prepare.arrow_types import StoredType
from multimodal.prepare.columns import Column
from multimodal.prepare.shard_writer import ShardWriter

ROWS = 12

# the datasets library does not close files that it cannot read
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    yield
    gc.collect()  # here, where its warnings are ignored


def shard(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    pairs = list(members.items()) if isinstance(members, Mapping) else members
    with tarfile.open(path, "w") as archive:
        for name, content in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def png(colour: str | int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(colour).integers(0, 256, (12, 10, 3), np.uint8) if isinstance(colour, int) else None
    (Image.new("RGB", (3, 2), str(colour)) if noise is None else Image.fromarray(noise)).save(file, "png")
    return file.getvalue()


def cell(table: Table, row: int, column: str) -> Any:
    """The value, or the reason why it cannot be read."""
    try:
        return table.value(row, column)
    except Unreadable as error:
        return error.reason


def cells(table: Table, *columns: str) -> list[list[Any]]:
    return [[cell(table, row, column) for row in range(len(table))] for column in columns]


def streamed(name: str, column: str) -> list[Any]:
    source, found = locate(name), []
    for file in source.files:
        for row in stream_rows(source, file):
            try:
                found.append(raw_value(row[column]))
            except Unreadable as error:
                found.append(error.reason)
    return found


def test_suffixes_and_json_keys_are_columns_and_may_be_missing(tmp_path: Path) -> None:
    shard(tmp_path / "a-0.tar", {"x.png": png("red"), "y.txt": b"why", "y.json": b'{"n": 3, "png": 1}'})
    shard(tmp_path / "a-1.tar", {"z.PNG": png("blue"), "z.txt": "zéd".encode(), "z.cls": b"4", "z.json": b'{"n": "4"}'})
    table = open_table(f"{tmp_path}/a-*.tar")
    assert cells(table, "__key__", "txt", "png", "cls", "n") == [
        ["x", "y", "z"],
        [None, "why", "zéd"],
        [png("red"), 1, png("blue")],
        [None, None, 4],
        [None, 3, "4"],
    ]
    assert set(table.metadata_columns) == {"__key__", "txt", "cls", "n", "png"}
    assert table.present("n").tolist() == [False, True, True]
    for column in ("txt", "png", "cls", "n", "__key__"):
        assert streamed(f"{tmp_path}/a-*.tar", column) == cells(table, column)[0]


def test_the_last_ending_is_not_part_of_a_column_unless_two_files_would_be_one(tmp_path: Path) -> None:
    first = {"1.photo.png": b"a", "1.seg.png": b"b", "1.seg.txt": b"c", "1.a%2Eb.wav": b"d"}
    shard(tmp_path / "a.tar", {**first, "2.photo.jpg": b"e", "2.seg.png": b"f"})
    table = open_table(str(tmp_path / "a.tar"))
    assert set(table.columns) == {"photo", "seg.png", "seg.txt", "a.b", "__key__", "__url__"}
    assert cells(table, "photo", "seg.png", "seg.txt", "a.b") == [[b"a", b"e"], [b"b", b"f"], ["c", None], [b"d", None]]


def test_an_unreadable_file_makes_only_its_value_unreadable(tmp_path: Path) -> None:
    long = {f"{n:04}.txt": b"." for n in range(2_001)}  # so that the next members are not sampled
    odd = [("a.txt", b"\xff"), ("a.n.cls", b"x"), ("b.json", b'{"n": '), ("b.txt", b"b")]
    odd += [("c.t.txt", b"1"), ("c.t.text", b"2"), ("d.json", b"[1]"), ("e.unseen.png", b"")]
    first = [("0.txt", b"0"), ("0.json", b'{"n": 1, "t": null}')]
    shard(tmp_path / "a.tar", [*first, *long.items(), *odd])
    table = open_table(str(tmp_path / "a.tar"))
    assert len(table) == 1 + 2_001 + 5
    rows = range(2_002, len(table))
    assert [cell(table, row, "txt") for row in rows] == ["not UTF-8", "b", None, None, None]
    assert [cell(table, row, "n") for row in rows] == ["not a number", "not JSON", None, None, None]
    assert [cell(table, row, "t") for row in rows] == [None, "not JSON", "two files of one column", None, None]
    assert table.column("n")[-6:] == [None] * 6


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_FILE_BYTES", 2**20)
    shard(tmp_path / "a.tar", {"a.png": b"1" * 2**20, "a.txt": b"a", "b.png": b"1" * (2**20 + 1), "b.txt": b"b"})
    table = open_table(str(tmp_path / "a.tar"))
    assert [cell(table, row, "txt") for row in range(2)] == ["a", "b"]
    assert cell(table, 0, "png") == b"1" * 2**20
    assert cell(table, 1, "png") == "too large"


def test_pickled_files_are_left_out(tmp_path: Path) -> None:
    shard(tmp_path / "p.tar", {"x.pth": b"...", "x.pyd": b"...", "x.emb.pickle": b"...", "x.txt": b"t"})
    assert open_table(str(tmp_path / "p.tar")).columns == ("txt", "__key__", "__url__")


@pytest.mark.parametrize(
    ("before", "length"),
    [
        (3, 700),  # in the first file
        (3, 1_024),  # after it, where a header or the mark of the end must be
        (3, 1_124),  # in the header of the second one
        (3, 3_072),  # after the last one
        (2_001, 1_024),  # after the sampled members
    ],
)
@pytest.mark.parametrize("access", ["memory", "streamed"])
def test_a_truncated_tar_is_named(tmp_path: Path, access: Any, before: int, length: int) -> None:
    shard(tmp_path / "a-0.tar", {f"{n:04}.txt": b"." for n in range(before)})
    path = shard(tmp_path / "a-1.tar", {f"{n}.txt": b"t" * 500 for n in range(3)})
    path.write_bytes(path.read_bytes()[:length])
    tars = f"{tmp_path}/a-*.tar"
    with pytest.raises(UsageError, match=r"a-1\.tar is not a tar, or it is truncated"):
        _ = streamed(tars, "txt") if access == "streamed" else open_table(tars, access=access)


def test_invalid_tars_and_damaged_headers_are_reported(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {f"{n}.txt": b"t" * 500 for n in range(3)})
    intact = path.read_bytes()
    for damaged in (b"", b"no tar" * 200, intact[:1_024] + b"?" * 512 + intact[1_536:]):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"a\.tar is not a tar"):
            open_table(str(path))


def test_compressed_tars_are_read_and_truncation_is_reported(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {f"{n}.txt": np.random.default_rng(n).bytes(900).hex().encode() for n in range(9)})
    packed = gzip.compress(path.read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(packed)
    assert cells(open_table(f"{tmp_path}/a.tar.gz"), "txt") == cells(open_table(f"{tmp_path}/a.tar"), "txt")
    (tmp_path / "b.tar.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UsageError, match=r"b\.tar\.gz is not a tar"):
        open_table(f"{tmp_path}/b.tar.gz")


def test_tars_at_any_address_are_read(tmp_path: Path) -> None:
    for n in range(2):
        content = shard(tmp_path / "x.tar", {f"{n}.photo.png": png(n), f"{n}.json": b'{"n": 1}'}).read_bytes()
        with fsspec.open(f"memory://bucket/a-{n}.tar", "wb") as file:
            file.write(content)  # pyright: ignore
    table = open_table("memory://bucket/a-*.tar")
    assert cells(table, "__key__", "photo", "n") == [["0", "1"], [png(0), png(1)], [1, 1]]
    assert streamed("memory://bucket/a-*.tar", "photo") == [png(0), png(1)]
    addresses = ["memory:///bucket/a-0.tar", "memory:///bucket/a-1.tar"]
    assert cells(table, "__url__") == [addresses] == [streamed("memory://bucket/a-*.tar", "__url__")]


def test_too_many_columns_are_rejected(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", {f"{n}.json": json.dumps({f"key {n}": n}).encode() for n in range(1_001)})
    with pytest.raises(UsageError, match=r"1,001 columns"):
        open_table(str(tmp_path / "a.tar"))


JSON = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())


@given(JSON)
def test_values_of_any_type_are_decoded_unchanged(value: Any) -> None:
    assert decode_json_cell(encode_json_cell(value)) == value
    with pytest.raises(Unreadable, match="why") as refusal:
        decode_json_cell(unreadable_cell("reason", f"why {value!r}"))
    assert refusal.value.reason == "reason"


NAMES = st.text("ab./%é\udcff", min_size=1, max_size=4)  # the last one is of a name that is not UTF-8
MEMBERS = st.lists(
    st.tuples(
        st.builds("{}.{}".format, NAMES, st.sampled_from(["txt", "json", "cls", "png", "a.png", "a.json", "pkl", ""])),
        st.binary(max_size=6)
        | JSON.map(lambda value: json.dumps({"n": value, "__key__": value, "\udc00": 1}).encode()),
    ),
    max_size=8,
)


@given(MEMBERS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_rows_of_any_tar_are_read(tmp_path: Path, members: list[tuple[str, bytes]]) -> None:
    path = str(shard(tmp_path / "odd.tar", members))
    files = [name.rpartition("/")[2] for name, _ in members]
    if not any(file.partition(".")[0] and file.partition(".")[2] and file[:2] != "__" for file in files):
        with pytest.raises(MultimodalError, match="odd"):
            open_table(path, access="memory")
        return
    table = open_table(path, access="memory")
    for column in table.columns:
        found = cells(table, column)[0]
        assert streamed(path, column) == found
        assert table.present(column).tolist() == [value is not None for value in found] or column == "n"


# -- written by prepare and read again


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A table of pictures, titles, prices, kinds and graphs, some of them missing."""
    folder = tmp_path / "shop"
    (folder / "files").mkdir(parents=True)
    with (folder / "things.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sku", "photo", "title", "price", "outline"])
        for n in range(ROWS):
            (folder / f"files/{n}.png").write_bytes(png(n))
            graph = {"x": [[float(n), 1.0]] * 2, "edge_index": [[0, 1], [1, 0]]}
            (folder / f"files/{n}.json").write_text(json.dumps(graph))
            photo = f"files/{n}.png" if n != 3 else ""
            outline = f"files/{n}.json" if n not in (0, 4) else ""
            title = f"the thing of number {n} in the shop" if n != 5 else ""
            rows.writerow([f"s{n}", photo, title, n / 4 if n else "", outline])
    return folder


def prepared(shop: Path, format: str) -> Path:
    out = shop.parent / format
    words = ["--columns.image", "photo", "--columns.text", "title", "--columns.graph", "outline", "--key", "sku"]
    assert main(["prepare", str(shop / "things.csv"), "--out", str(out), *words, "--format", format]) == 0
    return out


def test_a_prepared_table_is_the_same_in_either_format(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet, tars = (open_table(str(prepared(shop, format))) for format in ("parquet", "webdataset"))
    assert set(parquet.columns) | {"__key__", "__url__"} == set(tars.columns)
    for column in parquet.columns:
        assert cells(tars, column) == cells(parquet, column)
        assert tars.present(column).tolist() == parquet.present(column).tolist()
    assert tars.column("split") == parquet.column("split")
    assert tars.column("sku") == parquet.column("sku")
    assert sum(value is None for value in cells(tars, "photo")[0]) == 1
    again = prepared_again(tars.name)
    assert sorted(again.column("sku")) == sorted(tars.column("sku"))


def prepared_again(folder: str) -> Table:
    words = ["--columns.image", "photo", "--columns.text", "title", "--key", "sku", "--split", "split"]
    assert main(["prepare", folder, "--out", f"{folder}-again", *words, "--format", "webdataset"]) == 0
    return open_table(f"{folder}-again")


@pytest.mark.parametrize(
    ("format", "access"), [("webdataset", "mapped"), ("webdataset", "streamed"), ("parquet", "mapped")]
)
def test_a_prepared_table_is_trained_on(
    shop: Path, format: str, access: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "run": str(shop.parent / "run"),
        "data": {
            "table": str(prepared(shop, format)),
            "columns": {"image": "photo", "text": "title", "graph": "outline"},
            "key": "sku",
            "split": "split",
            "access": access,
            "batch_size": 4,
            "max_rejects": 0.0,
            "workers": 0,
        },
        "model": {
            "dim": 8,
            "encoders": {
                "image": {"class_path": "cnn", "init_args": {"size": 16, "channels": 3}},
                "text": {"class_path": "bag", "init_args": {"width": 8}},
                "graph": {
                    "class_path": "gnn",
                    "init_args": {"conv": "gin", "node_features": 2, "edge_features": 0, "width": 8, "layers": 1},
                },
            },
        },
        "trainer": {
            "max_steps": 2,
            "val_check_interval": 2,
            "check_val_every_n_epoch": None,
            "enable_progress_bar": False,
        },
    }
    path = shop.parent / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.chdir(shop.parent)
    assert main(["fit", "--config", str(path)]) == 0
    rejects = shop.parent / "run" / "rejects.jsonl"
    assert not rejects.exists() or not rejects.read_text()


def test_audio_and_other_columns_are_the_same_in_either_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for n in range(ROWS):
        with wave.open(str(tmp_path / f"{n}.wav"), "wb") as file:
            file.setparams((1, 2, 8_000, 0, "NONE", ""))
            file.writeframes(np.random.default_rng(n).integers(-9_000, 9_000, 4_000, np.int16).tobytes())
        day = datetime.date(2020, 1, n + 1)
        rows.append({"id": f"r{n}", "clip": f"{n}.wav", "said": f"word {n} of the talk {n * n}", "loud": n / 8})
        rows[-1] |= {"kind": "ab"[n % 2], "hash": bytes([n, 255]), "peaks": [n, 2 * n], "day": day}
    for n, column in enumerate(["clip", "said", "loud", "kind", "hash", "peaks", "day"]):
        rows[n][column] = None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "talks.parquet")
    words = ["--columns.audio", "clip", "--columns.text", "said", "--key", "id"]
    tables = []
    for format in ("parquet", "webdataset"):
        out = str(tmp_path / format)
        assert main(["prepare", f"{tmp_path}/talks.parquet", "--out", out, *words, "--format", format]) == 0
        tables.append(open_table(out))
    parquet, tars = tables
    assert {*rows[0], "split"} <= {*parquet.columns}
    for column in parquet.columns:
        [found], [expected] = cells(tars, column), cells(parquet, column)
        if column == "day":  # JSON has no dates
            expected = [None if value is None else str(value) for value in expected]
        assert found == expected
        assert (column in rows[0] and None in found) == (column in rows[0] and column != "id")


LETTERS = st.text("ab.%/_ é", min_size=1, max_size=4)
COLUMN_NAMES = LETTERS | st.sampled_from(["json", "txt", "cls", "pkl", "a.txt", "__key__", "__class__", "A"])
SAME_TYPE = [
    st.text(max_size=4),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.binary(max_size=4),
    st.lists(st.integers(-9, 9), max_size=3),
]


@given(st.data())
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_is_read_unchanged_from_our_tars(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    rows = data.draw(st.integers(1, 4))
    table: dict[str, list[Any]] = {}
    columns, stored = [], {}
    for name in data.draw(st.lists(COLUMN_NAMES, min_size=1, max_size=5, unique=True)):
        kind = SAME_TYPE[0] if name == "__key__" else data.draw(st.sampled_from(SAME_TYPE))
        present = kind if name == "__key__" else kind | st.none()
        table[name] = data.draw(st.lists(present, min_size=rows, max_size=rows))
        is_text = all(isinstance(value, str) for value in table[name] if value is not None) and data.draw(st.booleans())
        columns.append(Column(name, "text" if is_text else "other", None))
        found = StoredType(name)
        for value in table[name]:
            if value is not None:
                found.add(value)
        stored[name] = found.stored
    folder = tmp_path_factory.mktemp("ours")
    shards = ShardWriter(folder, "webdataset", 2, columns, stored)
    for row in range(rows):
        shards.write("train", row, {name: table[name][row] for name in table if table[name][row] is not None})
    shards.close()
    read = open_table(str(folder), access="memory")
    assert set(read.columns) == {*table, "__key__", "__url__"}
    for name, values in table.items():
        assert cells(read, name) == [values]
        assert streamed(str(folder), name) == values


def test_the_datasets_library_reads_our_tars(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (shop / "things.csv").read_text().splitlines()
    (shop / "things.csv").write_text("\n".join(line for line in lines if ",," not in f"{line},") + "\n")
    for file in sorted(prepared(shop, "webdataset").glob("*.tar")):
        theirs = list(datasets.load_dataset("webdataset", data_files=str(file), split="train", streaming=True))
        ours = [
            {column: raw_value(cell) for column, cell in row.items()}
            for row in stream_rows(locate(str(file)), str(file))
        ]
        assert [row["__key__"] for row in theirs] == [row["__key__"] for row in ours]
        assert [row["title.txt"] for row in theirs] == [row["title"] for row in ours]
        assert [row["json"]["price"] for row in theirs] == [row["price"] for row in ours]
        assert [row["outline.json"] for row in theirs] == [json.loads(row["outline"]) for row in ours]
        assert [np.array(row["photo.png"]).tolist() for row in theirs] == [
            np.array(Image.open(io.BytesIO(row["photo"]))).tolist() for row in ours
        ]
