"""Bags of words and letter groups against scikit-learn's TF-IDF."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.text.bag_of_words import BagOfWords, BagProcessor
from multimodal_encoders.text.transformer import SubwordProcessor
from sklearn.feature_extraction.text import TfidfVectorizer

from multimodal.core import registry
from multimodal.core.errors import Unreadable, UsageError

TEXTS = [
    "It is a 2-hydroxy fatty acid, and a fatty acid.",
    "The molecule is an amino acid; it has an acid group.",
    "THE ACID (2S)-2-aminopropanoic acid derives from alanine",
    "straße, naïve Ωmega and acid",
]


def fitted(
    texts: list[str] = TEXTS, vocab_size: int = 5000, longest: int = 4, word_drop: float = 0.0, word_pairs: bool = False
) -> BagProcessor:
    processor = BagProcessor(vocab_size, 2, longest, word_drop, word_pairs)
    processor.fit(texts)
    return processor


def matrix(processor: BagProcessor, texts: list[str]) -> np.ndarray:
    """The weights of the texts as rows over the vocabulary."""
    inputs = processor.collate([processor(text) for text in texts])
    rows = torch.repeat_interleave(torch.arange(len(texts)), inputs["sizes"])
    found = torch.zeros(len(texts), len(processor.state()["terms"]))
    found[rows, inputs["terms"]] = inputs["weights"]
    return found.numpy()


@pytest.mark.parametrize("longest", [0, 4])
def test_weights_are_those_of_scikit_learn(longest: int) -> None:
    processor = fitted(longest=longest)
    terms = processor.state()["terms"]
    theirs = TfidfVectorizer(sublinear_tf=True, vocabulary=terms, analyzer=analyzer(longest))
    np.testing.assert_allclose(matrix(processor, TEXTS), theirs.fit_transform(TEXTS).toarray(), atol=1e-6)


NAMES = ["black heart suit", "white heart suit", "Heart suit, black heart", "suit", "heart Black", "a black heart"]


def test_weights_of_pairs_are_those_of_scikit_learn() -> None:
    processor = fitted(NAMES, word_pairs=True)
    both = TfidfVectorizer(sublinear_tf=True, min_df=2, analyzer=analyzer(4, word_pairs=True)).fit(NAMES)
    terms = processor.state()["terms"]
    assert set(terms) == set(both.vocabulary_) > {"  black heart", "  heart suit"}
    theirs: Any = both.transform(NAMES)
    columns = [both.vocabulary_[term] for term in terms]
    np.testing.assert_allclose(matrix(processor, NAMES), theirs.toarray()[:, columns], atol=1e-6)


def test_pairs_distinguish_the_order_of_words() -> None:
    names = ["upwards arrow leftwards of bar", "bar leftwards of arrow upwards"]
    one, other = matrix(fitted(names * 2), names)
    np.testing.assert_array_equal(one, other)
    one, other = matrix(fitted(names * 2, word_pairs=True), names)
    assert np.abs(one - other).max() > 0.05


@pytest.mark.parametrize("word_drop", [0.5, 0.9])
def test_a_word_is_left_out_with_its_pairs(word_drop: float) -> None:
    processor = fitted(NAMES, longest=0, word_drop=word_drop, word_pairs=True)
    terms = processor.state()["terms"]
    for seed in range(50):
        kept = processor.augment(processor("black heart suit"), np.random.default_rng(seed))
        found = [terms[number] for numbers in kept for number in numbers]
        words = [term[2:] for term in found if " " not in term[2:]]
        assert words  # in the order of the text
        pairs = {("black", "heart"), ("heart", "suit")} & {*pairwise(words)}
        assert {tuple(term.split()) for term in found if " " in term[2:]} == pairs


def analyzer(longest: int, word_pairs: bool = False) -> Any:
    words = TfidfVectorizer().build_analyzer()
    pairs = TfidfVectorizer(ngram_range=(2, 2), token_pattern=r"\S+").build_analyzer() if word_pairs else lambda _: []
    groups = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, longest)).build_analyzer() if longest else lambda _: []
    return lambda text: [*(f"  {term}" for term in [*words(text), *pairs(text)]), *groups(text)]


@pytest.mark.parametrize("longest", [0, 4])
def test_the_vocabulary_is_that_of_the_terms_in_most_texts(longest: int) -> None:
    theirs = TfidfVectorizer(min_df=2, analyzer=analyzer(longest)).fit(TEXTS)
    terms = fitted(longest=longest).state()["terms"]
    assert set(terms) == set(theirs.vocabulary_)
    assert fitted(longest=longest, vocab_size=3).state()["terms"] == terms[:3]
    counts = fitted(longest=longest).state()["texts_with"]
    assert counts == sorted(counts, reverse=True)


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1).filter(str.strip))
def test_any_text_is_a_bag_of_length_one_or_empty(text: str) -> None:
    processor = fitted()
    inputs = processor.collate([processor(text), processor(TEXTS[0])])
    assert inputs["sizes"].sum() == len(inputs["terms"]) == len(inputs["weights"])
    length = float(inputs["weights"][: int(inputs["sizes"][0])].norm())
    assert length == pytest.approx(1 if inputs["sizes"][0] else 0, abs=1e-5)


def test_training_drops_words_but_never_all() -> None:
    processor = fitted(word_drop=0.5)
    item = processor(TEXTS[0])
    kept = [len(processor.augment(item, np.random.default_rng(seed))) for seed in range(200)]
    assert 0.4 < np.mean(kept) / len(item) < 0.6
    assert min(len(fitted(word_drop=1.0).augment(item, np.random.default_rng(seed))) for seed in range(5)) == 1
    assert len(fitted().augment(item, np.random.default_rng(0))) == len(item)


@pytest.mark.parametrize("word_pairs", [False, True])
def test_state_and_pickle_restore_the_vocabulary(word_pairs: bool) -> None:
    processor = fitted(word_pairs=word_pairs)
    restored = BagProcessor(5000, 2, 4, 0.0, word_pairs)
    assert restored.state() == {}
    restored.load_state(processor.state())
    for other in (restored, pickle.loads(pickle.dumps(processor))):
        assert other.state() == processor.state()
        np.testing.assert_array_equal(matrix(other, TEXTS), matrix(processor, TEXTS))


def test_features_are_the_normalised_sum_of_the_embeddings() -> None:
    encoder = BagOfWords(width=8, longest=4, vocab_size=5000).eval()
    encoder.processor.fit(TEXTS)
    assert isinstance(encoder.processor, BagProcessor)
    weights = torch.from_numpy(matrix(encoder.processor, TEXTS))
    with torch.no_grad():
        ours = encoder(**encoder.processor.collate([encoder.processor(text) for text in TEXTS]))
        summed = 4 * weights @ encoder.table.weight[: weights.shape[1]]
    torch.testing.assert_close(ours, torch.nn.functional.layer_norm(summed, [8]), atol=1e-5, rtol=1e-4)


def test_a_text_of_unknown_words_has_finite_features() -> None:
    encoder = BagOfWords(width=8).eval()
    encoder.processor.fit(TEXTS)
    assert encoder(**encoder.processor.collate([encoder.processor("ŧ")])).isfinite().all()


@pytest.mark.parametrize(
    ("value", "reason"), [(3, "wrong type"), (None, "wrong type"), ("", "empty text"), (" \n", "empty text")]
)
def test_what_is_not_a_text_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        fitted()(value)
    assert refusal.value.reason == reason


def test_an_unfitted_vocabulary_and_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="has not been fitted"):
        BagProcessor(10, 2, 4, 0.0)("text")
    with pytest.raises(UsageError, match="vocab_size 0"):
        registry.create("text", "bag", vocab_size=0)
    with pytest.raises(UsageError, match="shortest 0"):
        registry.create("text", "bag", shortest=0)


def test_linear_features_are_those_of_the_other_text_encoder() -> None:
    found = fitted().linear_features().fit_transform(TEXTS)
    expected = SubwordProcessor(120, 12, 0.0).linear_features().fit_transform(TEXTS)
    assert (found != expected).nnz == 0


def test_what_is_not_a_text_is_not_learned_from() -> None:
    mixed: list[Any] = [TEXTS[0], 3, None, *TEXTS[1:]]
    assert fitted(mixed).state() == fitted().state()
