"""Near values equal those of a comparison of all pairs."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from multimodal.prepare.near_pairs import near_pairs
from multimodal.prepare.near_pictures import Look, NearPictures
from multimodal.prepare.near_texts import NearTexts, fold, rows_per_band, shingles


def jaccard(a: str, b: str) -> float:
    """Return the Jaccard similarity of the sets of 5-character runs, as strings."""
    one, other = ({t[i : i + 5] for i in range(max(1, len(t) - 4))} for t in (fold(a), fold(b)))
    return len(one & other) / len(one | other)


def may_be_near(a: str, b: str) -> bool:
    """Return whether both are long or they have the same words."""
    one, other = (Counter(re.findall(r"\w+", fold(t))) for t in (a, b))
    return one == other or min(len(fold(a)), len(fold(b))) >= 50


def texts_with_edits(seed: int, count: int) -> list[str]:
    """Return random captions, every third one an edit of an earlier one."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 8))) for _ in range(60)]
    texts: list[str] = []
    for number in range(count):
        text = " ".join(rng.choices(words, k=rng.randint(3, 25)))
        if number % 3 == 2:
            text = rng.choice(texts)
            for _ in range(rng.randint(1, 3)):
                place = rng.randrange(len(text))
                text = text[:place] + rng.choice("abc") + text[place + rng.randint(0, 1) :]
        texts.append(text)
    return texts


@given(st.text(max_size=40), st.text(max_size=40))
@example("", "\x00")
@settings(max_examples=60)
def test_the_similarity_of_short_texts_is_the_jaccard_similarity_of_their_shingles(a: str, b: str) -> None:
    near = NearTexts(0.8)
    near.add(a)
    near.add(b)
    assert near.similarity(0, 1) == pytest.approx(jaccard(a, b), abs=1e-9)


def test_the_similarity_of_long_texts_is_estimated_within_a_tenth() -> None:
    rng = random.Random(1)
    near, base = NearTexts(0.8), [rng.choice("abcdefgh ") for _ in range(3000)]
    near.add("".join(base))
    for number, changed in enumerate((10, 50, 150), start=1):
        other = list(base)
        for place in rng.sample(range(3000), changed):
            other[place] = "z"
        near.add("".join(other))
        assert near.similarity(0, number) == pytest.approx(jaccard("".join(base), "".join(other)), abs=0.1)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_near_texts_equal_those_of_a_comparison_of_all_pairs(threshold: float) -> None:
    texts = texts_with_edits(0, 240)
    near = NearTexts(threshold)
    for text in texts:
        near.add(text)
    pairs = combinations(range(len(texts)), 2)
    similar = [(a, b) for a, b in pairs if jaccard(texts[a], texts[b]) >= threshold]
    expected = [(a, b) for a, b in similar if may_be_near(texts[a], texts[b])]
    found = [(a, b) for a, b in near.pairs().tolist()]
    assert set(found) <= set(expected)
    assert len(found) >= 0.99 * len(expected)
    assert len(expected) > 3


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("A photograph of the Old Bridge.", "a photograph of the old bridge", True),
        ("ﬁne wine from the south", "fine wine from the south!", True),
        ("picture of the product number 12, front", "picture of the product number 13, front", False),
        ("red", "rod", False),
        ("woman superhero", "man superhero", False),
        ("woman superhero", "Woman superhero!", True),
        (
            "a woman superhero flies over the roofs of the city at night",
            "a man superhero flies over the roofs of the city at night",
            True,
        ),
        ("#", "*", False),
        ("...", "...", True),
    ],
)
def test_examples_of_near_texts(a: str, b: str, same: bool) -> None:
    near = NearTexts(0.8)
    near.add(a)
    near.add(b)
    assert bool(len(near.pairs())) == same


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_a_pair_at_the_threshold_is_missed_once_in_a_thousand_times(threshold: float) -> None:
    rows = rows_per_band(threshold)
    assert rows == 1 or (1 - threshold**rows) ** (128 // rows) <= 0.001
    assert rows == 31 or (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) > 0.001 or threshold > 0.9


def test_a_long_text_has_all_its_shingles() -> None:
    text = "".join(random.Random(0).choices("abcdefghijklmnop", k=50_000))
    assert len(shingles(text)) == pytest.approx(len({text[i : i + 5] for i in range(len(text) - 4)}), rel=1e-3)


def test_numbers_are_distinguished_in_every_script() -> None:
    assert re.findall(r"\d+", fold("٣ and ３")) == ["٣", "3"]


# -- pictures


@given(st.integers(0, 2**32), st.integers(0, 8))
@settings(max_examples=25, deadline=None)
def test_near_hashes_equal_those_of_a_comparison_of_all_pairs(seed: int, bits: int) -> None:
    rng = random.Random(seed)
    hashes = [rng.getrandbits(64) for _ in range(20)]
    for _ in range(40):
        flipped = rng.choice(hashes)
        for place in rng.sample(range(64), rng.randint(0, 10)):
            flipped ^= 1 << place
        hashes.append(flipped)
    near, grey = NearPictures(bits), np.full((16, 16, 3), 128, dtype=np.uint8)
    for number in hashes:
        near.add(Look(number, grey))
    expected = [[a, b] for a, b in combinations(range(60), 2) if (hashes[a] ^ hashes[b]).bit_count() <= bits]
    assert near.pairs().tolist() == expected


def test_pictures_of_other_colours_are_not_near() -> None:
    near = NearPictures(4)
    for colour in ((255, 0, 0), (0, 0, 255), (250, 4, 3)):
        near.add(Look(0, np.full((16, 16, 3), colour, dtype=np.uint8)))
    assert near.pairs().tolist() == [[0, 2]]


@pytest.mark.parametrize("index", [NearTexts(0.8), NearPictures(4), NearPictures(0)])
def test_empty_input_has_no_near_pairs(index: NearTexts | NearPictures) -> None:
    assert index.pairs().shape == (0, 2)


def test_among_many_equal_keys_comparisons_are_bounded() -> None:
    compared = 0

    def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += len(a)
        return np.ones(len(a), dtype=bool)

    pairs = near_pairs([np.zeros(5000, dtype=np.uint64)] * 3, verify, window=10)
    assert compared == len(pairs) == 10 * 5000 - 55
