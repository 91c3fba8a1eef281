"""The nearest groups are as many as are asked for, also where rows have several vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from multimodal.search.engines.layout import Layout
from multimodal.search.engines.qdrant_edge import QdrantEdgeEngine
from multimodal.search.nearest import Search

ROWS, CAPTIONS, DIM = 60, 8, 8


@pytest.fixture
def engine(tmp_path: Path) -> QdrantEdgeEngine:
    """Rows with eight captions each, one after the other."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.standard_normal((ROWS, DIM)), CAPTIONS, axis=0)
    vectors += 0.01 * rng.standard_normal(vectors.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    rows = [n for n in range(ROWS) for _ in range(CAPTIONS)]
    part = pa.table(
        {
            "key": [f"r{n}" for n in rows],
            "group": [f"#{n}" for n in rows],
            "metadata": [f'{{"title": "thing r{n}"}}' for n in rows],
            "text": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
        }
    )
    made = QdrantEdgeEngine.create(tmp_path / "engine", Layout(DIM, ["text"]))
    made.upsert([part])
    return made


@pytest.mark.parametrize("words", [None, "nothing matches", "r7", "thing"])
@pytest.mark.parametrize("k", [1, 10, 50, 100])
def test_alternatives_of_rows_do_not_take_the_place_of_other_rows(
    engine: QdrantEdgeEngine, words: str | None, k: int
) -> None:
    query = np.eye(DIM, dtype=np.float32)[:1]
    (found,) = Search(k, words=words).nearest_groups(engine, query, "text")
    keys = [one.key for one in found]
    assert len(keys) == len(set(keys)) == min(k, ROWS)
    assert words != "r7" or keys[0] == "r7"
    engine.close()


@pytest.mark.parametrize("k", [1, 4, 30, 100])
@pytest.mark.parametrize("without", [0, 1, 3])
def test_queries_among_groups_of_different_sizes(tmp_path: Path, k: int, without: int) -> None:
    rng = np.random.default_rng(1)
    sizes = [1] * 20 + [2] * 5 + [40, 80]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    vectors = rng.standard_normal((len(sizes), DIM))[groups] + 0.3 * rng.standard_normal((len(groups), DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    part = pa.table(
        {
            "key": [f"r{n}" for n in range(len(groups))],
            "group": [f"={n}" for n in groups],
            "metadata": ["{}"] * len(groups),
            "text": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
        }
    )
    engine = QdrantEdgeEngine.create(tmp_path / "engine", Layout(DIM, ["text"]))
    engine.upsert([part])
    queries = vectors[[0, 25, 60, -1]]
    unwanted = [f"={len(sizes) - 1 - n}" for n in range(without)]
    found = Search(k, without=unwanted).nearest_groups(engine, queries, "text")
    for query, best in zip(queries, found, strict=True):
        scores = vectors @ query
        of_group = {f"={n}": float(scores[groups == n].max()) for n in range(len(sizes))}
        expected = sorted((score for group, score in of_group.items() if group not in unwanted), reverse=True)[:k]
        assert [one.score for one in best] == pytest.approx(expected, abs=1e-5)
        assert [of_group[one.group] for one in best] == pytest.approx(expected, abs=1e-5)
    assert Search(k).nearest_groups(engine, queries[:0], "text") == []
    engine.close()
