"""The collections of a Qdrant server: created with the same vectors and fields as the embedded engine's."""

from __future__ import annotations

import time
from typing import Any

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from multimodal.core.errors import MultimodalError
from multimodal.search.engines.address import Address
from multimodal.search.engines.cluster import MADE_BY, About
from multimodal.search.engines.layout import WORDS, Layout

SECONDS = 60  # that a request may take
GRAPH = models.HnswConfigDiff(m=16, ef_construct=128)
NO_GRAPH = models.HnswConfigDiff(m=0)


class QdrantServer:
    """The collections of a Qdrant server.

    Args:
        client: asks the server.

    Examples:
        >>> QdrantServer(QdrantClient(":memory:")).client.get_collections().collections
        []
    """

    errors: tuple[type[Exception], ...] = (ApiException,)

    def __init__(self, client: QdrantClient) -> None:
        self.client = client

    @classmethod
    def connect(cls, address: Address) -> QdrantServer:
        """Return the server of an address.

        Args:
            address: the address.
        """
        return cls(
            QdrantClient(
                url=address.server, api_key=address.credential, timeout=SECONDS, check_compatibility=False
            )  # which would only warn
        )

    def names(self) -> list[str]:
        """Return the names of all collections."""
        return [collection.name for collection in self.client.get_collections().collections]

    def target(self, alias: str) -> str | None:
        """Return the collection of an alias, or a collection of this name; None if there is neither.

        Args:
            alias: the name.
        """
        targets = {one.alias_name: one.collection_name for one in self.client.get_aliases().aliases}
        return targets.get(alias, alias if self.client.collection_exists(alias) else None)

    def about(self, collection: str) -> str | None:
        """Return a collection's description; None if this package did not make it.

        Args:
            collection: name of the collection.
        """
        return (self.client.get_collection(collection).config.metadata or {}).get(MADE_BY)

    def create(self, collection: str, about: About, address: Address) -> None:
        """Create an empty collection.

        Args:
            collection: its name.
            about: its description.
            address: has the number of shards and replicas.
        """
        self.client.create_collection(
            collection,
            vectors_config=vectors_of(about.layout),
            sparse_vectors_config={WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            shard_number=address.shards,
            replication_factor=address.replicas,
            metadata={MADE_BY: about.text()},
        )
        self.index_field(collection, "key")

    def index_field(self, collection: str, field: str, kind: str = "keyword") -> None:
        """Create the index of a field of the stored rows, without which conditions on it are slow and miss rows.

        Args:
            collection: name of the collection.
            field: path of the field.
            kind: of its values, "keyword" or "float".
        """
        self.client.create_payload_index(collection, field, models.PayloadSchemaType(kind))

    def describe(self, collection: str, about: About) -> None:
        """Replace a collection's description.

        Args:
            collection: name of the collection.
            about: the description.
        """
        self.client.update_collection(collection, metadata={MADE_BY: about.text()})

    def wait(self, collection: str) -> None:
        """Wait until the stored vectors are indexed.

        Args:
            collection: name of the collection.
        """
        while (status := self.client.get_collection(collection).status) == models.CollectionStatus.YELLOW:
            time.sleep(0.5)
        if status == models.CollectionStatus.RED:
            raise MultimodalError(f"The server could not index the collection {collection!r}; its log says why.")

    def switch(self, alias: str, collection: str) -> None:
        """Move an alias, or create it.

        Args:
            alias: the alias.
            collection: what it is to name.
        """
        delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
        create = models.CreateAlias(collection_name=collection, alias_name=alias)
        moved = [models.CreateAliasOperation(create_alias=create)]
        there = self.target(alias) is not None
        self.client.update_collection_aliases([delete, *moved] if there else moved)  # in one step

    def drop(self, collection: str) -> None:
        """Delete a collection.

        Args:
            collection: its name.
        """
        self.client.delete_collection(collection)

    @staticmethod
    def is_missing(error: Exception) -> bool:
        """Return whether an error says that a collection does not exist.

        Args:
            error: what the client raised.
        """
        return isinstance(error, UnexpectedResponse) and error.status_code == 404

    @staticmethod
    def reason(error: Exception) -> str:
        """Return what an error says.

        Args:
            error: what the client raised.
        """
        if isinstance(error, UnexpectedResponse) and error.status_code in (401, 403):
            return "the server refuses the key; set the environment variable QDRANT_API_KEY"
        if isinstance(error, UnexpectedResponse):
            try:
                return error.structured()["status"]["error"]
            except (ValueError, KeyError, TypeError):  # not Qdrant's answer
                return f"the answer is {error.status_code} {error.reason_phrase}"
        return str(error)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


def vectors_of(layout: Layout) -> dict[str, models.VectorParams]:
    """Return the vectors of a new collection: those that are searched, and the full ones where they are reduced.

    Args:
        layout: what is to be stored.
    """
    compressed: Any = None
    if layout.quantization == "int8":
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        compressed = models.ScalarQuantization(scalar=int8)
    elif layout.quantization == "binary":
        compressed = models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    dot = models.Distance.DOT  # of unit vectors: the cosine
    vectors = {}
    for modality in layout.modalities:
        vectors[layout.vectors_of(modality)] = models.VectorParams(
            size=layout.width,
            distance=dot,
            hnsw_config=GRAPH,
            quantization_config=compressed,
            on_disk=compressed is not None,  # then read for the candidates alone
        )
        if layout.reduced:
            full = models.VectorParams(size=layout.dim, distance=dot, hnsw_config=NO_GRAPH, on_disk=True)
            vectors[layout.full_vectors_of(modality)] = full
    return vectors
