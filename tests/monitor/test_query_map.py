"""Maps of queries: the formulas against scipy and numpy, the choice on planted maps, the files, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.special import erf
from upgraded_index import COLUMNS, Upgradable, upgradable

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.monitor.fit_query_map import Anchors, K, fit_query_map
from multimodal.monitor.map_index import map_index
from multimodal.monitor.query_map import QueryMap, VectorMap, linear, map_queries, mlp, orthogonal, stored_map


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Upgradable:
    return upgradable(tmp_path_factory.mktemp("made"), 300)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def drawn(n: int, dim: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(0, 99))
def test_the_orthogonal_map_is_that_of_scipy(dim: int, seed: int) -> None:
    new, old = drawn(40, dim, seed), drawn(40, dim, seed + 1000)
    expected, _ = orthogonal_procrustes(new.astype(np.float64), old.astype(np.float64))
    np.testing.assert_allclose(orthogonal(new, old).weight, expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12))
def test_where_widths_differ_the_smaller_side_is_orthonormal(d_new: int, d_old: int) -> None:
    weight = orthogonal(drawn(40, d_new, 0), drawn(40, d_old, 1)).weight
    gram = weight @ weight.T if d_new <= d_old else weight.T @ weight
    np.testing.assert_allclose(gram, np.eye(min(d_new, d_old)), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.sampled_from([1e-4, 1e-2, 1.0]))
def test_the_linear_map_is_least_squares_with_rows_for_the_ridge(d_new: int, d_old: int, ridge: float) -> None:
    new, old = drawn(40, d_new, 0), drawn(40, d_old, 1)
    x = np.concatenate([new.astype(np.float64), math.sqrt(len(new) * ridge) * np.eye(d_new)])
    y = np.concatenate([old.astype(np.float64), np.zeros((d_new, d_old))])
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(linear(new, old, ridge).weight, expected, atol=1e-5)


def test_an_mlp_is_its_formula_and_fits_better_than_the_linear_map() -> None:
    new = drawn(400, 6, 0)
    old = unit(np.abs(new) @ drawn(6, 5, 1))  # no linear map finds it
    fitted = mlp(new, old)
    parts = {name: array.astype(np.float64) for name, array in fitted.arrays().items()}
    inner = new @ parts["hidden"] + parts["bias"]
    gelu = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
    mapped = new @ parts["weight"] + gelu @ parts["out"]
    np.testing.assert_allclose(fitted(new), mapped / np.linalg.norm(mapped, axis=1, keepdims=True), atol=1e-5)
    errors = [1 - (each(new) * old).sum(1).mean() for each in (linear(new, old), fitted)]
    assert errors[1] < 0.3 * errors[0]


def planted(kind: str, rows: int = 200) -> Anchors:
    """Two modalities near to one another in the old space, and the same by another model: a rotation of it, or unrelated."""
    generator = np.random.default_rng(0)
    things = generator.standard_normal((rows, 16))
    old = {m: unit(things + 0.3 * generator.standard_normal(things.shape)) for m in ("image", "text")}
    turn = orthogonal(drawn(32, 16, 5), drawn(32, 16, 6)).weight
    if kind == "rotated":
        new = {m: v @ turn for m, v in old.items()}
    elif kind == "wider":
        new = {m: unit(np.concatenate([v @ turn, 0.1 * np.abs(v)], axis=1)) for m, v in old.items()}
    else:
        new = {m: drawn(rows, 16, 7) for m in old}
    row = np.arange(rows)
    return Anchors(old, new, dict.fromkeys(old, row), row)


def test_a_rotation_is_found_again() -> None:
    maps, report = fit_query_map(planted("rotated"), min_recall=0.99)
    assert report.accepted
    assert (report.stored, report.queries) == (200, 40)
    for measures in report.measures:
        assert measures.mapped == measures.old == measures.new  # a rotation keeps all cosines
        assert measures.unmapped is not None
        assert measures.unmapped.high < measures.old.low
    anchors = planted("rotated")
    for modality, each in maps.items():
        assert (each(anchors.new[modality]) * anchors.old[modality]).sum(1).min() > 0.999


def test_of_another_width_there_is_no_unmapped_recall() -> None:
    _, report = fit_query_map(planted("wider"), min_recall=0.9)
    assert report.accepted
    assert [measures.unmapped for measures in report.measures] == [None, None]
    assert "other width" in repr(report)


def test_unrelated_vectors_are_refused() -> None:
    _, report = fit_query_map(planted("unrelated"), min_recall=0.5)
    assert report.refused == ["image", "text"]


def test_the_recall_is_that_of_a_loop_over_the_queries() -> None:
    anchors = planted("rotated", 150)
    _, report = fit_query_map(anchors, min_recall=0.9)
    groups = np.random.default_rng(0).permutation(150)[120:]
    for measures, stored in zip(report.measures, ("text", "image"), strict=True):
        assert measures.modality != stored
        hits = []
        for row in sorted(groups):
            scores = anchors.old[stored] @ anchors.old[measures.modality][row]
            hits.append(int((scores >= scores[row]).sum() <= K))
        assert measures.old.mean == pytest.approx(np.mean(hits))


def test_one_modality_is_measured_by_the_rows_of_a_group() -> None:
    anchors = planted("rotated")
    alone = Anchors(
        {"text": anchors.old["text"]}, {"text": anchors.new["text"]}, {"text": np.arange(200)}, np.arange(200) // 2
    )
    _, report = fit_query_map(alone, min_recall=0.5)
    assert report.measures[0].old.mean < 0.5  # rows of a group are not alike here
    single = Anchors(alone.old, alone.new, alone.rows, np.arange(200))
    with pytest.raises(UsageError, match="No row has a match of its text"):
        fit_query_map(single, min_recall=0.5)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="60 groups of rows are too few"):
        fit_query_map(planted("rotated", 60), min_recall=0.9)


def test_maps_are_read_as_they_were_written(tmp_path: Path) -> None:
    new, old = drawn(50, 6, 0), drawn(50, 4, 1)
    maps = {"text": mlp(new, old), "image": linear(new, old)}
    QueryMap(maps, "o", "n", "runs/b").save(tmp_path / "map")
    read = QueryMap.load(tmp_path / "map")
    assert (read.old, read.new, read.model) == ("o", "n", "runs/b")
    for modality, each in maps.items():
        assert read.maps[modality].kind == each.kind
        assert np.array_equal(read.maps[modality](new), each(new))
    stored = stored_map(tmp_path / "map")
    assert stored is not None
    assert stored["new"] == "n"
    assert stored_map(tmp_path) is None
    assert sorted(path.name for path in (tmp_path / "map").iterdir()) == ["map.json", "map.safetensors"]  # no pickle


@pytest.mark.parametrize("damage", ["weights", "document", "shapes", "not finite"])
def test_a_damaged_map_is_refused(tmp_path: Path, damage: str) -> None:
    weight = drawn(3, 3, 0)
    if damage == "not finite":
        weight[0] = np.nan
    bias = np.zeros(5, np.float32) if damage == "shapes" else np.zeros(4, np.float32)
    wrong = VectorMap("mlp", weight, np.zeros((3, 4), np.float32), bias, np.zeros((4, 3), np.float32))
    QueryMap({"text": wrong}, "o", "n", "runs/b").save(tmp_path / "map")
    if damage in ("weights", "document"):
        file = tmp_path / "map" / {"weights": "map.safetensors", "document": "map.json"}[damage]
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(MultimodalError, match="is damaged"):
        QueryMap.load(tmp_path / "map")


def test_a_mapped_embedder_returns_the_mapped_vectors(made: Upgradable) -> None:
    embedder = Embedder.from_pretrained(made.new)
    before = embedder.encode(text=["red cup", "old jug"])
    each = linear(drawn(50, 24, 0), drawn(50, 16, 1))
    query_map = QueryMap(dict.fromkeys(COLUMNS, each), "o", embedder.fingerprint, "new")
    mapped = map_queries(embedder, query_map)
    np.testing.assert_allclose(mapped.encode(text=["red cup", "old jug"]), each(before), atol=1e-6)
    assert mapped.dim == 16
    with pytest.raises(MultimodalError, match="is of the model n"):
        map_queries(Embedder.from_pretrained(made.new), QueryMap(query_map.maps, "o", "n", "new"))


def test_the_command_measures_and_refuses(made: Upgradable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(made.index(tmp_path / "index", engine="exact"))
    command = ["upgrade", folder, str(made.new), "--map", "measure"]
    assert main(command) == 2
    assert "name it by --old RUN" in capsys.readouterr().err
    assert main([*command, "--old", str(made.old), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["accepted"]
    assert [measures["modality"] for measures in document["measures"]] == ["text", "words"]
    assert main([*command, "--old", str(made.old), "--min_recall", "1", "--anchors", "120"]) in (0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]  # measured only
    with pytest.raises(MultimodalError, match="was made with another model"):
        map_index(folder, made.old, old=made.new)
