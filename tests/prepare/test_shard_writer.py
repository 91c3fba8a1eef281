"""Shards contain the clean rows with their types, and the same rows give the same bytes."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from multimodal.core.errors import MultimodalError
from multimodal.prepare.arrow_types import Stored, StoredType, stored_value
from multimodal.prepare.cleaning import File
from multimodal.prepare.columns import Column
from multimodal.prepare.shard_writer import ShardWriter, file_safe, file_suffix

COLUMNS = [
    Column("picture", "image", "image"),
    Column("title", "text", "text"),
    Column("price", "number", None),
    Column("a.b/c", "other", None),
]
STORED = {
    "title": Stored(pa.string(), False),
    "price": Stored(pa.float64(), False),
    "a.b/c": Stored(pa.list_(pa.int64()), False),
}


def rows(png: bytes) -> list[dict[str, Any]]:
    return [
        {"picture": File(png, "x/one.png"), "title": "one", "price": 1.5, "a.b/c": [1, 2]},
        {"title": "two"},
        {"picture": File(png, ""), "price": 2.0},
    ]


def write(folder: Path, format: str, png: bytes) -> list[str]:
    folder.mkdir()
    shards = ShardWriter(folder, format, 2, COLUMNS, STORED)
    for number, row in enumerate(rows(png)):
        shards.write("the train/split", number, row)
    shards.write("test", 9, {"title": "four"})
    shards.close()
    assert shards.rows == {"the train/split": 3, "test": 1}
    return sorted(path.name for path in folder.iterdir())


def test_parquet_shards_hold_the_rows_and_the_files_themselves(tmp_path: Path, pictures: Any) -> None:
    png = pictures.png(pictures.blobs(0))
    names = write(tmp_path / "out", "parquet", png)
    assert names == ["test-00000.parquet", "the train%2Fsplit-00000.parquet", "the train%2Fsplit-00001.parquet"]
    read = [pq.read_table(tmp_path / "out" / name).to_pylist() for name in names[1:]]
    assert [row for part in read for row in part] == [
        {"picture": {"bytes": png, "path": "x/one.png"}, "title": "one", "price": 1.5, "a.b/c": [1, 2]},
        {"picture": None, "title": "two", "price": None, "a.b/c": None},
        {"picture": {"bytes": png, "path": "000000002.png"}, "title": None, "price": 2.0, "a.b/c": None},
    ]


def test_the_datasets_library_opens_pictures_in_parquet_shards(tmp_path: Path, pictures: Any) -> None:
    picture = pictures.blobs(0)
    write(tmp_path / "out", "parquet", pictures.png(picture))
    data = datasets.Dataset.from_parquet(
        str(tmp_path / "out" / "the train%2Fsplit-00000.parquet"), cache_dir=str(tmp_path)
    )
    assert isinstance(data, datasets.Dataset)
    assert isinstance(data[0]["picture"], Image.Image)
    assert data[0]["picture"].tobytes() == picture.tobytes()


def test_tar_shards_hold_files_texts_and_the_rest_as_json(tmp_path: Path, pictures: Any) -> None:
    png = pictures.png(pictures.blobs(0))
    names = write(tmp_path / "out", "webdataset", png)
    assert names == ["test-00000.tar", "the train%2Fsplit-00000.tar", "the train%2Fsplit-00001.tar"]
    found: dict[str, bytes] = {}
    for name in names[1:]:
        with tarfile.open(tmp_path / "out" / name) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.uname, member.mode) == (0, 0, "", 0o644)
                content = tar.extractfile(member)
                assert content is not None
                found[member.name] = content.read()
    json_rows: list[dict[str, Any]] = [
        {"price": 1.5, "a.b/c": [1, 2]},
        {"picture": None, "price": None, "a.b/c": None},
        {"title": None, "price": 2.0, "a.b/c": None},
    ]
    assert {n: json.loads(c) for n, c in found.items() if n.endswith("json")} == {
        f"{number:09d}.json": row for number, row in enumerate(json_rows)
    }
    assert {n: c for n, c in found.items() if not n.endswith("json")} == {
        "000000000.picture.png": png,
        "000000000.title.txt": b"one",
        "000000001.title.txt": b"two",
        "000000002.picture.png": png,
    }


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, pictures: Any, format: str) -> None:
    png = pictures.png(pictures.blobs(0))
    names = write(tmp_path / "one", format, png)
    assert write(tmp_path / "two", format, png) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("data", "name", "kind", "suffix"),
    [
        (b"\x89PNG....", "a.jpg", "image", "png"),
        (b"RIFF1234WAVEfmt", "", "audio", "wav"),
        (b"RIFF1234WEBP", "", "image", "webp"),
        (b"?", "a.JPEG", "image", "jpeg"),
        (b"?", "", "image", "bin"),
        (b"BM but not a bitmap", "m.mol", "file", "mol"),
    ],
)
def test_the_suffix_of_a_file_is_detected_from_its_first_bytes(data: bytes, name: str, kind: str, suffix: str) -> None:
    assert file_suffix(File(data, name), kind) == suffix


def test_names_are_safe_in_paths_and_different() -> None:
    names = ["train", "a b", "../up", "a.b", "a%2Eb", "ä", "a/b"]
    assert file_safe("train") == "train"
    assert len({file_safe(name) for name in names}) == len(names)
    assert not any("/" in file_safe(name) or "." in file_safe(name) for name in names)


# -- types


@pytest.mark.parametrize(
    ("values", "arrow", "as_text"),
    [
        ([1, 2], pa.int64(), False),
        ([1, 2.5], pa.float64(), False),
        ([2**60, 2.5], pa.string(), True),
        ([2**70], pa.string(), True),
        ([True, False], pa.bool_(), False),
        ([True, 1], pa.string(), True),
        (["a"], pa.string(), False),
        (["a", 1], pa.string(), True),
        ([b"a"], pa.binary(), False),
        ([[1], [2, 3]], pa.list_(pa.int64()), False),
        ([[1], ["a"]], pa.string(), True),
        ([{}], pa.string(), True),
        ([[{}]], pa.string(), True),
        ([], pa.string(), False),
    ],
)
def test_a_column_is_stored_in_the_type_that_all_of_its_values_share(
    values: list[Any], arrow: Any, as_text: bool
) -> None:
    found = StoredType("column")
    for value in values:
        found.add(value)
    assert found.stored == Stored(arrow, as_text)
    pa.array([stored_value(value, found.stored) for value in values], type=arrow)


def test_a_mapping_keeps_the_entries_of_all_rows() -> None:
    found = StoredType("column")
    found.add({"a": 1})
    found.add({"a": 2, "b": "x"})
    assert found.stored == Stored(pa.struct([("a", pa.int64()), ("b", pa.string())]), False)


def test_a_value_that_no_file_can_hold_is_reported() -> None:
    with pytest.raises(MultimodalError, match="column 'picture' holds values of the type object"):
        StoredType("picture").add(object())
