"""Corruptions of texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from multimodal.core.encoder import Corruption
from multimodal.core.errors import Unreadable
from multimodal.media.parts.words import without_span, word_spans

DROPPED, MISSPELLED = 0.25, 0.3  # probability that a word is dropped, and that one is misspelled


def drop_words(value: Any, rng: np.random.Generator, share: float = DROPPED) -> str:
    """Return a text in which each word is dropped with a probability; one is kept.

    Args:
        value: the text.
        rng: the random generator.
        share: the probability.

    Examples:
        >>> drop_words("a red cup with a handle", np.random.default_rng(1))
        'a red with a handle'
    """
    text = _text(value)
    spans = word_spans(text)
    dropped = rng.random(len(spans)) < share
    if dropped.all() and len(spans):
        dropped[rng.integers(len(spans))] = False
    for (start, end), drop in reversed(list(zip(spans, dropped.tolist(), strict=True))):
        text = without_span(text, start, end) if drop else text
    return text


def misspell(value: Any, rng: np.random.Generator, share: float = MISSPELLED) -> str:
    """Return a text in which each word of two characters or more is misspelled with a probability.

    A misspelling swaps two neighbouring characters, drops one or doubles one.

    Args:
        value: the text.
        rng: the random generator.
        share: the probability.

    Examples:
        >>> misspell("a red cup with a handle", np.random.default_rng(0), share=1.0)
        'a rde ucp wiith a handlle'
    """
    text = _text(value)
    pieces, last = [], 0
    for start, end in word_spans(text):
        word = text[start:end]
        if len(word) > 1 and rng.random() < share:
            at = int(rng.integers(len(word) - 1))
            word = (
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at + 1 :],
                word[: at + 1] + word[at:],
            )[int(rng.integers(3))]
        pieces += [text[last:start], word]
        last = end
    return "".join([*pieces, text[last:]])


def shuffle_words(value: Any, rng: np.random.Generator) -> str:
    """Return a text with its words in a random order.

    Examples:
        >>> sorted(shuffle_words("a red cup", np.random.default_rng(0)).split())
        ['a', 'cup', 'red']
    """
    text = _text(value)
    words = [text[start:end] for start, end in word_spans(text)]
    return " ".join(words[number] for number in rng.permutation(len(words)).tolist())


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unreadable("wrong type", f"{type(value).__name__} is not a text.")
    return value


TEXT_CORRUPTIONS: dict[str, Corruption] = {
    "dropped words": drop_words,
    "misspelled words": misspell,
    "words in another order": shuffle_words,
    "upper case": lambda value, rng: _text(value).upper(),
}
