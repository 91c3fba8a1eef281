"""Collections on a server: what Qdrant's and Milvus' have in common.

1. A collection is never changed into another one. An index is built into a new collection, ``NAME_`` and eight random digits;
   then the alias ``NAME`` is moved to it, and the old one is deleted. Searches are answered throughout.
2. The collection describes itself: the fingerprint of the model and the layout, which grows with new columns, are kept with it.
   So all machines that have the folder of the index read the same, and a collection without a description, which this package
   did not make, is never replaced.
"""

from __future__ import annotations

import json
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

import pyarrow as pa

from multimodal.core.conditions import Kind
from multimodal.core.errors import MultimodalError
from multimodal.search.engines.address import Address
from multimodal.search.engines.layout import Layout

MADE_BY = "multimodal"  # name under which a collection's description is kept with it
FLOATS = 1 << 19  # sent to a server at a time: about 10 MB as text, and servers refuse messages of more than 32 MB
ROWS = 512  # sent at a time

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class About(NamedTuple):
    """What a collection says of itself.

    Attributes:
        alias: name under which it is searched.
        fingerprint: of the model that computed the vectors.
        layout: what is stored.

    Examples:
        >>> about = About("glyphs", "f" * 64, Layout(dim=4, modalities=["text"], columns=["set"]))
        >>> About.parse(about.text()).layout.modalities
        ['text']
    """

    alias: str
    fingerprint: str
    layout: Layout

    def text(self) -> str:
        """Return the description as JSON."""
        return json.dumps({"alias": self.alias, "fingerprint": self.fingerprint, "layout": self.layout.document()})

    @classmethod
    def parse(cls, text: Any) -> About:
        """Read a description.

        Args:
            text: the JSON.

        Raises:
            MultimodalError: it is not one.
        """
        try:
            document = json.loads(text)
            return cls(str(document["alias"]), str(document["fingerprint"]), Layout.of(document["layout"]))
        except (ValueError, KeyError, TypeError, RecursionError, MultimodalError) as error:
            raise MultimodalError(f"its description cannot be read: {error}") from error


class Server(Protocol):
    """The collections of a server, as each system names and keeps them.

    Attributes:
        errors: what its client raises.
    """

    errors: tuple[type[Exception], ...]

    def names(self) -> list[str]:
        """Return the names of all collections."""
        ...

    def target(self, alias: str) -> str | None:
        """Return the collection of an alias, or a collection of this name; None if there is neither."""
        ...

    def about(self, collection: str) -> str | None:
        """Return a collection's description; None if this package did not make it."""
        ...

    def create(self, collection: str, about: About, address: Address) -> None:
        """Create an empty collection.

        Args:
            collection: its name.
            about: its description.
            address: has the number of shards and replicas.
        """
        ...

    def describe(self, collection: str, about: About) -> None:
        """Replace a collection's description."""
        ...

    def wait(self, collection: str) -> None:
        """Wait until the stored vectors are indexed."""
        ...

    def switch(self, alias: str, collection: str) -> None:
        """Move an alias, or create it."""
        ...

    def drop(self, collection: str) -> None:
        """Delete a collection."""
        ...

    @staticmethod
    def is_missing(error: Exception) -> bool:
        """Return whether an error says that a collection does not exist."""
        ...

    @staticmethod
    def reason(error: Exception) -> str:
        """Return what an error says."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def current(
    search: Callable[Concatenate[Any, Arguments], Result],
) -> Callable[Concatenate[Any, Arguments], Result]:
    """Make a search that is repeated if its collection was replaced since it was opened.

    Args:
        search: a method of ``ClusterEngine``.
    """

    @wraps(search)
    def repeated(self: Any, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with self.errors():
            try:
                return search(self, *args, **kwargs)
            except self.server.errors as error:
                if not self.server.is_missing(error):
                    raise
            self.find_collection()
            return search(self, *args, **kwargs)

    return repeated


class ClusterEngine(ABC):
    """An index in a collection of a server, which any number of processes and machines may have open.

    Args:
        server: has the collections.
        address: which of them.
        collection: name of the collection itself, where ``address`` has its alias.
        about: its description.

    Examples:
        >>> sorted(ClusterEngine.__abstractmethods__)  # what the engine of a system has to write
        ['_remove', '_upsert', 'count']
    """

    def __init__(self, server: Any, address: Address, collection: str, about: About) -> None:
        self.server, self.address, self.name = server, address, address.url
        self.collection, self.about, self.dim = collection, about, about.layout.dim
        self._changing = threading.Lock()

    @property
    def layout(self) -> Layout:
        """What is stored."""
        return self.about.layout

    @property
    def modalities(self) -> list[str]:
        """The modalities of the stored vectors."""
        return list(self.layout.modalities)

    @property
    def columns(self) -> list[str]:
        """The columns of the metadata."""
        return list(self.layout.columns)

    @property
    def grouped(self) -> bool:
        """Whether several rows may be in one group."""
        return self.layout.grouped

    def kinds(self, column: str) -> set[Kind]:
        """Return what ranges of a column can compare, as ``Engine.kinds`` defines it.

        Args:
            column: one of ``columns``.
        """
        return self.layout.kinds(column)

    def upsert(self, parts: Iterable[pa.Table]) -> None:
        """Add rows, in the place of those that have their keys; the server has them on disk when this returns.

        Args:
            parts: parts of embeddings, see ``multimodal.search.embed``; vectors are float32 of unit length.
        """
        with self._changing, self.errors():
            replaces = sum(map(self.count, self.modalities)) > 0
            for part in parts:
                self._upsert(part, replaces)

    @abstractmethod
    def _upsert(self, part: pa.Table, replaces: bool) -> None: ...

    @abstractmethod
    def count(self, modality: str) -> int:
        """Return the number of stored vectors of a modality.

        Args:
            modality: one of ``modalities``.
        """

    def remove(self, keys: Sequence[str]) -> int:
        """Remove rows, and return how many were there.

        Args:
            keys: the keys of the rows.
        """
        with self._changing, self.errors():
            starts = range(0, len(keys), ROWS)
            return sum(self._remove(list(dict.fromkeys(keys[start : start + ROWS]))) for start in starts)

    @abstractmethod
    def _remove(self, keys: list[str]) -> int: ...

    def close(self) -> None:
        """Close the connection to the server."""
        self.server.close()

    def rows_at_once(self, a_row: int) -> int:
        """Return how many rows are sent in one message.

        Args:
            a_row: numbers in a row.
        """
        return max(1, min(ROWS, FLOATS // max(1, a_row)))

    def widen(
        self,
        modalities: Sequence[str],
        described: Sequence[dict[str, Any]],
        keys: Sequence[str],
        groups: Sequence[str],
    ) -> None:
        """Add the columns of further rows, and the kinds of their values, to the collection's description.

        Args:
            modalities: the rows' modalities.
            described: the columns of each row.
            keys: the rows' keys.
            groups: the rows' groups.

        Raises:
            MultimodalError: the collection has no vectors of a modality.
        """
        self.layout.check_modalities(modalities)
        if self.layout.with_rows(described, keys, groups) == self.layout:
            return
        self.about = About.parse(self.server.about(self.collection))  # another process may have added columns
        self.about = self.about._replace(layout=self.layout.with_rows(described, keys, groups))
        self.server.describe(self.collection, self.about)

    def find_collection(self) -> None:
        """Find the collection that the alias names now.

        Raises:
            MultimodalError: there is none, or its vectors are of another model or width.
        """
        collection, about = find(self.server, self.address)
        if (about.fingerprint, about.layout.dim) != (self.about.fingerprint, self.dim):
            raise MultimodalError(f"{self.name} was built again with another model; open the index again.")
        self.collection, self.about = collection, about

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Report the errors of the server's client as ours."""
        with errors_of(self.server, self.address):
            try:
                yield
            except self.server.errors as error:
                if not self.server.is_missing(error):
                    raise
                raise MultimodalError(
                    f"{self.name} was built again since it was opened; open the index again."
                ) from error


@contextmanager
def errors_of(server: Server | type[Server], address: Address) -> Iterator[None]:
    """Report the errors of a server's client as ours.

    Args:
        server: the server, or its class.
        address: the collection that is asked for.

    Raises:
        MultimodalError: the client raised an error.
    """
    try:
        yield
    except server.errors as error:
        reason = " ".join(server.reason(error).split()).rstrip(".")
        raise MultimodalError(f"{address.url} failed: {reason}.") from error


def find(server: Server, address: Address) -> tuple[str, About]:
    """Return the collection of an address, and its description.

    Args:
        server: the server.
        address: the address.

    Raises:
        MultimodalError: there is none, or this package did not make it.
    """
    found = _own(server, address)
    if found is None:
        raise MultimodalError(f"{address.server} has no collection {address.collection!r}; build the index again.")
    try:
        return found[0], About.parse(found[1])
    except MultimodalError as error:
        raise MultimodalError(f"{address.url} is damaged ({error}); build the index again.") from error


def _own(server: Server, address: Address) -> tuple[str, str] | None:
    """Return the collection of an address and its description as text; None if there is none."""
    collection = server.target(address.collection)
    if collection is None:
        return None
    text = server.about(collection)
    if text is None or collection == address.collection:  # ours have an alias
        raise MultimodalError(
            f"The collection {address.collection!r} of {address.server} is not one that `multimodal index` made; it is"
            " neither searched nor replaced. Choose another name."
        )
    return collection, text


@contextmanager
def building(server: Server, address: Address, about: About) -> Iterator[str]:
    """Fill a new collection in the block; when it ends without an exception, the collection takes the place of the old one.

    Args:
        server: the server.
        address: the address of the index.
        about: describes the new collection.

    Yields:
        Its name.

    Raises:
        MultimodalError: the server has a collection of this name that this package did not make.
    """
    with errors_of(server, address):
        _own(server, address)
        new = f"{address.collection}_{secrets.token_hex(4)}"
        server.create(new, about, address)
        try:
            if server.about(new) is None:
                raise MultimodalError(
                    f"{address.server} does not keep what a collection says of itself: Qdrant does so from version 1.16."
                )
            yield new
            server.wait(new)
        except BaseException:
            server.drop(new)
            raise
        server.switch(address.collection, new)
        for name in server.names():  # the old one, and those of builds that were killed
            if name != new and name.startswith(f"{address.collection}_") and _is_of(server, name, address.collection):
                server.drop(name)


def _is_of(server: Server, collection: str, alias: str) -> bool:
    text = server.about(collection)
    try:
        return text is not None and About.parse(text).alias == alias
    except MultimodalError:
        return False
