"""Vectors of the same rows by several models, of which those are kept that all models have: the same queries for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from multimodal.core.embeddings import Embeddings

MOST_ALTERNATIVES = 2**16  # columns of one modality


def keep_common(of_models: Mapping[str, Embeddings]) -> dict[str, Embeddings]:
    """Keep, of several models' vectors of the same rows, those of the rows that each model can read.

    Args:
        of_models: name of a model -> its embeddings by ``embed_rows``. The models may have different modalities.

    Returns:
        Name -> embeddings. Of a modality, all models that have it have the vectors of the same rows, in the same order.

    Examples:
        >>> one = Embeddings({"text": torch.eye(2)}, {"text": torch.arange(2)}, torch.arange(2), ("3", "5"))
        >>> other = Embeddings({"text": torch.eye(1)}, {"text": torch.arange(1)}, torch.arange(1), ("5",))
        >>> keep_common({"a": one, "b": other})["a"].vectors["text"]
        tensor([[0., 1.]])
    """
    readable = _in_all([_row_numbers(embeddings) for embeddings in of_models.values()])
    places: dict[str, dict[str, np.ndarray]] = {}  # modality -> model -> the place of each vector
    for name, embeddings in of_models.items():
        for modality in embeddings.modalities:
            places.setdefault(modality, {})[name] = _places(embeddings, modality)
    common = {modality: _in_all(list(of_model.values())) for modality, of_model in places.items()}
    kept = {}
    for name, embeddings in of_models.items():
        masks = {}
        for modality in embeddings.modalities:
            place = places[modality][name]
            mask = np.isin(place, common[modality]) & np.isin(place // MOST_ALTERNATIVES, readable)
            masks[modality] = torch.from_numpy(mask)
        kept[name] = embeddings.keep(masks)
    return kept


def keep_rows(embeddings: Embeddings, rows: np.ndarray) -> Embeddings:
    """Keep the vectors of some rows; modalities that have none are left out.

    Args:
        embeddings: by ``embed_rows``.
        rows: ``(r,)`` row numbers.
    """
    wanted = torch.from_numpy(np.isin(_row_numbers(embeddings), rows))
    kept = embeddings.keep({m: wanted[of_vector] for m, of_vector in embeddings.rows.items()})
    present = [m for m, vectors in kept.vectors.items() if len(vectors)]
    return Embeddings({m: kept.vectors[m] for m in present}, {m: kept.rows[m] for m in present}, kept.groups, kept.keys)


def _row_numbers(embeddings: Embeddings) -> np.ndarray:
    return np.fromiter(map(int, embeddings.keys), np.int64, len(embeddings.keys))


def _places(embeddings: Embeddings, modality: str) -> np.ndarray:
    """Return a number for each vector of a modality: that of its row, then that of the column among alternatives."""
    rows = _row_numbers(embeddings)[embeddings.rows[modality].numpy()]
    first = np.searchsorted(rows, rows)  # the rows are ascending
    return rows * MOST_ALTERNATIVES + np.arange(len(rows)) - first


def _in_all(numbers: Sequence[np.ndarray]) -> np.ndarray:
    common = np.unique(numbers[0])
    for others in numbers[1:]:
        common = np.intersect1d(common, others)
    return common
