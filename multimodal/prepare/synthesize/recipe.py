"""What a recipe makes of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Made:
    """A row that is made from a row of the table: the same but for one value.

    Attributes:
        column: the column of the new value.
        value: the new value, clean.
        made_by: how it was made, in a few words.

    Examples:
        >>> Made("title", "a red cup", "caption: a {colour} {kind}").value
        'a red cup'
    """

    column: str
    value: Any
    made_by: str


class Recipe(ABC):
    """Makes rows from one row at a time.

    Attributes:
        name: its name, by which rows are counted.
        column: the column whose values it makes.

    Examples:
        >>> class Upper(Recipe):
        ...     name = "upper"
        ...     def __init__(self, column): self.column = column
        ...     def make(self, values, rng):
        ...         return [Made(self.column, values[self.column].upper(), "upper case")]
        >>> Upper("title").make({"title": "a cup"}, np.random.default_rng(0))[0].value
        'A CUP'
    """

    name: str
    column: str

    @abstractmethod
    def make(self, values: Mapping[str, Any], rng: np.random.Generator) -> list[Made]:
        """Return the rows made from a row.

        Args:
            values: the clean values of the row; missing ones have no entry.
            rng: random numbers of this row and recipe.

        Raises:
            Unreadable: the row's own value cannot be read.
        """
