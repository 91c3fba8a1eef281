"""``multimodal explain`` prints what the Python function returns, and refuses wrong use in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import multimodal as mm
from multimodal.cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("explain")
    encoders = {
        "text": mm.create("text", "bag", width=8),
        "image": mm.create("image", "small_cnn", size=16),
        "tabular": mm.create("tabular", "mlp", width=8),
    }
    embedder = mm.Embedder(encoders, dim=8)
    rows = [{"price": 1.0, "colour": "red"}, {"price": 2.0, "colour": "blue"}]
    embedder.fit_processors({"text": ["a red cup", "a blue cup"], "tabular": rows})
    embedder.save_pretrained(folder / "model")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)).save(folder / "cup.png")
    return folder


def test_the_table_is_printed_and_the_page_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = run / "new" / "why.html"
    assert main(["explain", str(run), "--text", "a red cup", f"--image={run / 'cup.png'}", "--out", str(page)]) == 0
    found = mm.explain(run, {"text": "a red cup"}, {"image": str(run / "cup.png")})
    assert capsys.readouterr().out == f"{found}\n"
    assert page.read_text(encoding="utf-8").count("<rect") == 64


def test_json_has_every_part(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = '{"price": 2.0, "colour": "red"}'
    assert main(["explain", str(run), "--text", "a red cup", "--tabular", row, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [value["modality"] for value in (document["query"], document["match"])] == ["text", "tabular"]
    assert {part["name"] for part in document["match"]["parts"]} == {"price = 2.0", "colour = red"}


def test_two_values_may_be_of_one_modality(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(run), "--text", "a red cup", "--text", "blue"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "query: text a red cup" in lines
    assert "match: text blue" in lines


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "give two values, the query and the candidate, .* got none"),
        (["--text", "a"], 2, "give two values, .* got --text"),
        (["--text", "a", "--txt", "b"], 2, "there is no option --txt. Did you mean 'text'"),
        (["--text", "a", "--text"], 2, "--text takes a value"),
        (["--text", "a", "--text", "b", "--js"], 2, "write --js in full: --json"),
        (["--text", "a", "--text", "b", "--out", "why.pdf"], 2, "why.pdf does not end in .html or .json"),
        (["--text", "a", "--image", "no.png"], 1, "match: image no.png: the picture no.png does not exist"),
        (["--text", "a", "--tabular", "cup"], 1, "match: tabular cup: a str is not a row; .* Give JSON, like"),
    ],
)
def test_wrong_use_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    import re

    assert main(["explain", str(run), *options]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert re.search(message, printed.err), printed.err
