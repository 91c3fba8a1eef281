"""Embeddings of parts and of the whole."""

from __future__ import annotations

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
)


def embeddings_of(samples: list[Sample]) -> Embeddings:
    batch = Batch.collate(samples, PROCESSORS)
    return Embeddings({m: inputs["x"] for m, inputs in batch.inputs.items()}, batch.rows, batch.groups, batch.keys)


@given(parts=st.lists(st.lists(sample, min_size=1, max_size=4), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_embeddings_of_parts_are_those_of_the_whole(parts: list[list[Sample]]) -> None:
    whole = embeddings_of([s for part in parts for s in part])
    joined = Embeddings.cat([embeddings_of(part) for part in parts])
    assert set(joined.modalities) == set(whole.modalities)
    for modality in whole.modalities:
        assert torch.equal(joined.vectors[modality], whole.vectors[modality])
        assert torch.equal(joined.rows[modality], whole.rows[modality])
        assert torch.equal(joined.groups_of(modality), whole.groups_of(modality))
    assert torch.equal(joined.groups, whole.groups)
    assert joined.keys == whole.keys


def test_no_parts_are_the_embeddings_of_no_rows() -> None:
    nothing = Embeddings.cat([])
    assert (nothing.vectors, nothing.rows, nothing.keys) == ({}, {}, ())
    assert (nothing.groups.tolist(), nothing.groups.dtype) == ([], torch.int64)


def test_each_vector_has_the_group_of_its_row() -> None:
    embeddings = Embeddings({"text": torch.eye(2)}, {"text": torch.tensor([1, 3])}, torch.tensor([7, 8, 7, 9]))
    assert embeddings.groups_of("text").tolist() == [8, 9]
    assert embeddings.modalities == ["text"]


def test_to_moves_every_tensor_and_keeps_the_keys() -> None:
    embeddings = Embeddings({"text": torch.eye(2)}, {"text": torch.arange(2)}, torch.arange(2), ("a", "b")).to("meta")
    moved = [embeddings.vectors["text"], embeddings.rows["text"], embeddings.groups]
    assert {t.device.type for t in moved} == {"meta"}
    assert embeddings.keys == ("a", "b")


def test_vectors_cannot_be_replaced_by_accident() -> None:
    embeddings = Embeddings({}, {}, torch.arange(1))
    with pytest.raises(AttributeError):
        embeddings.groups = torch.arange(2)  # pyright: ignore[reportAttributeAccessIssue]
