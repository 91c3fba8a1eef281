"""``/explain``: which parts of two values make them match."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from multimodal.core.errors import shown
from multimodal.evaluation.explain import explain
from multimodal.serve.body import check_settings, read_json
from multimodal.serve.errors import RequestError
from multimodal.serve.request_schemas import json_schema
from multimodal.serve.rows import Rows
from multimodal.serve.service import Service
from multimodal.serve.values import read_items

MAX_PARTS = 500  # of a value: everybody waits for one thread


class ExplainSettings(BaseModel):
    """A query, and the match: a value, or the ``target`` modality of the indexed row with a ``key``.

    ``query`` and ``match`` are ``{modality: value}`` of one value, as ``/search`` takes it.

    Examples:
        >>> ExplainSettings(query={"text": "a red cup"}, key="cup-1", target="image").key
        'cup-1'
    """

    model_config = ConfigDict(extra="forbid")

    query: dict[str, Any]
    match: dict[str, Any] | None = None
    key: str | None = None
    target: str | None = None


def explain_routes(service: Service, rows: Rows) -> APIRouter:
    """Return the route that explains a match."""
    router = APIRouter()

    @router.post("/explain", openapi_extra=json_schema(ExplainSettings))
    async def explain_match(request: Request) -> Response:
        """Say how much of the score each part of two values is worth, with a drawing where there is one."""
        settings = check_settings(ExplainSettings, await read_json(request))
        return JSONResponse(await service.in_thread(partial(_explain, service, rows, settings), service.explainer))

    return router


def _explain(service: Service, rows: Rows, settings: ExplainSettings) -> dict[str, Any]:
    query = _value(service, "query", settings.query)
    if (settings.match is None) == (settings.key is None):
        raise RequestError(400, "Give either a match, or the key of an indexed row.")
    if settings.match is not None:
        match = _value(service, "match", settings.match)
    else:
        match = _value_of_row(service, rows, str(settings.key), settings.target)
    for modality, value in (*query.items(), *match.items()):
        read_items(service.processors[modality], modality, [value])  # reports what cannot be read
    found = explain(service.embedder, query, match, max_parts=MAX_PARTS)
    drawings = {role: value.drawing for role, value in found.values.items()}
    document = found.to_json()
    for role, given in (("query", query), ("match", match)):
        for modality, value in given.items():
            if isinstance(value, str | Path) and service.processors[modality].reads_files:
                document[role]["value"] = Path(value).name  # nobody needs to know where the files are
    return document | {role: document[role] | {"drawing": drawing} for role, drawing in drawings.items()}


def _value(service: Service, role: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if len(given) != 1:
        raise RequestError(400, f"{role}: give one modality and its value, got {len(given)}.")
    return {modality: service.value(modality, value) for modality, value in given.items()}


def _value_of_row(service: Service, rows: Rows, key: str, target: str | None) -> dict[str, Any]:
    values = {m: v for m, v in rows.values(key).items() if m in service.processors and v is not None}
    target = next(iter(values), "") if target is None else target
    if target not in values:
        raise RequestError(404, f"The row {shown(key)!r} has no {shown(target) or 'value'} that can be read here.")
    return {target: values[target]}
