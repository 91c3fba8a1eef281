"""The collections of a Milvus server.

Milvus has no vectors that may be missing, and few fields of vectors: a row of a collection is one vector, of one modality.
"""

from __future__ import annotations

import logging
from typing import Any

from pymilvus import DataType, Function, FunctionType, MilvusClient
from pymilvus.client.types import LoadState
from pymilvus.exceptions import MilvusException

from multimodal.search.engines.address import Address
from multimodal.search.engines.cluster import MADE_BY, About
from multimodal.search.engines.layout import Layout

SECONDS = 60  # that a request may take
MISSING = 100  # Milvus' code: there is no such collection
LONGEST = 65_535  # bytes of a text
MOST_CELLS = 4096  # columns of the metadata that can be filtered on
ID_BYTES, CELL_BYTES = 64, 2048
TEXTS = ("key", "group", "modality", "metadata")
GRAPH = {"M": 16, "efConstruction": 128}
INT8 = {"sq_type": "SQ8", "refine": True, "refine_type": "FP32"}
WORDS_OF_ANY_LANGUAGE = {"tokenizer": "standard", "filter": ["lowercase", "asciifolding"]}


class MilvusServer:
    """The collections of a Milvus server.

    Args:
        client: asks the server.

    Examples:
        >>> [error.__name__ for error in MilvusServer.errors]
        ['MilvusException']
    """

    errors: tuple[type[Exception], ...] = (MilvusException,)

    def __init__(self, client: MilvusClient) -> None:
        self.client: Any = client  # its methods' types are those of another client's

    @classmethod
    def connect(cls, address: Address) -> MilvusServer:
        """Return the server of an address.

        Args:
            address: the address.

        Raises:
            MilvusException: it does not answer.
        """
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it prints each error's traceback; we report them
        return cls(MilvusClient(uri=address.server, token=address.credential or "", timeout=SECONDS))

    def names(self) -> list[str]:
        """Return the names of all collections."""
        return list(self.client.list_collections())

    def target(self, alias: str) -> str | None:
        """Return the collection of an alias, or a collection of this name; None if there is neither.

        Args:
            alias: the name.
        """
        if alias in self.client.list_aliases()["aliases"]:
            return self.client.describe_alias(alias)["collection_name"]
        return alias if self.client.has_collection(alias) else None

    def about(self, collection: str) -> str | None:
        """Return a collection's description; None if this package did not make it.

        Args:
            collection: name of the collection.
        """
        return self.client.describe_collection(collection)["properties"].get(MADE_BY)

    def create(self, collection: str, about: About, address: Address) -> None:
        """Create an empty collection.

        Args:
            collection: its name.
            about: its description.
            address: has the number of shards and replicas.
        """
        shards = {} if address.shards is None else {"num_shards": address.shards}
        self.client.create_collection(
            collection,
            schema=_schema(about.layout),
            properties={MADE_BY: about.text()},
            consistency_level="Session",  # who changes rows finds the changes
            **shards,
        )
        self.client.create_index(collection, self._indexes(about.layout), sync=False)  # there is nothing to wait for

    def load(self, collection: str, address: Address) -> None:
        """Load a collection into memory, without which it is not searched, unless it is there.

        Args:
            collection: its name.
            address: has the number of replicas.
        """
        if self.client.get_load_state(collection)["state"] == LoadState.NotLoad:
            self.client.load_collection(collection, replica_number=address.replicas or 1)

    def _indexes(self, layout: Layout) -> Any:
        indexes = MilvusClient.prepare_index_params()
        kind, more = ("HNSW", {}) if layout.quantization is None else ("HNSW_SQ", INT8)
        indexes.add_index("vector", index_type=kind, metric_type="IP", params={**GRAPH, **more})  # of unit vectors
        indexes.add_index("weights", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        arrays = [] if "lite" in self.client.get_server_version() else ["cells"]  # Milvus Lite has no index of arrays
        for field in ("key", "modality", "first", *arrays):
            indexes.add_index(field, index_type="INVERTED")
        return indexes

    def describe(self, collection: str, about: About) -> None:
        """Replace a collection's description.

        Args:
            collection: name of the collection.
            about: the description.
        """
        self.client.alter_collection_properties(collection, {MADE_BY: about.text()})

    def wait(self, collection: str) -> None:
        """Wait until the stored vectors are on disk, where Milvus indexes them; until it has, it compares them one by one.

        Args:
            collection: name of the collection.
        """
        self.client.flush(collection)

    def switch(self, alias: str, collection: str) -> None:
        """Move an alias, or create it.

        Args:
            alias: the alias.
            collection: what it is to name.
        """
        if self.target(alias) is None:
            self.client.create_alias(collection, alias)
        else:
            self.client.alter_alias(collection, alias)

    def drop(self, collection: str) -> None:
        """Delete a collection.

        Args:
            collection: its name.
        """
        self.client.drop_collection(collection)

    @staticmethod
    def is_missing(error: Exception) -> bool:
        """Return whether an error says that a collection does not exist.

        Args:
            error: what the client raised.
        """
        return isinstance(error, MilvusException) and error.code == MISSING

    @staticmethod
    def reason(error: Exception) -> str:
        """Return what an error says.

        Args:
            error: what the client raised.
        """
        return error.message if isinstance(error, MilvusException) else str(error)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


def _schema(layout: Layout) -> Any:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=ID_BYTES)
    for field in TEXTS:
        schema.add_field(field, DataType.VARCHAR, max_length=LONGEST)
    schema.add_field("first", DataType.BOOL)  # whether it is the first vector of its row
    cells = {"element_type": DataType.VARCHAR, "max_capacity": MOST_CELLS, "max_length": CELL_BYTES}
    schema.add_field("cells", DataType.ARRAY, **cells)
    schema.add_field("ranges", DataType.JSON)  # without an index: the numbers of all rows are compared
    words = {"enable_analyzer": True, "analyzer_params": WORDS_OF_ANY_LANGUAGE}
    schema.add_field("words", DataType.VARCHAR, max_length=LONGEST, **words)
    schema.add_field("weights", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=layout.dim)
    schema.add_function(Function("bm25", FunctionType.BM25, ["words"], ["weights"]))
    return schema
