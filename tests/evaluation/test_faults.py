"""Planted faults are suspected first, and the table holds what training reads."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.data.approved import ACROSS_SPLITS, MISMATCHED, SAME_ITEM, Approved
from multimodal.evaluation import near_rows as near_rows_module
from multimodal.evaluation import pair_evidence
from multimodal.evaluation.faults import Faults, RowViews, Suspicion, readable, suspect
from multimodal.evaluation.near_rows import near_rows
from multimodal.evaluation.pair_evidence import evidence, match_log_odds

ROWS, CLASSES = 200, 10


@pytest.fixture(autouse=True)
def _judge_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_evidence, "REPEATS", 1)


def clustered(seed: int = 0) -> tuple[Tensor, Tensor, np.ndarray]:
    """Two modalities of rows in classes, which share nothing but the class."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, ROWS)
    x, y = (
        normalize(
            torch.from_numpy(rng.normal(size=(CLASSES, dim))[classes] + 0.5 * rng.normal(size=(ROWS, dim))).float()
        )
        for dim in (16, 16)
    )
    return x, y, classes


def views_of(vectors: dict[str, Tensor]) -> RowViews:
    return RowViews({m: torch.arange(len(v)) for m, v in vectors.items()}, vectors)


def each_its_own(rows: int) -> dict[int, int]:
    return {row: row for row in range(rows)}


def test_rows_with_the_value_of_another_class_are_suspected_first() -> None:
    x, y, classes = clustered()
    moved = [int(np.flatnonzero(classes == c)[0]) for c in range(CLASSES)]  # one of each class
    y[moved] = y[moved[1:] + moved[:1]].clone()
    odds = match_log_odds(x, y, torch.arange(ROWS))
    assert set(np.argsort(odds)[: len(moved)].tolist()) == set(moved)
    assert (odds[moved] < 0).all()
    assert np.median(odds) > 0


def test_evidence_is_that_of_a_transcription() -> None:
    x, y, _ = clustered()
    groups = torch.arange(ROWS) // 2
    found = evidence(x, y, groups, torch.tensor([3]), torch.tensor([8]))[0]
    others = [n for n in range(ROWS) if n // 2 not in (1, 4)]
    by_x = sorted(others, key=lambda n: -float(x[3] @ x[n]))
    by_y = sorted(others, key=lambda n: -float(y[8] @ y[n]))
    expected = []
    for k in pair_evidence.NEIGHBOURS:
        likeness = [float(y[8] @ y[n]) for n in by_x[:k]]
        expected += [np.mean(likeness), max(likeness), np.mean([float(x[3] @ x[n]) for n in by_x[:k]])]
    assert np.allclose(found[: len(expected)], expected, atol=1e-5)
    shared = [len({*by_x[:k]} & {*by_y[:k]}) for k in pair_evidence.SHARED]
    assert found[-5:-2].tolist() == shared
    assert np.isclose(found[-2], np.mean([[float(x[a] @ x[b]) for b in by_y[:10]] for a in by_x[:10]]), atol=1e-5)


def test_evidence_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = clustered()
    rows = torch.arange(ROWS)
    whole = evidence(x, y, rows, rows, rows.flip(0))
    monkeypatch.setattr(pair_evidence, "BLOCK", 7 * ROWS)
    assert np.allclose(whole, evidence(x, y, rows, rows, rows.flip(0)), atol=1e-5)


def test_near_rows_are_those_of_a_transcription(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, _ = clustered()
    x = x[:40]
    groups = torch.arange(40) // 2
    monkeypatch.setattr(near_rows_module, "BLOCK", 300)
    pairs, strengths = near_rows(x, groups)
    expected: dict[tuple[int, int], float] = {}
    distance = {
        (i, j): max(1 - float(x[i] @ x[j]), near_rows_module.LEAST_DISTANCE) for i in range(40) for j in range(40)
    }
    nearest = {
        i: sorted((j for j in range(40) if j // 2 != i // 2), key=lambda j: distance[i, j])[:4] for i in range(40)
    }
    usual = {i: np.mean([math.log(distance[i, j]) for j in nearest[i][1:]]) for i in range(40)}
    for i in range(40):
        for j in nearest[i]:
            strength = float(usual[i] + usual[j] - 2 * math.log(distance[i, j]))
            if strength > 0:
                expected[min(i, j), max(i, j)] = strength
    assert {
        tuple(pair): pytest.approx(s, abs=1e-3) for pair, s in zip(pairs.tolist(), strengths.tolist(), strict=True)
    } == expected
    assert strengths.tolist() == sorted(strengths.tolist(), reverse=True)


def test_doubled_rows_are_suspected_and_known_ones_are_not() -> None:
    x, y, _ = clustered()
    x[1], x[3], x[5] = x[0], x[2], x[4]
    y[1], y[3], y[5] = y[0], y[2], y[4]
    vectors = views_of({"image": x, "text": y})
    groups = each_its_own(ROWS) | {3: 2}
    found, notes = suspect(vectors, vectors, vectors, groups, dict.fromkeys(range(ROWS), "train") | {5: "test"})
    same = {(s.kind, s.row, s.other_row) for s in found if s.kind != MISMATCHED}
    assert same == {(SAME_ITEM, 0, 1), (ACROSS_SPLITS, 4, 5)}
    assert notes == []
    assert [s.strength for s in found] == sorted((s.strength for s in found), reverse=True)


def test_rows_that_are_alike_in_one_modality_alone_are_not_suspected() -> None:
    x, y, classes = clustered()
    unlike = int(np.flatnonzero(classes != classes[0])[0])
    x[unlike] = x[0]
    vectors = views_of({"image": x, "text": y})
    found, _ = suspect(vectors, vectors, vectors, each_its_own(ROWS))
    assert not [s for s in found if s.kind != MISMATCHED]


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_few_rows_give_a_clear_line(rows: int) -> None:
    x, y, _ = clustered()
    vectors = views_of({"image": x[:rows], "text": y[:rows]})
    found, notes = suspect(vectors, vectors, vectors, each_its_own(rows))
    assert [s for s in found if s.kind == MISMATCHED] == []
    assert notes == [
        f"image-text: Wrong pairs are found among at least 20 rows that have both modalities; there are {rows}."
    ]


def test_rows_of_one_group_give_a_clear_line() -> None:
    x, y, _ = clustered()
    with pytest.raises(UsageError, match="of at least two groups"):
        match_log_odds(x, y, torch.zeros(ROWS, dtype=torch.int64))


def test_equal_rows_are_not_suspected() -> None:
    ones = normalize(torch.ones(40, 8))
    vectors = views_of({"image": ones, "text": ones})
    found, _ = suspect(vectors, vectors, vectors, each_its_own(40))
    assert not [s for s in found if s.kind != MISMATCHED]
    assert all(math.isfinite(s.strength) for s in found)


def test_vectors_that_are_not_finite_are_left_out_and_alternatives_averaged() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [torch.nan, 0.0]])
    found = RowViews.of(Embeddings({"text": vectors}, {"text": torch.arange(3)}, torch.arange(3), ("4", "4", "5")))
    assert found.rows["text"].tolist() == [4]
    assert torch.allclose(found.vectors["text"], torch.tensor([[0.5**0.5, 0.5**0.5]]))


def test_training_reads_the_table_that_is_written(tmp_path: Path) -> None:
    suspicions = [
        Suspicion(SAME_ITEM, 0, 2, "image-image", 0.9, 0.5, 7.0),
        Suspicion(MISMATCHED, 1, 0, "image-text", 0.8, 0.1, 2.0),
    ]
    faults = Faults(suspicions, {0: "a", 1: "b", 2: "c"}, {0: 'text: a, "red"\ncup', 1: "text: jug"})
    faults.save(path := tmp_path / "faults.csv")
    assert Approved.read(path, "abc") == Approved(str(path))
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["contents"] == 'text: a, "red"\ncup'
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(line | {"approve": "yes"} for line in lines)
    assert Approved.read(path, "abc") == Approved(str(path), ((0, 2),), frozenset({1}))
    assert faults.grids()[0].rows == [["mismatched", "1"], ["same item", "1"], [ACROSS_SPLITS, "0"]]


def test_contents_are_readable() -> None:
    assert readable({"text": "a cup", "image": {"path": "cup.png"}, "audio": b"RIFF"}) == (
        "text: a cup; image: cup.png; audio: bytes"
    )
