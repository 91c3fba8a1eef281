"""Files that a table may name, and tables that can be opened."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from multimodal.cli.main import main
from multimodal.core.errors import MultimodalError, Unreadable
from multimodal.core.rejects import Reject
from multimodal.data.tables.open import open_table
from multimodal.prepare.source import Row, open_source


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_a_table_may_name_only_files_of_its_folder(tmp_path: Path) -> None:
    name = table(tmp_path / "shop" / "pairs.csv", [{"file": "a.bin"}])
    (tmp_path / "shop" / "a.bin").write_bytes(b"a")
    (tmp_path / "secret.bin").write_bytes(b"s")
    (tmp_path / "shop" / "link.bin").symlink_to(tmp_path / "secret.bin")
    source = open_source(name)
    assert source.resolve("a.bin") == tmp_path / "shop" / "a.bin"
    assert source.resolve(str(tmp_path / "shop" / "a.bin"))
    assert source.resolve("../shop/a.bin")
    for outside in ("../secret.bin", str(tmp_path / "secret.bin"), "link.bin"):
        with pytest.raises(Unreadable, match=r"name the folder in which it may be by --files") as refusal:
            source.resolve(outside)
        assert refusal.value.reason == "path outside the table"
        assert open_source(name, files=tmp_path).resolve(outside)


def test_a_data_set_without_a_folder_may_not_name_files(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"s")
    folder = tmp_path / "saved"
    datasets.Dataset.from_list([{"file": str(tmp_path / "secret.bin")}]).save_to_disk(folder)
    with pytest.raises(Unreadable, match="--files"):
        open_source(str(folder)).resolve(str(tmp_path / "secret.bin"))


def test_files_of_other_folders_are_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = b"not for others to see"
    (tmp_path / "secret.png").write_bytes(secret)
    rows = [{"photo": "../secret.png", "note": "../secret.png", "title": f"the title of thing {n}"} for n in range(9)]
    name = table(tmp_path / "shop" / "pairs.csv", rows)
    for words in (["--columns.image", "photo"], ["--columns.text", "title"], []):
        out = tmp_path / "out"
        assert main(["prepare", name, "--out", str(out), "--max_rejects", "1", *words]) in (0, 1)
        for file in out.rglob("*"):
            assert secret not in file.read_bytes()
    rejected = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in rejected} == {"path outside the table"}
    assert main(["prepare", name, "--out", str(out), "--columns.text", "title", "--files", str(tmp_path)]) == 0


def test_texts_that_are_not_utf_8_reject_only_their_rows(tmp_path: Path) -> None:
    for name, content in (("a", b"fine"), ("b", b"\xff\xfe\xff"), ("c", "schön".encode())):
        (tmp_path / f"{name}.txt").write_bytes(content)
    assert open_table(str(tmp_path)).column("txt") == ["fine", None, "schön"]
    found = list(open_source(str(tmp_path)))
    assert [item.reason if isinstance(item, Reject) else item.values["txt"] for item in found] == [
        "fine",
        "not UTF-8",
        "schön",
    ]
    assert [item.number if isinstance(item, Row) else item.row for item in found] == [0, 1, 2]


def test_joined_columns_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = table(tmp_path / "t" / "pairs.csv", [{"a": "the one", "b": "1", "c": "2"}] * 3)
    words = ["prepare", name, "--out", str(tmp_path / "out"), "--columns.text", "a", "--columns.tabular", "b+c"]
    assert main(words) == 2
    assert "Leave it out: all columns are copied to the output" in capsys.readouterr().err


def test_rows_may_begin_in_a_later_file_but_there_must_be_some(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("a,b\n")
    with pytest.raises(MultimodalError, match="has no rows"):
        open_source(str(tmp_path / "0.csv"))
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    source = open_source(str(tmp_path))
    assert source.columns == ("a", "b")
    assert [row.values for row in source if isinstance(row, Row)] == [{"a": "1", "b": "2"}]
