"""Requests that arrive together are encoded in one forward pass, and each gets its own answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from httpx import ASGITransport, AsyncClient

from multimodal.core.embedder import Embedder
from multimodal.core.errors import Unreadable
from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.batching import Batcher
from multimodal.serve.errors import RequestError
from multimodal.serve.limits import Limits


class Encoder:
    """Records its calls; of each item, the vector is its length. ``held`` keeps the model thread at the first call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.held, self.entered = threading.Event(), threading.Event()

    def __call__(self, modality: str, items: Sequence[Any]) -> np.ndarray:
        self.calls.append((modality, list(items)))
        self.entered.set()
        assert self.held.wait(20)
        if "broken" in items:
            raise RuntimeError("this item breaks its batch")
        return np.array([[float(len(item))] for item in items])


def as_lists(found: list[dict[str, np.ndarray]]) -> list[dict[str, list[float]]]:
    return [{modality: vectors.ravel().tolist() for modality, vectors in of_job.items()} for of_job in found]


def texts(found: list[dict[str, np.ndarray]]) -> list[list[list[float]]]:
    return [of_job["text"].tolist() for of_job in found]


async def many(batcher: Batcher, encoder: Encoder, jobs: Sequence[dict[str, list[str]]]) -> list[Any]:
    """Run a first job, and the others together while it is in the model thread."""

    def run(items: dict[str, list[str]]) -> Any:
        return batcher.run(
            lambda: items, lambda found: [{m: v.ravel().tolist() for m, v in vectors.items()} for vectors in found]
        )

    first = asyncio.ensure_future(run({"text": ["first"]}))
    await asyncio.to_thread(encoder.entered.wait, 20)
    others = [asyncio.ensure_future(run(items)) for items in jobs]
    while len(batcher) < len(jobs):
        await asyncio.sleep(0.001)
    encoder.held.set()
    return (await asyncio.gather(first, *others, return_exceptions=True))[1:]


def test_waiting_jobs_are_encoded_together_by_modality() -> None:
    encoder = Encoder()
    sizes: list[int] = []
    batcher = Batcher(encoder, 64, 0.01, sizes.append)
    jobs = [{"text": ["a"]}, {"image": ["bb"]}, {"text": ["ccc", "dddd"], "image": ["eeeee"]}]
    results = asyncio.run(many(batcher, encoder, jobs))
    batcher.close()
    assert results == [{"text": [1]}, {"image": [2]}, {"text": [3, 4], "image": [5]}]
    assert encoder.calls[1:] == [("text", ["a", "ccc", "dddd"]), ("image", ["bb", "eeeee"])]
    assert sizes == [1, 3]


def test_no_more_jobs_than_allowed_are_encoded_together() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, 4, 0.0)
    results = asyncio.run(many(batcher, encoder, [{"text": ["x" * n]} for n in range(10)]))
    batcher.close()
    assert results == [{"text": [n]} for n in range(10)]
    assert [len(items) for _, items in encoder.calls] == [1, 4, 4, 2]


def test_an_item_that_breaks_its_batch_fails_alone() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, 64, 0.0)
    results = asyncio.run(many(batcher, encoder, [{"text": ["a"]}, {"text": ["broken"]}, {"text": ["ccc"]}]))
    batcher.close()
    assert (results[0], results[2]) == ({"text": [1]}, {"text": [3]})
    assert isinstance(results[1], RuntimeError)


def test_a_value_that_cannot_be_read_fails_alone() -> None:
    encoder = Encoder()
    encoder.held.set()
    batcher = Batcher(encoder, 64, 0.0)

    def unreadable() -> Any:
        raise Unreadable("wrong", "this value cannot be read.")

    async def both() -> list[Any]:
        jobs = [
            batcher.run(unreadable, list),
            batcher.run(lambda: {"text": ["ab"]}, texts),
        ]
        return await asyncio.gather(*jobs, return_exceptions=True)

    failed, worked = asyncio.run(both())
    batcher.close()
    assert isinstance(failed, Unreadable)
    assert worked == [[2.0]]


def test_jobs_that_are_alike_are_finished_together_and_others_alone() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, 64, 0.0)
    finished: list[list[float]] = []

    def finish(found: list[dict[str, np.ndarray]]) -> list[float]:
        finished.append([float(of_job["text"][0, 0]) for of_job in found])
        if 4 in finished[-1]:
            raise RuntimeError("one of these cannot be finished")
        return finished[-1]

    async def run_all() -> list[Any]:
        first = asyncio.ensure_future(batcher.run(lambda: {"text": ["first"]}, texts))
        await asyncio.to_thread(encoder.entered.wait, 20)
        kinds = ("a", "b", "a", None, None, "c", "c")
        jobs = [
            asyncio.ensure_future(batcher.run(lambda n=number: {"text": ["x" * n]}, finish, kind))
            for number, kind in enumerate(kinds)
        ]
        while len(batcher) < len(jobs):
            await asyncio.sleep(0.001)
        encoder.held.set()
        await first
        return await asyncio.gather(*jobs, return_exceptions=True)

    results = asyncio.run(run_all())
    batcher.close()
    assert [r for r in results if not isinstance(r, RuntimeError)] == [0, 1, 2, 3, 5, 6]
    assert isinstance(results[4], RuntimeError)
    assert sorted(finished) == [[0, 2], [1], [3], [4], [5, 6]]


def test_a_failure_of_several_jobs_is_of_the_one_at_fault() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, 64, 0.0)

    def finish(found: list[dict[str, np.ndarray]]) -> list[float]:
        lengths = [float(of_job["text"][0, 0]) for of_job in found]
        if 2 in lengths:
            raise RuntimeError("a text of two letters cannot be finished")
        return lengths

    async def run_all() -> list[Any]:
        jobs = [batcher.run(lambda n=n: {"text": ["x" * n]}, finish, "alike") for n in (1, 2, 3)]
        encoder.held.set()
        return await asyncio.gather(*jobs, return_exceptions=True)

    one, two, three = asyncio.run(run_all())
    batcher.close()
    assert (one, three) == (1, 3)
    assert isinstance(two, RuntimeError)


def test_a_job_that_is_given_up_is_not_encoded() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, 64, 0.0)

    async def give_up() -> None:
        first = asyncio.ensure_future(batcher.run(lambda: {"text": ["first"]}, list))
        await asyncio.to_thread(encoder.entered.wait, 20)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.run(lambda: {"text": ["given up"]}, list), 0.01)
        encoder.held.set()
        await first
        await batcher.run(lambda: {"text": ["last"]}, list)

    asyncio.run(give_up())
    batcher.close()
    assert [items for _, items in encoder.calls] == [["first"], ["last"]]


def test_closing_answers_what_waits_and_refuses_the_rest() -> None:
    encoder = Encoder()
    batcher = Batcher(encoder, 1, 0.0)

    async def close_meanwhile() -> list[Any]:
        jobs = [asyncio.ensure_future(batcher.run(lambda: {"text": ["a"]}, texts)) for _ in "abc"]
        await asyncio.to_thread(encoder.entered.wait, 20)
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.02)
        with pytest.raises(RequestError, match="being stopped"):
            await batcher.run(lambda: {"text": ["late"]}, list)
        encoder.held.set()
        await closing
        return await asyncio.gather(*jobs)

    assert asyncio.run(close_meanwhile()) == [[[1.0]]] * 3


def test_a_single_client_does_not_wait_for_others() -> None:
    encoder = Encoder()
    encoder.held.set()
    batcher = Batcher(encoder, 64, window=5.0)

    async def one_after_the_other() -> float:
        start = time.perf_counter()
        for _ in range(5):
            await batcher.run(lambda: {"text": ["a"]}, list)
        return time.perf_counter() - start

    assert asyncio.run(one_after_the_other()) < 2.5
    batcher.close()


def test_64_requests_at_once_get_the_answers_that_they_get_alone(index: Index, embedder: Embedder) -> None:
    app = create_app(index, Limits(batch_window=0.01))
    names = [
        f"a {colour} {thing}" for colour in ("red", "blue", "green", "grey") for thing in ["cup", "jug", "pot", "bowl"]
    ]

    async def search(client: AsyncClient, text: str) -> list[tuple[str, float]]:
        answer = await client.post("/search", json={"text": text, "k": 3})
        return [(hit["key"], hit["score"]) for hit in answer.json()["hits"]]

    async def search_all() -> tuple[list[Any], list[Any], str]:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            alone = [await search(client, text) for text in names]
            together = await asyncio.gather(*(search(client, text) for text in names * 4))
            return alone, together, (await client.get("/metrics")).text

    alone, together, metrics = asyncio.run(search_all())
    for expected, found in zip(alone * 4, together, strict=True):
        assert [key for key, _ in found] == [key for key, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(values["multimodal_batch_size_sum"]) == 80
    assert float(values["multimodal_batch_size_count"]) < 60  # of 16 alone, and 64 together
