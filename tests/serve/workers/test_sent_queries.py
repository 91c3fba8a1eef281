"""Searches that workers have recorded are in one log and one window of drift, and in the metrics of all."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import c_ulonglong
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from served_model import COLUMNS, table

from multimodal.core.embedder import Embedder
from multimodal.monitor.drift_window import DriftWindow
from multimodal.monitor.query_log import QueryLog, read_queries
from multimodal.monitor.vector_sets import Vectors, VectorSet
from multimodal.search.hits import Hit, Hits
from multimodal.search.index import Index
from multimodal.serve.watch import Watch
from multimodal.serve.workers import sent_queries
from multimodal.serve.workers.host import IndexHost
from multimodal.serve.workers.remote_engine import Link
from multimodal.serve.workers.sent_queries import CALL, SentQueries, record_sent

HITS = Hits([Hit("red/cup", "text", float(np.float32(0.9)), {})])


@pytest.fixture
def host(embedder: Embedder, tmp_path: Path) -> Iterator[IndexHost]:
    Index.from_table(embedder, table(), columns=COLUMNS, key="sku").save(tmp_path / "index")
    opened = IndexHost(tmp_path / "index", tmp_path / "socket", c_ulonglong(0))
    yield opened
    opened.close()


def link(tmp_path: Path) -> Link:
    return Link(tmp_path / "index", tmp_path / "socket", c_ulonglong(0))


def test_the_log_and_the_window_get_what_they_would_get_in_one_process(
    host: IndexHost, embedder: Embedder, tmp_path: Path
) -> None:
    fingerprint = embedder.fingerprint
    vectors = embedder.encode(text=[row["name"] for row in table()])
    names = np.array([f"{n}" for n in range(48)])
    of_text = Vectors(np.repeat(vectors, 4, axis=0), names, names, np.array(["{}"] * 48))
    window = DriftWindow(VectorSet("queries", fingerprint, {"text": of_text}), every=40)
    direct = Watch(QueryLog(tmp_path / "direct", keep_text=True))
    logging = Watch(QueryLog(tmp_path / "log", keep_text=True), window)
    host.calls[CALL] = partial(record_sent, logging)
    index = Index.of_opened(tmp_path / "index", link(tmp_path).open(), embedder)
    senders = [SentQueries(link(tmp_path)) for _ in range(2)]
    watches = [Watch(sender, sender) for sender in senders]
    for number in range(40):
        row, user = number % len(vectors), "ann" if number % 2 else None
        for watch in (watches[number % 2], direct):
            watch.record(index, {"text": f"query {number}"}, {"text": vectors[row]}, HITS, user)
    for watch in (watches[0], direct):
        watch.record(index, {}, {}, HITS, None)  # like a row: it has no vector
    for watch in (*watches, direct, logging):
        watch.close()
    index.close()
    (sent,), (expected,) = ([*read_queries(tmp_path / name)] for name in ("log", "direct"))
    order = [("text", "ascending")]
    for name in ("modality", "vector", "keys", "scores", "text"):
        assert sent.sort_by(order)[name].to_pylist() == expected.sort_by(order)[name].to_pylist()
    assert len({*sent["query_id"].to_pylist()}) == 41
    assert sent["user"].null_count == expected["user"].null_count == 21
    assert window.latest["text"].queries == 21  # one of ann's and the others, whose users are unknown
    assert any(metric.name == "multimodal_drift_queries" for metric in logging.collect())


def test_what_the_memory_has_no_room_for_is_counted(
    host: IndexHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedder: Embedder
) -> None:
    monkeypatch.setattr(sent_queries, "MAX_WAITING", 3)
    monkeypatch.setattr(sent_queries, "EVERY", 60)
    logging = Watch(QueryLog(tmp_path / "log"))
    host.calls[CALL] = partial(record_sent, logging)
    index = Index.of_opened(tmp_path / "index", link(tmp_path).open(), embedder)
    watch = Watch(SentQueries(link(tmp_path)))
    for _ in range(5):
        watch.record(index, {}, {"text": np.ones(16, np.float32)}, HITS, None)
    watch.close()
    index.close()
    assert logging.log is not None
    assert logging.log.dropped == 2
    logging.close()
    assert sum(len(part) for part in read_queries(tmp_path / "log")) == 3


def test_a_worker_whose_host_has_ended_only_loses_what_it_has_recorded(host: IndexHost, tmp_path: Path) -> None:
    sender = SentQueries(link(tmp_path))
    host.close()
    sender.add("f" * 64, "text", np.ones(2, np.float32), "q1")
    sender.close()
