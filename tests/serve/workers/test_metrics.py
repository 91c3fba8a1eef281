"""The counts of all workers are read together, whatever one that was stopped has left."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from multimodal.serve.workers.metrics import SharedMetrics


def test_a_file_without_content_is_skipped(tmp_path: Path) -> None:
    """As a worker leaves it that is killed while it makes its first count."""
    key = mmap_key("multimodal_requests", "multimodal_requests_total", ["route"], ["/search"], "Requests.")
    for number in (3, 4):
        counts = MmapedDict(str(tmp_path / f"counter_{number}.db"))
        counts.write_value(key, float(number), 0.0)
        counts.close()
    (tmp_path / "counter_5.db").touch()
    text = SharedMetrics(tmp_path, of_host=lambda: b"").text()
    assert b'multimodal_requests_total{route="/search"} 7.0' in text
