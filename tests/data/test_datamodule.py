"""A data module shows its columns and splits, draws epochs, and rejects settings that exclude each other."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest

from multimodal.core.batch import Batch
from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError
from multimodal.core.registry import create
from multimodal.data import datamodule
from multimodal.data.datamodule import DataModule
from multimodal.experiment.fit import fit
from multimodal.training.module import EmbedderModule

ROWS = [
    {"photo": b"...", "title": f"cup {n}", "note": None, "part": "train" if n < 1200 else "test"} for n in range(1203)
]
COLUMNS: dict[str, str | list[str]] = {"image": "photo", "text": ["title", "note"]}


def test_a_data_module_shows_its_columns_and_the_rows_of_its_splits() -> None:
    data = DataModule(ROWS, COLUMNS, split="part")
    assert str(data) == repr(data)
    assert (
        repr(data) == "DataModule of 'in memory': image from photo, text from title or note; rows: train 1,200, test 3"
    )


def test_a_notebook_shows_the_columns_and_the_splits_as_tables() -> None:
    page = DataModule(ROWS, COLUMNS, split="part")._repr_html_()
    assert "<td>image</td><td>photo</td></tr><tr><td>text</td><td>title or note</td>" in page
    assert "<td>train</td><td>1,200</td></tr><tr><td>test</td><td>3</td>" in page


def test_a_streamed_data_module_shows_its_columns_without_reading_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shop.jsonl"
    path.write_text('{"title": "a red cup", "part": "train"}\n')
    data = DataModule(str(path), {"text": "title"}, split="part", access="streamed")
    monkeypatch.setattr(datamodule, "Samples", None)
    assert repr(data) == f"DataModule of the stream {str(path)!r}: text from title"
    page = data._repr_html_()
    assert "<td>text</td><td>title</td>" in page
    assert "split" not in page


@pytest.mark.usefixtures("own_cache")
def test_a_table_in_memory_is_not_streamed() -> None:
    with pytest.raises(UsageError, match=r"access: streamed is for tables of files"):
        DataModule(ROWS, COLUMNS, split="part", access="streamed")
    with pytest.raises(UsageError, match="access must be 'mapped' or 'memory' or 'streamed', not 'stream'"):
        DataModule(ROWS, COLUMNS, access="stream")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("table", [[], pd.DataFrame(), pd.DataFrame({"title": []})])
@pytest.mark.usefixtures("own_cache")
def test_a_table_without_rows_is_refused(table: Any) -> None:
    with pytest.raises(UsageError, match="The table 'in memory' has no rows"):
        DataModule(table, {"text": "title"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": -1}, r"workers must be 0 \(the training process reads\) or more, got -1"),
        ({"batch_size": 0}, r"batch_size and eval_batch_size must be at least 1, got 0"),
        ({"workers": -1, "batch_size": 0}, "must be at least 1, got 0"),
    ],
)
@pytest.mark.usefixtures("own_cache")
def test_numbers_out_of_range_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataModule(ROWS, COLUMNS, split="part", **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"column": COLUMNS}, r"DataModule\(\) takes no argument 'column'\. Did you mean 'columns'\?"),
        ({}, r"DataModule\(\) needs columns; for example, columns=\{'image': 'picture', 'text': 'title'\}"),
        ({"columns": "picture"}, r"columns must be a mapping, not 'picture'; for example, columns=\{'image': "),
        ({"columns": {"image": 0}}, r"columns\['image'\] must be a string or a list, not 0; for example, columns="),
        ({"columns": COLUMNS, "split": 0.9}, r"split must be a string or a mapping, not 0\.9; for example, split="),
        ({"columns": COLUMNS, "group": ["title"]}, r"group must be a string, not \['title'\]"),
        ({"columns": COLUMNS, "batch_size": "16"}, r"batch_size must be a whole number, not '16'"),
        ({"columns": COLUMNS, "access": "map"}, r"access must be 'mapped' or 'memory' or 'streamed', not 'map'"),
    ],
)
def test_arguments_of_wrong_names_and_types_are_reported(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataModule(ROWS, **arguments)


def test_what_behaves_as_the_types_of_the_arguments_is_accepted() -> None:
    columns: Any = MappingProxyType({"image": "photo", "text": ("title", "note")})
    data = DataModule(
        ROWS,
        columns,
        split="part",
        batch_size=np.int64(4),  # pyright: ignore[reportArgumentType]
        max_rejects=np.float32(0.5),  # pyright: ignore[reportArgumentType]
        keep_items=np.bool_(True),  # pyright: ignore[reportArgumentType]
        train=("train", "test"),  # pyright: ignore[reportArgumentType]
    )
    assert data.schema.columns["text"] == ("title", "note")


@pytest.mark.parametrize(("epoch", "cups"), [("groups", 1), ("rows", 5)])
def test_an_epoch_has_a_row_of_each_group_or_all_rows(epoch: Any, cups: int, tmp_path: Path) -> None:
    things = [("cup", f"cup {n}") for n in range(5)] + [(name, name) for name in ("jug", "pot", "pan")]
    table = [{"n": n, "thing": thing, "title": title, "part": "train"} for n, (thing, title) in enumerate(things)]
    data = DataModule(
        table,
        {"text": "title", "words": "title"},
        key="n",
        group="thing",
        split="part",
        validation="train",
        epoch=epoch,
        batch_size=4,
    )
    bags: dict[str, Encoder] = {name: create("text", "bag", vocab_size=8, width=4) for name in ("text", "words")}
    read: list[str] = []

    class Reading(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
            read.extend(things[int(key)][0] for key in batch.keys)

    fit(EmbedderModule(bags, dim=4), data, tmp_path / "run", max_epochs=1, callbacks=[Reading()], limit_val_batches=0)
    assert sorted(read) == ["cup"] * cups + ["jug", "pan", "pot"]
