"""The highest recall@1 that equal inputs allow is what the best of all models reaches, and no model exceeds."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from square_pictures import file_of

from multimodal import create
from multimodal.core.embedder import Embedder
from multimodal.data.samplers import Draw
from multimodal.data.samples import Samples
from multimodal.evaluation.look_alikes import DigestedSamples, highest_recall_at_1
from multimodal.evaluation.retrieval import ranks
from multimodal.evaluation.run_evaluation import evaluate

inputs_and_groups = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=5)


@given(queries=inputs_and_groups, candidates=inputs_and_groups)
@settings(max_examples=60, deadline=None)
def test_the_best_of_all_models_reaches_it(queries: list[tuple[int, int]], candidates: list[tuple[int, int]]) -> None:
    (query_inputs, query_groups), (found_inputs, found_groups) = np.array(queries).T, np.array(candidates).T
    highest = highest_recall_at_1(query_inputs, found_inputs, query_groups, found_groups)
    groups = torch.from_numpy(query_groups), torch.from_numpy(found_groups)
    best = -1.0
    for first in product(range(3), repeat=3):  # a model: which input is the first answer to each of the query inputs
        one_hot = torch.eye(3)
        asked, pool = one_hot[list(first)][query_inputs], one_hot[found_inputs]
        found = ranks(asked, pool, *groups)
        if not len(found):
            assert np.isnan(highest)
            return
        best = max(best, (found == 1).double().mean().item())
    assert highest == pytest.approx(best)


@given(queries=inputs_and_groups, candidates=inputs_and_groups, seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_no_model_exceeds_it(queries: list[tuple[int, int]], candidates: list[tuple[int, int]], seed: int) -> None:
    (query_inputs, query_groups), (found_inputs, found_groups) = np.array(queries).T, np.array(candidates).T
    highest = highest_recall_at_1(query_inputs, found_inputs, query_groups, found_groups)
    vectors = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)), dim=-1)
    found = ranks(
        vectors[:3][query_inputs],
        vectors[3:][found_inputs],
        torch.from_numpy(query_groups),
        torch.from_numpy(found_groups),
    )
    if len(found):
        assert (found == 1).double().mean().item() <= highest + 1e-9


def test_items_are_equal_if_the_encoder_gets_equal_inputs() -> None:
    bag = create("text", "bag")
    bag.fit(["a cup", "a jug"] * 3)  # words of one text are unknown
    image = create("image", "small_cnn", size=8, widths=[4])
    black, white = (Image.new("L", (8, 8), value) for value in (0, 255))
    pictures = file_of(black), file_of(white), file_of(black, "BMP")
    table = [{"t": name, "i": picture} for name, picture in zip(("a cup", "A CUP", "a jug"), pictures, strict=True)]
    samples = Samples.of(table, {"text": "t", "image": "i"})
    data = DigestedSamples(samples, {"text": bag.processor, "image": image.processor})
    for row in range(3):
        _ = data[Draw(row)]
    text, picture = data.digests["text"], data.digests["image"]
    assert text[0] == text[1] != text[2]
    assert picture[0] == picture[2] != picture[1]


def test_a_report_says_it_where_inputs_are_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoders = {"text": create("text", "bag"), "image": create("image", "small_cnn", size=8, widths=[4])}
    embedder = Embedder(encoders, dim=4)
    names = ["latin a", "greek alpha", "b"]
    embedder.fit_processors({"text": names * 3})  # words of one text are unknown
    drawings = [file_of(Image.new("L", (8, 8), grey)) for grey in (0, 0, 200)]
    table = [{"name": name, "drawing": drawing} for name, drawing in zip(names, drawings, strict=True)]
    report = evaluate(embedder, table, columns={"text": "name", "image": "drawing"})
    assert report.highest_recall_at_1 == pytest.approx({"text->image": 1 / 3, "image->text": 2 / 3})
    assert report.to_json()["highest_recall@1"] == report.highest_recall_at_1
    assert "max R@1" in str(report)
    assert "66.7" in str(report)
    assert "max R@1" in report._repr_html_()
    distinct = evaluate(embedder, table[1:], columns={"text": "name", "image": "drawing"})
    assert set(distinct.highest_recall_at_1.values()) == {1.0}
    assert "max" not in str(distinct)
