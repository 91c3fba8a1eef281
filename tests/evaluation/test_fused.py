"""Fused queries equal a numpy transcription, and dropping modalities does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.evaluation.fused import MissingModalities, fuse, parse_fusion, with_fused
from multimodal.evaluation.retrieval import Retrieval, measure_queries, retrieval


def made(rows: dict[str, list[int]], n: int, seed: int = 0) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(n, 8, generator=generator)
    vectors = {
        m: functional.normalize(middle[r] + torch.randn(len(r), 8, generator=generator), dim=1) for m, r in rows.items()
    }
    return Embeddings(vectors, {m: torch.tensor(r) for m, r in rows.items()}, groups=torch.arange(n))


def all_of(n: int = 30, seed: int = 0) -> Embeddings:
    return made({m: list(range(n)) for m in ("text", "image", "graph")}, n, seed)


def test_fused_vectors_equal_numpy() -> None:
    e = made({"text": [4, 2, 0, 3], "image": [0, 1, 2, 3], "graph": [0]}, 5)
    vectors, rows = fuse(e, {"text": 0.7, "image": 0.3})
    assert rows.tolist() == [0, 2, 3]
    text, image = e.vectors["text"].numpy(), e.vectors["image"].numpy()
    expected = 0.7 * text[[2, 1, 3]] + 0.3 * image[[0, 2, 3]]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(vectors.numpy() - expected).max() < 1e-6
    more = with_fused(e, {"text": 0.7, "image": 0.3})
    assert more.modalities == ["text", "image", "graph", "text+image"]
    assert torch.equal(more.vectors["text+image"], vectors)


def test_a_fusion_is_written_with_or_without_weights() -> None:
    assert parse_fusion("text+image") == {"text": 1, "image": 1}
    assert parse_fusion("text = 2 + image") == {"text": 2, "image": 1}
    for wrong, message in [
        ("text", "at least two modalities"),
        ("text=a+image", "'a' in .* is not a weight"),
        ("text=0+image", "must be a positive number"),
        ("text=nan+image", "must be a positive number"),
    ]:
        with pytest.raises(UsageError, match=message):
            parse_fusion(wrong)
    with pytest.raises(UsageError, match=r"no modality 'imag' to fuse.*Did you mean 'image'"):
        fuse(all_of(), {"text": 1, "imag": 1})


def mean_of(e: Embeddings, modalities: list[str], target: str, rows: Tensor) -> Retrieval:
    fused = functional.normalize(sum((e.vectors[m][rows] for m in modalities), torch.zeros(1)), dim=1)
    return Retrieval.of(measure_queries(fused, e.vectors[target], rows, torch.arange(len(e.groups))), len(e.groups))


def test_subsets_are_measured_on_rows_that_have_all() -> None:
    e = all_of()
    kept = torch.arange(30) != 7
    partial = e.keep(
        {"text": kept, "image": torch.ones(30, dtype=torch.bool), "graph": torch.ones(30, dtype=torch.bool)}
    )
    found = MissingModalities.of(partial)
    rows = kept.nonzero().flatten()
    assert found.queries["image->graph"] == mean_of(e, ["image"], "graph", rows)  # also without row 7
    assert found.queries["text+image->graph"] == mean_of(e, ["text", "image"], "graph", rows)
    assert set(found.queries) == {
        *("text->image", "graph->image", "text+graph->image", "text->graph", "image->graph", "text+image->graph"),
        *("image->text", "graph->text", "image+graph->text"),
    }


def test_nothing_is_missing_at_0_and_one_modality_is_left_at_100_per_cent() -> None:
    e = all_of(300)
    found = MissingModalities.of(e)
    curve = found.missing_of_queries["text+image->graph"]
    assert curve[0.0] == found.queries["text+image->graph"]
    single = [found.queries[f"{m}->graph"].recall_at_1 for m in ("text", "image")]
    assert min(single) - 0.1 < curve[1.0].recall_at_1 < max(single) + 0.1  # half of the rows by each
    assert curve[0.0].recall_at_1 > curve[0.5].recall_at_1 > curve[1.0].recall_at_1
    candidates = found.missing_of_candidates["graph->text+image"]
    assert candidates[0.0].recall_at_1 > candidates[1.0].recall_at_1
    assert all(r.queries == r.pool == 300 for r in [*curve.values(), *candidates.values()])
    assert MissingModalities.of(e) == found  # the same is dropped


def test_tables_and_stated_gaps() -> None:
    titles = [grid.title for grid in MissingModalities.of(all_of()).grids()]
    assert titles[0] == "What a modality adds to a query"
    assert len(titles) == 3
    with pytest.raises(UsageError, match=r"3 to 6 modalities.*there are 2"):
        MissingModalities.of(made({"text": [0], "image": [0]}, 1))
    apart = made({"text": [0], "image": [1], "graph": [2]}, 3)  # no row has two
    assert MissingModalities.of(apart).grids() == []


def test_a_fused_modality_is_searched_like_any_other() -> None:
    e = with_fused(all_of(), {"text": 1, "image": 1})
    assert retrieval(e)["text+image->graph"] == MissingModalities.of(all_of()).queries["text+image->graph"]
