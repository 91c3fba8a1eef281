"""Two workers, here as two applications in this process, answer from the index of a host as one server does from its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from ctypes import c_ulonglong
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from served_model import COLUMNS, THINGS, TOKEN, data_url, picture, table

from multimodal.core.conditions import Range
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.limits import Limits
from multimodal.serve.workers.host import IndexHost
from multimodal.serve.workers.remote_engine import Link

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def folder(embedder: Embedder, tmp_path: Path) -> Path:
    Index.from_table(embedder, table(), columns=COLUMNS, key="sku").save(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def served(folder: Path, tmp_path: Path) -> Iterator[tuple[IndexHost, Callable[[], Link]]]:
    """The host of the index, and what makes a link to it."""
    changes = c_ulonglong(0)
    host = IndexHost(folder, tmp_path / "socket", changes)
    yield host, lambda: Link(folder, tmp_path / "socket", changes)
    host.close()


@pytest.fixture
def workers(
    served: tuple[IndexHost, Callable[[], Link]], folder: Path, embedder: Embedder
) -> Iterator[tuple[TestClient, TestClient]]:
    counts = [0, 0]
    indexes = [Index.of_opened(folder, served[1]().open(), embedder) for _ in counts]
    limits = Limits(max_waiting=2, timeout=20)
    apps = [create_app(index, limits, token=TOKEN, counts=counts, place=place) for place, index in enumerate(indexes)]
    with TestClient(apps[0]) as one, TestClient(apps[1]) as other:
        yield one, other
    for index in indexes:
        index.close()


def search(client: TestClient, **settings: Any) -> list[str]:
    answer = client.post("/search", json=settings)
    assert answer.status_code == 200, answer.text
    return [hit["key"] for hit in answer.json()["hits"]]


def test_what_one_worker_has_acknowledged_is_found_by_the_other_at_once(
    workers: tuple[TestClient, TestClient],
) -> None:
    for number in range(6):
        writer, reader = workers[number % 2], workers[(number + 1) % 2]
        new = {"key": f"new/{number}", "text": f"a vase {number}", "metadata": {f"column{number}": "yes"}}
        assert writer.post("/items", json={"items": [new]}, headers=HEADERS).json()["added"] == 1
        where = {f"column{number}": "yes"}  # a column that no row had before
        assert search(reader, text=f"a vase {number}", k=1, target="text", where=where) == [f"new/{number}"]
        assert reader.get("/about").json()["vectors"] == 48 + 1
        assert writer.delete(f"/items?key=new/{number}", headers=HEADERS).json() == {"removed": 1}
        assert f"new/{number}" not in search(reader, text=f"a vase {number}", k=100)


def test_a_row_that_one_worker_has_replaced_is_not_shown_as_before_by_the_other(
    embedder: Embedder, tmp_path: Path
) -> None:
    (tmp_path / "cup.png").write_bytes(picture((255, 0, 0)))
    (tmp_path / "rows.csv").write_text("sku,name,picture\ncup,a red cup,cup.png\n")
    columns = {"text": "name", "image": "picture"}
    index = Index.from_table(embedder, tmp_path / "rows.csv", columns=columns, key="sku")
    index.save(tmp_path / "index")
    changes = c_ulonglong(0)
    host = IndexHost(tmp_path / "index", tmp_path / "socket", changes)
    indexes = [
        Index.of_opened(tmp_path / "index", Link(tmp_path / "index", tmp_path / "socket", changes).open(), embedder)
        for _ in range(2)
    ]
    apps = [create_app(index, token=TOKEN, counts=[0, 0], place=place) for place, index in enumerate(indexes)]
    with TestClient(apps[0]) as one, TestClient(apps[1]) as other:
        assert other.get("/picture?key=cup").status_code == 200
        item = {"key": "cup", "text": "a blue cup", "image": data_url(picture((0, 0, 255)))}
        assert one.post("/items", json={"items": [item]}, headers=HEADERS).json()["added"] == 1
        assert other.get("/picture?key=cup").status_code == one.get("/picture?key=cup").status_code == 404
    host.close()


def test_errors_and_limits_are_those_of_one_server(workers: tuple[TestClient, TestClient]) -> None:
    one, other = workers
    wrong = one.post("/search", json={"text": "cup", "where": {"colur": "red"}})
    assert wrong.status_code == 400
    assert "Did you mean 'colour'?" in wrong.json()["error"]["message"]
    assert other.post("/search", json={"like": ["nothing"]}).status_code == 400
    assert one.post("/items", json={"items": [{"key": "a", "text": "b"}]}).status_code == 401
    assert "multimodal_waiting 0.0" in other.get("/metrics").text


def test_the_bound_is_that_of_all_workers_together(
    served: tuple[IndexHost, Callable[[], Link]], folder: Path, embedder: Embedder
) -> None:
    index, counts = Index.of_opened(folder, served[1]().open(), embedder), [0, 1]
    with TestClient(create_app(index, Limits(max_waiting=2), counts=counts, place=0)) as client:
        assert client.get("/about").status_code == 200
        counts[1] = 2  # the other worker
        full = client.get("/about")
        assert (full.status_code, full.headers["Retry-After"]) == (429, "1")
        assert counts == [0, 2]
        assert "multimodal_waiting 2.0" in client.get("/metrics").text
    index.close()


def test_a_remote_engine_answers_as_the_engine_itself(
    served: tuple[IndexHost, Callable[[], Link]], embedder: Embedder
) -> None:
    host, link = served
    handle, opened = host.open()
    here, there = opened.engine, link().open().engine
    queries = embedder.encode(text=["a red cup", "a blue jug", "a pot"])
    for modality in (None, "text"):
        for where in (None, {"colour": ("red", "green")}, {"price": Range.of("price", {"lt": 3})}):
            for exact in (False, True):
                assert there.nearest(queries, 5, modality, where, exact) == here.nearest(
                    queries, 5, modality, where, exact
                )
            found = there.nearest_by_words(queries[0], "cup", 5, modality, where)
            assert found == here.nearest_by_words(queries[0], "cup", 5, modality, where)
            assert "red/cup" in [one.key for one in found]
            for keys in (None, ["red/cup", "blue/jug"]):
                vectors, items = there.select(modality, where, keys)
                expected_vectors, expected = here.select(modality, where, keys)
                np.testing.assert_array_equal(vectors, expected_vectors)
                assert items.equals(expected)
            assert there.facets("colour", where, 2) == here.facets("colour", where, 2)
    assert there.nearest(queries[:0], 5) == []
    assert (there.name, there.dim, there.grouped, there.modalities, there.columns) == (
        here.name,
        here.dim,
        here.grouped,
        here.modalities,
        here.columns,
    )
    assert [there.count(modality) for modality in there.modalities] == [12] * len(here.modalities)
    assert [there.kinds(column) for column in ("price", "colour")] == [{"number"}, set()]
    there.close()
    host.release(handle)


def test_many_threads_get_their_own_answers(served: tuple[IndexHost, Callable[[], Link]], embedder: Embedder) -> None:
    engine = served[1]().open().engine
    names = [row["sku"] for row in table()]
    vectors = embedder.encode(text=[row["name"] for row in table()])
    wrong: list[str] = []

    def ask(number: int) -> None:
        for step in range(30):
            place = (number + step) % len(names)
            found = engine.nearest(vectors[place : place + 1], 1, "text")[0][0].key
            if found != names[place]:
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    engine.close()


def test_the_index_is_released_when_the_last_worker_has_gone(folder: Path, tmp_path: Path, embedder: Embedder) -> None:
    changes = c_ulonglong(0)
    host = IndexHost(folder, tmp_path / "socket", changes)
    link = Link(folder, tmp_path / "socket", changes)
    first, second = link.open().engine, link.open().engine
    first.close()
    assert second.count("text") == len(THINGS) * 3
    second.close()
    assert link.open().engine.count("text") == 12  # between two workers it is kept open
    host.close()
    with pytest.raises(MultimodalError, match=r"The process that has the index .* cannot be reached"):
        second.count("text")
    with Index.open(folder) as index:
        assert len(index) == 48


def test_a_worker_that_vanishes_or_sends_nonsense_does_no_harm(
    served: tuple[IndexHost, Callable[[], Link]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = served[1]().open().engine
    for sent in (None, b"", b"\xff" * 20, b'\x02\0\0\0"a', b"\x20\0\0\0" + b'[{"call":"nothing"},[]]'.ljust(32)):
        with Client(str(tmp_path / "socket"), "AF_UNIX") as connection:
            if sent is not None:
                connection.send_bytes(sent)
                assert b'"error"' in connection.recv_bytes()
    assert engine.count("text") == 12
    engine.close()
    assert "Traceback" in capfd.readouterr().err  # for the operator


def test_only_this_user_can_open_the_socket(served: tuple[IndexHost, Callable[[], Link]], tmp_path: Path) -> None:
    assert (tmp_path / "socket").stat().st_mode & 0o077 == 0


def test_a_path_that_is_too_long_for_a_socket_is_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match="name a shorter one by the variable TMPDIR"):
        IndexHost(folder, tmp_path / ("long" * 30) / "socket", c_ulonglong(0))


def test_an_unknown_modality_is_a_usage_error_here_too(served: tuple[IndexHost, Callable[[], Link]]) -> None:
    opened = served[1]().open()
    index = Index(opened.engine, opened.description["fingerprint"])
    with pytest.raises(UsageError, match="holds no 'txt' vectors"):
        index.search(np.ones((1, 16), np.float32), target="txt")
    index.close()
