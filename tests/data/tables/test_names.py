"""Names of tables: paths, URLs with escapes, and patterns with braces."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimodal.core.errors import UsageError
from multimodal.data.datamodule import DataModule
from multimodal.data.run_data import load_run_data
from multimodal.data.samples import Samples
from multimodal.data.tables.open import locate, open_table, stream_rows

pytestmark = pytest.mark.usefixtures("own_cache")


def test_the_url_of_a_file_may_be_escaped(tmp_path: Path) -> None:
    for name in ("my shop.csv", "100%25.csv", "100%.csv"):
        (tmp_path / name).write_text(f"name\n{name}\n")
    for escaped, name in (("my%20shop", "my shop"), ("my shop", "my shop"), ("100%25", "100%25"), ("100%", "100%")):
        address = f"file://{tmp_path}/{escaped}.csv"
        assert open_table(address).column("name") == [f"{name}.csv"]
        source = locate(address)
        assert [row["name"] for row in stream_rows(source, source.files[0])] == [f"{name}.csv"]
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "red.txt").write_text("a red cup")
    assert open_table(f"file://{tmp_path}/a%20b").column("txt") == ["a red cup"]
    assert open_table(str(tmp_path / "100%25.csv")).column("name") == ["100%25.csv"]  # a path is not a URL


def test_a_path_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("title,split\na red cup,train\n")
    assert open_table(path).column("title") == ["a red cup"]
    samples = Samples.of(path, {"text": "title"})
    assert samples.settings["table"] == str(path)
    assert samples[0].values == {"text": "a red cup"}
    data = DataModule(path, columns={"text": "title"}, split="split", access="streamed")
    assert data.source is not None
    assert data.source.files == (str(path),)
    assert load_run_data(None, path, {"columns": {"text": "title"}}).samples.name == str(path)
    assert len(open_table(tmp_path)) == 1


def test_braces_name_the_files_of_a_table_in_order(tmp_path: Path) -> None:
    for n in range(9, 12):
        (tmp_path / f"{n:03}.csv").write_text(f"n\n{n}\n")
    pattern = str(tmp_path / "{010..009}.csv")
    assert open_table(pattern).column("n") == ["10", "9"]
    assert open_table(f"file://{tmp_path}/{{009,011}}.csv").column("n") == ["9", "11"]
    assert open_table(str(tmp_path / "{009..010}*.csv")).column("n") == ["9", "10"]
    source = locate(pattern)
    assert source.base == str(tmp_path)
    assert [row["n"] for file in source.files for row in stream_rows(source, file)] == ["10", "9"]
    with pytest.raises(UsageError, match=r"names .*/012\.csv, but there is no such file"):
        open_table(str(tmp_path / "{010..012}.csv"))
    (tmp_path / "{1..2}.csv").write_text("n\nbraces\n")
    assert open_table(str(tmp_path / "{1..2}.csv")).column("n") == ["braces"]
    (tmp_path / "{a,b}").mkdir()
    (tmp_path / "{a,b}" / "1.csv").write_text("n\n1\n")
    assert locate(str(tmp_path / "{a,b}" / "1.csv")).base == str(tmp_path / "{a,b}")
