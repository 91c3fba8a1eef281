"""What the routes share: the index, its model, and the threads that use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np

from multimodal.core.encoder import Processor
from multimodal.core.errors import UsageError, suggest
from multimodal.search.index import Index
from multimodal.serve.batching import Batcher, Items, Vectors
from multimodal.serve.body import File
from multimodal.serve.errors import RequestError
from multimodal.serve.limits import Limits
from multimodal.serve.values import is_numbers, read_items, value_of_file, value_of_json

READERS = 2  # threads that decode files: one picture may take 300 MB

Result = TypeVar("Result")


class Service:
    """An index and its model, for many requests at once.

    Args:
        index: the index, which must know its model.
        limits: what a request may cost.
        observe: called with the number of requests of each batch.

    Attributes:
        readers: the threads that decode files, and read tables.
        explainer: the thread that explains matches, each of which takes many forward passes.
        writer: the thread that changes the index.
        mapper: the thread that computes the map of the index, which reads many vectors.

    Raises:
        UsageError: the index does not know its model.

    Examples:
        >>> import multimodal as mm
        >>> embedder = mm.Embedder({"text": mm.create("text", "bag")}, dim=8)
        >>> rows = [{"name": "a red cup", "sku": "cup-1"}]
        >>> embedder.fit_processors({"text": ["a red cup", "a red mug"]})
        >>> service = Service(Index.from_table(embedder, rows, columns={"text": "name"}, key="sku"))
        >>> service.values("text", ["a red cup", "a mug"])
        ['a red cup', 'a mug']
        >>> service.close()
    """

    def __init__(
        self, index: Index, limits: Limits | None = None, observe: Callable[[int], object] | None = None
    ) -> None:
        if index.embedder is None:
            raise UsageError("This index does not know its model: open it by Index.open(folder, model=RUN).")
        self.index, self.embedder = index, index.embedder
        self.limits = limits or Limits()
        self.processors: dict[str, Processor] = self.embedder.processors
        self.batcher = Batcher(self._encode, self.limits.max_batch, self.limits.batch_window, observe)
        self.readers = ThreadPoolExecutor(READERS, "multimodal-read")
        self.explainer = ThreadPoolExecutor(1, "multimodal-explain")
        self.writer = ThreadPoolExecutor(1, "multimodal-write")
        self.mapper = ThreadPoolExecutor(1, "multimodal-map")

    def _encode(self, modality: str, items: Sequence[Any]) -> np.ndarray:
        return self.embedder.encode_items(modality, items)

    def value(self, modality: str, given: Any) -> Any:
        """Return the raw value of a modality in a request.

        Raises:
            RequestError: the model has no such modality, or the value cannot be one of it.
        """
        if modality not in self.processors:
            raise RequestError(400, f"The model has no modality {modality!r}.{suggest(modality, [*self.processors])}")
        processor = self.processors[modality]
        if isinstance(given, File):
            return value_of_file(modality, given.name, given.content, processor)
        return value_of_json(modality, given, processor)

    def values(self, modality: str, given: Any) -> list[Any]:
        """Return the raw values of a modality in a request, of a list or of one value.

        Raises:
            RequestError: there are none or too many, or see ``value``.
        """
        processor = self.processors.get(modality)
        one = processor is not None and is_numbers(given) and (processor.reads_files or processor.is_one_value(given))
        entries = given if isinstance(given, list) and not one else [given]
        if not entries or len(entries) > self.limits.max_values:
            raise RequestError(
                400, f"{modality}: give 1 to {self.limits.max_values:,} values in a request, got {len(entries):,}."
            )
        return [self.value(modality, entry) for entry in entries]

    async def encode(
        self,
        values: Mapping[str, Sequence[Any]],
        finish: Callable[[list[Vectors]], Sequence[Result]],
        alike: Hashable = None,
    ) -> Result:
        """Encode raw values together with those of other requests, and return what ``finish`` makes of their vectors.

        Args:
            values: modality -> raw values.
            finish: gets the vectors ``(n, dim)`` of each modality, of this request or of several that are alike; returns a
                result for each; called in the model thread.
            alike: requests with equal values may be finished by one call.

        Raises:
            Unreadable: a value cannot be read.
        """
        read = partial(self._read, values)
        if any(not isinstance(value, str) for of_modality in values.values() for value in of_modality):
            items = await self.in_thread(read, self.readers)  # a large picture does not hold up the texts of others
            return await self.batcher.run(lambda: items, finish, alike)
        return await self.batcher.run(read, finish, alike)

    def _read(self, values: Mapping[str, Sequence[Any]]) -> Items:
        return {m: read_items(self.processors[m], m, of_modality) for m, of_modality in values.items()}

    async def in_thread(self, work: Callable[[], Result], pool: ThreadPoolExecutor) -> Result:
        """Return the result of slow work, which a pool of threads does."""
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def close(self) -> None:
        """Finish what is waiting, end the threads, and release the model."""
        self.readers.shutdown()
        self.explainer.shutdown()
        self.writer.shutdown()
        self.mapper.shutdown()
        self.batcher.close()
        del self.embedder  # FastAPI's caches keep the functions of routes, and so this service
        self.processors.clear()
