"""One query against an index: only the encoder of the query's modality is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multimodal.core.errors import UsageError
from multimodal.core.model_folder import read_description
from multimodal.search.hits import Hits
from multimodal.search.index import Index


def search_index(run: str | Path, index: str | Path, k: int = 10, target: str | None = None, **query: Any) -> Hits:
    """The things in an index that are nearest to a value of any modality of the model.

    Args:
        run: the folder of the run or of the exported model that the index was made by.
        index: the index's folder.
        k: how many hits to return, at least 1.
        target: find things by their vectors of this modality alone. None: of all.
        **query: one modality and the value to search for: ``text="a red cup"``, ``image="cup.png"``.

    Raises:
        UsageError: not exactly one modality, or one that the model or the index does not have.
        MultimodalError: the model or the index cannot be read, they do not belong together, or the value cannot be read.
    """
    if len(query) != 1:
        raise UsageError(f"search takes one modality with one value, got {sorted(query) or 'none'}.")
    ((modality, value),) = query.items()
    opened = Index.open(index)
    opened.check_model(read_description(Path(run))["fingerprint"])

    from multimodal.core.embedder import Embedder  # imports torch, which an index that does not fit needs not

    embedder = Embedder.from_pretrained(run, modalities=[modality])
    return opened.search(embedder.encode(256, "float32", **{modality: [value]}), k, target)[0]
