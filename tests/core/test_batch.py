"""Collating: who has which modality, in which order, of which group."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multimodal.core.batch import Batch, MicroBatches, Sample, stable_hash
from multimodal.core.encoder import Processor
from multimodal.core.errors import UsageError


class Column(Processor):
    """Numbers -> a column of them."""

    def __call__(self, value: Any) -> Any:
        return value

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.tensor(items), "count": torch.tensor(len(items))}


PROCESSORS: dict[str, Processor] = {"image": Column(), "graph": Column(), "text": Column()}
sample = st.builds(
    Sample,
    key=st.text(max_size=3),
    values=st.dictionaries(st.sampled_from(sorted(PROCESSORS)), st.integers(-99, 99)),
    group=st.sampled_from(["cup", "mug", "ε"]),
)


@given(samples=st.lists(sample, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_batch_holds_for_each_modality_the_rows_that_have_it(samples: list[Sample]) -> None:
    batch = Batch.collate(samples, PROCESSORS)
    present = [m for m in PROCESSORS if any(m in s.values for s in samples)]
    assert list(batch.inputs) == list(batch.rows) == present
    for modality in present:
        rows = [row for row, s in enumerate(samples) if modality in s.values]
        assert batch.rows[modality].dtype == torch.int64
        assert batch.rows[modality].tolist() == rows
        assert batch.inputs[modality]["x"].tolist() == [samples[row].values[modality] for row in rows]
        assert batch.inputs[modality]["count"] == len(rows)
    assert len(batch) == len(samples)
    assert batch.keys == tuple(s.key for s in samples)
    for i, one in enumerate(samples):
        assert [bool(same) for same in batch.groups == batch.groups[i]] == [one.group == s.group for s in samples]


def test_a_modality_that_no_row_has_is_absent() -> None:
    batch = Batch.collate([Sample("a", {"text": 1}, "a"), Sample("b", {}, "b")], PROCESSORS)
    assert set(batch.inputs) == set(batch.rows) == {"text"}
    assert batch.rows["text"].tolist() == [0]
    nothing = Batch.collate([Sample("b", {}, "b")], PROCESSORS)
    assert nothing.inputs == nothing.rows == {}
    assert len(nothing) == 1


def test_the_order_of_the_modalities_is_that_of_the_processors_whatever_the_rows_have() -> None:
    samples = [Sample("a", {"text": 1}, "a"), Sample("b", {"text": 1, "image": 2}, "b")]
    assert list(Batch.collate(samples, PROCESSORS).inputs) == ["image", "text"]


def test_the_groups_of_no_samples_are_integers_too() -> None:
    assert Batch.collate([], PROCESSORS).groups.dtype == torch.int64


def test_targets_are_numbers_by_row_and_nan_where_there_is_none() -> None:
    samples = [
        Sample("a", {"text": 1}, "a", {"kind": 2, "labels": [1, 0]}),
        Sample("b", {"text": 1}, "b"),
        Sample("c", {}, "c", {"kind": 0.5}),
    ]
    targets = Batch.collate(samples, PROCESSORS).targets
    assert {t.dtype for t in targets.values()} == {torch.float32}
    torch.testing.assert_close(targets["kind"], torch.tensor([2, torch.nan, 0.5]), equal_nan=True)
    nothing = [torch.nan] * 2
    torch.testing.assert_close(targets["labels"], torch.tensor([[1, 0], nothing, nothing]), equal_nan=True)
    assert Batch.collate(samples[1:2], PROCESSORS).targets == {}


def test_targets_of_different_lengths_are_refused() -> None:
    samples = [Sample("a", {}, "a", {"labels": [1, 0]}), Sample("b", {}, "b", {"labels": 1})]
    with pytest.raises(UsageError, match=r"Target 'labels' of 'b' has shape \(\), an earlier sample's has \(2,\)"):
        Batch.collate(samples, PROCESSORS)


def test_negatives_are_rows_of_their_own_after_the_samples() -> None:
    hard = [Sample(name, {"text": i}, name, {"kind": 7}) for i, name in enumerate(("x", "y", "z"))]
    samples = [
        Sample("a", {"text": 5, "image": 6}, "a", negatives=(hard[0], hard[1])),
        Sample("b", {"image": 8}, "b"),
        Sample("c", {"text": 9}, "c", negatives=(hard[2],)),
    ]
    batch = Batch.collate(samples, PROCESSORS)
    assert batch.keys == ("a", "b", "c", "x", "y", "z")
    assert batch.negative_of is not None
    assert batch.negative_of.tolist() == [-1, -1, -1, 0, 0, 2]
    assert batch.rows["text"].tolist() == [0, 2, 3, 4, 5]
    assert batch.inputs["text"]["x"].tolist() == [5, 9, 0, 1, 2]
    assert batch.rows["image"].tolist() == [0, 1]
    assert batch.groups.tolist() == [stable_hash(name) for name in "abcxyz"]
    assert batch.targets["kind"].isnan().tolist() == [True] * 3 + [False] * 3
    assert Batch.collate(samples[1:2], PROCESSORS).negative_of is None


@given(name=st.text())
@settings(max_examples=60, deadline=None)
def test_a_stable_number_is_the_first_63_bits_of_the_name_s_blake2b(name: str) -> None:
    bits = bin(int(hashlib.blake2b(name.encode("utf-8"), digest_size=8).hexdigest(), 16) | 1 << 64)[3:]
    assert stable_hash(name) == int(bits[:63], 2)
    assert torch.tensor([stable_hash(name)]).dtype == torch.int64


def test_a_stable_number_never_changes() -> None:
    assert [stable_hash(n) for n in ("", "cup")] == [8_238_016_292_129_134_938, 6_209_399_565_448_850_772]


def test_to_moves_every_tensor_and_keeps_the_keys() -> None:
    hard = Sample("x", {}, "x")
    batch = Batch.collate([Sample("a", {"text": 1, "image": 2}, "a", {"kind": 1}, (hard,))], PROCESSORS).to("meta")
    tensors = [batch.groups, *batch.rows.values(), *(t for inputs in batch.inputs.values() for t in inputs.values())]
    assert len(tensors) == 7
    assert batch.negative_of is not None
    assert {t.device.type for t in (*tensors, batch.targets["kind"], batch.negative_of)} == {"meta"}
    assert batch.keys == ("a", "x")


def test_parts_in_one_block_hold_the_same_and_share_their_memory() -> None:
    pixels = torch.randint(0, 255, (3, 4, 4, 2), dtype=torch.uint8).permute(0, 3, 1, 2)
    inputs = {
        "a": {"pixels": pixels, "x": torch.randn(5, 3), "none": torch.zeros(0, 2)},
        "b": {"x": torch.arange(7)[::2]},
    }
    rows = {"a": torch.arange(3), "b": torch.arange(3)}
    parts = tuple(Batch(inputs, rows, torch.arange(3), targets={"y": torch.rand(3)}) for _ in range(2))
    packed = MicroBatches(parts).in_one_block()
    for part in packed.parts:
        for modality, tensors in inputs.items():
            for name, expected in tensors.items():
                assert torch.equal(part.inputs[modality][name], expected)
                assert part.inputs[modality][name].dtype == expected.dtype
        assert part.inputs["a"]["pixels"].stride() == pixels.stride()
    assert torch.equal(packed.parts[1].targets["y"], parts[1].targets["y"])
    found = [t for part in packed.parts for inputs in part.inputs.values() for t in inputs.values() if t.numel()]
    assert len({t.untyped_storage().data_ptr() for t in (*found, packed.parts[1].groups)}) == 1
    alone = parts[0].in_one_block()
    assert torch.equal(alone.inputs["a"]["x"], inputs["a"]["x"])
    assert alone.inputs["a"]["x"].untyped_storage().data_ptr() == alone.groups.untyped_storage().data_ptr()
