"""A byte-order mark, which Windows programs write before UTF-8, is not part of the text in any kind of file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tar_shards import shard

from multimodal import create, open_table
from multimodal.core.embedder import Embedder

MARKED = "utf-8-sig"


def test_of_word_vectors(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("red 1 0 0\nblue 0 1 0\n", encoding=MARKED)
    words = create("text", "word_vectors", weights=str(tmp_path / "words.txt"))
    found = Embedder({"text": words}, dim=3, heads={"text": "none"}).encode(text=["red", "blue"])
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 1, 0]], atol=1e-6)


def test_of_the_keys_of_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3))
    (tmp_path / "v.json").write_text(json.dumps(["a", "b", "c"]), encoding=MARKED)
    vectors = create("vector", "precomputed", file=str(tmp_path / "v.npy"))
    assert Embedder({"vector": vectors}, dim=4).encode(vector=["b"]).shape == (1, 4)


def test_of_a_graph(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text(json.dumps({"x": [[1, 2]], "edge_index": [[], []]}), encoding=MARKED)
    read = create("graph", "gnn", conv="gin", node_features=2, width=8, layers=1).processor
    for value in (str(path), path.read_bytes()):
        assert read(value)["x"].tolist() == [[1, 2]]


def test_of_texts_and_json_in_a_tar(tmp_path: Path) -> None:
    texts = {"1.txt": "red", "1.json": '{"price": 1}'}
    shard(tmp_path / "t.tar", {name: text.encode(MARKED) for name, text in texts.items()})
    table = open_table(str(tmp_path / "t.tar"))
    assert (table.value(0, "txt"), table.value(0, "price")) == ("red", 1)


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("t.csv", "name,n\nred,1\n", "name"),
        ("t.tsv", "name\tn\nred\t1\n", "name"),
        ("t.jsonl", '{"name": "red", "n": 1}\n', "name"),
        ("folder/a.txt", "red", "txt"),
    ],
)
def test_of_tables_and_folders_of_texts(name: str, content: str, column: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding=MARKED)
    table = open_table(str(path if path.parent == tmp_path else path.parent))
    assert table.value(0, column) == "red"
