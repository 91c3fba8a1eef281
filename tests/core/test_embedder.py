"""From batches or raw values to unit vectors of the shared space."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core.batch import Batch, Sample
from multimodal.core.embedder import RESERVED_NAMES, Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import create
from multimodal.export.folder import export_model
from multimodal.search.index import Index
from multimodal.search.query import search_index

Make = Callable[..., Embedder]
Values = dict[str, list[Any]]


def batch_of(embedder: Embedder, values: Values, rows: list[int]) -> Batch:
    """A batch of the raw values at ``rows``; row r has all modalities except the r-th."""
    processors = embedder.processors
    samples = []
    for row in rows:
        has = [m for i, m in enumerate(embedder.modalities) if i != row]
        samples.append(Sample(str(row), {m: processors[m](values[m][row]) for m in has}, str(row)))
    return Batch.collate(samples, processors)


def test_a_vector_is_the_projected_features_divided_by_their_norm(make_embedder: Make, values: Values) -> None:
    embedder = make_embedder()
    batch = batch_of(embedder, values, [0, 1, 2, 3])
    embeddings = embedder.embed(batch)
    assert embeddings.modalities == ["image", "graph", "text"]
    assert (embeddings.rows, embeddings.keys) == (batch.rows, ("0", "1", "2", "3"))
    assert torch.equal(embeddings.groups, batch.groups)
    weights = {name: w.numpy().astype(np.float64) for name, w in embedder.state_dict().items()}
    for modality, inputs in batch.inputs.items():
        features = embedder.encoder(modality)(**inputs).detach().numpy().astype(np.float64)
        assert features.shape == (3, embedder.encoder(modality).width)
        projected = features @ weights[f"heads.{modality}.weight"].T + weights[f"heads.{modality}.bias"]
        expected = projected / np.sqrt((projected**2).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(embeddings.vectors[modality].detach().numpy(), expected, atol=1e-6)


def test_embeddings_keep_keys_groups_targets_and_negatives_of_the_batch(make_embedder: Make, values: Values) -> None:
    embedder = make_embedder("text")
    item = embedder.processors["text"](values["text"][0])
    sample = Sample("a", {"text": item}, "a", {"kind": 3}, (Sample("x", {"text": item}, "x"),))
    batch = Batch.collate([sample], embedder.processors)
    embeddings = embedder.embed(batch)
    assert (embeddings.keys, embeddings.groups.tolist()) == (("a", "x"), batch.groups.tolist())
    assert embeddings.targets is batch.targets
    assert embeddings.negative_of is not None
    assert embeddings.negative_of.tolist() == [-1, 0]


def test_vectors_are_float32_and_of_unit_length_also_under_autocast(make_embedder: Make, values: Values) -> None:
    embedder = make_embedder()
    batch = batch_of(embedder, values, [0, 1, 2, 3])
    exact = embedder.embed(batch).vectors
    with torch.autocast("cpu", torch.bfloat16):
        fast = embedder.embed(batch).vectors
    for modality, vectors in fast.items():
        assert vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)
        torch.testing.assert_close(vectors, exact[modality], atol=0.05, rtol=0)  # bfloat16 has 8 bits
        assert not torch.equal(vectors, exact[modality])


@pytest.mark.parametrize("modality", ["image", "graph", "text"])
def test_encoding_raw_values_equals_embedding_their_batch(make_embedder: Make, values: Values, modality: str) -> None:
    embedder = make_embedder(modality)
    processor = embedder.encoder(modality).processor
    samples = [Sample(str(i), {modality: processor(value)}, str(i)) for i, value in enumerate(values[modality])]
    expected = embedder.embed(Batch.collate(samples, embedder.processors)).vectors[modality].detach().numpy()
    vectors = embedder.encode(batch_size=256, precision="float32", **{modality: values[modality]})
    assert (vectors.shape, vectors.dtype) == ((5, 6), np.float32)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("modality", ["image", "graph", "text"])
def test_the_vectors_do_not_depend_on_the_batch_size(make_embedder: Make, values: Values, modality: str) -> None:
    embedder = make_embedder(modality)

    @given(chosen=st.lists(st.integers(0, 4), min_size=1, max_size=7), batch_size=st.integers(1, 8))
    @settings(max_examples=15, deadline=None)
    def check(chosen: list[int], batch_size: int) -> None:
        raw = [values[modality][i] for i in chosen]
        alone = np.concatenate(
            [embedder.encode(batch_size=256, precision="float32", **{modality: [value]}) for value in raw]
        )
        np.testing.assert_allclose(
            embedder.encode(batch_size=batch_size, precision="float32", **{modality: raw}), alone, atol=1e-5
        )

    check()


def test_the_values_embed_to_different_vectors(make_embedder: Make, values: Values) -> None:
    embedder = make_embedder()
    for modality, raw in values.items():
        vectors = embedder.encode(batch_size=256, precision="float32", **{modality: raw})
        assert (np.abs(vectors[:, None] - vectors[None]).max(axis=2) > 1e-4).sum() == 5 * 4


@pytest.mark.parametrize("training", [True, False])
def test_encoding_uses_no_dropout_and_restores_the_mode(make_embedder: Make, values: Values, training: bool) -> None:
    embedder = make_embedder("text")
    expected = embedder.encode(text=values["text"])
    embedder.train(training)
    np.testing.assert_array_equal(embedder.encode(text=values["text"]), expected)
    assert {module.training for module in embedder.modules()} == {training}
    embeddings = embedder.embed_all([batch_of(embedder, values, [1, 2])])
    np.testing.assert_allclose(embeddings.vectors["text"].numpy(), expected[1:3], atol=1e-6)
    assert {module.training for module in embedder.modules()} == {training}
    with pytest.raises(MultimodalError):
        embedder.encode(text=["fox", ""])
    assert {module.training for module in embedder.modules()} == {training}


def test_encoding_restores_the_mode_of_every_module(make_embedder: Make, values: Values) -> None:
    embedder = make_embedder("graph", "text").train()
    embedder.encoder("text").eval()
    before = {name: module.training for name, module in embedder.named_modules()}
    embedder.encode(text=values["text"])
    assert {name: module.training for name, module in embedder.named_modules()} == before
    embedder.embed_all([batch_of(embedder, values, [2, 3])])
    assert {name: module.training for name, module in embedder.named_modules()} == before


def test_threads_encode_at_once_without_dropout_and_the_last_restores_the_mode(
    make_embedder: Make, values: Values
) -> None:
    embedder = make_embedder("text")
    expected = embedder.encode(text=values["text"])
    embedder.train()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: embedder.encode(text=values["text"]), range(40)))
    for vectors in found:
        np.testing.assert_array_equal(vectors, expected)
    assert {module.training for module in embedder.modules()} == {True}


def test_encoding_has_no_gradients(make_embedder: Make, values: Values) -> None:
    embedder = make_embedder("text")
    embedder.encode(text=values["text"])
    assert all(p.grad is None for p in embedder.parameters())
    embedder.embed(batch_of(embedder, values, [1, 2])).vectors["text"][:, 0].sum().backward()  # and training continues
    assert embedder.heads["text"].weight.grad is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "takes the values of one modality by its name, like encode(graph=[...]); got none"),
        ({"text": ["fox"], "graph": []}, "one modality by its name, like encode(graph=[...]); got graph and text"),
        ({"text": ["fox"], "device": "cpu"}, "encode() takes no argument 'device'. The device is the model's"),
        ({"text": ["fox"], "batchsize": 2}, "encode() takes no argument 'batchsize'. Did you mean 'batch_size'?"),
        ({"text": ["fox"], "batch_size": "2"}, "encode() takes a batch_size of at least 1, got 2"),
        ({"txt": ["fox"]}, "no modality 'txt'. Did you mean 'text'? Known: graph, text."),
    ],
)
def test_a_wrong_call_is_rejected_with_a_hint(make_embedder: Make, arguments: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        make_embedder("graph", "text").encode(**arguments)
    assert message in str(error.value)


def test_values_without_the_name_of_their_modality_are_rejected_with_it(make_embedder: Make) -> None:
    with pytest.raises(
        UsageError, match=r"values of one modality by its name, like encode\(text=\[\.\.\.\]\); got values without"
    ):
        make_embedder("text").encode(["fox"])


@pytest.mark.parametrize(
    "sequence",
    [
        tuple, np.array, iter, pd.Series, pa.array, lambda v: pa.chunked_array([v[:2], v[2:]]), lambda v: (t for t in v),
        lambda v: np.array(v, dtype=object), lambda v: pd.Series(v).to_numpy(), lambda v: pd.Series(v).array, pd.Index,
        lambda v: dict(enumerate(v)).values(), lambda v: datasets.Dataset.from_dict({"t": v})["t"],
        lambda v: pd.DataFrame({"t": v}, index=range(5, 5 + len(v)))["t"], pd.Categorical, lambda v: map(str, v),
    ],
)  # fmt: skip
def test_values_may_be_of_any_sequence_type(make_embedder: Make, values: Values, sequence: Callable[..., Any]) -> None:
    embedder = make_embedder("text")
    expected = embedder.encode(text=values["text"])
    np.testing.assert_array_equal(embedder.encode(text=sequence(values["text"])), expected)


@pytest.mark.parametrize("value", [np.str_("fox"), np.array("fox"), pa.scalar("fox"), np.array(["fox"])[0]])
def test_a_cell_of_an_array_is_one_value(make_embedder: Make, value: Any) -> None:
    embedder = make_embedder("text")
    np.testing.assert_array_equal(embedder.encode(text=value), embedder.encode(text="fox"))


@pytest.mark.parametrize("table", [pd.DataFrame({"t": ["fox"]}), pa.table({"t": ["fox"]})])
def test_a_table_is_not_a_column(make_embedder: Make, table: Any) -> None:
    with pytest.raises(UsageError, match=rf"takes the values of one column.*but a {type(table).__name__} has several"):
        make_embedder("text").encode(text=table)


def test_modalities_are_a_list(make_embedder: Make, tmp_path: Path) -> None:
    make_embedder("text").save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match=r"modalities must be a list, not 'text'; for example, modalities=\['text'\]"):
        Embedder.from_pretrained(tmp_path / "model", modalities="text")
    with pytest.raises(UsageError, match=r"export_model: modalities must be a list, not 'text'"):
        export_model(tmp_path / "model", "onnx", modalities="text")
    for modalities in (["text"], ("text",)):
        assert Embedder.from_pretrained(tmp_path / "model", modalities=modalities).modalities == ["text"]


def test_one_value_has_one_vector(make_embedder: Make, values: Values) -> None:
    embedder = make_embedder("graph", "text")
    for modality in ("graph", "text"):
        one, several = (
            embedder.encode(batch_size=256, precision="float32", **{modality: values[modality][1]}),
            embedder.encode(batch_size=256, precision="float32", **{modality: values[modality]}),
        )
        assert one.shape == (6,)
        np.testing.assert_allclose(one, several[1], atol=1e-6)
    with pytest.raises(MultimodalError, match="set is not a text"):  # a set has no order, so it is one value
        embedder.encode(text={"fox"})


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_rejected(make_embedder: Make, batch_size: int) -> None:
    with pytest.raises(UsageError, match=f"takes a batch_size of at least 1, got {batch_size}"):
        make_embedder("text").encode(batch_size=batch_size, text=["fox"])


def test_an_unreadable_value_is_named_by_its_position(make_embedder: Make) -> None:
    with pytest.raises(MultimodalError, match=r"text value 3: int is not a text") as error:
        make_embedder("text").encode(batch_size=2, text=["fox", "dog", "fox", 4])
    assert error.value.__suppress_context__  # one traceback


def test_no_values_have_no_vectors(make_embedder: Make) -> None:
    vectors = make_embedder("text").encode(text=[])
    assert (vectors.shape, vectors.dtype) == ((0, 6), np.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.bfloat16, 0.05)])
def test_vectors_are_float32_for_models_of_any_precision(
    make_embedder: Make, dtype: torch.dtype, tolerance: float
) -> None:
    vectors = make_embedder("text").to(dtype).encode(text=["fox"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, make_embedder("text").encode(text=["fox"]), atol=tolerance)


def test_consecutive_batches_embed_as_one(make_embedder: Make, values: Values) -> None:
    embedder = make_embedder()
    parts = [[0, 1], [2], [3, 4]]
    done: list[int] = []
    embeddings = embedder.embed_all((batch_of(embedder, values, rows) for rows in parts), done.append)
    expected = embedder.embed(batch_of(embedder, values, [0, 1, 2, 3, 4]))
    assert done == [2, 1, 2]
    assert embeddings.keys == expected.keys == ("0", "1", "2", "3", "4")
    assert torch.equal(embeddings.groups, expected.groups)
    for modality in embedder.modalities:
        assert torch.equal(embeddings.rows[modality], expected.rows[modality])
        torch.testing.assert_close(embeddings.vectors[modality], expected.vectors[modality], atol=1e-5, rtol=0)
        assert not embeddings.vectors[modality].requires_grad


def test_encoders_and_processors_are_looked_up_by_modality(make_embedder: Make) -> None:
    embedder = make_embedder("graph", "text")
    assert embedder.modalities == list(embedder.processors) == ["graph", "text"]
    assert embedder.processors["text"] is embedder.encoder("text").processor
    with pytest.raises(UsageError, match=r"no modality 'texts'\. Did you mean 'text'\?"):
        embedder.encoder("texts")


def test_each_processor_is_fitted_on_its_modality_s_values(make_embedder: Make) -> None:
    embedder = make_embedder("graph", "text")
    before = embedder.processors["text"].state()
    embedder.fit_processors({"graph": []})
    assert embedder.processors["text"].state() == before
    embedder.fit_processors({"text": iter(["some new words"])})
    assert embedder.processors["text"].state() != before
    with pytest.raises(UsageError, match="no modality 'sound'"):
        embedder.fit_processors({"sound": []})


def test_an_embedder_needs_an_encoder() -> None:
    with pytest.raises(UsageError, match="an encoder for at least one modality"):
        Embedder({})


def test_a_modality_cannot_have_the_name_of_an_argument() -> None:
    reserved = {
        name
        for call in (Embedder.encode, Index.search, search_index)
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    assert reserved == set(RESERVED_NAMES)
    for name in RESERVED_NAMES:
        with pytest.raises(UsageError, match=f"A modality cannot be named '{name}'"):
            Embedder({"text": create("text", "bag"), name: create("text", "bag")})


def test_a_model_shows_a_line_for_each_modality(make_embedder: Make) -> None:
    embedder = make_embedder("graph", "text")
    assert repr(embedder).splitlines() == [
        "Embedder of graph, text to 6 dimensions",
        "  graph  GNN              297 parameters    8 -> 6",
        "  text   TextTransformer  1,432 parameters  8 -> 6",
    ]
    assert str(embedder) == repr(embedder)
    assert "<td>text</td><td>TextTransformer</td>" in embedder._repr_html_()


def test_a_modality_that_shares_an_encoder_shows_with_which() -> None:
    encoder = create("text", "bag")
    lines = repr(Embedder({"title": encoder, "body": encoder}, dim=4)).splitlines()
    assert lines[2].split() == ["body", "BagOfWords", "those", "of", "title", f"{encoder.width}", "->", "4"]
