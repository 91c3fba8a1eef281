"""Pictures of a few searches while a model trains: queries with their first hits, right and wrong, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError
from multimodal.data.pictures import MODALITY, Pictures
from multimodal.data.samples import Samples
from multimodal.media.picture_grid import draw_grid

if TYPE_CHECKING:
    from PIL import Image

QUERIES, HITS = 6, 5  # in a picture


class SampleSearches:
    """Draws the searches of the same few rows, so that the pictures of several validations can be compared.

    Args:
        samples: the rows that are searched.

    Examples:
        >>> samples = Samples.of([{"t": "red cup"}, {"t": "hat"}], {"text": "t"})
        >>> rows = torch.arange(2)
        >>> vectors = {"text": torch.eye(2), "words": torch.eye(2)}
        >>> found = Embeddings(vectors, {"text": rows, "words": rows}, groups=rows, keys=("0", "1"))
        >>> SampleSearches(samples).draw(found, "text", "words").size  # two queries, each with two hits
        (408, 312)
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._pictures = Pictures(samples) if MODALITY in samples.modalities else None

    def draw(self, embeddings: Embeddings, query: str, found: str) -> Image.Image:
        """Draw one row of cells for each query: the query, then its first hits with their scores.

        Args:
            embeddings: with the keys of the samples' rows.
            query: modality of the queries.
            found: modality of the hits.
        """
        numbers = torch.linspace(0, len(embeddings.vectors[query]) - 1, min(QUERIES, len(embeddings.vectors[query])))
        chosen = numbers.round().long().unique()
        scores = embeddings.vectors[query][chosen].float() @ embeddings.vectors[found].float().T
        best = scores.topk(min(HITS, scores.shape[1]), dim=1)
        cells = []
        for number, of_query, hits in zip(chosen.tolist(), best.values.tolist(), best.indices.tolist(), strict=True):
            row = int(embeddings.rows[query][number])
            cells.append((*self._shown(embeddings.keys[row], query), f"query: {query}"))
            for score, hit in zip(of_query, hits, strict=True):
                other = int(embeddings.rows[found][hit])
                is_right = bool(embeddings.groups[other] == embeddings.groups[row])
                cells.append(
                    (*self._shown(embeddings.keys[other], found), f"{score:.2f} {'right' if is_right else 'wrong'}")
                )
        return draw_grid(cells, 1 + best.values.shape[1])

    def _shown(self, key: str, modality: str) -> tuple[bytes | None, str]:
        """Return the picture of a row, unless another modality that can be read is asked for, and a caption."""
        values: Mapping[str, Any] = {}
        with suppress(MultimodalError, OSError, KeyError):  # then the key is shown
            values = self._samples[self._samples.rows_by_key[key]].values
        texts = [
            value for name in (modality, *values) if isinstance(value := values.get(name), str) and name != MODALITY
        ]
        picture = None if isinstance(values.get(modality), str) and modality != MODALITY else self._picture(key)
        return picture, texts[0] if texts else key

    def _picture(self, key: str) -> bytes | None:
        return None if self._pictures is None else self._pictures.of(key)
