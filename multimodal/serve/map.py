"""``/map``: a sample of the index in two dimensions, and where queries and hits are in it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from multimodal.search.index import Index
from multimodal.serve.body import check_settings, read_json
from multimodal.serve.index_sample import sample_index
from multimodal.serve.request_schemas import json_schema
from multimodal.serve.service import Service

MAX_POINTS = 2000
MAX_FITTED = 20_000  # vectors from which the directions are computed
MOST_READ = 40_000  # of an index with more vectors, a sample is read
FRESH = 600.0  # seconds for which a map of a changed index is still shown
EDGES = (0.5, 99.5)  # percentiles of the points that the map shows
MAX_TITLE = 120  # characters


class HitName(BaseModel):
    """The vector of a hit.

    Examples:
        >>> HitName(key="cup-1", modality="image").modality
        'image'
    """

    key: str
    modality: str


class Located(BaseModel):
    """What to find on the map: a query as ``/search`` takes it, and hits.

    Examples:
        >>> Located(query={"text": "a red cup"}).weights is None
        True
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    query: dict[str, Any] = {}
    weights: dict[str, float] | None = None
    like: list[str] = Field([], max_length=100)
    unlike: list[str] = Field([], max_length=100)
    hits: list[HitName] = Field([], max_length=1000)


@dataclass(frozen=True)
class SpaceMap:
    """The two principal components of an index, after each modality's mean is taken away.

    Without that, the first direction would only separate the modalities.

    Attributes:
        means: modality -> ``(dim,)`` mean of its vectors.
        axes: ``(2, dim)`` orthonormal directions.
        explained: fraction of the variance along them, in [0, 1].
        points: what ``GET /map`` returns of each drawn vector.
        total: number of vectors in the index.

    Examples:
        >>> from multimodal.search.engines.exact import ExactEngine
        >>> import pyarrow as pa
        >>> columns = {"key": ["a", "b", "c"], "group": ["a", "b", "c"], "metadata": ["{}"] * 3, "modality": ["m"] * 3}
        >>> rows = pa.table(columns)
        >>> vectors = np.array([[1, 0, 0], [0.6, 0.8, 0], [0.6, -0.8, 0]], np.float32)
        >>> found = SpaceMap.of(Index(ExactEngine(vectors, rows), "f" * 64))
        >>> found.explained > 0.99, [point["key"] for point in found.points]
        (True, ['a', 'b', 'c'])
    """

    means: Mapping[str, np.ndarray]
    axes: np.ndarray
    explained: float
    points: list[dict[str, Any]]
    total: int

    @classmethod
    def of(cls, index: Index) -> SpaceMap:
        """Compute the map of an index, from a sample of it drawn with a fixed seed."""
        vectors, items = sample_index(index, most_read=MOST_READ)
        chosen = np.sort(np.random.default_rng(0).permutation(len(vectors))[:MAX_FITTED])
        vectors, items = vectors[chosen].astype(np.float64), items.take(chosen)
        modalities = np.array(items["modality"].to_pylist(), dtype=object)
        means = {m: vectors[modalities == m].mean(axis=0) for m in index.modalities if (modalities == m).any()}
        centred = vectors - np.array([means[m] for m in modalities]).reshape(vectors.shape)
        variances, directions = np.linalg.eigh(centred.T @ centred)
        axes = directions[:, ::-1][:, :2].T
        placed = centred @ axes.T
        drawn = np.sort(np.random.default_rng(1).permutation(len(placed))[:MAX_POINTS])
        shown = zip(placed[drawn].tolist(), items.take(drawn).to_pylist(), strict=True)
        points = [
            {"key": row["key"], "modality": row["modality"], "title": _title(row), "x": round(x, 4), "y": round(y, 4)}
            for (x, y), row in shown
        ]
        whole = variances.sum()
        return cls(means, axes, float(variances[-2:].sum() / whole) if whole > 0 else 0.0, points, len(index))

    def place(self, vector: np.ndarray, modality: str | None) -> np.ndarray:
        """Return the ``(2,)`` position of a vector; of no single modality (None), the modalities' common mean is taken away."""
        mean = self.means.get(modality or "")
        if mean is None:
            mean = np.mean([*self.means.values()], axis=0) if self.means else np.zeros_like(vector)
        return self.axes @ (vector - mean)

    def box(self) -> list[float]:
        """Return left, top, right and bottom of the map, without a few outlying points."""
        if not self.points:
            return [0.0, 0.0, 0.0, 0.0]
        xy = np.array([(point["x"], point["y"]) for point in self.points])
        (left, bottom), (right, top) = np.percentile(xy, EDGES, axis=0).tolist()
        return [left, top, right, bottom]


def map_routes(service: Service) -> APIRouter:
    """Return the routes of the map, which is computed at the first request, and again some time after the index has changed."""
    router = APIRouter()
    latest: tuple[float, SpaceMap] | None = None

    def space_map() -> SpaceMap:
        nonlocal latest
        now = time.monotonic()
        if (
            latest is None
            or (now - latest[0] > FRESH and latest[1].total != len(service.index))
            or not len(service.index)
        ):
            latest = (now, SpaceMap.of(service.index))
        return latest[1]

    @router.get("/map")
    async def sample() -> Response:
        """Return a sample of the vectors in two dimensions."""
        found = await service.in_thread(space_map, service.mapper)
        return JSONResponse(
            {
                "points": found.points,
                "modalities": [*found.means],
                "box": found.box(),
                "explained": found.explained,
                "total": found.total,
            }
        )

    @router.post("/map", openapi_extra=json_schema(Located))
    async def locate(request: Request) -> Response:
        """Return where a query and hits are on the map; null for a hit that is not in the index."""
        asked = check_settings(Located, await read_json(request))
        found = await service.in_thread(space_map, service.mapper)
        values = {modality: [service.value(modality, value)] for modality, value in asked.query.items()}
        vectors = await service.encode(values, list) if values else {}
        work = partial(_locate, service.index, found, {m: v[0] for m, v in vectors.items()}, asked)
        return JSONResponse(await service.in_thread(work, service.readers))

    return router


def _locate(index: Index, found: SpaceMap, encoded: Mapping[str, np.ndarray], asked: Located) -> dict[str, Any]:
    keys = sorted({*asked.like, *asked.unlike, *(hit.key for hit in asked.hits)})
    at: dict[tuple[str, str], np.ndarray] = {}
    if keys:
        vectors, items = index.engine.select(keys=keys)
        names = zip(items["key"].to_pylist(), items["modality"].to_pylist(), strict=True)
        at = {(key, m): found.place(vector, m) for vector, (key, m) in zip(vectors, names, strict=True)}
    weights = asked.weights or {}
    parts = [(weights.get(m, 1.0), found.place(vector, m)) for m, vector in encoded.items()]
    for sign, rows in ((1.0, asked.like), (-1.0, asked.unlike)):
        of_rows = [[xy for (key, _), xy in at.items() if key == row] for row in rows]
        parts += [(sign, np.mean([np.mean(xy, axis=0) for xy in of_rows if xy], axis=0))] if any(of_rows) else []
    whole = sum(abs(weight) for weight, _ in parts)
    query = (np.sum([weight * xy for weight, xy in parts], axis=0) / whole).tolist() if whole else None
    hits = [at.get((hit.key, hit.modality)) for hit in asked.hits]
    return {"query": query, "hits": [None if xy is None else xy.tolist() for xy in hits]}


def _title(row: Mapping[str, Any]) -> str:
    """Return the first text of a row's metadata that is more than a character, or its key."""
    texts = (value for value in json.loads(row["metadata"]).values() if isinstance(value, str) and len(value) > 1)
    return next(texts, row["key"])[:MAX_TITLE]
