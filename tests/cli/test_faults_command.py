"""``multimodal faults`` finds what is twice in a table, and writes what people read."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.registry import create
from multimodal.data.run_data import load_run_data

KINDS = ["cup", "jug", "plate", "bowl", "fork"]


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A table of 100 things, one of which is there twice."""
    rows = [[f"k{n}", f"a {KINDS[n % 5]} of {n}", 10.0 * (n % 5) + n / 100, n % 5] for n in range(100)]
    rows.append(["again", *rows[7][1:]])
    with (tmp_path / "things.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["key", "title", "size", "weight"], *rows])
    columns = {"text": "title", "tabular": "size+weight"}
    data = {"table": str(tmp_path / "things.csv"), "columns": columns, "key": "key"}
    (tmp_path / "things.yaml").write_text(yaml.safe_dump({"data": data}))
    return str(tmp_path / "things.yaml")


@pytest.fixture
def model(config: str, tmp_path: Path) -> str:
    """An untrained model, as the faults are found by the words and numbers themselves."""
    samples = load_run_data(None, config).samples
    embedder = Embedder({"text": create("text", "bag"), "tabular": create("tabular", "mlp", width=8)}, dim=8)
    embedder.fit_processors({m: samples.values(m, np.arange(len(samples))) for m in embedder.modalities})
    embedder.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_what_is_there_twice_is_written_first(
    model: str, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "faults.csv"
    assert main(["faults", model, "--data", config, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "mismatched" in printed.out
    assert f"Put yes in the column approve of those that are right: {out}" in printed.err
    with out.open(newline="") as file:
        first = next(csv.DictReader(file))
    assert {first["key"], first["other key"]} == {"k7", "again"}
    assert first["contents"] == first["other contents"] == "tabular: size 20.07, weight 2; text: a plate of 7"
    assert first["approve"] == ""


def test_a_folder_is_not_a_file_for_the_table(
    model: str, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["faults", model, "--data", config, "--out", str(tmp_path)]) == 2
    assert "name a file, such as faults.csv" in capsys.readouterr().err
