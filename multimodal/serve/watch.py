"""What a server keeps of its searches, if it is asked to: a log of queries, and how far they drift from a reference."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from multimodal.core.errors import UsageError
from multimodal.monitor.drift import MIN_ROWS
from multimodal.monitor.drift_window import REFERENCE_ROWS, DriftWindow, WindowDrift
from multimodal.monitor.query_log import LoggedQuery, QueryLog, new_query_id
from multimodal.monitor.vector_sets import read_vectors
from multimodal.search.hits import Hits
from multimodal.search.index import Index

MAX_LOGGED_TEXT = 2000  # characters


@dataclass(frozen=True)
class LogSettings:
    """Settings of the log of queries.

    Args:
        folder: the folder.
        keep_text: whether texts are logged.
        keep_days: days after which queries are deleted. None: never.

    Examples:
        >>> LogSettings(Path("queries"))
        LogSettings(folder=PosixPath('queries'), keep_text=False, keep_days=None)
    """

    folder: Path
    keep_text: bool = False
    keep_days: int | None = None


class _Log(Protocol):
    """A ``QueryLog``, or what sends to one."""

    dropped: int

    def append(self, *queries: LoggedQuery) -> None: ...

    def close(self) -> None: ...


class _Drift(Protocol):
    """A ``DriftWindow``, or what sends to one."""

    latest: dict[str, WindowDrift]

    def add(
        self, fingerprint: str, modality: str, vector: np.ndarray, query_id: str, user: str | None = None
    ) -> None: ...

    def close(self) -> None: ...


class Watch:
    """Records the searches of a server: in a log, and in a window that is compared with a reference.

    Args:
        log: the log of queries. None: none is kept.
        drift: the window of queries that is compared with a reference. None: there is none.

    Examples:
        >>> Watch().record(None, {}, {}, Hits(), None) is None
        True
    """

    def __init__(self, log: _Log | None = None, drift: _Drift | None = None) -> None:
        self.log, self.drift = log, drift

    def record(
        self,
        index: Index | None,
        values: Mapping[str, Any],
        vectors: Mapping[str, np.ndarray],
        hits: Hits,
        user: str | None,
    ) -> str | None:
        """Record a search, which takes no time.

        Args:
            index: the index that was searched.
            values: modality -> its value in the query.
            vectors: modality -> ``(dim,)`` its vector.
            hits: what was found.
            user: who asked. None: unknown.

        Returns:
            The name of the query in the log; None: there is no log.
        """
        if index is None or (self.log is None and self.drift is None):
            return None
        query_id = new_query_id()
        if self.drift is not None:
            for modality, vector in vectors.items():
                self.drift.add(index.fingerprint, modality, vector, query_id, user)
        if self.log is None:
            return None
        keys, scores, now = [hit.key for hit in hits], [hit.score for hit in hits], time.time()
        found: list[tuple[str | None, np.ndarray | None]] = [*vectors.items()]
        for modality, vector in found or [(None, None)]:  # a search like a row has no vector
            text = None if modality is None else _text_of(index, modality, values.get(modality))
            self.log.append(
                LoggedQuery(index.fingerprint, index.dim, query_id, now, user, modality, vector, keys, scores, text)
            )
        return query_id

    def close(self) -> None:
        """Write what is in memory, and end the threads."""
        if self.log is not None:
            self.log.close()
        if self.drift is not None:
            self.drift.close()

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics for Prometheus."""
        if self.log is not None:
            dropped = CounterMetricFamily("multimodal_query_log_dropped", "Queries that the log could not keep.")
            dropped.add_metric([], self.log.dropped)
            yield dropped
        if self.drift is None:
            return
        names = {
            "p_value": "P-value of the latest queries against the reference.",
            "score": "AUC of a classifier between the latest queries and the reference; 0.5 without drift.",
            "outside": "Fraction of the latest queries outside the reference; 0.05 without drift.",
            "queries": "Queries that were compared.",
        }
        gauges = {n: GaugeMetricFamily(f"multimodal_drift_{n}", text, labels=["modality"]) for n, text in names.items()}
        checks = CounterMetricFamily("multimodal_drift_checks", "Comparisons with the reference.", labels=["modality"])
        for modality, latest in list(self.drift.latest.items()):
            values = (latest.found.p_value, latest.found.score, latest.found.outside["95"], latest.queries)
            for gauge, value in zip(gauges.values(), values, strict=True):
                gauge.add_metric([modality], value)
            checks.add_metric([modality], latest.checks)
        yield from gauges.values()
        yield checks


def _text_of(index: Index, modality: str, value: Any) -> str | None:
    """Return a value as the log keeps it; None for a file, which may be a long URL in a request."""
    if not isinstance(value, str) or index.need_model().encoder(modality).processor.reads_files:
        return None
    return value[:MAX_LOGGED_TEXT]


def open_watch(index: Index, log: LogSettings | None, drift_reference: str | Path | None) -> Watch | None:
    """Return what records the searches of an index; None: nothing does.

    Args:
        index: the index.
        log: settings of the log. None: none is kept.
        drift_reference: folder with which queries are compared: a log of queries, embeddings or an index. None: they are not.

    Raises:
        UsageError: the folder of the log holds something else, or the reference has no modality with 20 vectors.
        MultimodalError: the log cannot be written; the reference cannot be read, or is of another model.
    """
    if log is None and drift_reference is None:
        return None
    window = None
    if drift_reference is not None:
        reference = read_vectors(drift_reference, max_rows=REFERENCE_ROWS)
        index.check_model(reference.fingerprint)
        window = DriftWindow(reference)
        if not window.modalities:
            window.close()
            raise UsageError(f"{drift_reference} has fewer than {MIN_ROWS} vectors of each modality to compare with.")
    written = None if log is None else QueryLog(log.folder, keep_text=log.keep_text, keep_days=log.keep_days)
    return Watch(written, window)
