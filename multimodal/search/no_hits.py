"""Why a search with conditions finds nothing: a value that no row of the index has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal.core.conditions import Range, check_where
from multimodal.core.errors import did_you_mean, shown, suggest
from multimodal.search.index import Index

MAX_VALUES = 1000  # most frequent values of a column that are compared with one that no row has


def explain_no_hits(index: Index, where: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each condition that no row meets by itself, with the values that come close.

    Args:
        index: what was searched.
        where: the conditions, of columns that the index has.

    Examples:
        >>> import numpy as np
        >>> import pyarrow as pa
        >>> from multimodal.search.engines.exact import ExactEngine
        >>> rows = {"key": ["a"], "group": ["a"], "metadata": ['{"set": "arrows"}'], "modality": ["text"]}
        >>> index = Index(ExactEngine(np.ones((1, 1), np.float32), pa.table(rows)), "f" * 64)
        >>> explain_no_hits(index, {"set": "arow"})
        ["No row has 'arow' in the column 'set'. Did you mean 'arrows'? Known: arrows."]
    """
    sentences = []
    for column, wanted in (check_where(where) or {}).items():
        if index.facets(column, {column: where[column]}, limit=1):
            continue
        if isinstance(wanted, Range):
            sentences.append(f"No row has a value in the range of {column!r}.")
            continue
        known = list(index.facets(column, limit=MAX_VALUES))
        asked = shown(wanted[0]) if wanted else ""
        all_known = len(known) < MAX_VALUES
        hint = suggest(asked, known) if all_known else did_you_mean(asked, known)
        others = f" or {len(wanted) - 1:,} other values" if len(wanted) > 1 else ""
        sentences.append(f"No row has {asked!r}{others} in the column {column!r}.{hint}")
    return sentences
