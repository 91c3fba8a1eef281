"""Every engine finds, changes and counts like a list of rows in Python."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_servers import live_qdrant, milvus_lite, qdrant_in_memory

from multimodal.core.conditions import check_where
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


def at(*moment: int, hours: int = 0) -> datetime:
    return datetime(*moment, tzinfo=timezone(timedelta(hours=hours)) if hours else UTC)  # pyright: ignore[reportArgumentType]


RANGED: list[tuple[Any, Any]] = [  # a cell, and what a range compares of it
    *((number, number) for number in (3, -7, 0, 2.5, -0.25, 1e22, 5e-324, -1.5e-7, 2**60)),
    *(("3.50", 3.5), ("007", 7), ("-1e3", -1000), (".5", 0.5), ("+2.", 2)),
    *((cell, None) for cell in (None, True, "", "a cup", "nan", "inf", " 5", "1_000", "5 kg", "1e999", "x" * 300)),
    *((cell, None) for cell in ("2024-02-30", "2024-1-3", "2024-01-03T99:00", "20240103T10")),
    ("2024-01-03", at(2024, 1, 3)),
    ("2024-01-03T10:30:00", at(2024, 1, 3, 10, 30)),
    ("2024-01-03 10:30:00.000001+02:00", at(2024, 1, 3, 10, 30, 0, 1, hours=2)),
    ("0001-01-01", at(1, 1, 1)),
    ("2024-01-02T23:00Z", at(2024, 1, 2, 23)),
]
NUMBERS = [value for _, value in RANGED if isinstance(value, int | float)]
DATES = [value for _, value in RANGED if isinstance(value, datetime)]


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a range that holds something: of numbers that are stored, or near to them, or of dates."""
    numbers = st.sampled_from(NUMBERS) | st.floats(-10, 10)
    dates = st.sampled_from(DATES) | st.datetimes(datetime(2024, 1, 2), datetime(2024, 1, 4), timezones=st.just(UTC))
    low, high = sorted(draw(st.lists(draw(st.sampled_from([numbers, dates])), min_size=2, max_size=2, unique=True)))
    given_bounds = {draw(st.sampled_from(["gt", "gte"])): low, draw(st.sampled_from(["lt", "lte"])): high}
    return {name: given_bounds[name] for name in draw(st.sets(st.sampled_from(list(given_bounds)), min_size=1))}


def within(value: Any, wanted: dict[str, Any]) -> bool:
    """Compare what is stored with each bound, if both are numbers or both are dates."""
    if value is None or isinstance(value, datetime) != isinstance(next(iter(wanted.values())), datetime):
        return False
    compare = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
    return all(compare[name](value, bound) for name, bound in wanted.items())


def test_ranges_hold_what_a_loop_over_all_cells_finds(engine: Engine) -> None:
    rows = make_rows(3 * len(RANGED))
    for number, row in enumerate(rows):
        cell, row["compared"] = RANGED[number % len(RANGED)]
        row["metadata"] = {"set": f"s{number % 3}", 'odd ".[0] name': cell, "title": "a cup"}
    part = part_of(rows)
    engine.upsert([part.slice(0, 20), part.slice(20)])
    assert engine.kinds('odd ".[0] name') == {"number", "date"}
    assert engine.kinds("title") == engine.kinds("set") == set()
    query = np.full(DIM, DIM**-0.5, np.float32)

    @given(ranges(), st.sampled_from([{}, {"set": ["s0", "s2"]}]))
    @settings(max_examples=30, deadline=None)
    def check(wanted: dict[str, Any], others: dict[str, Any]) -> None:
        where = check_where({**others, 'odd ".[0] name': wanted})
        right = {
            row["key"]
            for row in rows
            if within(row["compared"], wanted) and row["metadata"]["set"] in others.get("set", ["s0", "s1", "s2"])
        }
        assert set(engine.select(where=where)[1]["key"].to_pylist()) == right
        has_it = [row for row in rows if row["key"] in right]
        (found,) = engine.nearest(query[None], 8, None, where, exact=True)
        assert [(one.key, one.modality) for one in found][:8] == nearest(has_it, query, 8, None, {})
        counted = Counter(row["metadata"]["set"] for row in has_it)
        assert engine.facets("set", where) == counted

    check()
    assert {
        one.key for one in engine.nearest(query[None], 99, where=check_where({'odd ".[0] name': {"lt": -999}}))[0]
    } == {row["key"] for row in rows if row["compared"] == -1000}


def test_ranges_know_numbers_that_are_added_later(engine: Engine) -> None:
    rows = make_rows(4)
    for row, cell in zip(rows, ["soon", "later", 5, "2024-01-31"], strict=True):
        row["metadata"] = {"set": cell}
    engine.upsert([part_of(rows[:2])])
    assert engine.kinds("set") == set()
    engine.upsert([part_of(rows[2:])])
    assert engine.kinds("set") == {"number", "date"}
    assert set(engine.select(where=check_where({"set": {"gte": 5}}))[1]["key"].to_pylist()) == {"k2"}
    assert set(engine.select(where=check_where({"set": {"gte": "2024-01-31"}}))[1]["key"].to_pylist()) == {"k3"}
    engine.upsert([part_of([{**rows[2], "metadata": {"set": "never"}}])])
    assert len(engine.select(where=check_where({"set": {"gte": 5}}))[1]) == 0


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
