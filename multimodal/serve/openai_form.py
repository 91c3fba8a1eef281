"""``/v1/embeddings`` and ``/v1/models``: texts to vectors, in the form of OpenAI's API.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from multimodal.serve.body import check_settings, read_json
from multimodal.serve.errors import RequestError
from multimodal.serve.request_schemas import json_schema
from multimodal.serve.service import Service

TEXT = "text"  # the modality whose values these routes embed
OWNER = "multimodal"


class EmbeddingSettings(BaseModel):
    """The parameters of OpenAI's API. ``user`` is accepted and not used.

    Examples:
        >>> EmbeddingSettings(input="a red cup", model="small").encoding_format
        'float'
    """

    model_config = ConfigDict(extra="forbid")

    input: str | list[str]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


def openai_routes(service: Service, name: str) -> APIRouter:
    """Return the routes in OpenAI's form.

    Args:
        service: the index and the model.
        name: the name of the model.
    """
    router = APIRouter(prefix="/v1")
    described = {"id": name, "object": "model", "created": 0, "owned_by": OWNER}

    @router.post("/embeddings", openapi_extra=json_schema(EmbeddingSettings))
    async def embeddings(request: Request) -> Response:
        """Embed texts."""
        settings = check_settings(EmbeddingSettings, await read_json(request))
        _check(service, settings, name)
        texts = service.values(TEXT, settings.input)
        vectors = (await service.encode({TEXT: texts}, list))[TEXT]
        as_base64 = settings.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": number, "embedding": _base64(vector) if as_base64 else vector.tolist()}
            for number, vector in enumerate(vectors)
        ]
        words = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": words, "total_tokens": words}
        return JSONResponse({"object": "list", "data": data, "model": name, "usage": usage})

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """List the one model."""
        return {"object": "list", "data": [described]}

    @router.get("/models/{model}", responses={404: {"description": "There is no such model."}})
    async def model(model: str) -> dict[str, Any]:
        """Describe a model."""
        _check_name(model, name)
        return described

    return router


def _check(service: Service, settings: EmbeddingSettings, name: str) -> None:
    _check_name(settings.model, name)
    if TEXT not in service.processors:
        raise RequestError(400, f"The model has no modality {TEXT!r}; /embed embeds values of its modalities.")
    if settings.dimensions not in (None, service.embedder.dim):
        raise RequestError(400, f"dimensions: the vectors of {name} are {service.embedder.dim} wide.")


def _check_name(given: str, name: str) -> None:
    if given != name:
        raise RequestError(
            404, f"There is no model {given!r}; the one served here is {name!r}.", code="model_not_found"
        )


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
