"""The embedded engine: one process at a time, durable changes, and folders that are replaced while they are open."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from qdrant_edge import HnswIndexConfig

from multimodal.core import system_errors
from multimodal.core.errors import MultimodalError
from multimodal.search.engines import engine_folder, qdrant_edge, qdrant_points
from multimodal.search.engines.layout import LAYOUT, Layout
from multimodal.search.engines.qdrant_edge import QdrantEdgeEngine

DIM = 4
LAYOUT_OF_TEXT = Layout(DIM, ["text"])


def part_of(keys: list[str]) -> pa.Table:
    rng = np.random.default_rng([sum(map(ord, key)) for key in keys])
    vectors = rng.standard_normal((len(keys), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cells = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    return pa.table({"key": keys, "group": keys, "metadata": ["{}"] * len(keys), "text": cells})


def create(folder: Path, keys: list[str]) -> None:
    engine = QdrantEdgeEngine.create(folder, LAYOUT_OF_TEXT)
    engine.upsert([part_of(keys)])
    engine.close()


def change(engine: QdrantEdgeEngine, number: int) -> None:
    """Add a row, and remove the one that was added five changes before."""
    engine.upsert([part_of([f"new-{number}"])])
    if number >= 5:
        engine.remove([f"new-{number - 5}"])


WRITER = """
import sys
from pathlib import Path
from tests.search.engines.test_qdrant_edge import QdrantEdgeEngine, change

engine = QdrantEdgeEngine.open(Path(sys.argv[1]))
for number in range(10**6):
    change(engine, number)
    print(number, flush=True)
"""


def start_writer(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)


def stored_in(engine: QdrantEdgeEngine) -> dict[str, list[float]]:
    vectors, items = engine.select()
    return dict(zip(items["key"].to_pylist(), vectors.tolist(), strict=True))


@pytest.mark.parametrize("trial", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 12))])
def test_acknowledged_changes_survive_a_kill(tmp_path: Path, trial: int) -> None:
    draw = random.Random(trial)
    create(tmp_path / "engine", ["old"])
    with start_writer(tmp_path / "engine") as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(draw.randrange(1, 20))][-1]
        time.sleep(draw.uniform(0, 0.2))  # at any moment of a change
        writer.kill()
        later = [int(line) for line in writer.stdout.read().split()]  # acknowledged before it was killed
    acknowledged = max([acknowledged, *later])
    engine = QdrantEdgeEngine.open(tmp_path / "engine")
    stored = set(stored_in(engine))
    wanted = {"old", *(f"new-{n}" for n in range(max(0, acknowledged - 4), acknowledged + 1))}
    unfinished = {f"new-{acknowledged + 1}", f"new-{acknowledged - 4}"}  # the change that was under way
    assert wanted - unfinished <= stored <= wanted | unfinished
    change(engine, acknowledged + 1)  # again, whatever of it was done
    undisturbed = QdrantEdgeEngine.create(tmp_path / "undisturbed", LAYOUT_OF_TEXT)
    undisturbed.upsert([part_of(["old"])])
    for number in range(acknowledged + 2):
        change(undisturbed, number)
    assert stored_in(engine) == stored_in(undisturbed)
    query = part_of(["old"])["text"].to_pylist()
    found = [[one.key for one in e.nearest(np.array(query, np.float32), 10, "text")[0]] for e in (engine, undisturbed)]
    assert found[0] == found[1]
    engine.close()
    undisturbed.close()


def test_another_process_is_refused_with_who_has_it_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_folder, "WAIT_SECONDS", 0.2)
    create(tmp_path / "index" / "engine", ["old"])
    with start_writer(tmp_path / "index" / "engine") as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(MultimodalError, match=rf"index is open in .*process {writer.pid} .*one process at a time"):
            QdrantEdgeEngine.open(tmp_path / "index" / "engine")
        with (
            pytest.raises(MultimodalError, match="is open in"),
            QdrantEdgeEngine.replacing(tmp_path / "index" / "engine"),
        ):
            pass
        writer.kill()


def test_a_process_that_ends_in_time_is_waited_for(tmp_path: Path) -> None:
    create(tmp_path / "engine", ["old"])
    with start_writer(tmp_path / "engine") as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        threading.Timer(0.5, writer.kill).start()
        engine = QdrantEdgeEngine.open(tmp_path / "engine")
    assert "old" in engine.select()[1]["key"].to_pylist()
    engine.close()


def test_a_process_that_opens_it_twice_shares_it(tmp_path: Path) -> None:
    create(tmp_path / "engine", ["a"])
    first, second = QdrantEdgeEngine.open(tmp_path / "engine"), QdrantEdgeEngine.open(tmp_path / "engine")
    first.upsert([part_of(["b"])])
    first.close()
    assert second.count("text") == 2
    second.close()
    third = QdrantEdgeEngine.open(tmp_path / "engine")
    assert third is not first
    del third
    gc.collect()
    assert not (tmp_path / "engine" / ".multimodal.lock").exists()  # closed although nobody has closed it


def test_those_who_have_a_replaced_folder_open_read_the_old_one_and_cannot_change_it(tmp_path: Path) -> None:
    create(tmp_path / "engine", ["a", "b"])
    before = QdrantEdgeEngine.open(tmp_path / "engine")
    create(tmp_path / "new", ["c"])
    with QdrantEdgeEngine.replacing(tmp_path / "engine"):
        (tmp_path / "engine").rename(tmp_path / "old")
        (tmp_path / "new").rename(tmp_path / "engine")
    after = QdrantEdgeEngine.open(tmp_path / "engine")
    assert (before.count("text"), after.count("text")) == (2, 1)
    with pytest.raises(MultimodalError, match="was built again or upgraded since it was opened"):
        before.upsert([part_of(["d"])])
    after.upsert([part_of(["d"])])
    before.close()
    assert after.count("text") == 2
    after.close()


@pytest.mark.parametrize("damage", ["{", '{"dim": "wide"}', '{"dim": 4, "modalities": [1]}', '{"dim": 0}'])
def test_a_damaged_layout_is_refused(tmp_path: Path, damage: str) -> None:
    create(tmp_path / "index" / "engine", ["a"])
    (tmp_path / "index" / "engine" / LAYOUT).write_text(damage)
    with pytest.raises(MultimodalError, match=r"index is damaged \(layout\.json"):
        QdrantEdgeEngine.open(tmp_path / "index" / "engine")


def test_missing_files_of_the_engine_are_reported(tmp_path: Path) -> None:
    create(tmp_path / "index" / "engine", ["a"])
    (tmp_path / "index" / "engine" / "shard" / "edge_config.json").write_text("{")
    with pytest.raises(MultimodalError, match=r"The engine of the index .* failed"):
        QdrantEdgeEngine.open(tmp_path / "index" / "engine")


def test_a_modality_that_the_index_does_not_have_is_refused(tmp_path: Path) -> None:
    engine = QdrantEdgeEngine.create(tmp_path / "engine", LAYOUT_OF_TEXT)
    with pytest.raises(MultimodalError, match="stores vectors of text, not of image"):
        engine.upsert([part_of(["a"]).rename_columns(["key", "group", "metadata", "image"])])
    engine.close()


@pytest.mark.parametrize("written", [0, 1])
def test_a_full_disk_is_noticed_before_the_engine_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The engine writes to mapped files; where these find no space, the system ends the process."""
    create(tmp_path / "engine", ["old"])
    engine = QdrantEdgeEngine.open(tmp_path / "engine")
    asked: list[int] = []

    def disk_usage(folder: Path) -> Any:
        asked.append(1)
        return SimpleNamespace(free=10**12 if len(asked) <= written else 0)

    monkeypatch.setattr(system_errors, "disk_usage", disk_usage)
    with pytest.raises(OSError, match="No space left on device"):
        engine.upsert([part_of(["new"])])
    monkeypatch.undo()
    assert engine.select()[1]["key"].to_pylist() == ["old", "new"][: 1 + written]
    engine.upsert([part_of(["later"])])
    assert len(engine.select()[1]) == 2 + written
    engine.close()
    monkeypatch.setattr(system_errors, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="No space left on device"):
        QdrantEdgeEngine.create(tmp_path / "other", LAYOUT_OF_TEXT)


def test_words_find_a_rare_name_that_vectors_miss(tmp_path: Path) -> None:
    engine = QdrantEdgeEngine.create(tmp_path / "engine", LAYOUT_OF_TEXT)
    keys = [f"k{n}" for n in range(200)]
    part = part_of(keys)
    names = [f'{{"name": "a thing of sort {n}", "shelf": "s{n % 2}"}}' for n in range(200)]
    names[17] = '{"name": "Zürich AX-400", "shelf": "s1"}'
    engine.upsert([part.set_column(2, "metadata", [names])])
    query = np.array([1, 0, 0, 0], np.float32)
    nearest = [found.key for found in engine.nearest(query[None], 5)[0]]
    found = engine.nearest_by_words(query, "zurich ax-400", 5)
    assert "k17" not in nearest
    assert [one.key for one in found[:2]] == ["k17", nearest[0]]
    assert [one.words for one in found[:2]] == [("zurich", "ax", "400"), ()]
    scores = {one.key: one.score for one in found}
    stored = np.asarray(part["text"].to_pylist(), np.float32)
    assert scores["k17"] == pytest.approx(float(stored[17] @ query), abs=1e-6)  # still a cosine
    even = engine.nearest_by_words(query, "zurich ax-400", 5, "text", {"shelf": ("s0",)})
    assert {one.key for one in even} <= {f"k{n}" for n in range(0, 200, 2)}
    assert [one.key for one in engine.nearest_by_words(query, "...", 5)] == nearest  # there are no words
    engine.close()


def test_rows_of_equal_fused_ranks_are_in_the_order_of_their_keys(tmp_path: Path) -> None:
    """The engine alone orders them differently from search to search."""
    engine = QdrantEdgeEngine.create(tmp_path / "engine", LAYOUT_OF_TEXT)
    part = part_of(["second by vector", "first by vector", "third"])
    vectors = np.eye(DIM, dtype=np.float32)[:3]
    vectors[0, :2] = 0.6, 0.8  # the order by words is the reverse of that by vectors
    cells = pa.FixedSizeListArray.from_arrays(pa.array(np.roll(vectors, 1, 1).ravel()), DIM)
    names = [['{"name": "green bowl"}', '{"name": "green cup"}', '{"name": "red jug"}']]
    engine.upsert([part.set_column(2, "metadata", names).set_column(3, "text", cells)])
    query = np.array([0, 0, 1, 0], np.float32)
    assert [one.key for one in engine.nearest(query[None], 3)[0]] == ["first by vector", "second by vector", "third"]
    for _ in range(50):
        found = [one.key for one in engine.nearest_by_words(query, "cheap green bowl", 2)]
        assert found == ["first by vector", "second by vector"]
    engine.close()


def test_rows_of_a_condition_that_the_graph_does_not_lead_to_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = QdrantEdgeEngine.create(tmp_path / "engine", LAYOUT_OF_TEXT)
    part = part_of([f"k{n}" for n in range(40)])
    shelves = [f'{{"shelf": "s{n % 2}"}}' for n in range(40)]
    engine.upsert([part.set_column(2, "metadata", [shelves])])
    queries = np.eye(DIM, dtype=np.float32)[:2]
    where = {"shelf": ("s1",)}
    expected = engine.nearest(queries, 10, "text", where, exact=True)
    whole = QdrantEdgeEngine._request

    def one_hit(self: QdrantEdgeEngine, query: np.ndarray, count: int, modality: str, where: Any, exact: bool) -> Any:
        return whole(self, query, count if exact else 1, modality, where, exact)

    monkeypatch.setattr(QdrantEdgeEngine, "_request", one_hit)
    monkeypatch.setattr(qdrant_edge, "COMPARED", 0)
    for several in (queries, queries[:1]):
        found = engine.nearest(several, 10, "text", where)
        assert [[one.key for one in of_one] for of_one in found] == [
            [one.key for one in of_one] for of_one in expected[: len(several)]
        ]
    assert [len(of_one) for of_one in engine.nearest(queries, 30, "text", where)] == [20, 20]
    engine.close()


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_rows_of_one_in_ten_values_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str | None
) -> None:
    """No value is frequent enough for links of its own, so that the graph hardly connects the rows that meet the condition."""
    monkeypatch.setattr(qdrant_points, "GRAPH", HnswIndexConfig(m=8, ef_construct=64, full_scan_threshold=400))
    dim, rows, rng = 128, 24_000, np.random.default_rng(0)
    engine = QdrantEdgeEngine.create(tmp_path / "engine", Layout(dim, ["text"], quantization=quantization))
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = [f"k{row}" for row in range(rows)]
    metadata = [f'{{"shelf": "s{row % 100}"}}' for row in range(rows)]
    cells = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    engine.upsert([pa.table({"key": keys, "group": keys, "metadata": metadata, "text": cells})])
    where = {"shelf": tuple(f"s{number}" for number in range(10))}
    chosen = np.flatnonzero(np.arange(rows) % 100 < 10)
    queries = vectors[:50]
    nearest = chosen[np.argsort(-queries @ vectors[chosen].T, axis=1)[:, :10]]

    def recall() -> float:
        found = [[int(one.key[1:]) for one in of_one] for of_one in engine.nearest(queries, 10, "text", where)]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest.tolist(), strict=True)]))

    assert recall() == 1
    monkeypatch.setattr(qdrant_edge, "COMPARED", 0)
    assert recall() >= 0.8  # 0.2 to 0.4 by the graph's own links
    engine.close()


def test_the_number_of_rows_that_meet_a_condition_is_estimated_again_after_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_edge, "COMPARED", 15)
    engine = QdrantEdgeEngine.create(tmp_path / "engine", LAYOUT_OF_TEXT)
    ways: list[bool] = []
    whole = QdrantEdgeEngine._request

    def noted(self: QdrantEdgeEngine, query: np.ndarray, count: int, modality: str, where: Any, exact: bool) -> Any:
        ways.append(exact)
        return whole(self, query, count, modality, where, exact)

    monkeypatch.setattr(QdrantEdgeEngine, "_request", noted)
    keys = [f"k{n}" for n in range(20)]
    part = part_of(keys).set_column(2, "metadata", [['{"shelf": "s"}'] * 20])
    for change in (lambda: engine.upsert([part[:10]]), lambda: engine.upsert([part]), lambda: engine.remove(keys[:10])):
        change()
        for _ in range(2):
            engine.nearest(np.eye(DIM, dtype=np.float32)[:1], 5, "text", {"shelf": ("s",)})
    assert ways == [True, True, False, False, True, True]
    engine.close()
