"""Nearest-neighbour tests of tables: the measures of the vectors, and what a table may not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from multimodal import Embedder, create
from multimodal.core.errors import UsageError
from multimodal.evaluation.neighbour_tests import NeighbourTests, run_neighbour_test

WORDS = ["red cup", "blue cup", "red hat", "green bowl", "old vase"]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    embedder = Embedder({"text": create("text", "bag"), "words": create("text", "bag")}, dim=8)
    embedder.fit_processors({"text": WORDS, "words": WORDS})
    return embedder


def test_triplets_of_a_file(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("anchor,nearer,farther\nred cup,cup red,old vase\nred cup,old vase,cup red\n")
    found = run_neighbour_test(embedder, str(tmp_path / "t.csv"))
    assert (found.kind, found.modality, found.rows, found.measures) == ("triplets", "text", 2, {"accuracy": 0.5})
    (grid,) = NeighbourTests([found]).grids()
    assert grid.rows == [["triplets of t.csv", "text", "accuracy", "0.500", "2"]]


def test_graded_pairs_are_correlated(embedder: Embedder) -> None:
    pairs = [
        ("red cup", "blue cup", "4"),
        ("red cup", "old vase", "0.5"),
        ("red hat", "red cup", "3"),
        ("old vase", "red hat", "1"),
    ]
    rows = [dict(zip(("first", "second", "grade"), pair, strict=True)) for pair in pairs]
    found = run_neighbour_test(embedder, rows, "words")
    cosines = [float(embedder.encode(words=a) @ embedder.encode(words=b)) for a, b, _ in pairs]
    assert found.measures["spearman"] == pytest.approx(spearmanr(cosines, [4, 0.5, 3, 1])[0])


def test_analogies_are_searched_in_all_values(embedder: Embedder) -> None:
    rows = [{"a": "red cup", "b": "blue cup", "c": "red hat", "d": "blue hat"}, dict(zip("abcd", WORDS, strict=False))]
    found = run_neighbour_test(embedder, rows)
    names = list(dict.fromkeys([r[c] for c in "abcd" for r in rows]))
    vectors = np.stack([embedder.encode(text=name) for name in names])
    right = 0
    for row in rows:
        a, b, c = (vectors[names.index(row[k])] for k in "abc")
        scores = vectors @ (b - a + c)
        scores[[names.index(row[k]) for k in "abc"]] = -9
        right += names[int(scores.argmax())] == row["d"]
    assert found.measures == {"accuracy": right / 2}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"anchor": "a", "near": "b"}], r"has the columns anchor, near; a nearest-neighbour test has one of"),
        ([{"anchor": "a", "nearer": None, "farther": "c"}], "row 0: nearer is missing"),
        ([{"first": "a", "second": "b", "grade": "high"}], "the grade 'high' is not a number"),
        ([{"first": "a", "second": "b", "grade": "nan"}], "the grade 'nan' is not a number"),
    ],
)
def test_other_tables_are_wrong_usage(embedder: Embedder, rows: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_neighbour_test(embedder, rows)


def test_an_unknown_modality_is_wrong_usage(embedder: Embedder) -> None:
    with pytest.raises(UsageError, match=r"no modality 'image'"):
        run_neighbour_test(embedder, [{"a": "x", "b": "x", "c": "x", "d": "x"}], "image")
