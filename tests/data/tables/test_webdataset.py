"""Tar shards of any writer are read, and unreadable values and files are reported."""

from __future__ import annotations

import gzip
import json
import posixpath
import re
import subprocess
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tar_shards import cell, cells, png, shard, streamed

from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.data.tables import webdataset as shards
from multimodal.data.tables.cells import decode_json_cell, encode_json_cell, unreadable_cell
from multimodal.data.tables.open import open_table

# the datasets library does not close files that it cannot read
pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file"),
]


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


BLOCK = 512


def place_of(tar: bytes, member: int) -> int:
    """The byte at which the header of a member of one block begins."""
    return tar.index(b"ustar") // BLOCK * BLOCK + 2 * BLOCK * member


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("access", ["memory", "streamed"])
def test_a_header_of_zeros_does_not_end_a_tar(tmp_path: Path, packed: bool, access: Any) -> None:
    path = shard(tmp_path / "a.tar", {f"{n:03}.txt": f"text {n}".encode() for n in range(300)})
    intact = path.read_bytes()
    path = tmp_path / "a.tar.gz" if packed else path
    for member in (1, 150, 298, 299):
        place = place_of(intact, member)
        damaged = intact[:place] + bytes(BLOCK) + intact[place + BLOCK :]
        path.write_bytes(gzip.compress(damaged) if packed else damaged)
        message = rf"{path.name} has an end mark, .* more data begin at byte {place + BLOCK:,} "
        with pytest.raises(UsageError, match=message):
            _ = streamed(str(path), "txt") if access == "streamed" else open_table(str(path), access=access)


def test_every_damaged_block_of_a_tar_is_reported_or_changes_one_value(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {f"{n}.txt": b"t" * 500 for n in range(4)})
    intact = path.read_bytes()
    reported = 0
    for block in range(8):
        path.write_bytes(intact[: block * BLOCK] + bytes(BLOCK) + intact[(block + 1) * BLOCK :])
        try:
            found = cells(open_table(str(path), access="memory"), "txt")[0]
        except UsageError:
            reported += 1
        else:
            assert sorted(map(len, found)) == [500] * 4  # its contents are zeros now; a tar has no digest of them
            assert found.count("t" * 500) == 3
    assert reported == 4  # each header


def test_joined_tars_and_incomplete_end_marks_are_reported(tmp_path: Path) -> None:
    content = shard(tmp_path / "a.tar", {f"{n}.txt": b"t" for n in range(3)}).read_bytes()
    end = 3 * 2 * BLOCK
    (tmp_path / "joined.tar").write_bytes(content * 2)
    with pytest.raises(UsageError, match=r"joined\.tar has an end mark.* or several tars were joined"):
        open_table(str(tmp_path / "joined.tar"))
    (tmp_path / "cut.tar").write_bytes(content[: end + BLOCK])
    with pytest.raises(UsageError, match=r"cut\.tar is not a tar, or it is truncated \(its end mark is incomplete\)"):
        open_table(str(tmp_path / "cut.tar"))
    for zeros in (2 * BLOCK, 3 * BLOCK, 10 * BLOCK + 7):
        (tmp_path / f"{zeros}.tar").write_bytes(content[:end] + bytes(zeros))
        assert cells(open_table(str(tmp_path / f"{zeros}.tar")), "__key__") == [["0", "1", "2"]]


@pytest.mark.parametrize("access", ["memory", "streamed"])
def test_a_sample_whose_files_are_not_next_to_each_other_is_refused(tmp_path: Path, access: Any) -> None:
    pictures, texts = ([(f"{n:03}.{suffix}", suffix.encode()) for n in range(9)] for suffix in ("png", "txt"))
    path = str(shard(tmp_path / "u.tar", [*pictures, *texts]))
    message = (
        r"u\.tar: the files of the sample '000' are not next to each other \(png, and later txt\)\. Sort it: `mkdir"
    )
    with pytest.raises(UsageError, match=message):
        _ = streamed(path, "txt") if access == "streamed" else open_table(path, access=access)


def test_the_command_that_an_unsorted_tar_is_answered_with_sorts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shard(
        tmp_path / "u.tar", [("b.png", b"1"), ("a-1.png", b"2"), ("a.png", b"3"), *[(f"{k}.txt", b"t") for k in "ab"]]
    )
    with pytest.raises(UsageError) as refusal:
        open_table("u.tar")
    (command,) = re.findall("`(.*)`", str(refusal.value))
    subprocess.run(command, shell=True, check=True)
    table = open_table("sorted.tar")
    assert cells(table, "__key__", "png", "txt") == [["./a-1", "./a", "./b"], [b"2", b"3", b"1"], [None, "t", "t"]]


def test_a_key_that_comes_again_with_the_same_files_is_another_row(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", [("a.txt", b"1"), ("b.txt", b"2"), ("a.txt", b"3")])
    assert cells(open_table(str(path)), "txt") == [["1", "2", "3"]]
    # and one in two files of a table is two rows: nobody looks for it there
    shard(tmp_path / "b-0.tar", {"a.png": b"p"})
    shard(tmp_path / "b-1.tar", {"a.txt": b"t"})
    assert cells(open_table(f"{tmp_path}/b-*.tar"), "txt") == [[None, "t"]]


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
).map(lambda members: sorted(members, key=lambda member: _key(member[0])))


def _key(name: str) -> list[str]:
    folder, file = posixpath.split(name)
    return [folder, file.partition(".")[0]]


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
