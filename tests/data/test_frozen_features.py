"""Cached features are the encoder's features, are computed once, and survive a kill."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multimodal.core.batch import Sample
from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.errors import Unreadable
from multimodal.core.rejects import Reject, Rejects
from multimodal.data import frozen_features as features
from multimodal.data.frozen_features import FeatureProcessor, load_or_compute_features
from multimodal.data.samples import Samples
from multimodal.data.schema import RowLookupProcessor


class Numbers(Processor):
    def __call__(self, value: Any) -> float:
        if float(value) == 13:
            raise Unreadable("unlucky", "13 is not read.")
        return float(value)

    def augment(self, item: float, rng: np.random.Generator) -> float:
        raise AssertionError("cached features are not augmented")

    def collate(self, items: Sequence[float]) -> Inputs:
        return {"x": torch.tensor(items)[:, None]}


class Counting(Encoder):
    """A linear layer that counts its rows; dropout shows whether it is in evaluation mode."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.width, self.processor = 2, Numbers()
        self.linear, self.drop, self.factor, self.seen = nn.Linear(1, 2), nn.Dropout(0.5), factor, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.drop(self.linear(x)) * self.factor


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PART_ROWS", 4)


ROWS = np.array([1, 2, 3, 5, 8, 9, 10, 12, 13, 14])


def samples_of(**columns: str | list[str]) -> Samples:
    cells = [{"n": None if row == 5 else row, "m": row * 10, "unlike": row} for row in range(20)]
    return Samples.of(cells, columns or {"number": "n"})


def make(encoder: Encoder, cache: Path, samples: Samples | None = None, rows: np.ndarray = ROWS) -> FeatureProcessor:
    return load_or_compute_features(
        encoder, samples or samples_of(), "number", rows, cache, contextlib.nullcontext, Rejects(1.0, 20), {}, 3
    )


def test_progress_counts_the_rows_of_every_column(tmp_path: Path, small_parts: None) -> None:
    samples, advanced = samples_of(number=["n", "m"]), []
    arguments = samples, "number", ROWS, tmp_path, contextlib.nullcontext, Rejects(1.0, 20), {}, 3, (0, 1)
    for _ in range(2):  # computed; then, but for the part with an unreadable row, from the cache
        advanced.clear()
        load_or_compute_features(Counting(), *arguments, advanced.append)
        assert sum(advanced) == 2 * len(ROWS) - 1  # row 13 cannot be read
        assert len(advanced) > 3


def test_items_are_the_features_of_the_encoder(tmp_path: Path, small_parts: None) -> None:
    encoder, samples = Counting().train(), samples_of()
    processor = make(encoder, tmp_path)
    assert encoder.training
    assert encoder.seen == 8  # row 5 has no number, row 13 cannot be read
    for row in ROWS.tolist():
        (item,) = samples.items(row, {"number": processor}, seed=(0, 0, row))
        if row == 13:
            assert isinstance(item, Reject)
        elif row == 5:
            assert isinstance(item, Sample)
            assert item.values == {}
        else:
            assert isinstance(item, Sample)
            torch.testing.assert_close(item.values["number"], encoder.linear(torch.tensor([float(row)])).detach())
    again = pickle.loads(pickle.dumps(processor))
    assert again.item_of_row(14, "n").equal(processor.item_of_row(14, "n"))
    assert processor.collate([processor.item_of_row(1, "n")] * 3)["features"].shape == (3, 2)


def test_features_are_computed_once_and_missing_parts_are_computed_again(tmp_path: Path, small_parts: None) -> None:
    encoder, rows = Counting(), ROWS[ROWS != 13]
    make(encoder, tmp_path, rows=rows)
    first = encoder.seen
    make(encoder, tmp_path, rows=rows)
    assert encoder.seen == first
    (folder,) = tmp_path.iterdir()
    (folder / "part-00001.npy").unlink()  # as after a kill
    (folder / "part-00001.1234.new").write_bytes(b"half")
    processor = make(encoder, tmp_path, rows=rows)
    assert encoder.seen == first + 4
    torch.testing.assert_close(processor.item_of_row(9, "n"), encoder.linear(torch.tensor([9.0])).detach())


@pytest.mark.parametrize("damage", ["empty", "cut", "a bit", "zeros", "another width", "garbage"])
def test_a_damaged_part_is_computed_again(tmp_path: Path, small_parts: None, damage: str) -> None:
    encoder, rows = Counting(), ROWS[ROWS != 13]
    make(encoder, tmp_path, rows=rows)
    first = encoder.seen
    (folder,) = tmp_path.iterdir()
    part = folder / "part-00001.npy"
    content = part.read_bytes()
    if damage == "another width":
        np.save(part, np.zeros((4, 3), np.float32))
    else:
        damaged = {
            "empty": b"",
            "cut": content[:140],
            "a bit": content[:130] + bytes([content[130] ^ 1]) + content[131:],
            "zeros": content[:128] + bytes(8) + content[136:],
            "garbage": b"garbage!" * 20,
        }
        part.write_bytes(damaged[damage])
    processor = make(encoder, tmp_path, rows=rows)
    assert encoder.seen == first + 4
    assert part.read_bytes() == content
    torch.testing.assert_close(processor.item_of_row(9, "n"), encoder.linear(torch.tensor([9.0])).detach())


def test_a_part_of_an_earlier_version_has_no_digest(tmp_path: Path, small_parts: None) -> None:
    encoder, rows = Counting(), ROWS[ROWS != 13]
    make(encoder, tmp_path, rows=rows)
    first = encoder.seen
    (folder,) = tmp_path.iterdir()
    part = folder / "part-00001.npy"
    np.save(part, np.load(part))
    make(encoder, tmp_path, rows=rows)
    assert encoder.seen == first


def test_a_part_with_an_unreadable_row_is_computed_again(
    tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Counting()
    samples = samples_of()
    (item,) = samples.items(13, {"number": make(encoder, tmp_path)})
    assert isinstance(item, Reject)
    monkeypatch.setattr(type(encoder.processor), "__call__", lambda self, value: torch.tensor([float(value)]))
    (item,) = samples.items(13, {"number": make(encoder, tmp_path)})
    assert isinstance(item, Sample)
    assert len(list(tmp_path.iterdir())) == 1


def test_equal_texts_are_encoded_once(tmp_path: Path, small_parts: None) -> None:
    texts = ["1", "2", None, "1", "3", "2", "13", None, "4", "1", "13", "5"]
    samples, rows = Samples.of([{"n": text} for text in texts], {"number": "n"}), np.array([0, 2, 3, 4, 5, 6, 8, 9, 10])
    encoder, advanced = Counting(), []
    arguments = samples, "number", rows, tmp_path, contextlib.nullcontext, Rejects(1.0, 20), {}, 3, (0, 1)
    processor = load_or_compute_features(encoder, *arguments, advanced.append)
    assert encoder.seen == 4  # of 1, 3, 2 and 4
    assert sum(advanced) == len(rows) - 2  # 13 cannot be read, and is the text of two rows
    (folder,) = tmp_path.iterdir()
    stored = [np.load(part) for part in sorted(folder.glob("part-*.npy"))]
    assert sum(map(len, stored)) == 6  # a place for each text, and for each row without one
    for row in rows.tolist():
        (item,) = samples.items(row, {"number": processor})
        if texts[row] == "13":
            assert isinstance(item, Reject)
        elif (text := texts[row]) is None:
            assert isinstance(item, Sample)
            assert item.values == {}
        else:
            assert isinstance(item, Sample)
            torch.testing.assert_close(item.values["number"], encoder.linear(torch.tensor([float(text)])).detach())
    load_or_compute_features(encoder, *arguments, advanced.append)
    assert encoder.seen == 4 + 1  # the part of 13 and 4 is computed again, as 13 may be readable by now


class Rowwise(Numbers, RowLookupProcessor):
    """Items that depend on the row, not on the cell."""

    def item_of_row(self, row: int, column: str) -> float:
        return float(row)


def test_items_that_are_looked_up_by_row_are_each_encoded(tmp_path: Path) -> None:
    encoder = Counting()
    encoder.processor = Rowwise()
    processor = make(encoder, tmp_path, Samples.of([{"n": "1"}] * 20, {"number": "n"}))
    assert encoder.seen == len(ROWS)
    torch.testing.assert_close(processor.item_of_row(9, "n"), encoder.linear(torch.tensor([9.0])).detach())


def test_negatives_have_features_too(tmp_path: Path) -> None:
    encoder = Counting()
    samples = Samples.of(
        [{"n": row, "wrong": row + 100} for row in range(20)], {"number": "n"}, negatives={"number": "wrong"}
    )
    processor = make(encoder, tmp_path, samples)
    (item,) = samples.items(2, {"number": processor}, seed=(0, 0, 2))
    assert isinstance(item, Sample)
    (negative,) = item.negatives
    torch.testing.assert_close(negative.values["number"], encoder.linear(torch.tensor([102.0])).detach())


def test_features_depend_on_the_encoder_column_table_and_rows(tmp_path: Path) -> None:
    encoder = Counting()
    make(encoder, tmp_path)
    with torch.no_grad():
        encoder.linear.weight += 1
    make(encoder, tmp_path)
    make(Counting(2.0), tmp_path)
    make(encoder, tmp_path, samples_of(number="m"))
    make(encoder, tmp_path, Samples.of([{"n": row + 1} for row in range(20)], {"number": "n"}))
    make(encoder, tmp_path, rows=ROWS[:3])
    assert len(list(tmp_path.iterdir())) == 6


def test_features_depend_on_the_code_of_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "own_encoder.py"
    text = Path(__file__).read_text()
    monkeypatch.syspath_prepend(tmp_path)
    for version in ("", "", "# changed\n"):
        module.write_text(text + version)
        monkeypatch.delitem(sys.modules, "own_encoder", raising=False)
        torch.manual_seed(0)
        make(importlib.import_module("own_encoder").Counting(), tmp_path / "features")
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_every_column_of_a_modality_has_features(tmp_path: Path) -> None:
    encoder, samples = Counting(), samples_of(number=["n", "m"])
    processor = make(encoder, tmp_path, samples)
    item = samples.items(2, {"number": processor})
    values = [s.values["number"] for s in item if isinstance(s, Sample)]
    torch.testing.assert_close(torch.stack(values), encoder.linear(torch.tensor([[2.0], [20.0]])).detach())


def test_processes_divide_the_parts(tmp_path: Path, small_parts: None) -> None:
    encoders = [Counting(), Counting()]
    encoders[1].load_state_dict(encoders[0].state_dict())
    one, other = encoders

    def compute_parts_of_rank(encoder: Counting, number: int) -> FeatureProcessor:
        where = ("number", ROWS, tmp_path, contextlib.nullcontext, Rejects(1.0, 20), {})
        return load_or_compute_features(encoder, samples_of(), *where, rank_and_world_size=(number, 2))

    compute_parts_of_rank(one, 0)
    processor = compute_parts_of_rank(other, 1)
    assert [encoder.seen for encoder in encoders] == [3 + 1, 4]  # row 5 has no number, row 13 cannot be read
    assert len(list(tmp_path.iterdir())) == 1
    torch.testing.assert_close(processor.item_of_row(9, "n"), one.linear(torch.tensor([9.0])).detach())


def test_processes_divide_the_parts_of_equal_texts(tmp_path: Path, small_parts: None) -> None:
    texts = [str(row % 7 + 1) for row in range(20)]  # 7 texts in two parts
    samples, rows = Samples.of([{"n": text} for text in texts], {"number": "n"}), np.arange(20)
    encoders = [Counting(), Counting()]
    encoders[1].load_state_dict(encoders[0].state_dict())
    where = (tmp_path, contextlib.nullcontext, Rejects(1.0, 20), {})
    processors = [
        load_or_compute_features(encoder, samples, "number", rows, *where, rank_and_world_size=(number, 2))
        for number, encoder in enumerate(encoders)
    ]
    assert [encoder.seen for encoder in encoders] == [4, 3]
    for row in rows.tolist():
        torch.testing.assert_close(
            processors[1].item_of_row(row, "n"), encoders[0].linear(torch.tensor([float(texts[row])])).detach()
        )
