"""Interface of a search engine: what holds the vectors of an index, and finds the nearest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from multimodal.core.conditions import Kind, Where
from multimodal.core.errors import MultimodalError

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
        words: the words of the query that found the row, as they were written; none: its vector did.

    Examples:
        >>> Found("cup-1", "cups", "image", 0.91, '{"title": "a red cup"}').group
        'cups'
    """

    key: str
    group: str
    modality: str
    score: float
    metadata: str
    words: Sequence[str] = ()


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

    def kinds(self, column: str) -> set[Kind]:
        """Return what ranges of a column can compare: numbers, dates, both or neither.

        Args:
            column: one of ``columns``.

        Raises:
            UsageError: the rows were stored without what ranges compare.
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
            where: search only the rows that meet these conditions.
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
            where: search only the rows that meet these conditions.

        Returns:
            What is found, in the order that ``multimodal.search.engines.fusion`` makes; the scores are still cosines.
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
            where: only the rows that meet these conditions.
            keys: only the rows with these keys.

        Returns:
            ``(n, dim)`` float32 vectors, and n rows of the columns ``key``, ``group``, ``metadata`` and ``modality``.
        """
        ...

    def facets(self, column: str, where: Where | None = None, limit: int = 20) -> dict[str, int]:
        """Return the most frequent values of a column, with their numbers of rows.

        Args:
            column: one of ``columns``.
            where: only the rows that meet these conditions.
            limit: number of values.
        """
        ...

    def close(self) -> None:
        """Release the files; the engine is not used afterwards."""
        ...
