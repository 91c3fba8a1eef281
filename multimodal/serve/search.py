"""``/search`` and ``/facets``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from multimodal.core.errors import shown
from multimodal.search.hits import Hits
from multimodal.search.index import Index
from multimodal.search.queries import words_of
from multimodal.serve.auth import check_token
from multimodal.serve.batching import Vectors
from multimodal.serve.body import File, check_modality_names, check_settings, parse_json, read_body
from multimodal.serve.errors import RequestError
from multimodal.serve.request_schemas import body_schema
from multimodal.serve.service import Service
from multimodal.serve.watch import Watch

Found = tuple[Hits, dict[str, dict[str, int]], Vectors]  # the hits, the counts of facets, and the vectors of the query
Cell = str | int | float | bool | None
Where = dict[str, Cell | list[Cell] | dict[str, Cell]]
MAX_FACETS = 1000  # values of a column that are counted


class SearchSettings(BaseModel):
    """The settings of a search, next to the values of modalities.

    ``like`` and ``unlike`` are keys of indexed rows; ``where`` is column -> its value, a list of values, or a range as
    ``{"gte": 5, "lt": 20}``; ``weights`` is modality -> the weight of its value, negative for "less of this"; ``hybrid`` also
    searches for the words of the text, or for other ones; ``exact`` compares every vector; ``facets`` are columns whose values
    are counted.

    Examples:
        >>> SearchSettings(target="image", where={"category": ["cups", "mugs"]}).k
        10
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    k: int = Field(10, ge=1)
    target: str | None = None
    min_precision: float | None = Field(None, gt=0, lt=1)
    where: Where | None = None
    like: list[str] = Field([], max_length=100)
    unlike: list[str] = Field([], max_length=100)
    weights: dict[str, float] | None = None
    hybrid: bool | str = False
    exact: bool = False
    facets: list[str] = Field([], max_length=20)


class Conditions(BaseModel):
    """Conditions on metadata: column -> its value, a list of values, or a range.

    Examples:
        >>> Conditions(where={"colour": ["red", "blue"]}).where
        {'colour': ['red', 'blue']}
        >>> Conditions(where={"price": {"gte": 5, "lt": 20}}).where
        {'price': {'gte': 5, 'lt': 20}}
    """

    where: Where | None = None


LISTS = ("like", "unlike", "facets")  # settings of which a form may have one or several fields


def search_routes(service: Service, watch: Watch | None = None, token: str | None = None) -> APIRouter:
    """Return the routes of searches in the index of a service.

    Args:
        service: the index and the model.
        watch: records the searches. None: they are not recorded.
        token: the token that a request must have to say in the header ``X-User`` who asks.
    """
    router = APIRouter()
    modalities = service.embedder.modalities
    check_modality_names(SearchSettings, modalities)

    @router.post("/search", openapi_extra=body_schema(SearchSettings, service.processors))
    async def search(request: Request) -> Response:
        """Find the rows nearest to values of any modalities, to rows like some and unlike others, or to all of these."""
        given = await read_body(request, texts=modalities)
        for name in LISTS:
            if isinstance(given.get(name), str | int | float):
                given[name] = [str(given[name])]
        wanted = {m: value for m in modalities if (value := given.pop(m, None)) is not None}
        checked = check_settings(SearchSettings, given, modalities)
        if (user := request.headers.get("x-user") or None) is not None:
            check_token(request, token)  # an application in front knows its users; others could be anyone
        return JSONResponse(await run_search(service, wanted, checked, watch, user))

    @router.get("/facets")
    async def facets(
        column: Annotated[str, Query(description="a metadata column of the index")],
        limit: Annotated[int, Query(ge=1, le=MAX_FACETS)] = 20,
        where: Annotated[str | None, Query(description="conditions as JSON: only these rows are counted")] = None,
    ) -> dict[str, Any]:
        """Count the most frequent values of a metadata column."""
        asked = check_settings(Conditions, {"where": None if where is None else parse_json(where)}).where
        counts = await service.in_thread(partial(service.index.facets, column, asked, limit), service.readers)
        return {"column": column, "values": counts}

    return router


async def run_search(
    service: Service,
    given: Mapping[str, Any],
    settings: SearchSettings,
    watch: Watch | None = None,
    user: str | None = None,
) -> dict[str, Any]:
    """Return the answer to a search.

    Args:
        service: the index and the model.
        given: modality -> its value in the request.
        settings: the other settings.
        watch: records the search. None: it is not recorded.
        user: who asks. None: unknown.

    Raises:
        RequestError: there is nothing to search for, or too much is asked for.
    """
    if settings.k > service.limits.max_hits:
        raise RequestError(400, f"k: at most {service.limits.max_hits:,} hits are returned, got {settings.k}.")
    if not given and not settings.like:
        names = ", ".join(service.embedder.modalities)
        raise RequestError(400, f"Give a value of a modality ({names}), or keys of rows as like.")
    if unknown := sorted({*(settings.weights or ())} - {*given}):
        raise RequestError(400, f"weights: the query has no value of {', '.join(map(shown, unknown))}.")
    values = {modality: [service.value(modality, value)] for modality, value in given.items()}
    words = words_of(settings.hybrid, {modality: value for modality, (value,) in values.items()})
    combined = len(values) != 1 or settings.like or settings.unlike or settings.weights or words is not None
    find = _find_combined if combined else _find_alone
    alike = None if combined else (next(iter(values)), settings.model_dump_json())
    index = service.index
    hits, facets, vectors = await service.encode(values, partial(find, index, settings, words), alike)
    answer = {"query": {m: _echo(value) for m, value in given.items()}, "hits": [hit.to_json() for hit in hits]}
    if watch is not None and (query_id := watch.record(index, given, vectors, hits, user)) is not None:
        answer["query_id"] = query_id
    return answer | ({"facets": facets} if settings.facets else {})


def _find_combined(index: Index, settings: SearchSettings, words: str | None, encoded: list[Vectors]) -> list[Found]:
    """Search by several values, examples or words."""
    (vectors,) = ({modality: vector[0] for modality, vector in vectors.items()} for vectors in encoded)
    hits = index.search_encoded(
        vectors,
        settings.k,
        settings.target,
        settings.min_precision,
        where=settings.where,
        like=settings.like,
        unlike=settings.unlike,
        weights=settings.weights,
        words=words,
        exact=settings.exact,
    )
    return [(hits, _facets(index, settings), vectors)]


def _find_alone(index: Index, settings: SearchSettings, words: None, encoded: list[Vectors]) -> list[Found]:
    """Search by one value of one modality, for several requests with the same settings at once."""
    (modality,) = encoded[0]
    vectors = np.concatenate([vectors[modality] for vectors in encoded])
    asked = (settings.k, settings.target, settings.min_precision, modality)
    lists = index.search(vectors, *asked, where=settings.where, exact=settings.exact)
    facets = _facets(index, settings)
    return [(hits, facets, {modality: vector}) for hits, vector in zip(lists, vectors, strict=True)]


def _facets(index: Index, settings: SearchSettings) -> dict[str, dict[str, int]]:
    return {column: index.facets(column, where=settings.where) for column in settings.facets}


def _echo(value: Any) -> Any:
    """Return a value of the query for the answer: files by their size alone."""
    if isinstance(value, File):
        return shown(value.content)
    if isinstance(value, str) and value.startswith("data:"):
        return shown(value)
    return value
