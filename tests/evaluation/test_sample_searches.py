"""Searches as pictures: what a cell shows, and that TensorBoard gets them at each validation."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim import SGD

import multimodal as mm
from multimodal.core.embeddings import Embeddings
from multimodal.evaluation import sample_searches
from multimodal.evaluation.sample_searches import SampleSearches
from multimodal.training import Constant


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def cells_of(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], columns: Any, e: Embeddings, *pair: str
) -> Any:
    drawn: list[Any] = []
    monkeypatch.setattr(sample_searches, "draw_grid", lambda cells, width: drawn.append((cells, width)))
    SampleSearches(mm.Samples.of(rows, columns, key="id")).draw(e, *pair)
    return drawn[0]


def test_a_row_of_cells_is_a_query_and_its_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"k{n}", "p": picture(40 * n), "t": f"shade {n}"} for n in range(3)]
    numbers = torch.arange(3)
    vectors = {"image": torch.eye(3), "text": torch.eye(3)[[0, 2, 1]]}
    e = Embeddings(vectors, {"image": numbers, "text": numbers}, groups=numbers, keys=("k0", "k1", "k2"))
    cells, width = cells_of(monkeypatch, rows, {"image": "p", "text": "t"}, e, "text", "image")
    assert width == 4
    query, first, *_ = cells[4:8]  # of the second query, whose vector is the third picture's
    assert query == (None, "shade 1", "query: text")
    assert first == (picture(80), "shade 2", "1.00 wrong")
    assert cells[1] == (picture(0), "shade 0", "1.00 right")
    cells, _ = cells_of(monkeypatch, rows, {"image": "p", "text": "t"}, e, "image", "text")
    assert cells[0][0] == picture(0)
    assert cells[1] == (None, "shade 0", "1.00 right")


def test_rows_that_are_unknown_or_unreadable_are_shown_by_their_key(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": "k0", "p": "missing.png", "t": "a"}]
    e = Embeddings({"image": torch.eye(2)}, {"image": torch.arange(2)}, groups=torch.arange(2), keys=("k0", "gone"))
    cells, _ = cells_of(monkeypatch, rows, {"image": "p"}, e, "image", "image")
    assert [cell[:2] for cell in cells[:2]] == [(None, "k0"), (None, "k0")]
    assert cells[3][:2] == (None, "gone")


def test_tensorboard_shows_searches_at_each_validation(tmp_path: Path) -> None:
    rows = [
        {"name": f"thing {n}", "words": f"number {n % 7}", "split": "train" if n < 24 else "validation"}
        for n in range(36)
    ]
    encoders = {modality: mm.create("text", "bag", width=8, vocab_size=50) for modality in ("text", "words")}
    model = mm.EmbedderModule(encoders, dim=8, optimizer=partial(SGD, lr=0.5), schedule=Constant(), seed=3)
    data = mm.DataModule(rows, {"text": "name", "words": "words"}, split="split", batch_size=4)
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 4,
        "val_check_interval": 2,
        "enable_progress_bar": False,
    }
    mm.fit(model, data, tmp_path / "run", check_val_every_n_epoch=None, **settings)
    (folder,) = (tmp_path / "run" / "logs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["images"]) == {"val/text->words", "val/words->text"}
    shown = events.Images("val/text->words")
    assert [image.step for image in shown] == [2, 4]
    with Image.open(io.BytesIO(shown[0].encoded_image_string)) as found:
        assert found.size == (6 * 136, 6 * 156)  # six queries with five hits each
        assert np.asarray(found).min() < 100  # something is written
