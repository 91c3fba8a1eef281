"""One query against an index, for which only the encoder of the query's modality is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multimodal.core.arguments import check_types
from multimodal.core.errors import UsageError
from multimodal.core.model_folder import read_description
from multimodal.search.hits import Hits
from multimodal.search.index import Index


def search_index(run: str | Path, index: str | Path, /, k: int = 10, target: str | None = None, **query: Any) -> Hits:
    """Find the groups of an index that are nearest to a value of any modality of the model.

    Args:
        run: folder of the run or exported model with which the index was made; positional, so that a modality may have
            this name.
        index: folder of the index; positional too.
        k: number of hits to return, at least 1.
        target: search only the vectors of this modality. None: all vectors.
        **query: one modality and its value: ``text="a red cup"``, ``image="cup.png"``.

    Returns:
        At most k hits, the nearest first; each group is found once.

    Raises:
        UsageError: k is below 1, there is not exactly one modality, or the model or the index does not have it.
        MultimodalError: the model or the index cannot be read, they do not belong together, or the value cannot be read.
    """
    check_types("search_index", search_index, {"k": k, "target": target})  # before a model is loaded
    if len(query) != 1:
        raise UsageError(f"search takes one modality with one value, got {sorted(query) or 'none'}.")
    ((modality, value),) = query.items()
    opened = Index.open(index)
    opened.check_model(read_description(Path(run))["fingerprint"])

    from multimodal.core.embedder import Embedder  # imports torch, so only after the checks above

    embedder = Embedder.from_pretrained(run, modalities=[modality])
    return opened.search(embedder.encode(batch_size=256, precision="float32", **{modality: [value]}), k, target)[0]
