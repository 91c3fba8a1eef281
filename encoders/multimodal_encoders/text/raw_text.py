"""What a raw value of text must be, and counts of its words."""

from __future__ import annotations

from datetime import date
from numbers import Number
from typing import Any

from multimodal.core.errors import Unreadable

# what to do with values that are not texts: the first kind that fits
HINTS: list[tuple[type | tuple[type, ...], str]] = [
    ((list, tuple, set), "join its entries, or give each a column of its own"),
    ((bool, Number), "write it as text, in quotes"),
    (date, "write it as text; JSON Lines takes a column for dates if all of its texts look like dates"),
]
LINEAR_FEATURES = 50_000  # the most frequent words and pairs of words


def read_text(value: Any) -> str:
    """A raw value as it is, if it is a text that says something.

    Raises:
        Unreadable: it is not a text (a list, a number, a date, ...), is empty, or is not valid Unicode.
    """
    if not isinstance(value, str):
        hint = next((hint for kinds, hint in HINTS if isinstance(value, kinds)), "give a string")
        raise Unreadable("wrong type", f"{type(value).__name__} is not a text; {hint}.")
    if not value.strip():
        raise Unreadable("empty text", "the text is empty; give at least one word.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # half a surrogate pair
            raise Unreadable("invalid Unicode", "the text is not valid Unicode.") from error
    return value


def word_counts() -> Any:
    """Weighted counts of words and pairs of words; whatever is visible is part of some word, as in few, odd texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), max_features=LINEAR_FEATURES, token_pattern=r"\w+|[^\w\s]"
    )
