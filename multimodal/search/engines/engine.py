"""Interface of a search engine: what holds the vectors of an index, and finds the nearest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from multimodal.core.errors import MultimodalError, UsageError

Where = Mapping[str, Sequence[str]]  # column -> the texts of which a row must have one
MAX_FILTER_TEXT = 256  # characters of a cell that can be filtered on; longer ones are descriptions
ITEM_SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "group", "metadata", "modality")])


class IndexReplaced(MultimodalError):
    """The index that is open is no longer the one in its folder: it can be searched, but not changed.

    Args:
        folder: the folder of the index.

    Examples:
        >>> print(IndexReplaced("index"))
        The index index was built again or upgraded since it was opened; open it again.
    """

    def __init__(self, folder: object) -> None:
        super().__init__(f"The index {folder} was built again or upgraded since it was opened; open it again.")


class Found(NamedTuple):
    """A stored vector that is near to a query.

    Attributes:
        key: key of the row.
        group: the row's group.
        modality: modality of the vector.
        score: cosine similarity, in [-1, 1].
        metadata: the row's other columns, as JSON.

    Examples:
        >>> Found("cup-1", "cups", "image", 0.91, '{"title": "a red cup"}').group
        'cups'
    """

    key: str
    group: str
    modality: str
    score: float
    metadata: str


class Engine(Protocol):
    """Stored rows with a vector of each of their modalities.

    Attributes:
        name: of the engine, as in ``multimodal index --engine NAME``.
        dim: width of the vectors.
    """

    name: str
    dim: int

    @property
    def grouped(self) -> bool:
        """Whether several rows may be in one group, so that a search looks at more of them than it returns."""
        ...

    @property
    def modalities(self) -> list[str]:
        """The modalities of the stored vectors."""
        ...

    @property
    def columns(self) -> list[str]:
        """The columns of the metadata."""
        ...

    def count(self, modality: str) -> int:
        """Return the number of stored vectors of a modality.

        Args:
            modality: one of ``modalities``.
        """
        ...

    def nearest(
        self,
        queries: np.ndarray,
        count: int,
        modality: str | None = None,
        where: Where | None = None,
        exact: bool = False,
    ) -> list[list[Found]]:
        """Find the stored vectors nearest to each query.

        Args:
            queries: ``(q, dim)`` float32 of unit length.
            count: number of vectors to find for each query, at least 1. More are returned if further vectors score the
                same as the last; fewer if fewer are stored.
            modality: search only the vectors of this modality. None: all.
            where: search only the rows that have these values.
            exact: compare every vector, where the engine would not.

        Returns:
            For each query, what is found, the best first.
        """
        ...

    def nearest_by_words(
        self, query: np.ndarray, words: str, count: int, modality: str | None = None, where: Where | None = None
    ) -> list[Found]:
        """Find the rows that are nearest by their vectors and by the words of their columns of text together.

        Args:
            query: ``(dim,)`` float32 of unit length.
            words: the words to look for.
            count: number of rows to find, at least 1.
            modality: search only the vectors of this modality. None: all.
            where: search only the rows that have these values.

        Returns:
            What is found, in the order of the fused ranks; the scores are still cosines.
        """
        ...

    def upsert(self, parts: Iterable[pa.Table]) -> None:
        """Add rows, in the place of those that have their keys.

        Args:
            parts: parts of embeddings, see ``multimodal.search.embed``; vectors are float32 of unit length.
        """
        ...

    def remove(self, keys: Sequence[str]) -> int:
        """Remove rows, and return how many were there.

        Args:
            keys: the keys of the rows.
        """
        ...

    def select(
        self, modality: str | None = None, where: Where | None = None, keys: Sequence[str] | None = None
    ) -> tuple[np.ndarray, pa.Table]:
        """Return stored vectors and their descriptions.

        Args:
            modality: only the vectors of this modality. None: all.
            where: only the rows that have these values.
            keys: only the rows with these keys.

        Returns:
            ``(n, dim)`` float32 vectors, and n rows of the columns ``key``, ``group``, ``metadata`` and ``modality``.
        """
        ...

    def facets(self, column: str, where: Where | None = None, limit: int = 20) -> dict[str, int]:
        """Return the most frequent values of a column, with their numbers of rows.

        Args:
            column: one of ``columns``.
            where: only the rows that have these values.
            limit: number of values.
        """
        ...

    def close(self) -> None:
        """Release the files; the engine is not used afterwards."""
        ...


def filter_text(value: Any) -> str | None:
    """Return a cell as the text that conditions compare with; None if it cannot be filtered on.

    Args:
        value: the cell.

    Examples:
        >>> filter_text("Arrows"), filter_text(3), filter_text(True), filter_text("long " * 100)
        ('Arrows', '3', 'True', None)
    """
    text = None if value is None else str(value)
    return None if text is None or len(text) > MAX_FILTER_TEXT else text


def check_where(where: Mapping[str, Any] | None) -> Where | None:
    """Return conditions with their values as texts; None if there are none.

    Args:
        where: column -> a value, or several of which a row must have one.

    Examples:
        >>> check_where({"category": "Arrows", "year": range(2020, 2022), "price": 3.0})
        {'category': ('Arrows',), 'year': ('2020', '2020.0', '2021', '2021.0'), 'price': ('3.0', '3')}

    Raises:
        UsageError: a value is missing, or a text that is too long to be compared.
    """
    if not where:
        return None
    several = {
        c: list(v) if isinstance(v, Iterable) and not isinstance(v, str | bytes) else [v] for c, v in where.items()
    }
    return {
        column: tuple(t for value in values for t in _texts_of(column, value)) for column, values in several.items()
    }


def _texts_of(column: str, value: Any) -> list[str]:
    """Return the texts with which a value is stored: a whole number may be one of a column with fractions."""
    text = filter_text(value)
    if text is None:
        what = "None" if value is None else f"a text of {len(str(value)):,} characters"
        raise UsageError(f"where: {column} cannot be compared with {what}; give values of at most {MAX_FILTER_TEXT}.")
    if isinstance(value, bool | np.bool_):
        return [text]
    if isinstance(value, int | np.integer):
        return [text, f"{text}.0"]
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return [text, str(int(value))]
    return [text]
