"""Dynamic batching: the values of requests that arrive within a few milliseconds are encoded in one forward pass.

1. ``run`` puts a job into the queue, and waits for its result without blocking the event loop.
2. The one model thread takes the waiting jobs. While several clients are active, it first waits a moment until as many have
   arrived as were answered last.
3. It encodes each modality's items of all jobs at once, and finishes jobs that are alike together (searches with the same
   settings). Results are handed back some at a time, so that the event loop sends answers and reads requests meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multimodal.serve.errors import RequestError

Items = Mapping[str, Sequence[Any]]  # modality -> what its processor made of each value
Vectors = dict[str, np.ndarray]  # modality -> (n, dim)
HANDED_BACK = 16  # results at a time

Encode = Callable[[str, Sequence[Any]], np.ndarray]
Finish = Callable[[list[Vectors]], Sequence[Any]]  # the vectors of several jobs -> their results


@dataclass(eq=False)
class _Job:
    read: Callable[[], Items]
    finish: Finish
    alike: Hashable
    future: asyncio.Future[Any]


class Batcher:
    """One thread that encodes what waits in a queue, together.

    Args:
        encode: encodes the items of a modality to vectors ``(n, dim)``.
        max_batch: jobs that are encoded together, at least 1.
        window: seconds for which it waits for further jobs, while several clients are active.
        observe: called with the number of jobs of each batch.

    Examples:
        >>> batcher = Batcher(lambda modality, items: np.array([[len(item)] for item in items]), 8, 0.001)
        >>> async def lengths(word):
        ...     return await batcher.run(lambda: {"text": [word]}, lambda found: [v["text"].tolist() for v in found], "lengths")
        >>> async def both():
        ...     return await asyncio.gather(lengths("cup"), lengths("teapot"))
        >>> asyncio.run(both())
        [[[3]], [[6]]]
        >>> batcher.close()
    """

    def __init__(
        self, encode: Encode, max_batch: int, window: float, observe: Callable[[int], object] | None = None
    ) -> None:
        self._encode, self._max_batch, self._window, self._observe = encode, max_batch, window, observe
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="multimodal-model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """The number of waiting jobs."""
        return len(self._waiting)

    async def run(self, read: Callable[[], Items], finish: Finish, alike: Hashable = None) -> Any:
        """Encode items together with those of other jobs, and return what ``finish`` makes of their vectors.

        Args:
            read: returns the items; called in the model thread.
            finish: gets the vectors of each modality, of this job or of several, and returns a result for each; called in
                the model thread.
            alike: jobs with equal values may be finished by one call. None: this one is finished alone.

        Raises:
            RequestError: the server is being stopped.
        """
        future = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._closed:
                raise RequestError(503, "The server is being stopped.")
            self._waiting.append(_Job(read, finish, alike, future))
            self._changed.notify()
        return await future

    def close(self) -> None:
        """Answer the waiting jobs, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        last = 1
        while jobs := self._take(last):
            last = len(jobs)
            if self._observe is not None:
                self._observe(last)
            self._answer(jobs)

    def _take(self, expected: int) -> list[_Job]:
        """Return the jobs to answer next; none: the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if expected > 1:
                self._changed.wait_for(lambda: len(self._waiting) >= expected or self._closed, self._window)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]

    def _answer(self, jobs: list[_Job]) -> None:
        results: list[tuple[_Job, Any, BaseException | None]] = []
        readable: list[tuple[_Job, Items]] = []
        for job in jobs:
            if job.future.cancelled():  # it took too long, or its client is gone
                continue
            try:
                readable.append((job, job.read()))
            except Exception as error:
                results.append((job, None, error))
        encoded: dict[Hashable, list[tuple[_Job, Vectors]]] = {}
        for job, vectors in self._encode_together(readable):
            if isinstance(vectors, Exception):
                results.append((job, None, vectors))
            else:
                encoded.setdefault(job if job.alike is None else job.alike, []).append((job, vectors))
        for alike in encoded.values():
            for start in range(0, len(alike), HANDED_BACK):
                results += _finish(alike[start : start + HANDED_BACK])
                if len(results) >= HANDED_BACK:
                    _hand_back(results)
                    results = []
        _hand_back(results)

    def _encode_together(self, jobs: list[tuple[_Job, Items]]) -> list[tuple[_Job, Vectors | Exception]]:
        """Return the vectors of each job; where encoding fails, each job is encoded alone, so that only one fails."""
        try:
            return list(zip([job for job, _ in jobs], self._vectors([items for _, items in jobs]), strict=True))
        except Exception as error:
            if len(jobs) == 1:
                return [(jobs[0][0], error)]
            return [pair for job in jobs for pair in self._encode_together([job])]

    def _vectors(self, parts: list[Items]) -> list[Vectors]:
        """Return the vectors of each part's items, of which each modality's are encoded in one call."""
        found: list[Vectors] = [{} for _ in parts]
        for modality in dict.fromkeys(modality for items in parts for modality in items):
            together = [item for items in parts for item in items.get(modality, ())]
            vectors, start = self._encode(modality, together), 0
            for items, of_part in zip(parts, found, strict=True):
                if modality in items:
                    end = start + len(items[modality])
                    of_part[modality], start = vectors[start:end], end
        return found


def _finish(jobs: list[tuple[_Job, Vectors]]) -> Iterator[tuple[_Job, Any, BaseException | None]]:
    """Yield the results of jobs that are alike; where the call fails, each is finished alone, so that only one fails."""
    try:
        results = jobs[0][0].finish([vectors for _, vectors in jobs])
        yield from ((job, result, None) for (job, _), result in zip(jobs, results, strict=True))
    except Exception as error:
        if len(jobs) == 1:
            yield jobs[0][0], None, error
        else:
            for job in jobs:
                yield from _finish([job])


def _hand_back(results: list[tuple[_Job, Any, BaseException | None]]) -> None:
    """Give each job its result, in one step for each event loop (a server has one)."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Any, BaseException | None]]] = {}
    for result in results:
        by_loop.setdefault(result[0].future.get_loop(), []).append(result)
    for loop, of_loop in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, of_loop)


def _resolve(results: list[tuple[_Job, Any, BaseException | None]]) -> None:
    for job, value, error in results:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(error)
