"""``multimodal export``: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multimodal.cli.export import FORMATS
from multimodal.cli.main import main


def test_a_run_is_exported_into_its_own_folder_and_again(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(run), "--to", "torch-export", "--modality", "text", "--modality", "graph", "--json"]
    for _ in range(2):
        assert main(command) == 0
        printed = json.loads(capfd.readouterr().out)
        assert (printed["to"], printed["out"]) == ("torch-export", str(run / "torch-export"))
        assert {m: entry["file"] for m, entry in printed["modalities"].items()} == {
            "text": "text.pt2",
            "graph": "graph.pt2",
        }
        assert all(0 <= entry["max_difference"] < 1e-4 for entry in printed["modalities"].values())
    assert sorted(p.name for p in (run / "torch-export").iterdir()) == ["export.json", "graph.pt2", "text.pt2"]


def test_the_folder_is_printed(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--to", "onnx", "--modality", "text", "--out", str(tmp_path / "out")]) == 0
    printed, reported = capfd.readouterr()
    assert reported == ""  # the exporter's own report
    assert printed.startswith(f"text: {tmp_path / 'out' / 'text.onnx'} (differs by ")
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "--to"),
        (["--to", "onx"], 2, "invalid choice: 'onx'"),
        (["--to", "onnx", "--modality", "sound"], 2, "no modality 'sound'"),
    ],
)
def test_wrong_usage_is_reported(
    options: list[str], code: int, said: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), *options]) == code
    assert said in capfd.readouterr().err


def test_the_formats_of_the_command_are_those_there_are() -> None:
    from typing import get_args

    from multimodal.export.folder import Format

    assert get_args(Format) == FORMATS
