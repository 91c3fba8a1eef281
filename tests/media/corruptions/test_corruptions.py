"""Corruptions do to a value what their names say, and keep its type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.media.corruptions.graph import GRAPH_CORRUPTIONS, add_noise, drop_edges, drop_nodes, mask_nodes
from multimodal.media.corruptions.picture import picture_corruptions
from multimodal.media.corruptions.sound import sound_corruptions
from multimodal.media.corruptions.text import TEXT_CORRUPTIONS, drop_words, misspell, shuffle_words
from multimodal.media.parts.words import word_spans

TEXT = " ".join(f"word{n}" for n in range(400))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# -- texts


def test_about_a_quarter_of_the_words_is_dropped() -> None:
    left = drop_words(TEXT, rng()).split()
    assert 250 < len(left) < 350
    assert [word for word in TEXT.split() if word in set(left)] == left  # in their order
    assert drop_words("cup", rng(), share=1.0) == "cup"


def test_a_misspelled_word_has_one_letter_more_or_less_or_two_swapped() -> None:
    pairs = list(zip(TEXT.split(), misspell(TEXT, rng(), share=1.0).split(), strict=True))
    kinds = {len(new) - len(old) for old, new in pairs}
    assert kinds == {-1, 0, 1}
    for old, new in pairs:
        if len(old) == len(new):
            assert sorted(old) == sorted(new)
            assert sum(a != b for a, b in zip(old, new, strict=True)) in (0, 2)
    changed = sum(a != b for a, b in zip(TEXT.split(), misspell(TEXT, rng()).split(), strict=True))
    assert 60 < changed < 180


@settings(max_examples=30)
@given(st.text(max_size=30), st.integers(0, 9))
def test_any_text_with_a_word_keeps_one(text: str, seed: int) -> None:
    for name, corrupt in TEXT_CORRUPTIONS.items():
        corrupted = corrupt(text, np.random.default_rng(seed))
        assert isinstance(corrupted, str)
        assert bool(word_spans(corrupted)) == bool(word_spans(text)), name


def test_words_are_shuffled_and_strength_zero_changes_nothing() -> None:
    assert sorted(shuffle_words(TEXT, rng()).split()) == sorted(TEXT.split())
    assert drop_words(TEXT, rng(), share=0.0) == misspell(TEXT, rng(), share=0.0) == TEXT


# -- pictures


def test_pictures_are_corrupted_as_named() -> None:
    picture = Image.fromarray(np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((10, 5))).astype(np.uint8) * 200 + 20)
    plain = np.asarray(picture.convert("RGB"), dtype=float)
    found = {name: corrupt(picture, rng()) for name, corrupt in picture_corruptions().items()}
    assert {name: made.size for name, made in found.items()} == dict.fromkeys(found, (40, 80)) | {"crop": (32, 64)}
    assert {made.mode for made in found.values()} == {"RGB"}
    pixels = {name: np.asarray(made, dtype=float) for name, made in found.items()}
    assert 20 < (pixels["noise"] - plain).std() < 35
    assert pixels["low contrast"].std() == pytest.approx(0.4 * plain.std(), rel=0.05)
    edges = [np.abs(np.diff(p, axis=0)).max() for p in (plain, pixels["blur"])]
    assert edges[1] < 0.6 * edges[0]
    covered = (pixels["covered"] == 127).all(axis=2)
    assert covered.sum() == 12 * 24
    assert (pixels["covered"] == plain)[~covered].all()
    assert 0 < np.abs(pixels["JPEG"] - plain).mean() < 40


# -- sounds


def test_sounds_are_corrupted_as_named() -> None:
    wave = np.sin(np.arange(8000) / 5)
    found = {name: corrupt((wave, 8000), rng()) for name, corrupt in sound_corruptions(16_000, 9.0).items()}
    assert {rate for _, rate in found.values()} == {8000.0}
    samples = {name: made for name, (made, _) in found.items()}
    noise = samples["noise"] - wave
    assert 10 * np.log10((wave**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.3)
    assert samples["low volume"] == pytest.approx(wave / 10)
    assert np.abs(samples["clipped"]).max() == pytest.approx(0.3, rel=1e-3)
    assert (samples["a silent gap"] == 0).sum() == pytest.approx(1600, abs=2)
    click = np.zeros(100)
    click[40] = 1.0
    assert all(np.ptp(corrupt(click, np.random.default_rng(seed))[0]) > 0
               for corrupt in sound_corruptions(8000, 9.0).values() for seed in range(20))  # fmt: skip


# -- graphs


@pytest.fixture
def graph() -> dict[str, np.ndarray]:
    ends = np.array([(a, b) for a in range(30) for b in (a + 1, a + 2) if b < 30]).T
    both = np.concatenate([ends, ends[::-1]], axis=1)
    x = rng().normal(size=(30, 3)).astype(np.float32)
    return {"x": x, "edge_index": both, "edge_attr": both.sum(axis=0)[:, None].astype(np.float32)}


def test_edges_are_dropped_in_both_directions(graph: dict[str, np.ndarray]) -> None:
    found = drop_edges(graph, rng())
    pairs = {tuple(pair) for pair in found["edge_index"].T.tolist()}
    assert {(b, a) for a, b in pairs} == pairs
    assert 30 < len(pairs) < graph["edge_index"].shape[1]
    assert (found["edge_attr"][:, 0] == found["edge_index"].sum(axis=0)).all()
    assert found["x"] is graph["x"]


def test_nodes_are_dropped_with_their_edges(graph: dict[str, np.ndarray]) -> None:
    found = drop_nodes(graph, rng())
    (left,) = (np.array([(graph["x"] == row).all(axis=1).argmax() for row in found["x"]]),)
    assert 15 < len(left) < 30
    old = left[found["edge_index"]]
    assert (found["edge_attr"][:, 0] == old.sum(axis=0)).all()
    expected = np.isin(graph["edge_index"], left).all(axis=0)
    assert (old == graph["edge_index"][:, expected]).all()


def test_features_of_nodes_are_masked_or_noisy(graph: dict[str, np.ndarray]) -> None:
    masked = mask_nodes(graph, rng())["x"]
    is_masked = ~masked.any(axis=1)
    assert 1 < is_masked.sum() < 15
    assert (masked[~is_masked] == graph["x"][~is_masked]).all()
    noisy = add_noise(graph, rng())["x"]
    assert noisy.dtype == np.float32
    assert ((noisy - graph["x"]).std(axis=0) / graph["x"].std(axis=0)) == pytest.approx(np.full(3, 0.1), abs=0.05)


def test_a_single_node_is_kept() -> None:
    alone = {"x": np.ones((1, 2), np.float32), "edge_index": np.zeros((2, 0), np.int64)}
    for corrupt in GRAPH_CORRUPTIONS.values():
        for seed in range(20):
            found = corrupt(dict(alone), np.random.default_rng(seed))
            assert found["x"].any()
            assert found["edge_index"].shape == (2, 0)
