"""A sample of an index, of which not everything is read if it is large."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from multimodal.search.index import Index

MOST_READ = 500_000  # vectors
QUERIES, HITS = 256, 64


def sample_index(index: Index, modality: str | None = None, most_read: int = MOST_READ) -> tuple[np.ndarray, pa.Table]:
    """Return vectors of an index and their descriptions: all of a small one, of a large one what random queries find.

    Args:
        index: the index.
        modality: only its vectors. None: all.
        most_read: an index with more vectors is searched, which takes neither its size in memory nor minutes.

    Returns:
        See ``Engine.select``.

    Examples:
        >>> from multimodal.search.engines.exact import ExactEngine
        >>> columns = {"key": ["a", "b"], "group": ["a", "b"], "metadata": ["{}"] * 2, "modality": ["m"] * 2}
        >>> index = Index(ExactEngine(np.eye(2, dtype=np.float32), pa.table(columns)), "f" * 64)
        >>> [len(sample_index(index, most_read=most)[0]) for most in (2, 1)]
        [2, 2]
    """
    if len(index) <= most_read:
        return index.engine.select(modality)
    queries = np.random.default_rng(0).standard_normal((QUERIES, index.dim)).astype(np.float32)
    keys = sorted({hit.key for hits in index.search(queries, k=HITS, target=modality) for hit in hits})
    return index.engine.select(modality, keys=keys)
