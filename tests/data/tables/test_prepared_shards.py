"""Tables that ``multimodal prepare`` writes as tar shards are read unchanged, trained on, and read by other programs."""

from __future__ import annotations

import csv
import datetime
import io
import json
import wave
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tar_shards import cells, png, streamed

from multimodal.cli.main import main
from multimodal.core.table import Table
from multimodal.data.tables.cells import raw_value
from multimodal.data.tables.open import locate, open_table, stream_rows
from multimodal.prepare.arrow_types import StoredType
from multimodal.prepare.columns import Column
from multimodal.prepare.shard_writer import ShardWriter

ROWS = 12

# the datasets library does not close files that it cannot read
pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file"),
]


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
        values = [None if value == "" else value for value in values]  # an empty text is a missing value
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
