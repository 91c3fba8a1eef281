"""Modality dropout leaves out a fraction of the training values, and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multimodal import DataModule
from multimodal.core.batch import Sample
from multimodal.core.encoder import Inputs, Processor
from multimodal.core.errors import UsageError
from multimodal.core.rejects import Rejects
from multimodal.data.loaders import ProcessedSamples, loader_in_order
from multimodal.data.modality_drop import kept_modalities
from multimodal.data.samplers import Draw
from multimodal.data.samples import Samples
from multimodal.data.schema import Schema
from multimodal.data.stream import Stream, StreamedBatches
from multimodal.data.tables.open import locate

ROWS = 4000


class Noisy(Processor):
    """Returns a number plus noise in training, and counts the values that it reads."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self, value: Any) -> float:
        self.read += 1
        return float(value)

    def augment(self, item: float, rng: np.random.Generator) -> float:
        return item + rng.random()

    def collate(self, items: Sequence[float]) -> Inputs:
        return {"x": torch.tensor(items, dtype=torch.float64)}


def samples() -> Samples:
    return Samples.of([{"a": n, "b": n, "c": n} for n in range(ROWS)], {"a": "a", "b": "b", "c": "c"})


def drawn(
    drop: dict[str, float], epoch: int = 0, cached: bool = False
) -> tuple[list[dict[str, float]], dict[str, Noisy]]:
    processors = {modality: Noisy() for modality in "abc"}
    data = ProcessedSamples(samples(), processors, cached, drop)
    items = [item for row in range(ROWS) for item in data[Draw(row, (7, epoch, row))]]
    return [dict(item.values) for item in items if isinstance(item, Sample)], processors


def share(rows: Sequence[dict[str, float]], *modalities: str) -> float:
    return sum(set(modalities) <= set(row) for row in rows) / len(rows)


@pytest.mark.parametrize("cached", [False, True])
def test_each_modality_is_left_out_by_its_own_fraction(cached: bool) -> None:
    rows, processors = drawn({"b": 0.75, "c": 0.4}, cached=cached)
    deviation = 0.5 / ROWS**0.5
    assert share(rows, "a") == 1
    for modalities, expected in (("b", 0.25), ("c", 0.6), ("bc", 0.15)):  # independent of each other
        assert share(rows, *modalities) == pytest.approx(expected, abs=4 * deviation)
    assert processors["b"].read == sum("b" in row for row in rows)  # what is left out is not read


def test_other_values_are_those_of_a_training_without_it() -> None:
    rows, _ = drawn({"b": 0.5})
    whole, _ = drawn({})
    assert all(
        value == full[modality]
        for row, full in zip(rows, whole, strict=True)
        for modality, value in row.items()
        if modality == "a"
    )
    assert rows == drawn({"b": 0.5})[0]
    assert rows != drawn({"b": 0.5}, epoch=1)[0]


def test_evaluation_reads_everything() -> None:
    data = ProcessedSamples(samples(), {modality: Noisy() for modality in "abc"}, drop={"b": 0.9})
    batches = loader_in_order(data, np.arange(50), 10, Rejects(0.0, None), {})
    assert all(set(batch.inputs) == {"a", "b", "c"} and len(batch.inputs["b"]["x"]) == 10 for batch in batches)


@pytest.mark.parametrize("buffer", [0, 100])
def test_streams_leave_out_values_in_training_alone(tmp_path: Path, buffer: int) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"a": {n}, "b": {n}}}\n' for n in range(ROWS)))
    stream = Stream(locate(str(tmp_path / "rows.jsonl")), Schema.from_settings({"a": "a", "b": "b"}), ("all",))
    batches = StreamedBatches(stream, {"a": Noisy(), "b": Noisy()}, 100, buffer, 0, drop={"b": 0.75})
    kept = [len(batch.inputs["b"]["x"]) for batch in batches]
    expected = 0.25 if buffer else 1.0
    assert sum(kept) / ROWS == pytest.approx(expected, abs=0.03 if buffer else 0)


def test_a_model_may_have_fewer_modalities_than_are_named() -> None:
    assert kept_modalities({"text": 1}, {"name": 0.5}, (0, 1)) == {"text": 1}


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ({"imge": 0.5}, "modality_drop: the data have no modality 'imge'. Did you mean 'image'"),
        ({"image": 1.0}, r"modality_drop of image is a fraction of the rows, in \[0, 1\); got 1.0"),
        ({"image": -0.1}, "modality_drop of image is a fraction"),
        ({"image": 0.1, "text": 0.1}, "modality_drop names all modalities"),
    ],
)
def test_wrong_fractions_are_refused(drop: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataModule([{"i": "a.png", "t": "a cup"}], {"image": "i", "text": "t"}, modality_drop=drop)
