"""Vectors of another system: how they are read, by what key they are found, and what is made of them."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.vectors.precomputed import Precomputed
from multimodal_encoders.vectors.vector_files import VectorFile
from safetensors.torch import save_file

from multimodal.core import registry
from multimodal.core.batch import Sample
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.core.table import Table
from multimodal.data.samples import Samples
from multimodal.search.embed import embed_samples

KEYS = ["fox", "dog", "Ωmega", "fox ", "7"]
VECTORS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))


def as_npy(folder: Path) -> Path:
    np.save(folder / "v.npy", VECTORS)
    (folder / "v.json").write_text(json.dumps(KEYS))
    return folder / "v.npy"


def as_safetensors(folder: Path) -> Path:
    save_file({"v": torch.from_numpy(VECTORS)}, folder / "v.safetensors", {"keys": json.dumps(KEYS)})
    return folder / "v.safetensors"


def as_safetensors_with_list(folder: Path) -> Path:
    save_file({"v": torch.from_numpy(VECTORS), "other": torch.zeros(7)}, folder / "w.safetensors")
    (folder / "w.json").write_text(json.dumps(KEYS))
    return folder / "w.safetensors"


def as_parquet(folder: Path) -> Path:
    pq.write_table(
        pa.table({"key": KEYS, "n": range(5), "v": VECTORS.tolist()}), folder / "v.parquet", row_group_size=2
    )
    return folder / "v.parquet"


def as_folder(folder: Path) -> Path:
    (folder / "parts").mkdir()
    for number, part in enumerate((slice(0, 2), slice(2, 5))):
        flat = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[part].ravel()), 3)
        pq.write_table(pa.table({"key": KEYS[part], "v": flat}), folder / "parts" / f"part-{number}.parquet")
    return folder / "parts"


every_format = pytest.mark.parametrize(
    "write", [as_npy, as_safetensors, as_safetensors_with_list, as_parquet, as_folder]
)


# -- files of vectors


@every_format
def test_a_vector_is_found_by_its_key_and_no_other(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path)
    for file in (VectorFile(path, None), VectorFile(path, None)):  # a Parquet file's copy is made, then found
        assert file.width == 3
        for key, vector in zip(KEYS, VECTORS, strict=True):
            found = file.find(key)
            assert found is not None
            assert found.dtype == np.float32
            assert np.array_equal(found, vector)
        for key in ("", "Fox", "fo", "foxx", "zebra", "0", "\ud800"):
            assert file.find(key) is None


@given(keys=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1), other=st.text())
@settings(max_examples=30, deadline=None)
def test_of_equal_keys_the_first_counts(keys: list[str], other: str) -> None:
    from multimodal_encoders.vectors.vector_files import _key_array, _Keys

    rows = _Keys(_key_array(keys))
    for key in keys:
        assert rows.find(key) == keys.index(key)
    assert rows.find(other) == (keys.index(other) if other in keys else None)


def test_without_a_list_of_keys_the_rows_have_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS.astype(">f8"))
    file = VectorFile(tmp_path / "v.npy", None)
    assert np.array_equal(np.stack([file.find(str(row)) for row in range(5)]), VECTORS)  # pyright: ignore
    assert all(file.find(key) is None for key in ("5", "-1", "01", "1.0", "٣", "", "9" * 30))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_any_type_of_numbers_becomes_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    numbers = (torch.from_numpy(VECTORS) * 9).to(dtype)
    save_file({"v": numbers}, tmp_path / "v.safetensors")
    found = VectorFile(tmp_path / "v.safetensors", None).find("3")
    assert found is not None
    assert np.array_equal(found, numbers[3].float().numpy())


class Shop(Table):
    name, columns, metadata_columns = "shop", ("title", "vector", "name"), ()

    def __len__(self) -> int:
        return 6

    def value(self, row: int, column: str) -> Any:
        if column == "vector":
            return None if row == 4 else np.eye(3)[row % 3] + row
        return f"item {row}" if column == "name" else f"title {row}"


def test_what_embed_writes_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoders = {"text": registry.create("text", "bag", vocab_size=40, width=5, longest=3)}
    encoders["image"] = Precomputed(3, scale="none")
    embedder = Embedder(encoders, 4)
    embedder.fit_processors({"text": [f"title {row % 3}" for row in range(6)]})
    samples = Samples.of(Shop(), {"text": "title", "image": "vector"}, key="name")
    embed_samples(embedder.eval(), samples, np.arange(6), tmp_path / "out", part_rows=4)
    with pytest.raises(UsageError, match=r"name the vectors by `column`.*image, text"):
        VectorFile(tmp_path / "out", None)
    images, texts = (VectorFile(tmp_path / "out", modality) for modality in ("image", "text"))
    assert images.width == texts.width == 4
    for row in range(6):
        (text,) = embedder.encode(text=[f"title {row}"])
        np.testing.assert_allclose(texts.find(f"item {row}"), text, atol=1e-6)  # pyright: ignore
    assert images.find("item 4") is None
    (image,) = embedder.encode(image=[Shop().value(5, "vector")])
    np.testing.assert_allclose(images.find("item 5"), image, atol=1e-6)  # pyright: ignore


def test_what_predict_writes_is_read(tmp_path: Path) -> None:
    """As ``CommandLine.after_predict``: ``MODALITY.rows`` says which of the keys a vector is of."""
    tensors = {"groups": torch.arange(3), "text.vectors": torch.ones(3, 2), "text.rows": torch.arange(3)}
    tensors |= {"image.vectors": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "image.rows": torch.tensor([2, 0])}
    save_file(tensors, tmp_path / "p.safetensors", {"keys": '["a", "b", "c"]'})
    file = VectorFile(tmp_path / "p.safetensors", "image")
    found = {key: vector.tolist() for key in "abc" if (vector := file.find(key)) is not None}
    assert found == {"a": [3.0, 4.0], "c": [1.0, 2.0]}


def test_a_changed_parquet_file_is_read_again(tmp_path: Path) -> None:
    path = as_parquet(tmp_path)
    assert VectorFile(path, None).width == 3
    pq.write_table(pa.table({"key": ["new"], "v": [[1.0, 2.0]]}), path)
    file = VectorFile(path, "v")
    assert (file.width, file.find("fox")) == (2, None)


@pytest.mark.parametrize(
    ("name", "content", "column", "kind", "said"),
    [
        ("none.npy", None, None, UsageError, "none.npy does not exist; put it there"),
        ("v.npz", b"x", None, UsageError, "v.npz ends in none of .npy, .safetensors, .parquet"),
        ("v.npy", b"\x93NUMPY", None, MultimodalError, "v.npy cannot be read"),
        ("v.npy", np.array([{}], dtype=object), None, MultimodalError, "cannot be read .*Python objects"),
        ("v.npy", np.zeros(4), None, MultimodalError, r"an array of shape \(4,\), not \(vectors, width\)"),
        ("v.npy", np.array([["a"]]), None, MultimodalError, "cannot be read .it holds <U1, not numbers"),
        ("v.npy", VECTORS, "v", UsageError, "holds one array, so there is no column 'v'"),
        ("v.safetensors", b"{}", None, MultimodalError, "v.safetensors cannot be read"),
        ("v.safetensors", {"a": VECTORS, "b": VECTORS + 1}, None, UsageError, "name the vectors by `column`.*Known: a, b"),
        ("v.safetensors", {"image": VECTORS}, "imag", UsageError, "no vectors 'imag'. Did you mean 'image'"),
        ("v.parquet", b"PAR1", None, MultimodalError, "v.parquet cannot be read"),
        ("v.parquet", {"v": [[1.0]]}, None, UsageError, "has no column 'key'; it has v"),
        ("v.parquet", {"key": ["a"], "v": [1.0]}, None, UsageError, "name the vectors by `column`.*Known: none"),
        ("v.parquet", {"key": ["a", "b"], "v": [[1.0], [1.0, 2.0]]}, None, MultimodalError, "different widths, 1 and 2"),
        ("v.parquet", {"key": ["a"], "v": pa.nulls(1, pa.list_(pa.float32()))}, "v", MultimodalError, "no vector"),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(
    name: str, content: Any, column: str | None, kind: type[Exception], said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, dict) and name.endswith("safetensors"):
        save_file({key: torch.from_numpy(array) for key, array in content.items()}, path)
    elif content is not None:
        pq.write_table(pa.table(content), path)
    with pytest.raises(kind, match=said):
        VectorFile(path, column)


@pytest.mark.parametrize(
    ("keys", "said"), [('["a"]', "5 vectors but 1 keys"), ('{"a": 1}', "not a JSON list"), ("[", "Expec")]
)
def test_keys_that_do_not_fit_are_refused(keys: str, said: str, tmp_path: Path) -> None:
    path = as_npy(tmp_path)
    path.with_suffix(".json").write_text(keys)
    with pytest.raises(MultimodalError, match=said):
        VectorFile(path, None)


# -- values


def npy_bytes(array: Any) -> bytes:
    np.save(stream := io.BytesIO(), array)
    return stream.getvalue()


def test_a_vector_is_the_same_in_whatever_form_it_comes(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS[0])
    numbers = VECTORS[0].tolist()
    processor = Precomputed(3, scale="none").processor
    assert processor.reads_files
    for value in (
        numbers, tuple(numbers), VECTORS[0], VECTORS[0].astype(np.float64), torch.from_numpy(VECTORS[0]),
        tmp_path / "v.npy", str(tmp_path / "v.npy"), npy_bytes(VECTORS[0]),
    ):  # fmt: skip
        item = processor(value)
        assert item.dtype == np.float32
        assert np.array_equal(item, VECTORS[0])
    assert np.array_equal(processor([1, True, -2]), [1, 1, -2])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3.0, "wrong width"),
        ([1.0, 2.0], "wrong width"),
        ([[1.0, 2.0, 3.0]], "wrong width"),
        ([], "wrong width"),
        ([1.0, "a", 2.0], "not a vector"),
        (["1", "2", "3"], "not a vector"),
        ([1.0, None, 2.0], "not a vector"),
        ([[1.0], [1.0, 2.0]], "not a vector"),
        ({}, "not a vector"),
        (None, "not a vector"),
        ([True, False, True], "not a vector"),
        ([1j, 0, 0], "not a vector"),
        ([1.0, float("nan"), 2.0], "not finite"),
        ([1e300, 0.0, 0.0], "not finite"),
        ([0.0, 0.0, 0.0], "zero vector"),
        ("no/such.npy", "missing file"),
        (b"no array", "not a vector"),
        (npy_bytes(["a", "b", "c"]), "not a vector"),
        (npy_bytes([1.0]), "wrong width"),
    ],
)
def test_what_is_not_a_vector_is_refused_with_its_reason(value: Any, reason: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        Precomputed(3).processor(value)
    assert refusal.value.reason == reason


def test_a_list_of_a_csv_file_is_distinguished_from_a_path() -> None:
    with pytest.raises(Unreadable, match="write the table as JSON Lines"):
        Precomputed(3).processor("[1.0, 2.0, 3.0]")


def test_keys_are_looked_up_and_unknown_ones_refused(tmp_path: Path) -> None:
    encoder = Precomputed(file=str(as_npy(tmp_path)), scale="none")
    processor = encoder.processor
    assert encoder.width == 3
    assert not processor.reads_files  # a cell that is a key names no file
    assert np.array_equal(processor("dog"), VECTORS[1])
    assert np.array_equal(processor(7), VECTORS[4])
    assert np.array_equal(processor([1, 2, 3]), [1, 2, 3])
    with pytest.raises(Unreadable, match=r"'cat' is not a key of a vector in .*v\.npy") as refusal:
        processor("cat")
    assert refusal.value.reason == "unknown key"
    assert np.array_equal(pickle.loads(pickle.dumps(processor))("dog"), VECTORS[1])


def test_rows_with_unknown_keys_are_rejected_alone(tmp_path: Path) -> None:
    samples = Samples.of(Shop(), {"image": "name"})
    (tmp_path / "v.json").write_text('["item 0", "item 1"]')
    np.save(tmp_path / "v.npy", VECTORS[:2])
    processor = Precomputed(file=str(tmp_path / "v.npy")).processor
    kinds = [type(samples.items(row, {"image": processor})[0]) for row in range(6)]
    assert [kind is Sample for kind in kinds] == [True, True, False, False, False, False]


# -- features


def test_scaled_vectors_are_those_of_the_formulas() -> None:
    rows = np.random.default_rng(1).normal(3, 2, size=(50, 4))
    rows[:, 2] = 5
    length, standard, plain = (Precomputed(4, scale=scale) for scale in ("length", "standard", "none"))
    for encoder in (length, standard, plain):
        encoder.fit([*rows, "nothing", [1.0]])
    made = {
        scale: encoder(**encoder.processor.collate([encoder.processor(row) for row in rows])).numpy()
        for scale, encoder in (("length", length), ("standard", standard), ("none", plain))
    }
    np.testing.assert_allclose(made["none"], rows, rtol=1e-6)
    np.testing.assert_allclose(made["length"], rows / np.linalg.norm(rows, axis=1, keepdims=True) * 2, rtol=1e-5)
    deviation = np.where(rows.std(axis=0) > 0, rows.std(axis=0), 1)
    np.testing.assert_allclose(made["standard"], (rows - rows.mean(axis=0)) / deviation, atol=1e-5)
    assert not length.processor.state()
    with pytest.raises(UsageError, match="mean has not been learned"):
        Precomputed(4, scale="standard").processor(rows[0])
    with pytest.raises(UsageError, match="no vector to learn"):
        Precomputed(4, scale="standard").fit(["x"])


def test_a_space_without_a_head_keeps_the_directions() -> None:
    vectors = VECTORS.astype(np.float64)
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for scale in ("length", "none"):
        embedder = Embedder({"vector": Precomputed(3, scale=scale)}, 3, {"vector": "none"})
        np.testing.assert_allclose(embedder.encode(vector=list(VECTORS)), expected, atol=1e-6)


@pytest.mark.parametrize("scale", ["length", "standard"])
@every_format
def test_a_saved_model_needs_the_file_for_keys_alone(write: Any, scale: Any, tmp_path: Path) -> None:
    path = write(tmp_path)
    embedder = Embedder({"audio": Precomputed(file=str(path), scale=scale)}, 3, {"audio": "none"})
    embedder.fit_processors({"audio": KEYS})
    before = embedder.encode(audio=KEYS)
    embedder.save_pretrained(tmp_path / "model")
    path.rename(tmp_path / "moved")
    again = Embedder.from_pretrained(tmp_path / "model")
    assert again.fingerprint == embedder.fingerprint
    assert np.array_equal(again.encode(audio=list(VECTORS)), before)
    with pytest.raises(MultimodalError, match=rf"{path} does not exist; put it there"):
        again.encode(audio=["fox"])
    (tmp_path / "moved").rename(path)
    assert np.array_equal(again.encode(audio=KEYS), before)


def test_it_is_registered_for_every_kind_of_thing() -> None:
    for modality in ("image", "text", "graph", "audio", "tabular", "vector"):
        encoder = registry.create(modality, "precomputed", width=2)
        assert registry.saved_names(modality, type(encoder))[0] == "precomputed"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "set width, the number of components, or file"),
        ({"width": 2, "column": "v"}, "set width"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"width": 2, "scale": "unit"}, "scale 'unit' is not one of length, standard, none"),
        ({"file": "no/such.npy"}, "no/such.npy does not exist"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Precomputed(**wrong)


def test_a_file_of_another_width_is_refused_at_its_first_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="have 3 numbers, not width 4"):
        Precomputed(width=4, file=str(as_npy(tmp_path))).processor("fox")


def test_the_linear_baseline_has_the_same_vectors() -> None:
    processor: Any = Precomputed(3).processor
    made = processor.linear_features().fit_transform(list(VECTORS))
    np.testing.assert_allclose(made, np.stack([processor(vector) for vector in VECTORS]))


@pytest.mark.parametrize(
    "vector", [VECTORS[0], VECTORS[0].tolist(), tuple(VECTORS[0].tolist()), torch.from_numpy(VECTORS[0])]
)
def test_the_numbers_of_one_vector_are_one_value(vector: Any, tmp_path: Path) -> None:
    for encoder in (Precomputed(width=3), Precomputed(file=str(as_npy(tmp_path)))):
        embedder = Embedder({"vector": encoder}, dim=3, heads={"vector": "none"})
        np.testing.assert_allclose(embedder.encode(vector=vector), embedder.encode(vector=[VECTORS[0]])[0], atol=1e-6)
        assert embedder.encode(vector=VECTORS).shape == embedder.encode(vector=list(VECTORS)).shape == (5, 3)


def test_whole_numbers_are_keys_where_there_is_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)  # with the keys 0, 1, ...
    embedder = Embedder({"vector": Precomputed(file=str(tmp_path / "v.npy"))}, dim=3, heads={"vector": "none"})
    for keys in ([0, 2, 4], np.array([0, 2, 4]).tolist(), ("0", "2", "4")):
        assert embedder.encode(vector=keys).shape == (3, 3)
    without = Embedder({"vector": Precomputed(width=3)}, dim=3, heads={"vector": "none"})
    assert without.encode(vector=[1, 2, 3]).shape == without.encode(vector=np.array([1, 2, 3])).shape == (3,)
