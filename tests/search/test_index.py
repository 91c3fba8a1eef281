"""Search in an index equals a comparison with every vector, and damaged indexes are rejected."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import create
from multimodal.data.datamodule import DataModule
from multimodal.search.embedding_folder import MANIFEST, Manifest
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.hits import Hit
from multimodal.search.index import Index

DIM = 3


def index_of(vectors: np.ndarray, groups: Sequence[Any], modalities: Sequence[str] = ()) -> Index:
    """Return an index whose keys are the row numbers."""
    n = len(vectors)
    items = {
        "key": [f"k{row}" for row in range(n)],
        "group": [str(group) for group in groups],
        "metadata": [json.dumps({"row": row}) for row in range(n)],
        "modality": list(modalities) or ["image"] * n,
    }
    return Index(ExactEngine(vectors.astype(np.float32), pa.table(items)), "f" * 64)


def embeddings(folder: Path, vectors: dict[str, list[list[float] | None]], part_rows: int = 2) -> Path:
    """Write a folder of embeddings like ``multimodal embed``, of rows k0, k1, ... in groups of two rows."""
    folder.mkdir(parents=True)
    rows = len(next(iter(vectors.values())))
    manifest = Manifest("f" * 64, DIM, list(vectors), {"table": "shop"}, "t", rows, "d", part_rows)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest)))
    for number, part in enumerate(manifest.parts):
        of_part = range(rows)[number * part_rows :][:part_rows]
        columns: dict[str, Any] = {
            "key": [f"k{row}" for row in of_part],
            "group": [f"g{row // 2}" for row in of_part],
            "metadata": [json.dumps({"name": f"ß{row}"}) for row in of_part],
        }
        for modality, cells in vectors.items():
            columns[modality] = pa.array([cells[row] for row in of_part], pa.list_(pa.float32(), DIM))
        pq.write_table(pa.table(columns), folder / part)
    return folder


UNIT = np.eye(DIM).tolist()
SHOP: dict[str, list[list[float] | None]] = {
    "image": [UNIT[0], None, UNIT[1], UNIT[2], None],
    "text": [None, UNIT[0], UNIT[2], None, None],
}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    Index.build(embeddings(tmp_path / "embeddings", SHOP), tmp_path / "index", engine="exact")
    return tmp_path / "index"


# -- search


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, list[int], list[str], np.ndarray]:
    """Draw vectors, groups, modalities and queries, with numbers whose cosines are exact and often equal."""
    n, q = draw(st.integers(1, 40)), draw(st.integers(0, 3))
    numbers = st.sampled_from([[1, 0, 0], [-1, 0, 0], [0.6, 0.8, 0], [0.6, -0.8, 0], [1 / 3, -2 / 3, 2 / 3]])
    vectors = draw(st.lists(numbers.flatmap(st.permutations), min_size=n, max_size=n))
    axes = draw(st.lists(st.sampled_from([*range(DIM)]), min_size=q, max_size=q))
    lengths = draw(st.lists(st.sampled_from([-2.0, -1.0, 0.25, 0.5, 1.0]), min_size=q, max_size=q))
    groups = draw(st.lists(st.integers(0, draw(st.integers(0, 30))), min_size=n, max_size=n))
    modalities = draw(st.lists(st.sampled_from(["image", "text"]), min_size=n, max_size=n))
    queries = np.eye(DIM, dtype=np.float32)[axes] * np.array(lengths, dtype=np.float32)[:, None]
    return np.array(vectors, dtype=np.float32), groups, modalities, queries


@given(searches(), st.integers(1, 12), st.sampled_from([None, "image", "text"]))
@settings(deadline=None, max_examples=150)
def test_search_finds_the_best_vector_of_each_of_the_nearest_groups(
    search: tuple[np.ndarray, list[int], list[str], np.ndarray], k: int, target: str | None
) -> None:
    vectors, groups, modalities, queries = search
    index = index_of(vectors, groups, modalities)
    if target not in (None, *modalities):
        target = None
    found = index.search(queries, k, target)
    assert len(found) == len(queries)
    for query, hits in zip(queries, found, strict=True):
        scores = [float(vector @ query) / np.abs(query).sum().item() for vector in vectors]
        best: dict[int, int] = {}  # group -> the row of its best vector, of equal ones the first
        for row in sorted(range(len(vectors)), key=lambda row: (-scores[row], row)):
            if target in (None, modalities[row]):
                best.setdefault(groups[row], row)
        expected = list(best.values())[:k]
        assert hits == [Hit(f"k{row}", modalities[row], scores[row], {"row": row}) for row in expected]


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 400))
@settings(deadline=None, max_examples=30)
def test_search_equals_numpy_among_unit_vectors(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = rng.integers(0, n, n)
    query = vectors[:1] + 0.1
    query /= np.linalg.norm(query)
    scores = (vectors @ query.T)[:, 0]
    best = sorted((scores[groups == group].max() for group in np.unique(groups)), reverse=True)
    hits = index_of(vectors, groups.tolist()).search(query, k)[0]
    assert [hit.score for hit in hits] == pytest.approx(best[:k], abs=1e-6)


def test_one_group_of_many_vectors_hides_no_other() -> None:
    """The first 4 k candidates are all in one group."""
    vectors = np.tile([[1.0, 0, 0]], (1000, 1))
    vectors[-3:] = [[0.6, 0.8, 0], [0, 1, 0], [-1, 0, 0]]
    hits = index_of(vectors, [0] * 997 + [1, 2, 3]).search(np.array([[1.0, 0, 0]]), k=3)[0]
    assert [hit.score for hit in hits] == pytest.approx([1, 0.6, 0])


def test_there_are_no_more_hits_than_groups() -> None:
    index = index_of(np.tile(UNIT, (4, 1)), [0, 1, 2] * 4, ["image", "text"] * 6)
    assert [len(index.search(np.eye(DIM), k)[0]) for k in (1, 2, 3, 4, 10**9)] == [1, 2, 3, 3, 3]


def test_a_text_and_a_picture_of_one_group_are_found_once_by_the_better_vector() -> None:
    index = index_of(np.array([[0.6, 0.8, 0], [1, 0, 0], [0, 0, 1]]), [7, 7, 8], ["image", "text", "image"])
    query = np.array([[1.0, 0, 0]])
    assert [(hit.key, hit.modality) for hit in index.search(query)[0]] == [("k1", "text"), ("k2", "image")]
    assert [hit.key for hit in index.search(query, target="image")[0]] == ["k0", "k2"]


def test_among_few_equal_vectors_the_first_stored_come_first() -> None:
    hits = index_of(np.tile(UNIT[0], (8, 1)), range(8)).search(np.array([UNIT[0]]), k=8)[0]
    assert [hit.key for hit in hits] == [f"k{row}" for row in range(8)]


@pytest.mark.parametrize("k", [1, 3, 10])
def test_among_many_equal_vectors_the_first_stored_come_first(k: int) -> None:
    """For any k, the hits for a smaller k are the first hits for a larger k."""
    vectors = np.tile(UNIT[0], (500, 1))
    vectors[::7] = UNIT[1]
    hits = index_of(vectors, range(500)).search(np.array([UNIT[0]]), k)[0]
    assert [hit.key for hit in hits] == [f"k{row}" for row in range(500) if row % 7][:k]


def test_a_score_is_a_cosine() -> None:
    vectors = np.random.default_rng(0).standard_normal((500, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (vectors @ vectors.T).max() > 1  # because of rounding
    found = index_of(vectors, range(500)).search(np.concatenate([vectors, -vectors]), k=500)
    scores = np.array([[hit.score for hit in hits] for hits in found])
    assert (scores.min(), scores.max()) == (-1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": -3}, "k must be at least 1, got -3"),
        ({"vectors": np.ones((1, DIM + 1))}, rf"shape \(1, 4\).*\(q, {DIM}\)"),
        ({"vectors": np.ones(DIM)}, rf"shape \({DIM},\).*For one vector: search\(vector\[None\]\)\[0\]"),
        ({"vectors": "a red cup"}, r"vectors or values of modalities\. For a value: search\(text='a red cup'\)"),
        ({"vectors": ["a red cup"]}, r"not vectors .*For a value: search\(text='a red cup'\)"),
        ({"vectors": [[1.0], [1.0, 2.0]]}, r"The queries are not vectors"),
        ({"vectors": None}, r"vectors or values of modalities"),
        ({"vectors": None, "text": "a", "image": "b"}, r"does not know its model"),
        ({"vectors": None, "like": "k0"}, r"Keys are given as a list of texts, like \['cup-1'\], not as 'k0'"),
        ({"vectors": None, "like": ["k9"]}, r"no row with the key 'k9'"),
        ({"vectors": None, "like": ["k0"], "unlike": ["k0"]}, r"The parts of the query cancel out"),
        ({"vectors": None, "like": ["k0"], "weights": {"text": 2}}, r"no value of 'text' to be weighted"),
        ({"vectors": None, "like": ["k0"], "min_precision": 0.9}, r"combined queries are not calibrated"),
        ({"vectors": None, "hybrid": True, "like": ["k0"]}, r"Hybrid search takes the words of the query's text"),
        ({"vectors": None, "hybrid": "red", "like": ["k0"]}, r"searched exactly, by vectors alone"),
        ({"where": {"nam": "x"}}, r"No row of the index has 'nam'\. Did you mean 'name'"),
        ({"text": "a"}, r"vectors or values of modalities"),
        ({"vectors": None, "text": "a"}, r"does not know its model: open it by Index\.open\(folder, model=RUN\)"),
        ({"vectors": np.array([UNIT[0], [0, np.nan, 0]])}, "Query 1 is not finite"),
        ({"vectors": np.array([[0, -np.inf, 0], UNIT[0]])}, "Query 0 is not finite"),
        ({"vectors": np.array([[0, 1e300, 0]])}, "Query 0 is not finite"),  # in float32
        ({"k": "5"}, "search: k must be a whole number, not '5'"),
        ({"k": 5.0}, r"search: k must be a whole number, not 5\.0"),
        ({"target": 3}, "search: target must be a string, not 3"),
        (
            {"top_k": 5},
            r"search\(\) takes no argument 'top_k'\. Known: exact, hybrid, image, k, like, min_precision, modality, target",
        ),
        ({"vectors": None, "text": "a", "tagret": "image"}, r"takes no argument 'tagret'\. Did you mean 'target'"),
        ({"target": "images"}, r"no 'images' vectors.*Did you mean 'image'\?.*Known: image, text"),
    ],
)
def test_invalid_searches_are_wrong_usage(index: Path, arguments: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"vectors": np.eye(DIM)}
    with pytest.raises(UsageError, match=message):
        Index.open(index).search(**defaults | arguments)


# -- building


def test_an_index_has_the_existing_vectors_with_their_descriptions(index: Path) -> None:
    opened = Index.open(index)
    assert (len(opened), opened.dim, set(opened.modalities)) == (5, DIM, {"image", "text"})
    assert isinstance(opened.vectors, np.memmap)
    assert opened.fingerprint == "f" * 64
    stored = {}
    for vector, item in zip(opened.vectors.tolist(), opened.items.to_pylist(), strict=True):
        row = int(item["key"].removeprefix("k"))
        assert (item["group"], json.loads(item["metadata"])) == (f"g{row // 2}", {"name": f"ß{row}"})
        stored[item["modality"], row] = vector
    assert stored == {(m, row): cell for m, cells in SHOP.items() for row, cell in enumerate(cells) if cell is not None}


def test_a_built_index_is_the_one_that_is_opened(tmp_path: Path) -> None:
    built = Index.build(embeddings(tmp_path / "embeddings", SHOP), tmp_path / "deep" / "index", engine="exact")
    opened = Index.open(str(tmp_path / "deep" / "index"))
    assert built.search(np.eye(DIM)) == opened.search(np.eye(DIM))


def test_building_again_replaces_the_index_and_leaves_nothing_else(index: Path, tmp_path: Path) -> None:
    before = Index.open(index)
    Index.build(embeddings(tmp_path / "more", {"image": [UNIT[0]] * 7}), index, engine="exact")
    assert (len(Index.open(index)), len(before)) == (7, 5)
    assert before.search(np.eye(DIM))[0][0].score == 1  # an open index is still readable
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings", "index", "more"]


@pytest.mark.parametrize("damage", [Path.unlink, lambda part: part.write_bytes(b"PAR1")])
def test_a_build_that_fails_leaves_the_old_index(index: Path, tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    more = embeddings(tmp_path / "more", {"image": [UNIT[0]] * 7})
    damage(more / "part-00002.parquet")
    with pytest.raises(MultimodalError, match=r"part-00002\.parquet"):
        Index.build(more, index, engine="exact")
    assert len(Index.open(index)) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings", "index", "more"]


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("dear")
    with pytest.raises(MultimodalError, match=r"thesis is not empty and holds no index\.json"):
        Index.build(embeddings(tmp_path / "embeddings", SHOP), tmp_path / "thesis", engine="exact")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "dear"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_not_indexed(index: Path, tmp_path: Path, number: float) -> None:
    cells: dict[str, list[list[float] | None]] = {"image": [*UNIT], "text": [None, UNIT[0], [0, number, 0]]}
    with pytest.raises(MultimodalError, match=r"1 of 1 text vectors are not finite, the first of the row 'k2'"):
        Index.build(embeddings(tmp_path / "more", cells), index, engine="exact")
    assert len(Index.open(index)) == 5  # the old one


@pytest.mark.parametrize(("length", "shown"), [(0, "0"), (1.01, "1.01"), (1e30, "1e+30")])
def test_vectors_that_are_not_of_unit_length_are_not_indexed(
    index: Path, tmp_path: Path, length: float, shown: str
) -> None:
    cells: dict[str, list[list[float] | None]] = {"image": [*UNIT], "text": [None, UNIT[0], [0, length, 0]]}
    message = rf"1 of 1 text vectors are not of unit length, the first of the row 'k2' \(length {re.escape(shown)}\)"
    with pytest.raises(MultimodalError, match=message):
        Index.build(embeddings(tmp_path / "more", cells), index, engine="exact")
    with pytest.raises(MultimodalError, match=rf"The index has 1 vectors .* row 1 \(length {re.escape(shown)}\)"):
        index_of(np.array([UNIT[0], [0, length, 0]]), [0, 1]).search(np.eye(DIM))
    assert len(Index.open(index)) == 5  # the old one


@pytest.mark.parametrize("at_open", [True, False])
def test_damaged_vectors_are_refused_before_they_are_used(
    index: Path, at_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors of a large index are compared with their digest at the first use, those of a small one when it is opened."""
    monkeypatch.setattr("multimodal.search.index_folder.CHECKED_AT_OPEN", (1 << 20) if at_open else 0)
    content = bytearray((index / "vectors.npy").read_bytes())
    content[-4] ^= 1  # a change of the last digit of a number, that no other check would find
    (index / "vectors.npy").write_bytes(content)
    uses: list[Callable[[Index], Any]] = [
        lambda opened: opened.search(np.eye(DIM)),
        lambda opened: opened.vectors,
        lambda opened: opened.filter(modality="image"),
        lambda opened: opened.save(index, engine="exact"),
    ]
    for use in uses:
        if at_open:
            with pytest.raises(MultimodalError, match=r"vectors\.npy is damaged: its contents are not"):
                Index.open(index)
        else:
            opened = Index.open(index)
            with pytest.raises(MultimodalError, match=r"vectors\.npy is damaged: its contents are not"):
                use(opened)


@pytest.mark.parametrize("number", [np.nan, 0, 3, 1e30])
def test_vectors_without_a_digest_are_refused_if_they_are_not_of_unit_length(index: Path, number: float) -> None:
    description = json.loads((index / "index.json").read_text())
    del description["files"], description["digest"]  # as in an index of an earlier version
    (index / "index.json").write_text(json.dumps(description))
    assert len(Index.open(index).vectors) == 5
    vectors = np.load(index / "vectors.npy")
    vectors[2] *= number
    np.save(index / "vectors.npy", vectors)
    with pytest.raises(MultimodalError, match=r"vectors\.npy has 1 vectors that are not of unit length.* row 2 "):
        Index.open(index)


def test_the_folder_is_what_numpy_and_arrow_write(index: Path) -> None:
    opened = Index.open(index)
    buffer = io.BytesIO()
    np.save(buffer, np.array(opened.vectors))
    assert (index / "vectors.npy").read_bytes() == buffer.getvalue()
    for name, entry in json.loads((index / "index.json").read_text())["files"].items():
        assert entry["sha256"] == hashlib.sha256((index / name).read_bytes()).hexdigest()
    opened.save(index, engine="exact")
    assert Index.open(index).items.equals(opened.items)


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("dear")
    with pytest.raises(UsageError, match="thesis is a file"):
        Index.build(embeddings(tmp_path / "embeddings", SHOP), tmp_path / "thesis", engine="exact")
    with pytest.raises(UsageError, match="thesis is a file"):
        Index.build(
            tmp_path / "nowhere", tmp_path / "thesis" / "index", engine="exact"
        )  # before the embeddings are read
    assert (tmp_path / "thesis").read_text() == "dear"


def test_without_embeddings_no_index_is_built(tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match="holds no embeddings"):
        Index.build(tmp_path / "nowhere", tmp_path / "index", engine="exact")
    assert not (tmp_path / "index").exists()


def test_embeddings_without_a_vector_make_an_index_that_finds_nothing(tmp_path: Path) -> None:
    index = Index.build(
        embeddings(tmp_path / "embeddings", {"image": [None, None]}), tmp_path / "index", engine="exact"
    )
    assert (len(index), index.dim) == (0, DIM)
    assert index.search(np.eye(DIM)) == [[], [], []]


# -- from a table


def picture(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    torch.manual_seed(0)
    image = create("image", "timm", arch="test_resnet", preprocess={"input_size": [3, 32, 32]})
    embedder = Embedder({"image": image, "text": create("text", "bag")}, dim=4)
    embedder.fit_processors({"text": ["a red cup", "a blue mug"]})
    return embedder.eval()


FRAME = pd.DataFrame(
    {"photo": [picture("red"), picture("blue")], "title": ["a red cup", "a blue mug"], "sku": ["r", "b"]}
)


def test_a_data_frame_is_embedded_and_indexed_with_its_pictures(embedder: Embedder) -> None:
    index = Index.from_table(embedder, FRAME, columns={"image": "photo", "text": "title"}, key="sku")
    assert repr(index) == "Index of 4 vectors (image 2, text 2), 4 wide"
    assert "<td>image</td><td>2</td></tr><tr><td>text</td><td>2</td>" in index._repr_html_()
    assert repr(index.search(index.vectors[:2], k=1)).count("\n\n") == 1
    for modality, column in (("image", "photo"), ("text", "title")):
        expected = embedder.encode(batch_size=256, precision="float32", **{modality: FRAME[column]})
        np.testing.assert_allclose(index.filter(modality).vectors, expected, atol=1e-5)
    hits = index.search(image=FRAME["photo"][1], target="image")
    assert [hit.key for hit in hits] == ["b", "r"]
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert hits[0].metadata == {"title": "a blue mug", "sku": "b"}
    assert [hit.picture for hit in hits] == [FRAME["photo"][1], FRAME["photo"][0]]
    assert index.search(text="a red cup", target="text")[0].picture is not None  # of the row, by any modality


def test_a_table_without_pictures_is_indexed_without(embedder: Embedder) -> None:
    index = Index.from_table(embedder, FRAME, columns={"text": "title"})
    assert index.modalities == ["text"]
    assert index.search(text="a red cup")[0].picture is None


def test_a_table_by_name_needs_columns_and_a_data_module_has_them(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("data: {table: glyphs, columns: {text: name}}")  # is not the embedder's
    with pytest.raises(UsageError, match="The table 'glyphs' needs columns, like columns="):
        Index.from_table(embedder, "glyphs")
    data = DataModule(FRAME, {"text": "title"}, key="sku")
    assert Index.from_table(embedder, data).items["key"].to_pylist() == ["r", "b"]
    with pytest.raises(UsageError, match="A DataModule has settings of its own, so key cannot"):
        Index.from_table(embedder, data, key="title")


def test_a_model_that_returns_nan_is_not_indexed(embedder: Embedder) -> None:
    broken = deepcopy(embedder)
    for weight in broken.heads["text"].parameters():
        weight.data.fill_(torch.nan)
    with pytest.raises(MultimodalError, match=r"2 of 2 text vectors are not finite, the first of the row 'r'"):
        Index.from_table(broken, FRAME, columns={"text": "title"}, key="sku")


# -- opening


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_an_index_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MultimodalError, match=rf"{name} is not an index: index\.json is missing.*multimodal index"):
        Index.open(tmp_path / name)


def damaged(index: Path) -> Any:
    return pytest.raises(MultimodalError, match=rf"The index {index} is damaged.*build it again")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"format": 1}', b'{"format": 1, "count": 5}']
)
def test_a_damaged_description_is_rejected(index: Path, content: bytes) -> None:
    (index / "index.json").write_bytes(content)
    with damaged(index):
        Index.open(index)


def test_another_format_is_reported(index: Path) -> None:
    description = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(MultimodalError, match=r"format 99.*reads 1"):
        Index.open(index)


def test_a_vector_count_other_than_described_is_rejected(index: Path) -> None:
    description = json.loads((index / "index.json").read_text())
    assert description["count"] == 5
    del description["digest"]
    (index / "index.json").write_text(json.dumps(description | {"count": 4}))
    with damaged(index):
        Index.open(index)


@pytest.mark.parametrize("name", ["vectors.npy", "items.parquet"])
def test_a_missing_file_is_rejected(index: Path, name: str) -> None:
    (index / name).unlink()
    with damaged(index):
        Index.open(index)


@pytest.mark.parametrize("name", ["vectors.npy", "items.parquet"])
def test_a_file_cut_anywhere_is_rejected(index: Path, name: str) -> None:
    whole = (index / name).read_bytes()
    for kept in [*range(1, 12), *range(12, len(whole), 17), len(whole) - 1]:
        (index / name).write_bytes(whole[:kept])
        with damaged(index):
            Index.open(index)


@pytest.mark.parametrize("name", ["vectors.npy", "items.parquet"])
def test_an_empty_file_is_rejected(index: Path, name: str) -> None:
    (index / name).write_bytes(b"")
    with damaged(index):
        Index.open(index)


@pytest.mark.parametrize(
    "vectors",
    [np.zeros((4, DIM), np.float32), np.zeros((6, DIM), np.float32), np.zeros((), np.float32)],
    ids=["fewer", "more", "a number"],
)
def test_files_of_different_lengths_are_rejected(index: Path, vectors: np.ndarray) -> None:
    np.save(index / "vectors.npy", vectors)
    with damaged(index):
        Index.open(index)


@pytest.mark.parametrize(
    "vectors",
    [np.zeros(5, np.float32), np.zeros((5, DIM, 2), np.float32), np.zeros((5, DIM), "U4"), np.zeros((5, DIM))],
    ids=["one axis", "three axes", "strings", "double precision"],
)
def test_vectors_of_another_shape_or_type_are_rejected(index: Path, vectors: np.ndarray) -> None:
    np.save(index / "vectors.npy", vectors)
    with damaged(index):
        Index.open(index)


@pytest.mark.parametrize("column", ["key", "group", "metadata", "modality"])
def test_items_without_a_column_are_rejected(index: Path, column: str) -> None:
    items = pq.read_table(index / "items.parquet")
    pq.write_table(items.drop_columns([column]), index / "items.parquet")
    with damaged(index):
        Index.open(index)


class Touch:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_rejected_without_loading_it(index: Path, tmp_path: Path) -> None:
    trap = Touch(tmp_path / "trapped")
    (index / "vectors.npy").write_bytes(pickle.dumps(trap))
    with damaged(index):
        Index.open(index)
    np.save(index / "vectors.npy", np.array([trap] * 5, dtype=object), allow_pickle=True)
    with damaged(index):
        Index.open(index)
    assert not (tmp_path / "trapped").exists()


def test_vectors_of_another_model_are_reported_with_both_fingerprints(index: Path) -> None:
    opened = Index.open(index)
    opened.check_model("f" * 64)
    with pytest.raises(
        MultimodalError, match=r"another model \(ffffffffffff\).*\(0123456789ab\); embed and index again"
    ):
        opened.check_model("0123456789ab" + "f" * 52)


def test_searching_needs_no_torch(index: Path) -> None:
    code = (
        "import sys, numpy; from multimodal import Index; "
        f"hits = Index.open(sys.argv[1]).search(numpy.eye({DIM}), k=1); "
        "print(hits[0][0].key, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(index)], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["k0", "False"], "")


def test_an_unknown_argument_of_a_search_is_named(embedder: Embedder) -> None:
    index = Index.from_table(embedder, FRAME, columns={"text": "title"})
    with pytest.raises(UsageError, match=r"search\(\) takes no argument 'top_k'"):
        index.search(text="a cup", top_k=5)
    with pytest.raises(UsageError, match="search: k must be a whole number, not '5'"):
        index.search(text="a cup", k="5")  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(UsageError, match=r"^Index\.from_table\(\) takes no argument 'colums'\. Did you mean 'columns'"):
        Index.from_table(embedder, FRAME, colums={"text": "title"})


@given(
    seed=st.integers(0, 2**32),
    lengths=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4),
)
@settings(max_examples=20, deadline=None)
def test_only_the_direction_of_a_query_counts(seed: int, lengths: list[float]) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(30, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = index_of(vectors, range(30))
    queries = rng.normal(size=(len(lengths), DIM))
    queries *= np.array(lengths)[:, None] / np.linalg.norm(queries, axis=1, keepdims=True)
    for query, hits in zip(queries, index.search(queries, k=30), strict=True):
        cosines = vectors @ query / np.linalg.norm(query)
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-5)
        np.testing.assert_allclose(cosines[[int(hit.key[1:]) for hit in hits]], np.sort(cosines)[::-1], atol=1e-5)


def test_a_query_of_length_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="Query 1 has length 0"):
        index_of(np.eye(DIM), range(DIM)).search(np.array([[1.0, 0, 0], [0, 0, 0]]))
