"""``/health`` and ``/about``: that the server works, and what it serves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from multimodal.core.registry import registrations
from multimodal.search.engines.open import EXACT
from multimodal.serve.rows import Rows
from multimodal.serve.service import Service


def about_routes(service: Service, rows: Rows, name: str, can_change: bool, feedback: bool) -> APIRouter:
    """Return the routes that describe the server.

    Args:
        service: the index and the model.
        rows: the rows of the index.
        name: the name of the model.
        can_change: whether rows may be added and removed.
        feedback: whether judgements of hits are collected.
    """
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the server works."""
        return {"status": "ok"}

    @router.get("/about")
    async def about() -> dict[str, Any]:
        """Describe the model and the index: the modalities to search with and for, and the columns to filter on."""
        index, embedder = service.index, service.embedder
        count = await service.in_thread(
            lambda: len(index), service.readers
        )  # a server's index is asked over the network
        return {
            "model": name,
            "fingerprint": index.fingerprint,
            "dim": index.dim,
            "vectors": count,
            "modalities": {
                modality: {
                    "file": processor.reads_files,
                    "encoder": type(embedder.encoder(modality)).__name__,
                    "kind": kind_of(modality, type(embedder.encoder(modality))),
                }
                for modality, processor in service.processors.items()
            },
            "targets": list(index.modalities),
            "columns": list(index.columns),
            "calibrated": [] if embedder.calibration is None else sorted(embedder.calibration.pairs),
            "media": rows.known,
            "words": index.engine.name != EXACT,
            "can_change": can_change,
            "feedback": feedback,
            "max_body": service.limits.max_body,
        }

    return router


def kind_of(modality: str, encoder: type) -> str:
    """Return for which kind of values an encoder is registered: "image", "text", ...; that of its name if for several.

    Args:
        modality: the name of the modality in the model, which may be any.
        encoder: the class of its encoder.

    Examples:
        >>> from multimodal import create
        >>> kind_of("photo", type(create("image", "small_cnn")))
        'image'
    """
    kinds = [registration.modality for registration in registrations() if registration.cls is encoder]
    return modality if modality in kinds or not kinds else kinds[0]
