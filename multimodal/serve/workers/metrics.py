"""``/metrics`` of all workers together: each counts in files that all can read, by prometheus_client's own means.

They are kept when a worker has ended, so that counts never fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from multimodal.serve.metrics import Metrics

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # has to be set before prometheus_client is imported


class SharedMetrics(Metrics):
    """Counts and latencies of all workers.

    Args:
        folder: of their files.
        of_host: returns what the process with the index has counted, in Prometheus's text format.

    Examples:
        >>> Path("metrics").mkdir()
        >>> metrics = SharedMetrics(Path("metrics"), of_host=lambda: b"")
        >>> metrics.waiting = lambda: 3
        >>> b"multimodal_waiting 3.0" in metrics.text()
        True
    """

    def __init__(self, folder: Path, of_host: Callable[[], bytes]) -> None:
        super().__init__()
        self._folder, self._of_host = folder, of_host

    def text(self) -> bytes:
        """Return what was counted, in Prometheus's text format."""
        registry = CollectorRegistry()
        registry.register(_Counted(self._folder))
        registry.register(self.waiting_collector)
        return generate_latest(registry) + self._of_host()


class _Counted:
    """What the workers have counted, without files that have no content yet.

    A worker makes an empty file and then gives it its size. One that is stopped or killed in between leaves it, and
    prometheus_client's own collector fails on it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        return MultiProcessCollector.merge(files)
