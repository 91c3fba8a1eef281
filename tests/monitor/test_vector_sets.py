"""Sets of vectors of embeddings, indexes, logs of queries and tables: which rows are chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from embedded_shop import embed, new_embedder, samples_of

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.monitor.query_log import LoggedQuery, QueryLog
from multimodal.monitor.vector_sets import Vectors, chosen_vectors, read_vectors
from multimodal.search.embed import embed_table
from multimodal.search.embedding_folder import MANIFEST, read_manifest, read_parts
from multimodal.search.index import Index
from multimodal.search.stored_vectors import vectors_of


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return new_embedder()


def unit(rows: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(units: list[str], seed: int = 0) -> Vectors:
    keys = np.array([f"k{number}" for number in range(len(units))])
    return Vectors(unit(len(units), seed=seed), keys, np.array(units), np.array(["{}"] * len(units), object))


def test_one_row_of_each_group_is_chosen(tmp_path: Path, embedder: Embedder) -> None:
    embed(embedder, tmp_path / "e")
    found = read_vectors(tmp_path / "e")
    assert found.fingerprint == embedder.fingerprint
    rows = [row for part in read_parts(tmp_path / "e") for row in part.to_pylist()]
    for modality in ("graph", "text"):
        of = found.modalities[modality]
        assert sorted(of.units) == sorted({row["group"] for row in rows if row[modality] is not None})
        for key, name, vector in zip(of.keys, of.units, of.vectors, strict=True):
            (row,) = (row for row in rows if row["key"] == key)
            assert row["group"] == name
            assert row[modality] == pytest.approx(vector)
        assert found.rows[modality] == sum(row[modality] is not None for row in rows)


def test_rows_without_groups_are_units_by_their_keys(tmp_path: Path, embedder: Embedder) -> None:
    embed(embedder, tmp_path / "keyed", samples=samples_of(group=None))
    assert set(read_vectors(tmp_path / "keyed").modalities["text"].units) == {"@s-0", "@s-2", "@s-3", "@s-9", "@s-10"}
    embed(embedder, tmp_path / "numbered", samples=samples_of(group=None).keyed_by_number())
    units = read_vectors(tmp_path / "numbered").modalities["text"].units
    assert set(units) == {"#0", "#2", "#3", "#9", "#10"}  # in this set alone


def test_an_index_gives_what_its_embeddings_give(tmp_path: Path, embedder: Embedder) -> None:
    embed(embedder, tmp_path / "e")
    expected = read_vectors(tmp_path / "e")
    for engine in ("exact", "qdrant-edge"):
        Index.build(tmp_path / "e", tmp_path / engine, engine=engine).close()
        found = read_vectors(tmp_path / engine)
        for modality, of in expected.modalities.items():
            assert found.modalities[modality].keys.tolist() == of.keys.tolist()
            assert found.modalities[modality].units.tolist() == of.units.tolist()
            assert found.modalities[modality].vectors == pytest.approx(of.vectors, abs=1e-6)
            assert list(map(json.loads, found.modalities[modality].metadata)) == list(map(json.loads, of.metadata))


def test_int8_and_float16_are_read(tmp_path: Path, embedder: Embedder) -> None:
    embed(embedder, tmp_path / "exact")
    expected = read_vectors(tmp_path / "exact").modalities["text"]
    for dtype, error in (("float16", 1e-3), ("int8", 2e-2)):
        embed(embedder, tmp_path / dtype, dtype=dtype)
        assert read_vectors(tmp_path / dtype).modalities["text"].vectors == pytest.approx(expected.vectors, abs=error)


def test_a_table_is_embedded_by_a_model(tmp_path: Path, embedder: Embedder) -> None:
    names = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("cup", "mug", "pot")]
    pd.DataFrame({"title": names, "sku": [f"s-{n}" for n in range(6)]}).to_csv(tmp_path / "t.csv", index=False)
    embedder.save_pretrained(tmp_path / "run" / "model")
    (tmp_path / "run" / "config.yaml").write_text("data:\n  table: shop\n  columns: {text: title}\n  key: sku\n")
    found = read_vectors(tmp_path / "t.csv", tmp_path / "run", max_rows=4)
    of = found.modalities["text"]
    assert len(of) == 4
    for key, vector in zip(of.keys, of.vectors, strict=True):
        assert embedder.encode(text=names[int(key[2:])]) == pytest.approx(vector, abs=1e-5)
    embed_table(tmp_path / "run", tmp_path / "t.csv", out=tmp_path / "e")
    assert read_vectors(tmp_path / "e", max_rows=4).modalities["text"].keys.tolist() == of.keys.tolist()
    with pytest.raises(UsageError, match="neither embeddings nor an index nor a log of queries"):
        read_vectors(tmp_path / "t.csv")


def test_a_log_of_queries_has_a_unit_for_each_user(tmp_path: Path) -> None:
    log, vectors = QueryLog(tmp_path / "log"), unit(6)
    users = ["ann", "ann", "bob", None, None, None]
    for number, user in enumerate(users):
        modality, vector = (None, None) if number == 5 else ("text", vectors[number])
        log.append(LoggedQuery("a" * 64, 4, f"q{number}", 1.8e9, user, modality, vector, [], []))
    log.append(LoggedQuery("b" * 64, 3, "q6", 1.9e9, None, "text", unit(1, 3)[0], [], []))
    log.close()
    assert read_vectors(tmp_path / "log").fingerprint == "b" * 64  # the newest
    (QueryLog(tmp_path / "log")).close()
    newest = read_vectors(tmp_path / "log").modalities["text"]
    assert newest.vectors == pytest.approx(unit(1, 3), abs=1e-3)
    parts = [part for part in tmp_path.glob("log/queries-*.parquet") if "2030" in part.name]
    assert parts
    for part in parts:
        part.unlink()
    of = read_vectors(tmp_path / "log").modalities["text"]
    assert len(of) == 4  # one of ann, one of bob, two of unknown users
    assert sorted(name[0] for name in of.units) == ["#", "#", "=", "="]


def test_common_units_are_chosen_in_both_sets() -> None:
    first = made([f"={number}" for number in range(900)])
    second = made([f"={number}" for number in range(100, 1000)], seed=1)
    chosen = [chosen_vectors("x", [("m", of)], 200, 0)[0]["m"] for of in (first, second)]
    assert [len(of) for of in chosen] == [200, 200]
    assert len({*chosen[0].units} & {*chosen[1].units}) > 140  # of two random choices, 40 would be in both
    other = chosen_vectors("x", [("m", first)], 200, 1)[0]["m"]
    assert len({*chosen[0].units} & {*other.units}) < 80


def test_the_choice_does_not_depend_on_the_parts() -> None:
    of = made([f"={number % 300}" for number in range(1000)])
    pieces = [("m", of.take(np.arange(start, min(start + 70, 1000)))) for start in range(0, 1000, 70)]
    whole, parts = (chosen_vectors("x", given, 50, 0) for given in ([("m", of)], pieces))
    assert whole[0]["m"].keys.tolist() == parts[0]["m"].keys.tolist()
    assert whole[1] == parts[1] == {"m": 1000}
    assert len({*whole[0]["m"].units}) == 50


@pytest.mark.parametrize(("fault", "message"), [(np.nan, "NaN or infinity"), (3.0, "length")])
def test_vectors_that_are_not_unit_are_refused(fault: float, message: str) -> None:
    of = made(["#1", "#2"])
    of.vectors[1, 0] = fault
    with pytest.raises(MultimodalError, match=f"The m vector of 'k1' in x is not of unit length \\({message}"):
        chosen_vectors("x", [("m", of)], 10, 0)


def test_another_models_vectors_are_refused(tmp_path: Path, embedder: Embedder) -> None:
    embed(embedder, tmp_path / "e")
    new_embedder(1).save_pretrained(tmp_path / "other")
    with pytest.raises(MultimodalError, match="come from another model"):
        read_vectors(tmp_path / "e", tmp_path / "other")


def test_a_damaged_folder_is_reported(tmp_path: Path, embedder: Embedder) -> None:
    embed(embedder, tmp_path / "e")
    assert vectors_of(next(read_parts(tmp_path / "e")), "text", read_manifest(tmp_path / "e").dim).shape[1] == 5
    (tmp_path / "e" / "part-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(MultimodalError, match="damaged"):
        read_vectors(tmp_path / "e")
    (tmp_path / "e" / MANIFEST).write_text("{")
    with pytest.raises(MultimodalError, match="damaged"):
        read_vectors(tmp_path / "e")
