"""Every engine finds, changes and counts like a list of rows in Python."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from search_servers import live_qdrant, milvus_lite, qdrant_in_memory

from multimodal.core.errors import MultimodalError
from multimodal.search.engines.address import Address
from multimodal.search.engines.cluster import About, building, find
from multimodal.search.engines.engine import ITEM_SCHEMA, Engine
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.engines.layout import Layout
from multimodal.search.engines.qdrant_edge import QdrantEdgeEngine

DIM, MODALITIES = 16, ["image", "text/../odd"]
Row = dict[str, Any]


def make_rows(n: int, seed: int = 0) -> list[Row]:
    """Return rows of which some have one modality alone, in groups of two."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        vectors = rng.standard_normal((2, DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        metadata = {"set": f"s{number % 3}", 'odd ".[0] name': number % 2 == 0, "price": number / 4}
        row: Row = {"key": f"k{number}", "group": f"g{number // 2}", "metadata": metadata}
        row[MODALITIES[0]], row[MODALITIES[1]] = (v.tolist() for v in vectors)
        if number % 5 == 1:
            row[MODALITIES[number % 2]] = None
        rows.append(row)
    return rows


def part_of(rows: list[Row]) -> pa.Table:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in ("key", "group")}
    columns["metadata"] = [json.dumps(row["metadata"]) for row in rows]
    for modality in MODALITIES:
        columns[modality] = pa.array([row[modality] for row in rows], pa.list_(pa.float32(), DIM))
    return pa.table(columns)


def exact_engine(folder: Path) -> Engine:
    return ExactEngine(np.empty((0, DIM), np.float32), ITEM_SCHEMA.empty_table())


def embedded(**settings: Any) -> Callable[[Path], Engine]:
    sample = np.random.default_rng(5).standard_normal((100, DIM)).astype(np.float32)
    layout = Layout(DIM, MODALITIES, **settings).fitted(sample)
    return lambda folder: QdrantEdgeEngine.create(folder / "engine", layout)


def made_on(server: Any, url: str, engine_of: Callable[..., Engine], **settings: Any) -> Engine:
    """Return an empty collection of a server."""
    address = Address.parse(url)
    with building(server, address, About(address.collection, "f" * 64, Layout(DIM, MODALITIES, **settings))):
        pass
    return engine_of(server, address, *find(server, address))


def qdrant(**settings: Any) -> Callable[[Path], Engine]:
    def make(folder: Path) -> Engine:
        server = qdrant_in_memory()
        from multimodal.search.engines.qdrant import QdrantEngine

        return made_on(server, "qdrant+http://localhost/things", QdrantEngine, **settings)

    return make


@contextmanager
def qdrant_live(folder: Path) -> Iterator[Engine]:
    url = live_qdrant()
    from multimodal.search.engines.qdrant import QdrantEngine
    from multimodal.search.engines.qdrant_server import QdrantServer

    server = QdrantServer.connect(Address.parse(url))
    yield made_on(server, url, QdrantEngine)
    server = QdrantServer.connect(Address.parse(url))  # the engine has closed the other one
    server.drop(find(server, Address.parse(url))[0])


def milvus(**settings: Any) -> Callable[[Path], Any]:
    @contextmanager
    def make(folder: Path) -> Iterator[Engine]:
        with milvus_lite(folder / "milvus") as url:
            from multimodal.search.engines.milvus import MilvusEngine
            from multimodal.search.engines.milvus_server import MilvusServer

            yield made_on(MilvusServer.connect(Address.parse(url)), url, MilvusEngine, **settings)

    return make


ENGINES: dict[str, Callable[[Path], Any]] = {
    "exact": exact_engine,
    "edge": embedded(),
    "int8": embedded(quantization="int8"),
    "prefix": embedded(searched_dim=12),
    "pca": embedded(searched_dim=12, reduction="pca"),
    "qdrant": qdrant(),
    "qdrant int8": qdrant(quantization="int8"),
    "qdrant prefix": qdrant(searched_dim=12),
    "live qdrant": qdrant_live,
    "milvus": milvus(),
    "milvus int8": milvus(quantization="int8"),
}
pytestmark = pytest.mark.filterwarnings(  # Qdrant in memory has no indexes, which we make
    "ignore:.*local Qdrant", "ignore:Local mode performs exact"
)


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made = ENGINES[request.param](tmp_path)
    with made if isinstance(made, AbstractContextManager) else nullcontext(made) as opened:
        yield opened
        opened.close()


def nearest(
    rows: list[Row], query: np.ndarray, count: int, modality: str | None, where: dict[str, Any]
) -> list[tuple[str, str]]:
    """Compare the query with every vector of the rows that have the values."""
    scored = [
        (float(np.float32(row[name]) @ query), row["key"], name)
        for row in rows
        for name in MODALITIES
        if row[name] is not None
        and modality in (None, name)
        and all(str(row["metadata"].get(column)) in values for column, values in where.items())
    ]
    return [(key, name) for _, key, name in sorted(scored, reverse=True)[:count]]


@pytest.mark.parametrize("modality", [None, *MODALITIES])
@pytest.mark.parametrize(
    "where", [{}, {"set": ("s1",)}, {"set": ("s0", "s2"), 'odd ".[0] name': ("True",)}, {"set": ("s9",)}]
)
def test_the_nearest_are_those_of_a_full_comparison(
    engine: Engine, modality: str | None, where: dict[str, Any]
) -> None:
    rows = make_rows(60)
    engine.upsert([part_of(rows[:40]), part_of(rows[40:])])
    queries = np.random.default_rng(1).standard_normal((5, DIM)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for query, found in zip(queries, engine.nearest(queries, 8, modality, where or None, exact=True), strict=True):
        expected = nearest(rows, query, 8, modality, where)
        assert [(one.key, one.modality) for one in found][:8] == expected
        for one in found:
            row = rows[int(one.key[1:])]
            assert one.score == pytest.approx(float(np.float32(row[one.modality]) @ query), abs=1e-5)
            assert (one.group, json.loads(one.metadata)) == (row["group"], row["metadata"])


def test_rows_are_added_replaced_and_removed(engine: Engine) -> None:
    rows = make_rows(30)
    engine.upsert([part_of(rows)])
    changed = make_rows(10, seed=9)
    again = [*changed, {**changed[0], "metadata": {"set": "alternative"}}]  # two texts of row k0
    engine.upsert([part_of(again)])
    assert engine.count(MODALITIES[0]) == sum(row[MODALITIES[0]] is not None for row in [*again, *rows[10:]])
    assert sorted(engine.select(keys=["k0"])[1]["metadata"].to_pylist())[:2] == [
        json.dumps(r["metadata"]) for r in (again[-1],) * 2
    ]
    engine.upsert([part_of(rows[:5])])  # k0 has no alternative any longer
    assert engine.remove(["k3", "k29", "nothing", "k3"]) == 2
    kept = [row for row in [*rows[:5], *changed[5:], *rows[10:]] if row["key"] not in ("k3", "k29")]
    vectors, items = engine.select()
    stored = {(i["key"], i["modality"]): v for i, v in zip(items.to_pylist(), vectors.tolist(), strict=True)}
    expected = {(row["key"], name): row[name] for row in kept for name in MODALITIES if row[name] is not None}
    assert stored.keys() == expected.keys()
    for place, vector in expected.items():
        assert stored[place] == pytest.approx(vector, abs=1e-6)


def test_rows_are_selected_and_values_counted(engine: Engine) -> None:
    rows = make_rows(30)
    engine.upsert([part_of(rows)])
    assert set(engine.columns) == {"set", 'odd ".[0] name', "price"}
    chosen = engine.select(MODALITIES[0], {"set": ("s1",)}, [f"k{n}" for n in range(20)])[1]["key"].to_pylist()
    assert sorted(chosen) == sorted(
        r["key"] for r in rows[:20] if r["metadata"]["set"] == "s1" and r[MODALITIES[0]] is not None
    )
    assert engine.facets("set") == Counter(row["metadata"]["set"] for row in rows)
    sets = Counter(row["metadata"]["set"] for row in rows if row["metadata"]["price"] == 1.0)
    assert engine.facets("set", {"price": ("1.0",)}) == sets
    assert len(engine.facets("price", limit=4)) == 4
    assert engine.nearest(np.eye(1, DIM, dtype=np.float32), 3, where={"set": ()}) == [[]]


def test_any_text_can_be_a_key_and_a_value(engine: Engine) -> None:
    odd = ['"', "\\", "\\n", "\n\r\t", "'{x}' %s", "\x01\x7f", "é 😀 \u2028", '"] or id != "', "c0=s1", "", " "]
    rows = [{**row, "key": text, "metadata": {"set": text}} for row, text in zip(make_rows(11), odd, strict=True)]
    engine.upsert([part_of(rows)])
    for text in odd:
        assert set(engine.select(keys=[text])[1]["key"].to_pylist()) == {text}
        assert set(engine.select(where={"set": (text,)})[1]["key"].to_pylist()) == {text}
    assert engine.facets("set") == Counter(odd)
    assert engine.remove(odd[:5]) == 5
    assert set(engine.select()[1]["key"].to_pylist()) == set(odd[5:])


def test_few_of_the_nearest_are_missed(engine: Engine) -> None:
    rows = make_rows(300)
    engine.upsert([part_of(rows)])
    queries = np.random.default_rng(2).standard_normal((20, DIM)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = engine.nearest(queries, 10, MODALITIES[0], exact=False)
    expected = [{key for key, _ in nearest(rows, query, 10, MODALITIES[0], {})} for query in queries]
    right = [len({one.key for one in of_query} & keys) for of_query, keys in zip(found, expected, strict=True)]
    layout = getattr(
        engine, "layout", None
    )  # all components of random vectors matter as much, so that reducing misses more
    assert sum(right) >= (0.85 if layout is not None and layout.reduced else 0.95) * 10 * len(queries)
    assert engine.nearest(queries[:0], 10) == []


def test_nothing_is_found_in_an_empty_engine(engine: Engine) -> None:
    if engine.modalities:
        assert engine.nearest(np.eye(2, DIM, dtype=np.float32), 3, MODALITIES[0]) == [[], []]
    assert engine.remove(["k0"]) == 0
    assert engine.select()[0].shape == (0, DIM)


def test_vectors_that_are_not_finite_are_refused(engine: Engine) -> None:
    rows = make_rows(3)
    rows[1][MODALITIES[0]] = [float("nan")] * DIM
    with pytest.raises(MultimodalError, match="not finite, the first of the row 'k"):
        engine.upsert([part_of(rows)])
