"""``/embed``: vectors of values of any modalities."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from multimodal.serve.batching import Vectors
from multimodal.serve.body import check_settings, read_body
from multimodal.serve.errors import RequestError
from multimodal.serve.request_schemas import body_schema
from multimodal.serve.service import Service


class EmbedSettings(BaseModel):
    """There are no settings next to the values.

    Examples:
        >>> EmbedSettings()
        EmbedSettings()
    """

    model_config = ConfigDict(extra="forbid")


def embed_routes(service: Service) -> APIRouter:
    """Return the route that embeds values."""
    router = APIRouter()
    modalities = service.embedder.modalities

    @router.post("/embed", openapi_extra=body_schema(EmbedSettings, service.processors))
    async def embed(request: Request) -> Response:
        """Embed one value, or a list of values, of each of some modalities, to vectors of unit length."""
        given = await read_body(request, texts=modalities)
        wanted = {m: value for m in modalities if (value := given.pop(m, None)) is not None}
        check_settings(EmbedSettings, given, modalities)
        if not wanted:
            raise RequestError(400, f"Give values of a modality: {', '.join(modalities)}.")
        values = {modality: service.values(modality, value) for modality, value in wanted.items()}
        vectors = _as_lists(await service.encode(values, list))
        return JSONResponse({"dim": service.embedder.dim, "vectors": vectors})

    return router


def _as_lists(vectors: Vectors) -> dict[str, list[list[float]]]:
    return {modality: found.tolist() for modality, found in vectors.items()}
