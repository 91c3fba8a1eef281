"""Hybrid search: ranks are fused, what the words name comes first, and hits say which words found them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from multimodal.search.engines.engine import Found
from multimodal.search.engines.fusion import FEW, FUSION, fuse
from multimodal.search.engines.layout import Layout
from multimodal.search.engines.qdrant_edge import QdrantEdgeEngine

MODALITIES = ("image", "sound", "text")


def row(key: str, score: float = 0.0, modality: str = "text", **metadata: object) -> Found:
    return Found(key, key, modality, score, json.dumps(metadata))


def keys(found: list[Found]) -> list[str]:
    return [one.key for one in found]


def test_ranks_are_fused_as_the_sum_over_the_lists_says() -> None:
    rng = np.random.default_rng(0)
    rows = [f"r{n:02}" for n in range(12)]
    lists = [
        [row(key, score, name="a cup of many") for key, score in zip(rows, rng.permutation(12) / 20, strict=True)]
        for _ in range(2)
    ]
    by_words = [(float(n), row(rows[n], name="a cup of many")) for n in (3, 5, 8)]
    expected = {}
    for key in rows:
        ranks = [
            sorted(found, key=lambda one: -one.score).index(next(o for o in found if o.key == key)) for found in lists
        ]
        expected[key] = sum(1 / (FUSION + rank) for rank in ranks)
        if key in ("r08", "r05", "r03"):
            expected[key] += 1 / (FUSION + ("r08", "r05", "r03").index(key))
    found = fuse(lists, by_words, "a rare cup", 12)
    assert keys(found) == sorted(rows, key=lambda key: -expected[key])
    assert {one.key: one.words for one in found if one.words} == dict.fromkeys(("r03", "r05", "r08"), ("a", "cup"))
    assert all(one.score == max(each.score for each in lists[0] + lists[1] if each.key == one.key) for one in found)


def test_rows_of_equal_scores_share_the_mean_of_their_ranks() -> None:
    vectors = [row("c", 0.9), row("b", 0.8), row("a", 0.7), row("d", 0.7)]
    by_words = [(2.0, vectors[2]), (2.0, vectors[1]), (2.0, vectors[0]), (9.0, row("e"))]
    # c: 1/2 + 1/4, e: 1/2, b: 1/3 + 1/4, a: 1/(2 + 2.5) + 1/4, d: 1/(2 + 2.5)
    assert keys(fuse([vectors], by_words, "a lamp", 5)) == ["c", "b", "e", "a", "d"]


def test_what_the_words_name_comes_first_and_what_is_called_so_before_it() -> None:
    vectors = [[row(f"v{n}", 0.9 - n / 100, modality) for n in range(9)] for modality in MODALITIES]
    partly = row("partly", name="AX 500")
    named = row("named", name="the case of Zürich AX-400")
    called = row("called", name="zurich ax-400")
    by_words = [(9.0, partly), (8.0, named), (7.0, called)]
    assert keys(fuse(vectors, by_words, "Zürich AX-400", 3)) == ["called", "named", "v0"]
    assert fuse(vectors, by_words, "Zürich AX-400", 4)[0].words == ("Zürich", "AX", "400")
    assert keys(fuse(vectors, [(1.0, row("4711"))], "4711", 2)) == ["4711", "v0"]  # a key
    assert keys(fuse(vectors, [], "...", 2)) == ["v0", "v1"]


def test_a_code_within_other_words_names_rows() -> None:
    vectors = [[row(f"v{n}", 0.9 - n / 100, modality) for n in range(9)] for modality in MODALITIES]
    by_words = [(9.0, row("lamp", name="the lamp of the case")), (8.0, row("ax", name="AX400 case"))]
    assert keys(fuse(vectors, by_words, "where is the lamp of AX400", 2))[0] == "ax"
    assert keys(fuse(vectors, by_words, "where is the lamp of AX401", 2)) == ["v0", "v1"]
    assert keys(fuse(vectors, [(9.0, row("r", name="no 7"))], "lamp 7", 1)) == ["v0"]  # too short for a code


def test_words_that_many_rows_have_name_none_of_them_but_those_that_are_called_so() -> None:
    near = [row(f"v{n}", 0.9 - n / 100) for n in range(3)]
    cups = [(5.0, row(f"cup-{n}", name=f"a cup of sort {n}")) for n in range(FEW + 1)]
    assert keys(fuse([near], cups, "cup", 1)) == ["v0"]
    assert keys(fuse([near], [*cups, (4.0, row("x", name="Cup"))], "cup", 2)) == ["x", "v0"]


@pytest.mark.parametrize("target", [None, "sound"])
def test_a_number_is_found_first_however_many_modalities_vote_against_it(tmp_path: Path, target: str | None) -> None:
    rng = np.random.default_rng(1)
    count, dim = 300, 8
    columns: dict[str, pa.Array] = {
        "key": pa.array([f"sku-{n}" for n in range(count)]),
        "group": pa.array([f"#{n}" for n in range(count)]),
        "metadata": pa.array(
            [json.dumps({"title": f"a thing of sort {n % 7}", "order": f"T-{n:04}"}) for n in range(count)]
        ),
    }
    for modality in MODALITIES:
        vectors = rng.standard_normal((count, dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        columns[modality] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    engine = QdrantEdgeEngine.create(tmp_path / "engine", Layout(dim, MODALITIES))
    engine.upsert([pa.table(columns)])
    for n in rng.choice(count, 20, replace=False):
        query = rng.standard_normal(dim).astype(np.float32)
        query /= np.linalg.norm(query)
        for words in (f"sku-{n}", f"t-{n:04}", f"T-{n:04} sku {n}"):
            first, *others = engine.nearest_by_words(query, words, 10, target)
            assert (first.key, len(others)) == (f"sku-{n}", 9)
            assert first.words
        nearest = engine.nearest(query[None], 1, target)[0][0].key
        assert nearest in [one.key for one in engine.nearest_by_words(query, f"sku-{n}", 10, target)]
    engine.close()


def test_codes_are_compared_whole_and_small_numbers_are_not_codes() -> None:
    near = [row("lamp", 0.9, name="AX-500 reading lamp"), row("photos", 0.8, name="dog photos best")]
    drill = (9.0, row("drill", name="drill BX-400"))
    both = (9.5, near[0])
    assert keys(fuse([near], [both, drill], "reading lamp AX-400", 1)) == ["lamp"]
    assert keys(fuse([near], [both, drill, (8.0, row("ax", name="ax 400/ax400"))], "reading lamp AX-400", 1)) == ["ax"]
    cats = (9.0, row("cats", name="100 cats"))
    assert keys(fuse([near], [(9.5, near[1]), cats], "the 100 best dog photos", 1)) == ["photos"]
    assert keys(fuse([near], [(9.0, row("order", name="of 2024-0007"))], "my order 2024-0007", 1)) == ["order"]


@pytest.mark.parametrize(
    ("query", "name", "other"),
    [
        ("Zu\u0308rich", "Z\u00fcrich", "zu rich"),  # decomposed, and composed
        ("\u0915\u0940", "\u0915\u0940", "\u0915\u093e"),  # vowel signs of Devanagari
        ("\u304b\u304e", "\u304b\u304e", "\u304b\u304d"),  # voiced and unvoiced kana
        ("\u00e9t\u00e9", "Ete", "et e"),
    ],
)
def test_words_of_other_scripts_are_compared_by_what_distinguishes_them(query: str, name: str, other: str) -> None:
    by_words = [(2.0, row("other", name=other)), (1.0, row("right", name=name))]
    found = fuse([[row("near", 0.9)]], by_words, query, 3)
    assert found[0].key == "right"
    assert len(found[0].words) == 1
    assert not next(one for one in found if one.key == "other").words
