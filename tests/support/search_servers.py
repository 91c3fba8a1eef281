"""Servers of vectors for tests: Qdrant's client without one, a live one if ``QDRANT_URL`` names it, and Milvus Lite's."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def qdrant_in_memory() -> Any:
    """Return a server that the client plays itself; its errors are ``ValueError``."""
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed (extra qdrant)")
    from qdrant_client import QdrantClient

    from multimodal.search.engines.qdrant_server import QdrantServer

    class InMemory(QdrantServer):
        errors = (ValueError,)

        @staticmethod
        def is_missing(error: Exception) -> bool:
            return str(error).endswith(" not found")

        def close(self) -> None:
            """Keep what is stored, as a server does."""

    return InMemory(QdrantClient(":memory:"))


def live_qdrant() -> str:
    """Return the address of a new collection of a live server."""
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed (extra qdrant)")
    if "QDRANT_URL" not in os.environ:
        pytest.skip("QDRANT_URL names no live server, such as http://localhost:6333")
    return f"qdrant+{os.environ['QDRANT_URL'].rstrip('/')}/test_{secrets.token_hex(4)}"


@contextmanager
def milvus_lite(folder: Path) -> Iterator[str]:
    """Run Milvus Lite's server on this machine's own interface alone, and yield the address of a collection.

    Args:
        folder: for its files.
    """
    pytest.importorskip("pymilvus", reason="pymilvus is not installed (extra milvus)")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (extra dev)")
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(folder), host="127.0.0.1")
    try:
        yield f"milvus+http://127.0.0.1:{port}/things"
    finally:
        server.stop(grace=1).wait()
        database.close()
