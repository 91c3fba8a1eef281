"""Embeddings of batches, and of several batches concatenated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core.batch import Batch, Sample
from multimodal.core.embeddings import Embeddings
from multimodal.core.encoder import Inputs, Processor


class Column(Processor):
    def __call__(self, value: int) -> int:
        return value

    def collate(self, items: list[int]) -> Inputs:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {"x": torch.tensor(items, dtype=torch.float64)[:, None]}


PROCESSORS: dict[str, Processor] = {"image": Column(), "graph": Column(), "text": Column()}
sample = st.builds(
    Sample,
    key=st.text(max_size=3),
    values=st.dictionaries(st.sampled_from(sorted(PROCESSORS)), st.integers(-99, 99)),
    group=st.sampled_from("abc"),
    targets=st.dictionaries(st.sampled_from(["kind", "size"]), st.integers(0, 9)),
)


def embeddings_of(samples: list[Sample]) -> Embeddings:
    batch = Batch.collate(samples, PROCESSORS)
    return Embeddings(
        {m: inputs["x"] for m, inputs in batch.inputs.items()}, batch.rows, batch.groups, batch.keys, batch.targets
    )


@given(parts=st.lists(st.lists(sample, min_size=1, max_size=4), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_concatenated_embeddings_equal_those_of_one_batch(parts: list[list[Sample]]) -> None:
    whole = embeddings_of([s for part in parts for s in part])
    joined = Embeddings.cat([embeddings_of(part) for part in parts])
    assert set(joined.modalities) == set(whole.modalities)
    for modality in whole.modalities:
        assert torch.equal(joined.vectors[modality], whole.vectors[modality])
        assert torch.equal(joined.rows[modality], whole.rows[modality])
        assert torch.equal(joined.groups_of(modality), whole.groups_of(modality))
    assert torch.equal(joined.groups, whole.groups)
    assert joined.keys == whole.keys
    assert set(joined.targets) == set(whole.targets)
    for name in whole.targets:
        torch.testing.assert_close(joined.targets[name], whole.targets[name], rtol=0, atol=0, equal_nan=True)


def test_rows_of_negatives_are_offset_by_the_earlier_batches() -> None:
    def part(negative_of: list[int] | None) -> Embeddings:
        owners = None if negative_of is None else torch.tensor(negative_of)
        return Embeddings({}, {}, torch.arange(3), negative_of=owners)

    joined = Embeddings.cat([part([-1, -1, 1]), part(None), part([-1, 0, 0])])
    assert joined.negative_of is not None
    assert joined.negative_of.tolist() == [-1, -1, 1, -1, -1, -1, -1, 6, 6]
    assert Embeddings.cat([part(None), part(None)]).negative_of is None


def test_concatenating_nothing_returns_embeddings_of_no_rows() -> None:
    empty = Embeddings.cat([])
    assert (empty.vectors, empty.rows, empty.keys) == ({}, {}, ())
    assert (empty.groups.tolist(), empty.groups.dtype) == ([], torch.int64)


def test_each_vector_has_the_group_of_its_row() -> None:
    embeddings = Embeddings({"text": torch.eye(2)}, {"text": torch.tensor([1, 3])}, torch.tensor([7, 8, 7, 9]))
    assert embeddings.groups_of("text").tolist() == [8, 9]
    assert embeddings.modalities == ["text"]


def test_each_vector_has_the_target_of_its_row() -> None:
    targets = {"kind": torch.tensor([0.0, 1.0, 2.0, 3.0]), "labels": torch.arange(8.0).view(4, 2)}
    embeddings = Embeddings({"text": torch.eye(2)}, {"text": torch.tensor([1, 3])}, torch.arange(4), targets=targets)
    assert embeddings.targets_of("text", "kind").tolist() == [1, 3]
    assert embeddings.targets_of("text", "labels").tolist() == [[2, 3], [6, 7]]


def test_keep_selects_vectors_and_their_rows() -> None:
    rows = {"text": torch.tensor([1, 3]), "image": torch.tensor([0])}
    embeddings = Embeddings({"text": torch.eye(2), "image": torch.ones(1, 2)}, rows, torch.arange(4), tuple("abcd"))
    kept = embeddings.keep({"text": torch.tensor([False, True]), "image": torch.tensor([False])})
    assert kept.vectors["text"].tolist() == [[0, 1]]
    assert {m: r.tolist() for m, r in kept.rows.items()} == {"text": [3], "image": []}
    assert (kept.keys, kept.groups.tolist()) == (embeddings.keys, [0, 1, 2, 3])


def test_to_moves_every_tensor_and_keeps_the_keys() -> None:
    embeddings = Embeddings({"text": torch.eye(2)}, {"text": torch.arange(2)}, torch.arange(2), ("a", "b")).to("meta")
    full = replace(embeddings, targets={"kind": torch.zeros(2)}, negative_of=torch.tensor([-1, 0])).to("meta")
    assert full.negative_of is not None
    moved = [embeddings.vectors["text"], embeddings.rows["text"], embeddings.groups]
    moved += [full.targets["kind"], full.negative_of]
    assert {t.device.type for t in moved} == {"meta"}
    assert embeddings.keys == ("a", "b")


def test_fields_cannot_be_assigned() -> None:
    embeddings = Embeddings({}, {}, torch.arange(1))
    with pytest.raises(AttributeError):
        embeddings.groups = torch.arange(2)  # pyright: ignore[reportAttributeAccessIssue]
