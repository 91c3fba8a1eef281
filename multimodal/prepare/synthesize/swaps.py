"""Hard negatives from attributes: "a blue cup" against "a red cup", where the caption's colour is another row's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from multimodal.core.errors import UsageError
from multimodal.prepare.near_texts import fold
from multimodal.prepare.synthesize.templates import as_words

MAX_VALUES = 10_000  # different values of an attribute
MAX_CANDIDATES = 16  # captions among which the negative of a row is chosen
SEVERAL = re.compile(r"\s*[,;|/]\s*")  # separates the values of a cell with several
WORD = re.compile(r"\w+")


class Swaps:
    """Makes captions that are not true of a row, by another value of one of its attributes.

    A value is never taken if it might be true of the row: if a row of the same group has it, if another cell of the row or
    the rest of the caption contains it, or if all of its words are among those of the row's own value, or the reverse
    ("red", "dark red").

    Args:
        caption: the column of captions.
        attribute: the column of the attribute, such as the colour; a cell may hold several, separated by commas.

    Examples:
        >>> swaps = Swaps("title", "colour")
        >>> swaps.add({"colour": "red", "title": "a red cup"}, "=1")
        >>> swaps.add({"colour": "orange", "title": "a mug"}, "=2")
        >>> swaps.candidates("A red cup", {"colour": "red", "title": "a red cup"}, "=1", np.random.default_rng(0))
        ['An orange cup']
    """

    def __init__(self, caption: str, attribute: str) -> None:
        self.caption, self.attribute = caption, attribute
        self._values: dict[str, str] = {}  # folded -> as the table has it
        self._of_group: dict[str, set[str]] = {}

    @property
    def column(self) -> str:
        """The column that its negatives are written to."""
        return f"{self.caption}_not_{self.attribute}"

    def add(self, values: Mapping[str, Any], group: str) -> None:
        """Include the attribute of a training row.

        Args:
            values: the clean values of the row.
            group: its group.

        Raises:
            UsageError: the column has too many different values.
        """
        for value in attribute_values(values.get(self.attribute)):
            self._values.setdefault(fold(value), value)
            if not group.startswith("#"):  # a group of one row
                self._of_group.setdefault(group, set()).add(fold(value))
        if len(self._values) > MAX_VALUES:
            raise UsageError(
                f"The column {self.attribute!r} has more than {MAX_VALUES:,} different values, so it is not an attribute such"
                " as a colour; swap another column."
            )

    def candidates(self, caption: str, values: Mapping[str, Any], group: str, rng: np.random.Generator) -> list[str]:
        """Return captions that are not true of a row, in random order.

        Args:
            caption: a caption of the row.
            values: the clean values of the row.
            group: its group.
            rng: random numbers.
        """
        own = [fold(value) for value in attribute_values(values.get(self.attribute))]
        places = [(value, place) for value in own if (place := find_words(value, caption)) is not None]
        if not places:
            return []
        true = {*own, *self._of_group.get(group, ())}
        others = [as_words(cell) or "" for column, cell in values.items() if column != self.attribute]
        said = [text for text in (caption, *others) if len(text) <= 10_000]
        names = list(self._values)
        found: list[str] = []
        for number in rng.permutation(len(names))[: 8 * MAX_CANDIDATES].tolist():
            name = names[number]
            if any(_overlap(name, value) for value in true) or any(find_words(name, text) for text in said):
                continue
            _, place = places[int(rng.integers(len(places)))]
            found.append(_replaced(caption, place, self._values[name]))
            if len(found) == MAX_CANDIDATES:
                break
        return found


def attribute_values(cell: Any) -> list[str]:
    """Return the values of an attribute's cell: a list, or a text of several separated by commas.

    Examples:
        >>> attribute_values("red, dark blue"), attribute_values(["red"]), attribute_values(None), attribute_values(3)
        (['red', 'dark blue'], ['red'], [], ['3'])
    """
    cells: Iterable[Any] = cell if isinstance(cell, list | tuple) else [cell]
    texts = [text for one in cells if (text := as_words(one)) is not None]
    parts = [part for text in texts for part in SEVERAL.split(text)]
    return [part for part in parts if WORD.search(part) and len(part) <= 200]


def find_words(words: str, text: str) -> tuple[int, int] | None:
    """Return the first place, as start and end, of whole words in a text, in any case; None: there is none.

    Examples:
        >>> find_words("red", "A tired Red cup"), find_words("red", "tired")
        ((8, 11), None)
    """
    pattern = r"\s+".join(map(re.escape, words.split()))
    found = re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE)
    return None if found is None else found.span()


def _overlap(one: str, other: str) -> bool:
    """Return whether all words of one value are among those of the other; "cup" and "cups" are one word."""
    a, b = ({word.removesuffix("s") for word in WORD.findall(text)} for text in (one, other))
    return a <= b or b <= a


def _replaced(caption: str, place: tuple[int, int], value: str) -> str:
    """Put a value in the place of another, in its case, after the article that it needs."""
    start, end = place
    old = caption[start:end]
    if old.isupper() and len(old) > 1:
        value = value.upper()
    elif old[:1].isupper():
        value = value[:1].upper() + value[1:]
    before = caption[:start]
    if article := re.search(r"(?<!\w)([Aa])[Nn]?\s+$", before):
        needed = article[1] + ("n" if value[:1].lower() in "aeiou" else "")
        before = before[: article.start()] + needed + before[article.start() + len(article[0].rstrip()) :]
    return before + value + caption[end:]
