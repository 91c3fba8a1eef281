"""A copy of a table in the cache that is not whole is made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimodal import prepare_table
from multimodal.core.errors import MultimodalError
from multimodal.data.tables.open import open_table

TITLES = [f"title {row}" for row in range(300)]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "shop.csv").write_text("\n".join(["title", *TITLES]) + "\n")
    return str(tmp_path / "shop.csv")


def copies(table: str) -> dict[str, Path]:
    folder = Path(table).parent / "cache" / "tables" / "csv"
    return {path.name: path for path in folder.rglob("*") if path.suffix in (".arrow", ".json")}


def test_a_whole_copy_is_used(table: str) -> None:
    first = open_table(table)
    before = {name: path.stat().st_mtime_ns for name, path in copies(table).items()}
    assert set(before) == {"csv-train.arrow", "dataset_info.json", "digests.json"}
    with patch("datasets.packaged_modules.csv.csv.Csv._generate_tables", side_effect=AssertionError("read again")):
        again = open_table(table)
    assert list(again.column("title")) == TITLES
    assert again.fingerprint == first.fingerprint
    assert {name: path.stat().st_mtime_ns for name, path in copies(table).items()} == before


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda content: content[:-1000] + bytes([content[-1000] ^ 255]) + content[-999:],
    "flipped early": lambda content: content[:40] + bytes([content[40] ^ 255]) + content[41:],
    "empty": lambda content: b"",
    "cut": lambda content: content[:100],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["csv-train.arrow", "dataset_info.json", "digests.json"])
def test_a_damaged_copy_is_made_again(table: str, name: str, damage: str) -> None:
    fingerprint = open_table(table).fingerprint
    path = copies(table)[name]
    content = path.read_bytes()
    content = content.ljust(1001) if name != "csv-train.arrow" else content
    path.write_bytes(DAMAGE[damage](content))
    opened = open_table(table)
    assert list(opened.column("title")) == TITLES
    assert opened.fingerprint == fingerprint


def test_a_copy_of_an_earlier_version_is_made_again(table: str) -> None:
    open_table(table)
    copies(table)["digests.json"].unlink()
    copies(table)["csv-train.arrow"].write_bytes(b"damaged long ago")
    assert list(open_table(table).column("title")) == TITLES


def test_a_damaged_shard_of_a_prepared_table_is_not_copied(table: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"title": TITLES}), tmp_path / "shop.parquet")
    prepare_table(str(tmp_path / "shop.parquet"), tmp_path / "prepared", columns={"text": "title"}, near=1.0)
    shard = tmp_path / "prepared" / "train-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(
        MultimodalError, match=r"train-00000\.parquet is damaged: .* Prepare or embed the table again\."
    ):
        open_table(str(tmp_path / "prepared"))
    with pytest.raises(MultimodalError, match=r"train-00000\.parquet is damaged"):
        open_table(str(shard))
