"""``/picture`` and ``/sound``: what the rows of the index look and sound like."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response

from multimodal.core.errors import MultimodalError, suggest
from multimodal.media.audio import import_audio_library, read_recording
from multimodal.media.image import picture_file, png_file
from multimodal.media.picture_grid import thumbnail
from multimodal.serve.errors import RequestError
from multimodal.serve.rows import Rows
from multimodal.serve.service import Service

MAX_SECONDS = 10.0  # of a sound
MAX_TEXT = 2000  # characters
RATE = 16_000  # of samples without a rate
HEADERS = {
    "Cache-Control": "private, max-age=300",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",  # a drawing runs no script
}
SVG = "image/svg+xml"

Medium = tuple[bytes, str]  # the file, and its type
Key = Annotated[str, Query(description="the key of the row")]  # in a path, browsers would resolve "./" and "../"
Modality = Annotated[str | None, Query(description="the modality to show; by default the first that can be shown")]


def media_routes(service: Service, rows: Rows) -> APIRouter:
    """Return the routes of pictures and sounds of rows."""
    router = APIRouter()

    def find(key: str, modality: str | None, read: Callable[[Service, str, object], Medium | None]) -> Medium | None:
        if modality is not None and modality not in service.processors:
            raise RequestError(
                400, f"The model has no modality {modality!r}.{suggest(modality, [*service.processors])}"
            )
        for name, value in rows.values(key).items():
            if modality in (None, name) and name in service.processors and (found := read(service, name, value)):
                return found
        return None

    async def answer(
        key: str, modality: str | None, read: Callable[[Service, str, object], Medium | None], what: str
    ) -> Response:
        found = await service.in_thread(partial(find, key, modality, read), service.readers)
        if found is None:
            raise RequestError(404, f"The row {key!r} has no {what}, or its table cannot be read here.")
        return Response(found[0], media_type=found[1], headers=HEADERS)

    @router.get("/picture", response_class=Response, responses={404: {"description": "There is none."}})
    async def picture(key: Key, modality: Modality = None) -> Response:
        """Return a small picture of a row as PNG, or its drawing as SVG."""
        return await answer(key, modality, _picture, "picture")

    @router.get("/sound", response_class=Response, responses={404: {"description": "There is none."}})
    async def sound(key: Key, modality: Modality = None) -> Response:
        """Return the beginning of a row's sound as WAV."""
        return await answer(key, modality, _sound, "sound")

    @router.get("/value")
    async def value(key: Key, modality: Modality = None) -> dict[str, str | None]:
        """Return a row's text, or its other values as a text; null: it has none, or it is a file."""
        found = await service.in_thread(partial(find, key, modality, _text), service.readers)
        return {"text": None if found is None else found[0].decode()}

    return router


def _text(service: Service, modality: str, value: object) -> Medium | None:
    if isinstance(value, Mapping):
        value = ", ".join(f"{name}: {cell}" for name, cell in value.items())
    if not isinstance(value, str) or service.processors[modality].reads_files:
        return None
    return value[:MAX_TEXT].encode(errors="replace"), "text/plain"


def _picture(service: Service, modality: str, value: object) -> Medium | None:
    processor = service.processors[modality]
    try:
        if (drawing := processor.drawing(value)) is not None:
            return drawing.encode(), SVG
        if not processor.reads_files:
            return None
        small = thumbnail(picture_file(value))
    except MultimodalError:  # another kind of file
        return None
    return None if small is None else (png_file(small), "image/png")


def _sound(service: Service, modality: str, value: object) -> Medium | None:
    if not service.processors[modality].reads_files:
        return None
    try:
        wave, rate = read_recording(value, RATE, MAX_SECONDS)
        buffer = io.BytesIO()
        import_audio_library("soundfile").write(buffer, wave.clip(-1, 1), int(rate), format="WAV")
    except MultimodalError:  # another kind of file, or no library for sounds
        return None
    return buffer.getvalue(), "audio/wav"
