"""Tables, and the files that they name, are read from chained addresses."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.table import Table
from multimodal.data.tables.addresses import MAX_EXPANDED, expand_braces, join
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.open import locate, open_table, stream_rows

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file"),
]


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [{c: table.value(row, c) for c in table.columns} for row in range(len(table))]


def test_a_table_in_an_archive_is_read_by_a_chain_of_addresses(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    rows = "id,photo\n1,photos/a.png\n"
    for last in ("2,b.png\n", "3,c.png\n"):  # a changed archive is read again
        with zipfile.ZipFile(archive, "w") as parts:
            parts.writestr("shop/pairs.csv", rows + last)
            parts.writestr("shop/photos/a.png", b"a picture")
            parts.writestr("lines/1.jsonl", '{"n": 1}\n')
            parts.writestr("lines/2.jsonl", '{"n": 2}\n')
        address = f"zip://shop/pairs.csv::{archive}"
        table = open_table(address)
        assert rows_of(table)[1]["id"] == last[0]
    assert table.base == f"zip://shop::{archive}"
    assert resolve_file_cell(table.value(0, "photo"), table.base) == b"a picture"
    for outside in ("../lines/1.jsonl", f"zip://lines/1.jsonl::{archive}", "a::b"):
        with pytest.raises(Unreadable, match="is not in the folder"):
            resolve_file_cell(outside, table.base)
    source = locate(address)
    assert list(stream_rows(source, source.files[0])) == rows_of(table)
    for several in ("lines/*.jsonl", "lines"):
        assert rows_of(open_table(f"zip://{several}::{archive}")) == [{"n": 1}, {"n": 2}]
    (tmp_path / "pairs.csv").write_text("n\n1\n")
    with pytest.raises(UsageError, match="leave out 'simplecache::'"):
        open_table(f"simplecache::file://{tmp_path}/pairs.csv")
    with pytest.raises(UsageError, match="no table"):
        open_table(f"zip://none.csv::{archive}")


@pytest.mark.parametrize(
    ("folder", "name", "address"),
    [
        ("s3://bucket/shop", "red.png", "s3://bucket/shop/red.png"),
        ("zip://shop::a.zip", "red.png", "zip://shop/red.png::a.zip"),
        ("zip://::a.zip", "red.png", "zip://red.png::a.zip"),
        ("zip://shop::https://host/a.zip", "photos/red.png", "zip://shop/photos/red.png::https://host/a.zip"),
    ],
)
def test_a_folder_and_a_name_are_joined_to_an_address(folder: str, name: str, address: str) -> None:
    assert join(folder, name) == address


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{02..1}", ["02", "01"]),
        ("{a,bc,}-{1..2}.csv", ["a-1.csv", "a-2.csv", "bc-1.csv", "bc-2.csv", "-1.csv", "-2.csv"]),
        ("s3://b/{1..2}/*.tar", ["s3://b/1/*.tar", "s3://b/2/*.tar"]),
        ("{a}{}{1..b}", ["{a}{}{1..b}"]),
    ],
)
def test_braces_name_several_files(pattern: str, expected: list[str]) -> None:
    assert expand_braces(pattern) == expected


NUMBERS = st.text("0123456789", min_size=1, max_size=2)
OPTIONS = st.lists(st.text("ab01.", max_size=3), min_size=2, max_size=3)
PARTS = st.one_of(
    st.text("ab01.", max_size=3),
    st.tuples(NUMBERS, NUMBERS).map(lambda ends: f"{{{ends[0]}..{ends[1]}}}"),
    OPTIONS.map(lambda texts: f"{{{','.join(texts)}}}"),
)


@given(st.lists(PARTS, min_size=1, max_size=3).map("".join))
@settings(deadline=None, max_examples=100)
def test_braces_are_expanded_as_a_shell_does(pattern: str) -> None:
    shell = subprocess.run(["bash", "-c", f"printf '%s\\n' x{pattern}"], capture_output=True, text=True, check=True)
    names = shell.stdout.splitlines()
    if len(names) <= MAX_EXPANDED:
        assert expand_braces(f"x{pattern}") == names


def test_a_pattern_of_too_many_files_is_refused() -> None:
    with pytest.raises(UsageError, match=r"names more than 100,000 files"):
        expand_braces("{1..9}{000000..999999}{1..9}")


def test_a_name_on_a_web_server_is_escaped() -> None:
    assert (
        join("https://host/shop", "1% of #2/a b.png?size=2&k=%2F")
        == "https://host/shop/1%25%20of%20%232/a%20b.png?size=2&k=%2F"
    )
    assert join("s3://host/shop", "a%20 b.png") == "s3://host/shop/a%20 b.png"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        thread = Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["my shop.csv", "my%20shop.csv"])
def test_a_table_on_a_web_server_may_have_any_name_and_cells(tmp_path: Path, server: str, name: str) -> None:
    files = ["a b.png", "a%20b.png", "a#b.png", "ö.png"]
    for file in files:
        (tmp_path / file).write_text(file)
    (tmp_path / "my shop.csv").write_text("photo\n" + "".join(f"{file}\n" for file in files))
    table = open_table(f"{server}/{name}")
    assert [resolve_file_cell(table.value(n, "photo"), table.base) for n in range(4)] == [f.encode() for f in files]
