"""Slices equal the means over their queries, whatever the order of the rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.evaluation.retrieval import retrieval_by_query
from multimodal.evaluation.slices import MOST_SLICES, Slices


def made(n: int, seed: int = 0) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    vectors = {
        m: torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1) for m in ("text", "image")
    }
    rows = {"text": torch.randperm(n, generator=generator), "image": torch.arange(n)}
    return Embeddings(vectors, rows, groups=torch.arange(n))


@given(st.lists(st.sampled_from(["red", "blue", None]), min_size=2, max_size=20))
def test_a_slice_is_the_mean_of_its_queries(values: list[str | None]) -> None:
    e = made(len(values))
    by_query = retrieval_by_query(e)
    if not any(values):
        with pytest.raises(UsageError, match="No evaluated row has a value of 'colour'"):
            Slices.of("colour", values, e, by_query)
        return
    found = Slices.of("colour", values, e, by_query)
    assert found.missing == values.count(None)
    for pair, of_pair in by_query.items():
        rows = e.rows[pair.partition("->")[0]][of_pair.queries].tolist()
        for value in {v for v in values if v is not None}:
            own = [x for x, row in zip(of_pair.values["mrr"].tolist(), rows, strict=True) if values[row] == value]
            of_slice = found.slices[value][pair]
            assert of_slice.queries == len(own)
            assert of_slice.measures["mrr"].mean == pytest.approx(sum(own) / len(own))
            assert of_slice.measures["mrr"].low <= of_slice.measures["mrr"].mean <= of_slice.measures["mrr"].high


def test_rare_values_are_counted() -> None:
    e = made(30)
    values = [*("common",) * 3, *(f"v{n}" for n in range(27))]
    found = Slices.of("kind", values, e, retrieval_by_query(e))
    assert len(found.slices) == MOST_SLICES
    assert next(iter(found.slices)) == "common"
    assert found.left_out == 28 - MOST_SLICES
    assert found.grids()[0].title == "text -> image by kind; 8 rarer values are left out"
