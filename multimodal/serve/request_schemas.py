"""Schemas of bodies for the OpenAPI description: as JSON, and as a form whose files are uploaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from multimodal.core.encoder import Processor
from multimodal.serve.body import FORM_TYPE, JSON_TYPE

FILE_IN_JSON = "The file as a data: URL, such as data:image/png;base64,..., or a JSON value that the encoder reads."


def body_schema(settings: type[BaseModel], processors: Mapping[str, Processor]) -> dict[str, Any]:
    """Return what a route adds to the OpenAPI description for a body of JSON or a form.

    Args:
        settings: the settings next to the values of the modalities.
        processors: modality -> its processor, which says whether it reads files.
    """
    schema = {"properties": {}, **_inlined(settings.model_json_schema())}
    form = {**schema, "properties": dict(schema["properties"])}
    for modality, processor in processors.items():
        files = processor.reads_files
        schema["properties"][modality] = {"title": modality, "description": FILE_IN_JSON if files else "The value."}
        form["properties"][modality] = {"type": "string"} | ({"format": "binary"} if files else {})
    content = {JSON_TYPE: {"schema": schema}, FORM_TYPE: {"schema": form}}
    return {"requestBody": {"required": True, "content": content}, "responses": ERRORS}


def json_schema(settings: type[BaseModel]) -> dict[str, Any]:
    """Return what a route adds to the OpenAPI description for a body of JSON."""
    content = {JSON_TYPE: {"schema": _inlined(settings.model_json_schema())}}
    return {"requestBody": {"required": True, "content": content}, "responses": ERRORS}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without references, which would point to a place that the description does not have."""
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return resolved(definitions[part["$ref"].rpartition("/")[2]])
            return {name: resolved(value) for name, value in part.items()}
        return [resolved(value) for value in part] if isinstance(part, list) else part

    return resolved(schema)


ERRORS: dict[str, Any] = {
    str(status): {"description": description}
    for status, description in {
        400: "A setting is unknown or wrong; the message names it.",
        413: "The request is too large.",
        415: "The body has another type, or is compressed.",
        422: "A value cannot be read.",
        429: "The server is full; try again after Retry-After seconds.",
        504: "The request took too long.",
    }.items()
}
