"""Compressed tables that open to far more than tables do are refused before they fill a disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from multimodal import open_table
from multimodal.core.errors import MultimodalError
from multimodal.data.tables import compressed
from multimodal.prepare.source import open_source

HEADER = b"id,title\n"


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "FREE_BYTES", 2**21)


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_a_bomb_is_refused(
    suffix: str, compress: Callable[[bytes], bytes], tmp_path: Path, small_limit: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    file = tmp_path / f"shop.csv.{suffix}"
    file.write_bytes(compress(HEADER + b"1,a cup\n" * 2**21))
    for read in (open_table, open_source):
        with pytest.raises(MultimodalError, match=r"over 200 times as many.* decompress it yourself"):
            read(str(file))
    unpacked = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size > 2**20]
    assert not unpacked


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_an_ordinary_table_is_read(suffix: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / f"shop.csv.{suffix}"
    file.write_bytes(compress(HEADER + b"".join(b"%d,cup %d\n" % (n, n * n) for n in range(1000))))
    assert open_table(str(file)).value(999, "title") == "cup 998001"
