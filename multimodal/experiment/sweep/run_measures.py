"""What a run has logged and saved: its measures at the validation of its model, and the model's size."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from multimodal.core.errors import UsageError, suggest_near
from multimodal.core.model_folder import WEIGHTS
from multimodal.core.run_folder import LOGS, RUN_CONFIG, RUN_MODEL
from multimodal.core.yaml_file import read_yaml
from multimodal.evaluation.callback import RetrievalMonitor


def check_measure(measure: str, config: Mapping[str, Any]) -> None:
    """Check that the validations of a configuration log a measure, unless callbacks of its own may log it.

    Args:
        measure: its name, like "val/text->image/mrr".
        config: the complete configuration.

    Raises:
        UsageError: they do not.
    """
    module: Any = SimpleNamespace(embedder=SimpleNamespace(modalities=list(config["model"]["encoders"])))
    known = sorted(RetrievalMonitor().metrics(module))
    if measure not in known and not config["trainer"].get("callbacks"):
        raise UsageError(f"No validation logs {measure!r}.{suggest_near(measure, known)}")


def mode_of(measure: str) -> Literal["max", "min"]:
    """Return whether the highest or the lowest value of a measure is the best.

    Raises:
        UsageError: it is not a measure of the validation.

    Examples:
        >>> mode_of("val/recall@1"), mode_of("val/text->image/mean_rank")
        ('max', 'min')
    """
    return RetrievalMonitor(measure).mode


def value_of_model(run: Path, measure: str) -> float | None:
    """Return a measure at the validation whose model a run saved: the best by the run's own monitor.

    Args:
        run: the run's folder.
        measure: its name.

    Returns:
        The value; None if it was not logged at that validation.
    """
    monitor = _monitor_of(run)
    sign = 1 if monitor.mode == "max" else -1
    best, value = -math.inf, None
    for row in _logged(run):
        monitored = _number(row, monitor.monitor)
        if monitored is not None and sign * monitored > best:
            best, value = sign * monitored, _number(row, measure)
    return value


def _monitor_of(run: Path) -> RetrievalMonitor:
    config = read_yaml(run / RUN_CONFIG) if (run / RUN_CONFIG).is_file() else {}
    return RetrievalMonitor(config["monitor"]) if config.get("monitor") else RetrievalMonitor()


def _logged(run: Path) -> Iterator[Mapping[str, str]]:
    """Yield the logged rows of all starts of a run, in their order; the rows of one step as one."""
    folders = [path for path in (run / LOGS).glob("version_*") if path.name[8:].isdigit()]
    steps: dict[str, dict[str, str]] = {}
    for folder in sorted(folders, key=lambda path: int(path.name[8:])):
        if (folder / "metrics.csv").is_file():
            with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    given = {key: cell for key, cell in row.items() if isinstance(cell, str) and cell}
                    steps.setdefault(row.get("step") or "", {}).update(given)
    yield from steps.values()


def _number(row: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(row[name])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None


def count_weights(run: Path) -> int | None:
    """Return how many numbers a run's model has; None: there is no model.

    Args:
        run: the run's folder.
    """
    from safetensors import SafetensorError, safe_open

    path = run / RUN_MODEL / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError):
        return None
