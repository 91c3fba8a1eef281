"""Tests run in one process with one thread: importing torch twice costs more than the tests."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import gc
from pathlib import Path
from typing import Any

import pytest
import yaml

from multimodal.core.table import Table
from multimodal.data import samples
from multimodal.datasets.glyphs import Glyphs


def pytest_collection_finish() -> None:
    """Lightning collects garbage at the end of each run, which looks through all that the imports have left."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _forks_may_go_backward() -> None:
    """At the first gradient, autograd starts its threads for the devices it knows; an export makes it know one.

    With such threads no forked process may go backward, so the first gradient has to come before the first export.
    """
    import torch

    torch.zeros(1, requires_grad=True).sum().backward()


class FewGlyphs(Table):
    """Some rows of the glyphs: 70 characters to train on in two fonts, 20 to validate on, 20 to test with."""

    name = "few_glyphs"
    columns = Glyphs.columns
    metadata_columns = Glyphs.metadata_columns

    def __init__(self) -> None:
        self._all = Glyphs()
        self._rows: list[tuple[int, str]] = []
        letters = [
            row
            for row in range(len(self._all))
            if self._all.value(row, "font") in ("DejaVuSans", "DejaVuSans-Bold")
            and 0x41 <= ord(self._all.value(row, "character")) < 0x180
        ]
        characters = sorted({self._all.value(row, "character") for row in letters})
        split = {c: "train" if i < 70 else "validation" if i < 90 else "test" for i, c in enumerate(characters[:110])}
        for row in letters:
            character, font = self._all.value(row, "character"), self._all.value(row, "font")
            if character in split and (split[character] == "train" or font == "DejaVuSans"):
                self._rows.append((row, split[character]))

    def __len__(self) -> int:
        return len(self._rows)

    def value(self, row: int, column: str) -> Any:
        return self._rows[row][1] if column == "split" else self._all.value(self._rows[row][0], column)


@pytest.fixture
def small_glyphs(monkeypatch: pytest.MonkeyPatch) -> str:
    table = FewGlyphs()
    monkeypatch.setattr(samples, "open_table", lambda *settings: table)
    return table.name


@pytest.fixture
def small_config(tmp_path: Path, small_glyphs: str) -> Path:
    """A configuration of three small encoders: ten steps, four an epoch, validation every five."""
    path = tmp_path / "small.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "data": {
                    "table": small_glyphs,
                    "columns": {"image": "image", "graph": "outline", "text": "name"},
                    "key": "key",
                    "group": "character",
                    "split": "split",
                    "batch_size": 16,
                },
                "model": {
                    "dim": 16,
                    "encoders": {
                        "image": {  # a residual network of 0.4 million weights, as checkpoints are written to disk
                            "class_path": "timm",
                            "init_args": {"arch": "test_resnet", "preprocess": {"input_size": [3, 48, 48]}},
                        },
                        "graph": {"class_path": "gnn", "init_args": {"width": 16, "layers": 1, "drop": 0.1}},
                        "text": {
                            "class_path": "transformer",
                            "init_args": {"width": 16, "layers": 1, "heads": 2, "vocab_size": 300, "word_drop": 0.2},
                        },
                    },
                    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
                },
                "trainer": {
                    "max_steps": 10,
                    "val_check_interval": 5,
                    "check_val_every_n_epoch": None,
                    "enable_progress_bar": False,
                    "log_every_n_steps": 1,
                    "gradient_clip_val": 1.0,
                },
            }
        )
    )
    return path
