"""Collections on servers: built next to the old one, described by themselves, and of the embedded engine's format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from search_servers import milvus_lite, qdrant_in_memory

from multimodal.core.conditions import check_where
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.search.embedding_folder import MANIFEST, Manifest
from multimodal.search.engines import open as opening
from multimodal.search.engines.address import Address
from multimodal.search.engines.cluster import About, building, find
from multimodal.search.engines.layout import Layout
from multimodal.search.engines.qdrant_edge import QdrantEdgeEngine
from multimodal.search.index import Index

DIM, MODEL = 8, "f" * 64
pytestmark = pytest.mark.filterwarnings(  # Qdrant in memory has no indexes, which we make
    "ignore:.*local Qdrant", "ignore:Local mode performs exact"
)


class System(NamedTuple):
    """A server, the address of a collection, and what searches it."""

    server: Any
    address: Address
    engine_of: Callable[..., Any]

    def build(self, keys: list[str], fingerprint: str = MODEL, **settings: Any) -> None:
        about = About(self.address.collection, fingerprint, Layout(DIM, ["text"], **settings))
        with building(self.server, self.address, about) as collection:
            self.engine_of(self.server, self.address, collection, about).upsert([part_of(keys)])

    def open(self) -> Any:
        return self.engine_of(self.server, self.address, *find(self.server, self.address))


@pytest.fixture(params=["qdrant", "milvus"])
def system(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    if request.param == "qdrant":
        server = qdrant_in_memory()
        from multimodal.search.engines.qdrant import QdrantEngine
        from multimodal.search.engines.qdrant_server import QdrantServer

        monkeypatch.setattr(QdrantServer, "connect", lambda address: server)
        monkeypatch.setattr(QdrantServer, "errors", server.errors)
        yield System(server, Address.parse("qdrant+http://localhost:6333/things"), QdrantEngine)
        return
    with milvus_lite(tmp_path / "milvus") as url:
        from multimodal.search.engines.milvus import MilvusEngine
        from multimodal.search.engines.milvus_server import MilvusServer

        yield System(MilvusServer.connect(Address.parse(url)), Address.parse(url), MilvusEngine)


def part_of(keys: list[str], column: str = "shelf") -> pa.Table:
    rng = np.random.default_rng(len(keys))
    vectors = rng.standard_normal((len(keys), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    described = [{"name": f"a thing of sort {n}", column: f"s{n % 2}", "price": str(n / 2)} for n in range(len(keys))]
    metadata = [json.dumps(row) for row in described]
    cells = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    return pa.table({"key": keys, "group": keys, "metadata": metadata, "text": cells})


def keys_of(engine: Any) -> set[str]:
    return set(engine.select()[1]["key"].to_pylist())


def test_searches_continue_while_and_after_an_index_is_built_again(system: System) -> None:
    system.build(["a", "b"])
    opened = system.open()
    with building(system.server, system.address, About("things", MODEL, opened.layout)):
        assert keys_of(opened) == {"a", "b"}
    system.build(["c", "d", "e"])
    assert len(opened.nearest(np.eye(1, DIM, dtype=np.float32), 5)[0]) == 3
    assert keys_of(opened) == {"c", "d", "e"}
    assert len(system.server.names()) == 1  # the old collections are deleted


def test_changes_are_made_in_the_present_collection_or_refused(system: System) -> None:
    system.build(["a"])
    opened, other = system.open(), system.open()
    system.build(["b", "c"])
    opened.upsert([part_of(["d"])])
    assert other.remove(["b"]) == 1
    assert keys_of(opened) == {"c", "d"}

    def parts() -> Iterator[pa.Table]:
        yield part_of(["e"])
        system.build(["f"])
        yield part_of(["g"])

    with pytest.raises(MultimodalError, match="was built again since it was opened; open the index again"):
        opened.upsert(parts())
    assert keys_of(system.open()) == {"f"}


def test_a_collection_of_another_model_is_not_searched(system: System, tmp_path: Path) -> None:
    system.build(["a"])
    opened = system.open()
    system.build(["b"], fingerprint="e" * 64)
    with pytest.raises(MultimodalError, match="was built again with another model"):
        opened.select()
    with pytest.raises(MultimodalError, match=r"another model \(eeeeeeeeeeee\) than the index"):
        opening.open_engine(system.address.url, tmp_path / "index" / "engine", MODEL)


def test_a_build_that_fails_leaves_the_old_collection(system: System) -> None:
    system.build(["a"])
    cells = pa.array([[1.0] + [0.0] * (DIM - 1), [float("nan")] * DIM], pa.list_(pa.float32(), DIM))
    bad = part_of(["b", "c"]).set_column(3, "text", cells)
    about = About("things", MODEL, Layout(DIM, ["text"]))
    with (
        pytest.raises(MultimodalError, match="not finite"),
        building(system.server, system.address, about) as collection,
    ):
        system.engine_of(system.server, system.address, collection, about).upsert([part_of(["a"]), bad])
    assert keys_of(system.open()) == {"a"}
    assert len(system.server.names()) == 1


def test_what_killed_builds_left_is_deleted_and_the_collections_of_others_are_kept(system: System) -> None:
    about = About("things", MODEL, Layout(DIM, ["text"]))
    system.server.create("things_0a1b2c3d", about, system.address)
    system.server.create("things_of_mine", about._replace(alias="things_of"), system.address)
    system.build(["a"])
    assert "things_0a1b2c3d" not in system.server.names()
    assert "things_of_mine" in system.server.names()


def test_a_collection_that_others_made_is_neither_searched_nor_replaced(system: System) -> None:
    system.server.create("things", About("things", MODEL, Layout(DIM, ["text"])), system.address)  # without an alias
    with pytest.raises(MultimodalError, match="is not one that `multimodal index` made"):
        system.build(["a"])
    with pytest.raises(MultimodalError, match="is not one that `multimodal index` made"):
        system.open()
    assert system.server.names() == ["things"]


def test_what_is_missing_or_damaged_is_reported(system: System) -> None:
    with pytest.raises(MultimodalError, match="has no collection 'things'; build the index again"):
        system.open()
    system.build(["a"])

    class Damaged(NamedTuple):
        def text(self) -> str:
            return '{"alias": 3}'

    system.server.describe(system.open().collection, Damaged())
    with pytest.raises(MultimodalError, match=r"things is damaged .*build the index again"):
        system.open()
    system.build(["b"])
    assert keys_of(system.open()) == {"b"}


def test_columns_that_one_process_adds_are_not_taken_for_others_by_another(system: System) -> None:
    system.build(["a", "b"])
    first, second = system.open(), system.open()
    first.upsert([part_of(["c", "d"], "colour")])
    second.upsert([part_of(["e", "f"], "weight")])
    third = system.open()
    assert third.columns == second.columns == ["name", "shelf", "price", "colour", "weight"]
    assert third.facets("colour") == {"s0": 1, "s1": 1}
    assert third.select(where={"weight": ("s1",)})[1]["key"].to_pylist() == ["f"]
    assert sorted(third.select(where=check_where({"price": {"gte": 0.5}}))[1]["key"].to_pylist()) == ["b", "d", "f"]
    with pytest.raises(MultimodalError, match="stores vectors of text, not of image"):
        third.upsert([part_of(["a"]).rename_columns(["key", "group", "metadata", "image"])])


def test_words_find_a_rare_name_that_vectors_miss(system: System) -> None:
    part = part_of([f"k{n}" for n in range(200)])
    metadata = part["metadata"].to_pylist()
    metadata[17] = '{"name": "Großer AX-400", "shelf": "s1"}'
    system.build(["old"])
    engine = system.open()
    engine.upsert([part.set_column(2, "metadata", [metadata])])
    engine.remove(["old"])
    query = np.eye(1, DIM, dtype=np.float32)[0]
    nearest = [found.key for found in engine.nearest(query[None], 5, exact=True)[0]][:5]
    found = engine.nearest_by_words(query, "großer ax-400", 5)
    assert "k17" not in nearest
    assert [one.key for one in found[:2]] == ["k17", nearest[0]]
    assert [one.words for one in found[:2]] == [("großer", "ax", "400"), ()]
    stored = np.asarray(part["text"].to_pylist(), np.float32)
    for one in found:
        assert one.score == pytest.approx(float(stored[int(one.key[1:])] @ query), abs=1e-5)  # still a cosine
    even = engine.nearest_by_words(query, "großer ax-400", 5, "text", {"shelf": ("s0",)})
    assert {int(one.key[1:]) % 2 for one in even} == {0}
    cheap = engine.nearest_by_words(query, "großer ax-400", 5, "text", check_where({"price": {"lt": 2}}))
    assert {one.key for one in cheap} == {"k0", "k1", "k2", "k3"}
    assert [one.key for one in engine.nearest_by_words(query, "...", 5)] == nearest  # there are no words


def test_qdrant_stores_what_the_embedded_engine_stores(tmp_path: Path) -> None:
    server = qdrant_in_memory()
    from multimodal.search.engines.qdrant import QdrantEngine

    system = System(server, Address.parse("qdrant+http://localhost:6333/things"), QdrantEngine)
    system.build(["a", "b", "a"], searched_dim=4)
    embedded = QdrantEdgeEngine.create(tmp_path / "engine", Layout(DIM, ["text"], searched_dim=4))
    embedded.upsert([part_of(["a", "b", "a"])])
    import qdrant_edge

    theirs, _ = embedded._shard.scroll(qdrant_edge.ScrollRequest(limit=9, with_payload=True, with_vector=True))
    embedded.close()
    ours, _ = server.client.scroll(system.open().collection, limit=9, with_payload=True, with_vectors=True)
    assert len(ours) == len(theirs) == 3
    expected = {str(point.id): point for point in theirs}
    for point in ours:
        same: Any = expected[point.id]
        assert point.payload == same.payload
        assert point.vector.keys() == same.vector.keys() == {"m0", "m0full", "words"}
        for name in ("m0", "m0full"):
            assert point.vector[name] == pytest.approx(same.vector[name], abs=1e-6)
        words, same_words = point.vector["words"], same.vector["words"]
        weights = dict(zip(words.indices, words.values, strict=True))
        assert weights == pytest.approx(dict(zip(same_words.indices, same_words.values, strict=True)))
    assert embedded.layout == system.open().layout


def embeddings(folder: Path) -> Path:
    """Write a folder of embeddings as ``multimodal embed`` does."""
    folder.mkdir()
    part = part_of([f"k{n}" for n in range(20)])
    manifest = Manifest(MODEL, DIM, ["text"], {"table": "shop"}, "t", 20, "d", 20)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest)))
    pq.write_table(part, folder / manifest.parts[0])
    return folder


def test_an_index_on_a_server_is_built_opened_changed_and_saved(system: System, tmp_path: Path) -> None:
    stored = embeddings(tmp_path / "embeddings")
    index = Index.build(stored, tmp_path / "index", engine=system.address.url)
    assert [file.name for file in (tmp_path / "index").iterdir()] == ["index.json"]
    assert json.loads((tmp_path / "index" / "index.json").read_text())["engine"] == system.address.url
    exact = Index.build(stored, tmp_path / "exact", engine="exact")
    queries = np.random.default_rng(3).standard_normal((4, DIM))
    for opened in (index, Index.open(tmp_path / "index")):
        assert repr(opened) == "Index of 20 vectors (text 20), 8 wide"
        for where in (None, {"shelf": "s1"}, {"price": {"gt": 3, "lte": 7.5}}, {"shelf": "s1", "price": {"lt": 4}}):
            found, expected = (one.search(queries, k=5, where=where) for one in (opened, exact))
            assert [[hit.key for hit in hits] for hits in found] == [[hit.key for hit in hits] for hits in expected]
    with pytest.raises(UsageError, match="No row of the index has 'shelv'"):
        index.search(queries, where={"shelv": "s1"})
    with pytest.raises(UsageError, match="'price' has numbers, and the range is one of dates"):
        index.search(queries, where={"price": {"gte": "2024-01-31"}})
    assert index.remove(["k3", "k4"]) == 2
    index.save(tmp_path / "copy")  # from the server into a folder
    with Index.open(tmp_path / "copy") as copy:
        assert sorted(copy.items["key"].to_pylist()) == sorted(f"k{n}" for n in range(20) if n not in (3, 4))
    with Index.open(tmp_path / "exact") as other:
        other.save(tmp_path / "index", engine=system.address.url)  # and back
    assert len(Index.open(tmp_path / "index")) == len(index) == 20


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("qdrant+ftp://host/things", "is not the address of an engine"),
        ("qdrant+http:///things", "is not the address of an engine"),
        ("qdrant+http://host:port/things", "is not the address of an engine"),
        ("weaviate+http://host/things", r"is not the address of an engine: qdrant\+http://HOST:6333/COLLECTION"),
        ("http://host:6333/things", "is not the address of an engine"),
        ("qdrant+http://host:6333", r"names no collection.* as in qdrant\+http://host:6333/glyphs"),
        ("milvus+http://host/../things", "names no collection"),
        ("milvus+http://host/th%2Fings", "names no collection"),
        ("qdrant+http://host/things?shard=2", "there is no setting 'shard'. Did you mean 'shards'"),
        ("qdrant+http://host/things?shards=0", "shards must be a number"),
        ("qdrant+http://host/things#top", "is not the address of an engine"),
    ],
)
def test_an_address_of_another_form_is_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Address.parse(url)


@pytest.mark.parametrize(
    "url", ["qdrant+http://me:secret@host/things", "milvus+http://secret@host:x/things", "a://b@c"]
)
def test_an_address_with_a_password_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match=r"QDRANT_API_KEY .*MILVUS_TOKEN") as error:
        Index.build(embeddings(tmp_path / "embeddings"), tmp_path / "index", engine=url)
    assert "secret" not in str(error.value)
    assert not (tmp_path / "index").exists()


def test_the_key_of_a_server_is_read_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    address = Address.parse("qdrant+https://host:6333/things")
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    assert address.credential is None
    monkeypatch.setenv("QDRANT_API_KEY", "our-secret")
    assert address.credential == "our-secret"
    assert "our-secret" not in repr(address)
    given: dict[str, Any] = {}
    server = pytest.importorskip("multimodal.search.engines.qdrant_server")
    monkeypatch.setattr(server, "QdrantClient", lambda **settings: given.update(settings))
    server.QdrantServer.connect(address)
    assert (given["url"], given["api_key"]) == ("https://host:6333", "our-secret")
    monkeypatch.setenv("MILVUS_TOKEN", "me:our-secret")
    server = pytest.importorskip("multimodal.search.engines.milvus_server")
    monkeypatch.setattr(server, "MilvusClient", lambda **settings: given.update(settings))
    server.MilvusServer.connect(replace(address, system="milvus"))
    assert (given["uri"], given["token"]) == ("https://host:6333", "me:our-secret")


@pytest.mark.parametrize(("system", "client"), [("qdrant", "qdrant_client"), ("milvus", "pymilvus")])
def test_a_client_that_is_missing_and_a_server_that_does_not_answer_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, client: str
) -> None:
    pytest.importorskip(client)
    stored, url = embeddings(tmp_path / "embeddings"), f"{system}+http://127.0.0.1:9/things"
    with pytest.raises(MultimodalError, match=rf"^{system}\+http://127.0.0.1:9/things failed: ") as error:
        Index.build(stored, tmp_path / "index", engine=url)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "index").exists()
    monkeypatch.setitem(__import__("sys").modules, client, None)
    with pytest.raises(UsageError, match=rf"pip install 'multimodal\[{system}\]'"):
        Index.build(stored, tmp_path / "index", engine=url)


def test_what_qdrant_answers_is_reported() -> None:
    exceptions = pytest.importorskip("qdrant_client.http.exceptions")
    from multimodal.search.engines.qdrant_server import QdrantServer

    def reason(status: int, content: bytes) -> str:
        return QdrantServer.reason(exceptions.UnexpectedResponse(status, "Reason", content, {}))

    assert reason(400, b'{"status": {"error": "Wrong input: vector"}}') == "Wrong input: vector"
    assert reason(502, b"<html>") == reason(502, b"[]") == "the answer is 502 Reason"
    assert "QDRANT_API_KEY" in reason(401, b"Must provide an API key")


def test_a_collection_is_loaded_when_it_is_opened(tmp_path: Path) -> None:
    with milvus_lite(tmp_path / "milvus") as url:
        Index.build(embeddings(tmp_path / "embeddings"), tmp_path / "index", engine=url).close()
    with milvus_lite(tmp_path / "milvus") as url:  # it loads nothing by itself when it is started again
        opened = opening.open_engine(url, tmp_path / "index" / "engine", MODEL)
        assert opened.count("text") == 20
        assert len(opened.nearest(np.eye(1, DIM, dtype=np.float32), 5)[0]) == 5
        opened.close()


def test_settings_that_do_not_fit_milvus_are_refused() -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(UsageError, match="pca is for qdrant-edge"):
        opening.check_engine("milvus+http://host:19530/things", Layout(DIM, ["text"], searched_dim=4, reduction="pca"))
    for layout in (Layout(DIM, ["text"], quantization="binary"), Layout(DIM, ["text"], searched_dim=4)):
        with pytest.raises(UsageError, match="dim and binary do not fit it"):
            opening.check_engine("milvus+http://host:19530/things", layout)


def test_shards_and_replicas_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    server = qdrant_in_memory()
    asked: dict[str, Any] = {}
    create = server.client.create_collection

    def creating(name: str, **settings: Any) -> None:
        asked.update(settings)
        create(name, **settings)

    monkeypatch.setattr(server.client, "create_collection", creating)
    address = Address.parse("qdrant+http://localhost:6333/things?shards=6&replicas=2")
    with building(server, address, About("things", MODEL, Layout(DIM, ["text"]))):
        pass
    assert (asked["shard_number"], asked["replication_factor"]) == (6, 2)
