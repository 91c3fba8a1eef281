"""Targets: which names are numbered, from which rows, and what is said of others."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from multimodal.core.errors import UsageError
from multimodal.data.datamodule import DataModule
from multimodal.data.targets import summarise

ROWS: list[dict[str, Any]] = [
    {"title": "a", "kind": "jug", "tags": ["red", "new"], "price": 1.0, "part": "train"},
    {"title": "b", "kind": "cup", "tags": [], "price": 3.0, "part": "train"},
    {"title": "c", "kind": None, "tags": None, "price": None, "part": "train"},
    {"title": "d", "kind": "vase", "tags": ["old", "red"], "price": 9.0, "part": "validation"},
    {"title": "e", "kind": "cup", "tags": ["new"], "price": 9.0, "part": "validation"},
]


def data(rows: list[dict[str, Any]] = ROWS) -> DataModule:
    targets = {"kind": "kind", "tags": "tags", "price": "price"}
    module = DataModule(rows, {"text": "title"}, split="part", targets=targets)
    embedder = SimpleNamespace(processors={}, encoders={})
    trainer: Any = SimpleNamespace(
        lightning_module=SimpleNamespace(embedder=embedder),
        is_global_zero=True,
        ckpt_path=None,
        default_root_dir="none",
    )
    module.trainer = trainer
    return module


def test_classes_are_those_of_the_training_split_and_others_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    module = data()
    module.setup("fit")
    assert module.samples.classes == {"kind": {"cup": 0, "jug": 1}, "tags": {"new": 0, "red": 1}}
    targets = [module.samples.items(row, {})[0].targets for row in range(5)]  # pyright: ignore[reportAttributeAccessIssue]
    assert [t.get("kind") for t in targets] == [1, 0, None, None, 0]
    assert [t.get("tags") for t in targets] == [[1, 1], [0, 0], None, [0, 1], [1, 0]]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "Warning: the target 'kind' has 'vase' in the split 'validation', which no row to train on has; counted as"
        " not known: 1.",
        "Warning: the target 'tags' has 'old' in the split 'validation', which no row to train on has; counted as"
        " not known: 1.",
    ]


def test_a_summary_is_that_of_the_training_split() -> None:
    module = data()
    module.setup("fit")
    price = module.target_summary("price")
    assert (price.names, price.width, price.largest, price.mean.tolist(), price.deviation.tolist()) == (
        (),
        1,
        3,
        [2],
        [1],
    )
    kind = module.target_summary("kind")
    assert (kind.names, kind.width, kind.largest) == (("cup", "jug"), 1, 1)
    assert module.target_summary("tags").names == ("new", "red")
    with pytest.raises(
        UsageError, match=r"predicts 'knid', for which data\.targets names no column\. Did you mean 'kind'"
    ):
        module.target_summary("knid")


def test_a_summary_of_lists_leaves_out_unknown_numbers() -> None:
    values = [[1, None], None, [3, 5], "never"]
    summary = summarise("size", values, ())
    known = np.array([[1, math.nan], [3, 5]])
    np.testing.assert_allclose(summary.mean, np.nanmean(known, 0))
    np.testing.assert_allclose(summary.deviation, np.nanstd(known, 0))
    with pytest.raises(UsageError, match="lists of different lengths"):
        summarise("size", [[1], [1, 2]], ())
    with pytest.raises(UsageError, match=r"targets\.size: no row of the training split has a value"):
        summarise("size", [None], ())


def test_a_stream_is_summarised_by_its_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    module = DataModule(
        str(path), {"text": "title"}, split="part", targets={"price": "price"}, access="streamed", batch_size=1
    )
    summary = module.target_summary("price")
    assert (summary.mean.tolist(), summary.complete) == ([2.0], False)
