"""Address of a collection of vectors on a server: ``qdrant+http://localhost:6333/glyphs``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, urlsplit

from multimodal.core.errors import UsageError, shown, suggest

CREDENTIALS = {"qdrant": "QDRANT_API_KEY", "milvus": "MILVUS_TOKEN"}  # system -> variable of the environment
FORM = "qdrant+http://HOST:6333/COLLECTION or milvus+http://HOST:19530/COLLECTION (https: qdrant+https, milvus+https)"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


@dataclass(frozen=True)
class Address:
    """Where the vectors of an index are: a collection of a server.

    Attributes:
        url: the whole address, as in ``multimodal index --engine URL``.
        system: "qdrant" or "milvus".
        server: URL of the server.
        collection: name of the collection.
        shards: parts into which a new collection is divided. None: the server's default.
        replicas: copies of each part of a new collection. None: the server's default.

    Examples:
        >>> address = Address.parse("qdrant+http://localhost:6333/glyphs?shards=6&replicas=2")
        >>> address.system, address.server, address.collection, address.shards
        ('qdrant', 'http://localhost:6333', 'glyphs', 6)
    """

    url: str
    system: str
    server: str
    collection: str
    shards: int | None = None
    replicas: int | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read an address.

        Args:
            url: the address.

        Raises:
            UsageError: it has another form, or holds a password.
        """
        if "@" in url:  # the address is written to index.json, and is not repeated here either
            raise UsageError(
                "The address of an engine may hold no user and no password, as it is written to index.json: set the"
                " environment variable "
                + " or ".join(f"{name} ({system})" for system, name in CREDENTIALS.items())
                + "."
            )
        try:
            parts = urlsplit(url)
            settings = _settings(parts)
            host = parts.hostname and parts.port != 0
        except ValueError as error:
            raise UsageError(f"{shown(url)} is not the address of an engine ({error}): {FORM}.") from error
        system, _, scheme = parts.scheme.partition("+")
        collection = parts.path.removeprefix("/")
        if system not in CREDENTIALS or scheme not in ("http", "https") or not host or parts.fragment:
            raise UsageError(f"{shown(url)} is not the address of an engine: {FORM}.")
        if not NAME.fullmatch(collection):
            raise UsageError(
                f"{shown(url)} names no collection: its name is of letters, digits and _, as in {system}+{scheme}://"
                f"{parts.netloc}/glyphs."
            )
        return cls(url, system, f"{scheme}://{parts.netloc}", collection, **settings)

    @property
    def variable(self) -> str:
        """The environment variable of the key or token with which the server is asked."""
        return CREDENTIALS[self.system]

    @property
    def credential(self) -> str | None:
        """The key or token. None: the variable is not set."""
        return os.environ.get(self.variable) or None


def is_address(engine: str) -> bool:
    """Return whether the name of an engine is an address.

    Args:
        engine: the name.

    Examples:
        >>> is_address("exact"), is_address("qdrant+http://localhost:6333/glyphs")
        (False, True)
    """
    return "://" in engine


def _settings(parts: SplitResult) -> Mapping[str, int]:
    """Return what stands after the question mark."""
    settings = {}
    for name, values in parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)).items():
        if name not in ("shards", "replicas"):
            raise ValueError(f"there is no setting {name!r}.{suggest(name, ['shards', 'replicas'])}".rstrip("."))
        if not re.fullmatch(r"[1-9]\d{0,3}", values[-1], re.ASCII) or len(values) > 1:
            raise ValueError(f"{name} must be a number from 1 to 9999")
        settings[name] = int(values[-1])
    return settings
