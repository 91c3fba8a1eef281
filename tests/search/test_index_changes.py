"""Rows are added to an index, replaced and removed, with either engine; nothing of another process is lost."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from multimodal.core import system_errors
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import create
from multimodal.search.embed import embed_table
from multimodal.search.index import Index

NAMES = ["red cup", "blue mug", "old vase", "tall plate", "deep bowl", "flat tray"]
ROWS: list[dict[str, Any]] = [{"id": f"k{n}", "title": name, "shelf": "ab"[n % 2]} for n, name in enumerate(NAMES)]
COLUMNS = {"text": "title"}


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    torch.manual_seed(0)
    embedder = Embedder({"text": create("text", "bag")}, dim=16)
    embedder.fit_processors({"text": [*NAMES, "green jug"]})
    return embedder.eval()


@pytest.fixture(params=["exact", "qdrant-edge"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, embedder: Embedder) -> Path:
    embed_table(embedder, ROWS, out=tmp_path / "vectors", columns=COLUMNS, key="id")
    Index.build(tmp_path / "vectors", tmp_path / "index", engine=request.param).close()
    return tmp_path / "index"


@pytest.fixture
def index(folder: Path, embedder: Embedder) -> Iterator[Index]:
    with Index.open(folder, model=embedder) as opened:
        yield opened


def first(index: Index, text: str) -> tuple[str, float]:
    hit = index.search(text=text, k=1)[0]
    return hit.key, round(hit.score, 4)


def test_an_added_row_is_found_and_is_there_when_the_index_is_opened_again(
    index: Index, folder: Path, embedder: Embedder
) -> None:
    assert len(index.upsert([{"id": "new", "title": "green jug", "shelf": "c"}])) == 0  # settings of the indexed table
    assert first(index, "green jug") == ("new", 1.0)
    assert (len(index), index.facets("shelf")) == (7, {"a": 3, "b": 3, "c": 1})
    index.close()
    with Index.open(folder, model=embedder) as again:
        assert first(again, "green jug") == ("new", 1.0)
        assert again.search(text="green jug", where={"shelf": ["a", "b"]}, k=9)[0].key != "new"


def test_a_row_with_a_known_key_takes_the_place_of_the_old_one(index: Index) -> None:
    index.upsert([{"id": "k0", "title": "green jug", "colour": "green"}], columns=COLUMNS, key="id")
    assert len(index) == 6
    assert first(index, "green jug") == ("k0", 1.0)
    assert first(index, "red cup")[1] < 0.99
    assert "colour" in index.columns
    assert [hit.key for hit in index.search(text="mug", where={"colour": "green"})] == ["k0"]


def test_rows_of_several_calls_are_not_taken_for_one_thing(index: Index) -> None:
    """Without a column of groups, a row's group is made of its number, which begins at 0 in each call."""
    for key, name in (("n1", "green jug"), ("n2", "green tray")):
        index.upsert([{"id": key, "title": name}], columns=COLUMNS, key="id")
    assert {hit.key for hit in index.search(text="green jug", k=20)} == {*(row["id"] for row in ROWS), "n1", "n2"}


def test_removed_rows_are_not_found(index: Index, folder: Path) -> None:
    assert index.remove(["k0", "k3", "nothing"]) == 2
    assert {hit.key for hit in index.search(text="red cup", k=9)} == {"k1", "k2", "k4", "k5"}
    assert index.remove([]) == 0
    index.close()
    with Index.open(folder) as again:
        assert len(again) == 4


def test_rows_that_cannot_be_read_are_reported(index: Index) -> None:
    rows = [{"id": "good", "title": "green jug"}, {"id": "bad", "title": "\t \t"}]
    rejects = index.upsert(rows, columns=COLUMNS, key="id", max_rejects=0.9)
    assert len(rejects) == 1
    assert len(index) == 7


def test_rows_like_and_unlike_others(index: Index) -> None:
    vectors, items = index.vectors, index.items
    of = dict(zip(items["key"].to_pylist(), vectors, strict=True))
    query = (of["k0"] + of["k1"]) / 2 - of["k2"]
    expected = sorted(("k3", "k4", "k5"), key=lambda key: -float(of[key] @ query))
    assert [hit.key for hit in index.search(like=["k0", "k1"], unlike=["k2"])] == expected


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"title": "green jug"}], {"columns": COLUMNS}, "need keys"),
        ([{"id": "a", "title": "x"}], {"colums": COLUMNS}, "takes no argument 'colums'"),
        ([{"id": "a", "name": "x"}], {}, "title"),
    ],
)
def test_rows_that_do_not_fit_change_nothing(index: Index, rows: Any, settings: Any, message: str) -> None:
    with pytest.raises(MultimodalError, match=message):
        index.upsert(rows, **settings)
    assert len(index) == 6


def test_without_its_model_an_index_takes_no_rows(folder: Path) -> None:
    with Index.open(folder) as index, pytest.raises(UsageError, match="does not know its model"):
        index.upsert(ROWS[:1])
    with Index.open(folder) as index, pytest.raises(UsageError, match="a list of texts"):
        index.remove("k0")


def test_a_change_of_another_process_is_not_lost(tmp_path: Path, embedder: Embedder) -> None:
    Index.from_table(embedder, ROWS, columns=COLUMNS, key="id").save(tmp_path / "index", engine="exact")
    first, second = (Index.open(tmp_path / "index", model=embedder) for _ in range(2))
    first.remove(["k0"])
    with pytest.raises(MultimodalError, match="was changed by others since it was opened; open it again"):
        second.remove(["k1"])
    assert len(second) == 6  # as it was opened
    first.remove(["k2"])
    assert len(Index.open(tmp_path / "index")) == 4


def test_a_saved_index_is_the_same_with_either_engine(index: Index, tmp_path: Path) -> None:
    queries = np.random.default_rng(0).standard_normal((4, 16))
    expected = index.search(queries, k=3)
    for engine in ("exact", "qdrant-edge"):
        index.save(tmp_path / "copy", engine=engine)
        with Index.open(tmp_path / "copy") as copy:
            for hits, wanted in zip(copy.search(queries, k=3), expected, strict=True):
                assert [hit.key for hit in hits] == [hit.key for hit in wanted]
                assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in wanted], abs=1e-5)
    with pytest.raises(UsageError, match="no engine 'faiss'"):
        index.save(tmp_path / "copy", engine="faiss")
    with pytest.raises(UsageError, match="quantization and dim do not fit it"):
        index.save(tmp_path / "copy", engine="exact", dim=8)
    with pytest.raises(UsageError, match="quantization must be int8 or binary"):
        index.save(tmp_path / "copy", quantization="int4")
    with pytest.raises(UsageError, match="The vectors are 16 wide"):
        index.save(tmp_path / "copy", dim=17)


def test_closing_twice_leaves_the_index_open_for_others(folder: Path, embedder: Embedder) -> None:
    first_one = Index.open(folder, model=embedder)
    with Index.open(folder, model=embedder) as other:
        with first_one:
            first_one.close()
        assert first(other, "red cup") == ("k0", 1.0)


def test_an_index_without_rows_is_saved_and_finds_nothing(index: Index, tmp_path: Path) -> None:
    index.remove([row["id"] for row in ROWS])
    index.save(tmp_path / "empty")
    with Index.open(tmp_path / "empty") as empty:
        assert empty.search(np.ones((2, 16), np.float32)) == [[], []]


def test_conditions_are_any_values_that_can_be_listed(index: Index) -> None:
    index.upsert([{"id": f"n{n}", "title": "green jug", "size": n / 2} for n in range(8)], columns=COLUMNS, key="id")

    def found(where: Any) -> set[str]:
        return {hit.key for hit in index.search(text="green jug", where={"size": where}, k=20)}

    assert found(range(1, 3)) == found(np.array([1, 2])) == found({1: "one", 2: "two"}.keys()) == {"n2", "n4"}
    assert found(2) == found(2.0) == found("2.0") == {"n4"}
    for value, message in ((None, "None"), ("long " * 60, "300 characters")):
        with pytest.raises(UsageError, match=rf"where: size cannot be compared with .*{message}"):
            found(value)


def test_ranges_of_numbers_and_dates(index: Index) -> None:
    cells = [*("0.5", "1", "7"), *("2024-01-30", "2024-01-31T12:00", "2024-02-01"), "large"]
    rows = [{"id": f"n{n}", "title": "green jug", "size": cell} for n, cell in enumerate(cells)]
    index.upsert(rows, columns=COLUMNS, key="id")

    def found(where: Any) -> set[str]:
        return {hit.key for hit in index.search(text="green jug", where={"size": where}, k=20)}

    assert found({"gte": 1}) == found({"gte": "1.0", "lt": np.float32(8)}) == {"n1", "n2"}
    assert found({"gt": 0, "lt": 1}) == {"n0"}
    assert found({"gt": "2024-01-31"}) == found({"gt": datetime.date(2024, 1, 31)}) == {"n4", "n5"}
    assert {*index.filter(size={"lte": "2024-01-31"}).items["key"].to_pylist()} == {"n3"}
    assert index.facets("title", where={"size": {"gte": 1}}) == {"green jug": 2}
    with pytest.raises(UsageError, match="no row has a number in 'title', which a range compares; choose its texts by"):
        index.search(text="green jug", where={"title": {"gte": 5}})
    with pytest.raises(UsageError, match="size has no operator 'ge'"):
        found({"ge": 5})


def test_words_cannot_be_searched_exactly(index: Index) -> None:
    with pytest.raises(UsageError, match="hybrid search is never exact"):
        index.search(text="green jug", hybrid=True, exact=True)


def test_a_full_disk_is_one_line_that_names_the_index(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_table(embedder, ROWS, out=tmp_path / "vectors", columns=COLUMNS, key="id")
    Index.build(tmp_path / "vectors", tmp_path / "index").close()
    with Index.open(tmp_path / "index", model=embedder) as index:
        monkeypatch.setattr(system_errors, "disk_usage", lambda folder: SimpleNamespace(free=0))
        with pytest.raises(MultimodalError, match=r"index cannot be written: the disk is full; free some space"):
            index.upsert([{"id": "new", "title": "green jug"}])
        monkeypatch.undo()
        assert len(index) == 6
        index.upsert([{"id": "new", "title": "green jug"}])
        assert first(index, "green jug") == ("new", 1.0)
