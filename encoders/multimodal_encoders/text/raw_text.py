"""What a raw value of text must be, how much of it is read, and counts of its words."""

from __future__ import annotations

from datetime import date
from numbers import Number
from typing import Any, Literal

from multimodal.core.errors import Unreadable, UsageError

# what to do with values that are not texts: the first kind that fits
HINTS: list[tuple[type | tuple[type, ...], str]] = [
    ((list, tuple, set), "join its entries, or give each a column of its own"),
    ((bool, Number), "write it as text, in quotes"),
    (date, "write it as text; JSON Lines takes a column for dates if all of its texts look like dates"),
]
LINEAR_FEATURES = 50_000  # the most frequent words and pairs of words
MAX_TEXT_CHARACTERS = 2**20  # read by an encoder that does not limit the tokens of a text
CHARACTERS_PER_TOKEN, MIN_CHARACTERS = 64, 1024  # read for each token that an encoder takes; of a text at least
MAX_TOKENS = 2**17  # the largest max_length; attention over more needs hundreds of gigabytes


def characters_read(max_length: int) -> int:
    """Return how many characters of a text are tokenized where its first ``max_length`` tokens are kept.

    A token has 4 to 5 characters in most languages, so that only texts of white space or of extremely long words are cut
    earlier than after ``max_length`` tokens.

    Raises:
        UsageError: ``max_length`` is above 131,072.
    """
    if max_length > MAX_TOKENS:
        raise UsageError(f"max_length {max_length} must not be above {MAX_TOKENS:,}.")
    return max(CHARACTERS_PER_TOKEN * max_length, MIN_CHARACTERS)


def cut_text(text: str, characters: int = MAX_TEXT_CHARACTERS, side: Literal["left", "right"] = "right") -> str:
    """Cut a long text, if possible between two words; a tokenizer takes time and memory for all that it is given.

    Args:
        text: any text; white space at the ends of a long one is removed first.
        characters: how many to keep at most.
        side: the side on which it is cut.

    Examples:
        >>> cut_text("a red cup", 7), cut_text("a red cup", 7, side="left"), cut_text("aredcup", 3)
        ('a red', 'red cup', 'are')
    """
    if len(text) <= characters or len(text := text.strip()) <= characters:
        return text
    kept = text[:characters] if side == "right" else text[-characters:]
    at_cut = (
        text[characters - 1 : characters + 1] if side == "right" else text[-characters - 1 : -characters + 1 or None]
    )
    if any(character.isspace() for character in at_cut):  # no word is cut
        return kept.strip()
    words = kept.rsplit(maxsplit=1) if side == "right" else kept.split(maxsplit=1)[::-1]
    return words[0] if len(words) == 2 else kept


def read_text(value: Any, characters: int = MAX_TEXT_CHARACTERS, side: Literal["left", "right"] = "right") -> str:
    """A raw value as it is, if it is a text that says something; a long one is cut as ``cut_text`` does.

    Args:
        value: the value.
        characters: how many to keep at most.
        side: the side on which a long text is cut.

    Raises:
        Unreadable: it is not a text (a list, a number, a date, ...), is empty, or is not valid Unicode.
    """
    if not isinstance(value, str):
        hint = next((hint for kinds, hint in HINTS if isinstance(value, kinds)), "give a string")
        raise Unreadable("wrong type", f"{type(value).__name__} is not a text; {hint}.")
    value = cut_text(value, characters, side)
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
