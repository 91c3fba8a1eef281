"""Texts become sub-words, and sub-words features; what pads a text has no effect."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.text.transformer import SubwordProcessor, TextTransformer
from torch import Tensor

from multimodal.core.encoder import Processor
from multimodal.core.errors import Unreadable, UsageError

CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "pack my box with five dozen liquor jugs",
    "0 1 2 3 4 5 6 7 8 9 - , . ! arrow with tip rightwards",
] * 2
WORDS = sorted(set(chain.from_iterable(text.split() for text in CORPUS)))
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=20).map(" ".join)


def fitted(vocab_size: int = 120, max_length: int = 12, word_drop: float = 0.0) -> SubwordProcessor:
    processor = SubwordProcessor(vocab_size, max_length, word_drop)
    processor.fit(CORPUS)
    return processor


@pytest.fixture(scope="module")
def processor() -> SubwordProcessor:
    return fitted()


@pytest.fixture(scope="module")
def encoder() -> TextTransformer:
    torch.manual_seed(0)
    encoder = TextTransformer(120, width=16, layers=2, heads=2, max_length=12).eval()
    encoder.processor.fit(CORPUS)
    return encoder


def features(encoder: TextTransformer, *some: str) -> Tensor:
    with torch.no_grad():
        return encoder(**encoder.processor.collate([encoder.processor(text) for text in some]))


def vocabulary(processor: SubwordProcessor) -> dict[str, int]:
    return json.loads(processor.state()["tokenizer"])["model"]["vocab"]


# sub-words


def test_the_sub_words_of_a_word_spell_it(processor: SubwordProcessor) -> None:
    names = {number: name for name, number in vocabulary(processor).items()}

    @given(text=texts)
    @settings(max_examples=40, deadline=None)
    def check(text: str) -> None:
        spelled = ["".join(names[n] for n in word).removeprefix("▁") for word in processor(text)]
        assert spelled == text.split()

    check()


def test_frequent_words_become_one_sub_word_and_words_are_split_at_punctuation_and_digits(
    processor: SubwordProcessor,
) -> None:
    assert [len(word) for word in processor("the")] == [1]
    assert len(processor("fox-12")) == len(processor("fox - 1 2")) == 4
    assert processor("fox-12") == processor("fox - 1 2")


def test_what_was_never_seen_is_unknown_but_no_error(processor: SubwordProcessor) -> None:
    assert processor("☃")[0][-1] == 1
    assert processor("☃") == processor("☂")


@given(text=st.text(min_size=1).filter(str.strip))
@settings(max_examples=60, deadline=None)
def test_any_text_with_something_in_it_has_features(encoder: TextTransformer, text: str) -> None:
    words = encoder.processor(text)
    assert words
    assert all(words)
    assert features(encoder, text).isfinite().all()


def test_neither_case_nor_the_width_of_letters_matters(processor: SubwordProcessor) -> None:
    @given(text=texts)
    @settings(max_examples=20, deadline=None)
    def check(text: str) -> None:
        assert processor(text.upper()) == processor(text.title()) == processor(text)

    check()
    assert processor("ＦＯＸ") == processor("fox")


def test_the_case_of_a_greek_word_does_not_matter() -> None:
    processor = SubwordProcessor(50, 12, 0.0)
    processor.fit(["οδος", "ΟΔΟΣ"])
    assert processor("ΟΔΟΣ") == processor("οδος")


@given(corpus=st.lists(texts, min_size=1, max_size=4), room=st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_the_vocabulary_never_exceeds_its_size(corpus: list[str], room: int) -> None:
    letters = set("".join(corpus)) - {" "}
    size = len(letters) + 3 + room  # padding, unknown and the mark of a word's beginning
    processor = SubwordProcessor(size, 12, 0.0)
    processor.fit(corpus)
    assert max(vocabulary(processor).values()) < size
    encoder = TextTransformer(size, width=4, layers=1, heads=1)
    encoder.processor = processor
    assert features(encoder, *corpus).isfinite().all()


@pytest.mark.parametrize("size", [3, 4, 10])
def test_the_vocabulary_never_exceeds_its_size_even_with_more_letters(size: int) -> None:
    encoder = TextTransformer(size, width=4, layers=1, heads=1).eval()
    encoder.processor.fit(CORPUS)
    assert max(chain.from_iterable(chain.from_iterable(map(encoder.processor, CORPUS)))) < size
    assert features(encoder, *CORPUS).isfinite().all()


def test_an_unfitted_tokenizer_says_how_to_fit_it() -> None:
    processor = SubwordProcessor(50, 12, 0.0)
    assert processor.state() == {}
    with pytest.raises(UsageError, match=r"has not been fitted; call fit_processors, train, or load"):
        processor("fox")


@pytest.mark.parametrize("value", ["", "  ", "\n\t", "\u3000"])
def test_an_empty_text_is_refused(processor: SubwordProcessor, value: str) -> None:
    with pytest.raises(Unreadable, match="the text is empty; give at least one word") as refusal:
        processor(value)
    assert refusal.value.reason == "empty text"


@pytest.mark.parametrize("value", [None, 3, b"fox", ["fox"]])
def test_what_is_not_a_string_is_refused(processor: SubwordProcessor, value: object) -> None:
    with pytest.raises(Unreadable, match=f"{type(value).__name__} is not a text; ") as refusal:
        processor(value)
    assert refusal.value.reason == "wrong type"


def test_half_a_surrogate_pair_is_refused(processor: SubwordProcessor) -> None:
    with pytest.raises(Unreadable, match="the text is not valid Unicode") as refusal:
        processor("fox \ud83d")
    assert refusal.value.reason == "invalid Unicode"


def test_what_is_not_a_text_teaches_nothing() -> None:
    processor = SubwordProcessor(120, 12, 0.0)
    processor.fit(["the fox", None, 3, "the box"])  # pyright: ignore[reportArgumentType]
    assert set("".join(vocabulary(processor))) == set("▁thefoxb[PAD][UNK]")


# the linear baseline


@given(some=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_any_texts_however_few_have_linear_features(some: list[str]) -> None:
    found = SubwordProcessor(120, 12, 0.0).linear_features().fit_transform(some)
    assert found.shape[0] == len(some)
    np.testing.assert_allclose(np.sqrt(found.multiply(found).sum(axis=1)), 1, atol=1e-9)


def test_linear_features_count_words_and_pairs_of_words() -> None:
    transformer = SubwordProcessor(120, 12, 0.0).linear_features()
    found = transformer.fit_transform(["a fox", "a box", "☃ box"])
    assert sorted(transformer.vocabulary_) == ["a", "a box", "a fox", "box", "fox", "☃", "☃ box"]
    # both texts of box: 1 + ln(4 / 3), of one text: 1 + ln(4 / 2) (scikit-learn's smoothed idf), then unit length
    common, rare = 1 + np.log(4 / 3), 1 + np.log(2)
    assert found[2, transformer.vocabulary_["box"]] == pytest.approx(common / np.hypot(common, rare * np.sqrt(2)))


# state


@given(text=texts)
@settings(max_examples=20, deadline=None)
def test_the_state_holds_all_that_was_learned(processor: SubwordProcessor, text: str) -> None:
    other = SubwordProcessor(120, 12, 0.0)
    other.load_state(json.loads(json.dumps(processor.state())))
    assert other(text) == processor(text)
    assert other.state() == processor.state()
    sent: SubwordProcessor = pickle.loads(pickle.dumps(processor))  # as to a data worker
    assert sent(text) == processor(text)


def test_an_empty_state_is_that_of_an_unfitted_tokenizer() -> None:
    processor = fitted()
    processor.load_state({})
    with pytest.raises(UsageError, match="has not been fitted"):
        processor("fox")
    unfitted: SubwordProcessor = pickle.loads(pickle.dumps(processor))
    assert unfitted.state() == {}


def test_fitting_again_forgets_what_was_learned() -> None:
    processor = fitted()
    processor.fit(["zebra zebra"])
    assert set("".join(vocabulary(processor))) == set("▁zebra[PAD][UNK]")


FIT = """
import json, sys
from multimodal_encoders.text.transformer import SubwordProcessor
processor = SubwordProcessor(300, 12, 0.0)
processor.fit(json.load(sys.stdin))
print(processor.state()["tokenizer"])
"""


def test_the_same_texts_give_the_same_tokenizer_in_every_process() -> None:
    rng = np.random.default_rng(0)  # many pairs of letters, equally frequent
    corpus = [" ".join("".join(rng.choice(list("abcdefgh"), 5)) for _ in range(6)) for _ in range(300)]
    running = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-c", FIT]
        running.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
        )
    states = [process.communicate(json.dumps(corpus))[0].strip() for process in running]
    here = SubwordProcessor(300, 12, 0.0)
    here.fit(corpus)
    assert len(vocabulary(here)) == 300
    assert states == [here.state()["tokenizer"]] * 2


# words left out


@given(text=texts, seed=st.integers(0, 2**32), word_drop=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_some_words_are_left_out_but_never_all(text: str, seed: int, word_drop: float) -> None:
    processor = SubwordProcessor(120, 12, word_drop)
    words = [[number] for number in range(len(text.split()))]
    kept = processor.augment(words, np.random.default_rng(seed))
    assert 1 <= len(kept) <= len(words)
    assert kept == sorted(kept)  # in their order
    assert all(word in words for word in kept)
    assert kept == processor.augment(words, np.random.default_rng(seed))


def test_the_share_of_words_left_out_is_word_drop() -> None:
    words = [[n] for n in range(4000)]
    rng = np.random.default_rng(0)
    for word_drop in (0.0, 0.3, 0.9):
        kept = len(SubwordProcessor(120, 12, word_drop).augment(words, rng))
        assert kept == pytest.approx(4000 * (1 - word_drop), abs=150 if word_drop else 0)
    alone = {SubwordProcessor(120, 12, 1.0).augment(words[:3], rng)[0][0] for _ in range(50)}
    assert alone == {0, 1, 2}  # any word may be the one that is kept


# sub-words split


@given(text=texts, seed=st.integers(0, 2**32), word_split=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_words_that_fall_apart_still_spell_the_text(text: str, seed: int, word_split: float) -> None:
    processor = SubwordProcessor(120, 12, 0.0, word_split)
    processor.load_state(fitted().state())
    words = processor(text)
    split = processor.augment(words, np.random.default_rng(seed))
    spelled = processor._tokenizer.id_to_token
    assert ["".join(map(spelled, word)) for word in split] == ["".join(map(spelled, word)) for word in words]
    assert split == processor.augment(words, np.random.default_rng(seed))


def test_word_split_of_1_leaves_single_letters_and_of_0_the_words(processor: SubwordProcessor) -> None:
    words = processor(CORPUS[0])
    assert processor.augment(words, np.random.default_rng(0)) == words
    letters = SubwordProcessor(120, 12, 0.0, 1.0)
    letters.load_state(processor.state())
    for word in letters.augment(words, np.random.default_rng(0)):
        assert all(len(processor._tokenizer.id_to_token(token)) == 1 for token in word)


# features


def test_shorter_texts_are_filled_with_zeros(processor: SubwordProcessor) -> None:
    items = [[[5, 6], [7]], [[8]], [[n] for n in range(2, 40)]]
    tokens = processor.collate(items)["tokens"]
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [[5, 6, 7] + [0] * 9, [8] + [0] * 11, list(range(2, 14))]  # cut at 12
    assert processor.collate(items[:2])["tokens"].tolist() == [[5, 6, 7], [8, 0, 0]]


@given(some=st.lists(texts, min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_the_features_of_a_batch_are_those_of_its_texts(encoder: TextTransformer, some: list[str]) -> None:
    together = features(encoder, *some)
    assert together.shape == (len(some), encoder.width)
    alone = torch.cat([features(encoder, text) for text in some])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_padding_has_no_effect_on_the_gradients_either(encoder: TextTransformer) -> None:
    exact = copy.deepcopy(encoder).double()
    tokens = encoder.processor.collate([encoder.processor("fox"), encoder.processor("the quick brown fox")])["tokens"]
    length = int((tokens[0] > 0).sum())
    assert length < tokens.shape[1]
    gradients = []
    for given_tokens in (tokens[:1], tokens[:1, :length]):
        exact.zero_grad()
        exact(given_tokens)[0, 0].backward()
        gradients.append([p.grad.clone() for p in exact.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-9)


def test_what_comes_after_the_longest_text_has_no_effect(encoder: TextTransformer) -> None:
    long = " ".join(["the quick brown fox"] * 6)
    assert sum(map(len, encoder.processor(long))) > 12
    torch.testing.assert_close(features(encoder, long + " jumps"), features(encoder, long), atol=0, rtol=0)


def test_words_and_their_order_matter(encoder: TextTransformer) -> None:
    fox, box, turned = features(encoder, "quick fox", "quick box", "fox quick")
    assert (fox - box).abs().max() > 1e-3
    assert (fox - turned).abs().max() > 1e-4


def loaded_from_its_state(processor: Processor) -> SubwordProcessor:
    loaded = SubwordProcessor(120, 12, 0.0)
    loaded.load_state(processor.state())
    return loaded


def pickled(processor: Processor) -> Processor:
    return pickle.loads(pickle.dumps(processor))


@pytest.mark.parametrize(
    "copied",
    [
        lambda processor: processor,
        loaded_from_its_state,
        pytest.param(pickled),
        pytest.param(copy.deepcopy),
    ],
    ids=["fitted", "loaded", "pickled, as for a data worker", "copied"],
)
def test_a_text_that_speaks_of_padding_is_a_text(
    encoder: TextTransformer, copied: Callable[[Processor], Processor]
) -> None:
    processor = copied(encoder.processor)
    words = processor("a [PAD] b[PAD]")
    assert min(chain.from_iterable(words)) > 0
    assert words == encoder.processor("a [PAD] b[PAD]")
    with torch.no_grad():
        assert encoder(**processor.collate([processor("[PAD]")])).isfinite().all()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"width": 10, "heads": 4}, id="heads that do not divide the width"),
        pytest.param({"heads": 0}, id="no heads"),
        pytest.param({"heads": -4}, id="heads negative"),
        pytest.param({"vocab_size": 2}, id="no room for a letter"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"width \d+ must be a multiple of heads -?\d, vocab_size at least 3"):
        TextTransformer(**wrong)
