"""One query against an index, for which only the encoders of the query's modalities are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal.core.arguments import check_types
from multimodal.core.errors import UsageError, suggest
from multimodal.core.model_folder import read_description
from multimodal.search.hits import Hits
from multimodal.search.index import Index


def search_index(
    run: str | Path,
    index: str | Path,
    /,
    k: int = 10,
    target: str | None = None,
    min_precision: float | None = None,
    *,
    where: Mapping[str, Any] | None = None,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    hybrid: bool | str = False,
    exact: bool = False,
    **query: Any,
) -> Hits:
    """Find the groups of an index that are nearest to values of the model's modalities, or to rows of the index.

    Args:
        run: folder of the run or exported model with which the index was made; positional, so that a modality may have
            this name.
        index: folder of the index; positional too.
        k: number of hits to return, at least 1.
        target: search only the vectors of this modality. None: all vectors.
        min_precision: see ``Index.search``, as for all that follows.
        where: search only rows that meet these conditions.
        like: keys of rows that the hits should be like.
        unlike: keys of rows that the hits should not be like.
        weights: modality -> weight of its value.
        hybrid: also look for words.
        exact: compare every vector.
        **query: modalities and their values: ``text="a red cup"``, ``image="cup.png"``.

    Returns:
        At most k hits, the nearest first; each group is found once.

    Raises:
        UsageError: k is below 1, the query is empty, or the model or the index does not have a modality, key or column.
        MultimodalError: the model or the index cannot be read, they do not belong together, or a value cannot be read.
    """
    checked = {"k": k, "target": target, "min_precision": min_precision, "exact": exact}
    check_types("search_index", search_index, checked)  # before a model is loaded
    if not query and not like:
        raise UsageError("search takes a value of a modality, like text='a red cup', or keys of rows: like=['cup-1'].")
    description = read_description(Path(run))
    for name in query:
        if name not in description["encoders"]:
            raise UsageError(f"The model has no modality {name!r}.{suggest(name, list(description['encoders']))}")
    with Index.open(index) as opened:
        if not set(description["encoders"]) - set(opened.modalities):  # else it may have these vectors and others
            opened.check_model(description["fingerprint"])
        other = description["fingerprint"] != opened.fingerprint
        if query or other:
            from multimodal.core.embedder import Embedder  # imports torch, so only after the checks above

            if other and not Embedder.from_pretrained(run).has_vectors_of(opened.fingerprint, opened.modalities):
                opened.check_model(description["fingerprint"])
            if query:
                opened.embedder = Embedder.from_pretrained(run, modalities=list(query))
        asked = {"where": where, "like": like, "unlike": unlike, "weights": weights, "hybrid": hybrid, "exact": exact}
        return opened.search(k=k, target=target, min_precision=min_precision, **asked, **query)
