"""multimodal: one vector space for every form a thing comes in.

The names below are imported when they are first used, so that ``import multimodal`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal.core.batch import Batch, Sample
    from multimodal.core.embedder import Embedder
    from multimodal.core.embeddings import Embeddings
    from multimodal.core.encoder import Encoder, Inputs, Processor
    from multimodal.core.errors import MultimodalError, Unreadable, UsageError
    from multimodal.core.registry import register
    from multimodal.search.index import Index

__version__ = "0.1.0"  # the one place for it: packaging and CITATION.cff go by this line

_HOMES = {
    "Batch": "multimodal.core.batch",
    "Embedder": "multimodal.core.embedder",
    "Embeddings": "multimodal.core.embeddings",
    "Encoder": "multimodal.core.encoder",
    "Index": "multimodal.search.index",
    "Inputs": "multimodal.core.encoder",
    "MultimodalError": "multimodal.core.errors",
    "Processor": "multimodal.core.encoder",
    "Sample": "multimodal.core.batch",
    "Unreadable": "multimodal.core.errors",
    "UsageError": "multimodal.core.errors",
    "register": "multimodal.core.registry",
}
__all__ = [
    "Batch",
    "Embedder",
    "Embeddings",
    "Encoder",
    "Index",
    "Inputs",
    "MultimodalError",
    "Processor",
    "Sample",
    "Unreadable",
    "UsageError",
    "register",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'multimodal' has no attribute {name!r}")
