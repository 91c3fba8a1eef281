"""A small table of two texts for each row, and the settings of a short training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

TEXT = {"width": 16, "layers": 1, "heads": 2, "vocab_size": 100, "drop": 0.1}
STEPS = 6


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        f"thing {n},{'odd' if n % 2 else 'even'} number {n},{'train' if n > 5 else 'validation'}" for n in range(46)
    ]
    path = tmp_path / "things.csv"
    path.write_text("\n".join(["name,words,split", *rows]) + "\n")
    return path


@pytest.fixture
def config(table: Path) -> dict[str, Any]:
    return {
        "seed_everything": 3,
        "data": {
            "table": str(table),
            "columns": {"text": "name", "words": "words"},
            "split": "split",
            "test": "validation",
            "batch_size": 10,
        },
        "model": {
            "dim": 8,
            "encoders": {
                "text": {"class_path": "transformer", "init_args": TEXT},
                "words": {"class_path": "text.bag"},
            },
            "objective": {"class_path": "multimodal.objectives.InfoNCE", "init_args": {"smoothing": 0.1}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            "freeze": {"text": {0: "none"}},
        },
        "trainer": {
            "max_steps": STEPS,
            "val_check_interval": 2,
            "enable_progress_bar": False,
            "accelerator": "cpu",
            "callbacks": [{"class_path": "multimodal.training.AveragedWeights", "init_args": {"decay": 0.9}}],
        },
    }


@pytest.fixture
def config_file(config: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "things.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
