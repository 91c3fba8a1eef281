"""The mixed pool against a plain transcription."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation import mixed_pool as module
from multimodal.evaluation.geometry import close_gap, modality_means
from multimodal.evaluation.mixed_pool import mixed_pool


@pytest.mark.parametrize("block", [1, 2**24])
def test_queries_search_all_modalities_but_their_own_group_in_their_own(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    groups = torch.tensor([0, 0, 1, 2, 3, 3, 4])
    rows = {"text": torch.tensor([0, 1, 2, 3, 4]), "image": torch.tensor([1, 2, 4, 5]), "audio": torch.tensor([3, 6])}
    vectors = {m: functional.normalize(torch.randn(len(r), 5), dim=1) for m, r in rows.items()}
    embeddings = Embeddings(vectors, rows, groups)
    everything = [(m, int(groups[r]), v.numpy()) for m in rows for r, v in zip(rows[m], vectors[m], strict=True)]
    found = mixed_pool(embeddings)
    assert set(found) == {"text", "image", "audio"}
    for modality, result in found.items():
        ranks, own_first = [], []
        for _, group, query in (e for e in everything if e[0] == modality):
            others = [(m, g, float(query @ v)) for m, g, v in everything if (m, g) != (modality, group)]
            right = [s for m, g, s in others if g == group]
            if right:
                ranks.append(1 + sum(s >= max(right) - 1e-6 for _, g, s in others if g != group))
                own_first.append(max(others, key=lambda other: other[2])[0] == modality)
        assert (result.queries, result.pool) == (len(ranks), 11)
        assert result.recall_at_1 == pytest.approx(np.mean(np.array(ranks) <= 1))
        assert result.recall_at_10 == pytest.approx(np.mean(np.array(ranks) <= 10))
        assert result.mrr == pytest.approx(np.mean(1 / np.array(ranks)))
        assert result.own_modality_first == pytest.approx(np.mean(own_first))


def test_closing_the_gap_lets_other_modalities_come_first() -> None:
    rows, content = torch.arange(300), torch.randn(300, 16)
    shift = 4 * functional.normalize(torch.randn(16), dim=0)
    vectors = {
        "text": functional.normalize(content + shift + 0.1 * torch.randn(300, 16), dim=1),
        "image": functional.normalize(content - shift + 0.1 * torch.randn(300, 16), dim=1),
    }
    apart = Embeddings(vectors, {"text": rows, "image": rows}, groups=rows)
    closed = close_gap(apart, modality_means(apart))
    assert mixed_pool(apart)["text"].own_modality_first > 0.9
    assert mixed_pool(closed)["text"].own_modality_first < 0.1
    assert mixed_pool(closed)["text"].recall_at_1 > 0.9


def test_in_a_collapsed_space_each_modality_finds_its_own_first() -> None:
    rows = {m: torch.arange(3) for m in ("text", "image")}
    found = mixed_pool(Embeddings({m: torch.ones(3, 1) for m in rows}, rows, groups=torch.arange(3)))
    assert [found[m].own_modality_first for m in rows] == [1.0, 1.0]


def test_queries_without_a_partner_in_another_modality_are_left_out() -> None:
    rows = {"text": torch.tensor([0]), "image": torch.tensor([1])}
    assert mixed_pool(Embeddings({m: torch.ones(1, 1) for m in rows}, rows, groups=torch.arange(2))) == {}
