"""Cells that name files are resolved to the files."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from multimodal.core.errors import Unreadable
from multimodal.data.tables.file_cells import resolve_file_cell


def test_paths_are_relative_to_the_table_s_folder(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(b"1")
    assert resolve_file_cell("a b.png", str(tmp_path)) == tmp_path / "a b.png"
    assert resolve_file_cell(str(tmp_path / "a b.png"), "elsewhere") == tmp_path / "a b.png"
    assert resolve_file_cell(b"bytes", str(tmp_path)) == b"bytes"


@pytest.mark.parametrize("value", ["nope.png", "x" * 5000, "a\0b", "a: b/c.png", "C:/a.png", "a::b"])
def test_anything_but_a_file_is_a_missing_file(tmp_path: Path, value: str) -> None:
    with pytest.raises(Unreadable) as caught:
        resolve_file_cell(value, str(tmp_path))
    assert caught.value.reason == "missing file"


@pytest.mark.parametrize("value", [".", "..", "pictures", "pictures/", ""])
def test_a_folder_is_not_a_file(tmp_path: Path, value: str) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(Unreadable, match="is a folder; give a file") as caught:
        resolve_file_cell(value, str(tmp_path))
    assert caught.value.reason == "folder"


ADDRESSES = [
    "https://host/a.png",
    "HTTP://host/a.png",
    "file:///etc/passwd",
    "s3://bucket/a",
    "data:image/png;base64,aa==",
]


@pytest.mark.parametrize("value", [*ADDRESSES, "data:," + "a" * 5000])
def test_an_address_is_not_fetched(tmp_path: Path, value: str) -> None:
    with pytest.raises(
        Unreadable, match="is an address, which is not fetched; download it and give its path"
    ) as caught:
        resolve_file_cell(value, str(tmp_path))
    assert caught.value.reason == "address"


def test_files_of_a_remote_table_are_read_as_bytes_from_its_folder_only() -> None:
    with fsspec.open("memory://things/pictures/a.png", "wb") as file:
        file.write(b"png")  # pyright: ignore[reportAttributeAccessIssue]
    assert resolve_file_cell("pictures/a.png", "memory://things") == b"png"
    with pytest.raises(Unreadable, match=r"things/b\.png does not exist"):
        resolve_file_cell("b.png", "memory://things")
    with pytest.raises(Unreadable, match=r"things/pictures is a folder") as caught:
        resolve_file_cell("pictures", "memory://things")
    for outside in ("/etc/passwd", "../secret", "a/../../secret", "file:///etc/passwd", "http://host/x"):
        with pytest.raises(Unreadable) as caught:
            resolve_file_cell(outside, "memory://things")
        assert caught.value.reason == "path outside the table"
