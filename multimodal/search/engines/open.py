"""From the name of an engine to the engine: one that this process runs, or a collection of a server."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.extras import require
from multimodal.search.engines.address import Address, is_address
from multimodal.search.engines.cluster import About, Server, building, errors_of, find
from multimodal.search.engines.engine import Engine
from multimodal.search.engines.layout import Layout

if TYPE_CHECKING:
    from multimodal.search.engines.milvus import MilvusEngine
    from multimodal.search.engines.qdrant import QdrantEngine

EMBEDDED = "qdrant-edge"
EXACT = "exact"
ENGINES = (EMBEDDED, EXACT, "qdrant+http://HOST:6333/COLLECTION", "milvus+http://HOST:19530/COLLECTION")


def check_engine(name: str, layout: Layout) -> None:
    """Check the name and settings of an engine before work whose results go there.

    Args:
        name: of the engine: "qdrant-edge", "exact" or an address.
        layout: what is to be stored.

    Raises:
        UsageError: there is no such engine, its client is not installed, or a setting does not fit it.
    """
    compressed = layout.quantization is not None or layout.reduced
    if is_address(name):
        address = Address.parse(name)
        _require_client(address)
        if layout.reduced and layout.reduction != "prefix":
            raise UsageError(
                f"On a server, vectors are reduced to their prefixes; {layout.reduction} is for {EMBEDDED}."
            )
        if address.system == "milvus" and (layout.reduced or layout.quantization not in (None, "int8")):
            raise UsageError("In Milvus, the whole vectors are searched, or int8 ones: dim and binary do not fit it.")
    elif name not in ENGINES:
        raise UsageError(f"There is no engine {name!r}.{suggest(name, list(ENGINES))}")
    elif name == EXACT and compressed:
        raise UsageError("Exact search compares the whole vectors, so quantization and dim do not fit it.")


def open_engine(name: str, folder: Path, fingerprint: str) -> Engine:
    """Open the engine of an index.

    Args:
        name: of the engine: "qdrant-edge" or an address.
        folder: the embedded engine's.
        fingerprint: of the model that computed the vectors.

    Raises:
        MultimodalError: it cannot be opened, or its vectors are of another model.
    """
    if is_address(name):
        address = Address.parse(name)
        server, engine_of = _connect(address)
        with ExitStack() as connection:
            connection.callback(server.close)
            with errors_of(server, address):
                collection, about = find(server, address)
            if about.fingerprint != fingerprint:
                raise MultimodalError(
                    f"{name} holds the vectors of another model ({about.fingerprint[:12]}) than the index"
                    f" {folder.parent} ({fingerprint[:12]}): both were not built together. Build the index again."
                )
            connection.pop_all()  # the engine closes it
        return engine_of(server, address, collection, about)
    if name != EMBEDDED:
        raise MultimodalError(f"{folder.parent} is searched by the engine {name!r}, which this version does not have.")
    from multimodal.search.engines.qdrant_edge import QdrantEdgeEngine

    return QdrantEdgeEngine.open(folder)


def build_engine(name: str, folder: Path, parts: Iterable[pa.Table], layout: Layout, fingerprint: str) -> None:
    """Build the engine of an index; a collection on a server is searched until the new one is complete.

    Args:
        name: of the engine: "qdrant-edge" or an address.
        folder: a new folder, for the embedded engine.
        parts: parts of embeddings.
        layout: what is to be stored.
        fingerprint: of the model that computed the vectors.

    Raises:
        MultimodalError: a vector is not finite, the server fails, or it has a collection of this name that this package did
            not make.
    """
    if name == EMBEDDED:
        from multimodal.search.engines.qdrant_edge import QdrantEdgeEngine

        with closing(QdrantEdgeEngine.create(folder, layout)) as engine:
            engine.upsert(parts)
        return
    address = Address.parse(name)
    server, engine_of = _connect(address)
    about = About(address.collection, fingerprint, layout)
    with closing(server), building(server, address, about) as collection:
        engine_of(server, address, collection, about).upsert(parts)


def _connect(address: Address) -> tuple[Server, type[QdrantEngine | MilvusEngine]]:
    """Return the server of an address, and what searches it."""
    _require_client(address)
    if address.system == "qdrant":
        from multimodal.search.engines.qdrant import QdrantEngine as OfSystem
        from multimodal.search.engines.qdrant_server import QdrantServer as ServerOfSystem
    else:
        from multimodal.search.engines.milvus import MilvusEngine as OfSystem
        from multimodal.search.engines.milvus_server import MilvusServer as ServerOfSystem
    with errors_of(ServerOfSystem, address):
        return ServerOfSystem.connect(address), OfSystem


def _require_client(address: Address) -> None:
    if address.system == "qdrant":
        require("qdrant", "An index on a Qdrant server", "qdrant_client")
    else:
        require("milvus", "An index on a Milvus server", "pymilvus")
