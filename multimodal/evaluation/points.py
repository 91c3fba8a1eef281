"""The vectors of an evaluation as points in two dimensions with their nearest neighbours, and as a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimodal.core.encoder import Processor
from multimodal.data.samples import Samples
from multimodal.evaluation.evaluated import RowVectors
from multimodal.evaluation.projection import Projection, pca, umap, without_means

MOST_POINTS = 10_000  # the time of the neighbours grows with the square
NEIGHBOURS = 10
MAX_TEXT = 300  # characters
BLOCK = 2**22  # cosines in memory at a time
POINTS = "points.parquet"


@dataclass(frozen=True)
class Points:
    """Vectors as points.

    Attributes:
        rows: ``(n,)`` int64, the row of the table of each point.
        modalities: the modality of each.
        layouts: name -> ``(n, 2)`` coordinates; the first is the one that was asked for.
        explained: the fraction of the variance that the two principal components have; NaN: all vectors are equal.
        vectors: ``(n, dim)`` float32.
        left_out: number of vectors that are not among them, as there are too many or they are not finite.

    Examples:
        >>> vectors, layout = np.eye(2, dtype=np.float32), np.array([[-0.7, 0.0], [0.7, 0.0]])
        >>> Points(np.arange(2), ["text", "text"], {"pca": layout}, explained=1.0, vectors=vectors).left_out
        0
    """

    rows: np.ndarray
    modalities: list[str]
    layouts: Mapping[str, np.ndarray]
    explained: float
    vectors: np.ndarray
    left_out: int = 0

    @classmethod
    def of(cls, queries: RowVectors, projection: Projection = "pca", most: int = MOST_POINTS) -> Points:
        """Project the vectors of rows; of too many rows some are drawn at random, with all their modalities.

        Args:
            queries: the vectors.
            projection: "pca" or "umap".
            most: number of points.
        """
        found = queries.embeddings
        of_keys = np.array([int(key) for key in found.keys], dtype=np.int64)
        order = np.random.default_rng(0).permutation(len(of_keys))
        place = np.empty(len(of_keys), dtype=np.int64)  # rows are taken in a random order until there are enough
        place[order] = np.arange(len(of_keys))
        parts = []
        for modality, vectors in found.vectors.items():
            of_modality = vectors.float().cpu().numpy()
            finite = np.isfinite(of_modality).all(axis=1)
            numbers = found.rows[modality].cpu().numpy()[finite]
            parts.append((numbers, [modality] * len(numbers), of_modality[finite]))
        numbers = np.concatenate([part[0] for part in parts])
        modalities = np.array([m for part in parts for m in part[1]], dtype=object)
        vectors = np.concatenate([part[2] for part in parts])
        taken = np.sort(np.argsort(place[numbers], kind="stable")[:most])
        total = sum(len(v) for v in found.vectors.values())
        numbers, vectors, kinds = numbers[taken], vectors[taken], [str(m) for m in modalities[taken]]
        layouts: dict[str, np.ndarray] = {}
        if projection == "umap":
            layouts["UMAP"] = umap(vectors)
        layouts["PCA"], explained = pca(vectors) if len(vectors) else (np.zeros((0, 2)), float("nan"))
        if len(set(kinds)) > 1:
            layouts["PCA, each modality's mean subtracted"] = pca(without_means(vectors, kinds))[0]
        return cls(of_keys[numbers], kinds, layouts, explained, vectors, total - len(taken))


def nearest(vectors: np.ndarray, k: int = NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest other vectors of each by the cosine, and the distances 1 - cosine, the nearest first.

    Args:
        vectors: ``(n, dim)`` float32 unit vectors.
        k: number of neighbours; fewer if there are not as many others.

    Returns:
        ``(n, k)`` int64 numbers, and ``(n, k)`` float32 distances.

    Examples:
        >>> numbers, distances = nearest(np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32), k=1)
        >>> numbers.tolist(), distances.astype(float).round(2).tolist()
        ([[2], [2], [1]], [[0.4], [0.2], [0.2]])
    """
    k = max(0, min(k, len(vectors) - 1))
    all_vectors = torch.from_numpy(vectors)
    numbers, distances = [], []
    for rows in torch.arange(len(vectors)).split(max(1, BLOCK // max(1, len(vectors)))):
        cosines = all_vectors[rows] @ all_vectors.T
        cosines[torch.arange(len(rows)), rows] = -torch.inf
        best = cosines.topk(k, dim=1)
        numbers.append(best.indices)
        distances.append(1 - best.values)
    if not numbers:
        return np.zeros((0, k), dtype=np.int64), np.zeros((0, k), dtype=np.float32)
    return torch.cat(numbers).numpy(), torch.cat(distances).numpy()


def write_points(path: Path, points: Points, samples: Samples, processors: Mapping[str, Processor]) -> None:
    """Write points as Parquet: key, modality, x, y, text, neighbors, and the columns that describe the rows.

    ``neighbors`` has the ids (numbers of rows of this file, from 0) and the distances of the nearest points, in the form that
    the viewer embedding-atlas reads.

    Args:
        path: the file.
        points: the points.
        samples: the table.
        processors: modality -> its processor; what is not a file for it can be a text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers, distances = nearest(points.vectors)
    x, y = next(iter(points.layouts.values())).T
    columns: dict[str, Any] = {
        "key": [samples.key_of(row) for row in points.rows.tolist()],
        "modality": points.modalities,
        "x": x.astype(np.float32),
        "y": y.astype(np.float32),
        "text": _texts(points, samples, [m for m, processor in processors.items() if not processor.reads_files]),
        "neighbors": pa.array(
            [{"ids": a, "distances": b} for a, b in zip(numbers.tolist(), distances.tolist(), strict=True)],
            pa.struct({"ids": pa.list_(pa.int64()), "distances": pa.list_(pa.float32())}),
        ),
    }
    for name, cells in describing_columns(samples, points.rows).items():
        free = name
        while free in columns:
            free += "_"
        columns[free] = cells
    pq.write_table(pa.table({name: _encodable(cells) for name, cells in columns.items()}), path)


def describing_columns(samples: Samples, rows: np.ndarray) -> dict[str, list[Any]]:
    """Return the cells of rows that describe them to users, by column; a column of several types is one of texts.

    Args:
        samples: the table.
        rows: ``(n,)`` row numbers; they may repeat.
    """
    of_row = {row: samples.metadata(row) for row in dict.fromkeys(rows.tolist())}
    names = dict.fromkeys(name for cells in of_row.values() for name in cells)
    columns = {}
    for name in names:
        cells = [of_row[row].get(name) for row in rows.tolist()]
        kinds = {type(cell) for cell in cells if cell is not None}
        if kinds == {int, float}:
            cells = [None if cell is None else float(cell) for cell in cells]
        elif len(kinds) > 1 or (kinds == {int} and any(abs(cell or 0) >= 2**63 for cell in cells)):
            cells = [None if cell is None else str(cell) for cell in cells]
        columns[name] = cells
    return columns


def _texts(points: Points, samples: Samples, modalities: Sequence[str]) -> list[str]:
    """Return the text of each point: its own, or the first that its row has; empty if there is none."""
    texts: dict[int, dict[str, str]] = {}
    for row in dict.fromkeys(points.rows.tolist()):
        try:
            values = samples[row].values
        except Exception:  # of any reader, as the file changed since the row was embedded
            values = {}
        texts[row] = {m: value[:MAX_TEXT] for m in modalities if isinstance(value := values.get(m), str)}
    of_points = zip(points.rows.tolist(), points.modalities, strict=True)
    return [texts[row].get(m) or next(iter(texts[row].values()), "") for row, m in of_points]


def _encodable(cells: Any) -> Any:
    """Replace what UTF-8 cannot encode, halves of characters, in texts."""
    if not isinstance(cells, list):
        return cells
    return [c.encode("utf-8", "replace").decode() if isinstance(c, str) else c for c in cells]
