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
