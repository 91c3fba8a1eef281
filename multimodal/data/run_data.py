"""The data of a run, or of a configuration file, for the commands that come after training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from multimodal.core.errors import MultimodalError, UsageError, check_names
from multimodal.core.run_folder import RUN_CONFIG
from multimodal.data.samples import Samples
from multimodal.data.schema import Schema
from multimodal.data.tables.open import open_table


@dataclass(frozen=True)
class RunData:
    """Samples, the splits that it was trained on and that a command takes if it is given none, and the seed of the run."""

    samples: Samples
    train_split: str | list[str]
    test_split: str | list[str]
    max_rejects: float
    seed: int | None


class SplitData(Protocol):
    """Samples with their splits: a ``DataModule``, or ``RunData``."""

    @property
    def samples(self) -> Samples: ...

    train_split: str | list[str]
    test_split: str | list[str]
    max_rejects: float


def load_run_data(run: Path | None, data: Any = None, changes: Mapping[str, Any] | None = None) -> RunData:
    """The data that a run was trained on, or others seen in the same way.

    Args:
        run: the run's folder. None: a model without a run.
        data: a configuration file (``.yaml``) whose ``data:`` is taken instead; the name of a table whose columns are
            called as those of the run's table; or in Python a ``DataModule``, ``Samples``, or a table in memory. None: the
            run's own data.
        changes: keys of ``data:`` that replace those found.

    Raises:
        MultimodalError: a configuration is missing or damaged; the message says which.
        UsageError: a table in memory comes without ``columns``.
    """
    schema = inspect.signature(Schema.from_settings).parameters
    check_names("data", changes or (), {"options", "access", "train", "test", "max_rejects", *schema})
    if isinstance(data, Samples):
        return RunData(data, "train", "test", 0.01, None)
    if hasattr(data, "train_split") and hasattr(data, "samples"):
        return RunData(data.samples, data.train_split, data.test_split, data.max_rejects, None)
    if data is not None and not isinstance(data, str | Path):
        return _of_memory(data, dict(changes or {}))
    data = None if data is None else str(data)
    run = Path() if run is None else run
    config = _read_config(run / RUN_CONFIG) if (run / RUN_CONFIG).is_file() else {}
    settings: dict[str, Any]
    if data is not None and Path(data).suffix in (".yaml", ".yml"):
        settings = _read_config(Path(data))["data"]
    elif config:
        settings = config["data"] if data is None else _settings_for_table(config["data"], data, changes or {})
    elif data is not None and changes and "columns" in changes:
        settings = {"table": data}
    else:
        raise MultimodalError(
            f"{run} has no {RUN_CONFIG}, so its data are unknown; give a configuration with a `data:` section,"
            " or a table with --columns.MODALITY COLUMN."
        )
    settings = settings | dict(changes or {})
    if not isinstance(settings.get("table"), str):
        raise UsageError("The run was trained on a table in memory, which its folder does not hold: give it as `data`.")
    known = {"table", "options", "access", *inspect.signature(Schema.from_settings).parameters}
    samples = Samples.of(**{key: value for key, value in settings.items() if key in known and value is not None})
    return RunData(
        samples,
        settings.get("train", "train"),
        settings.get("test", "test"),
        settings.get("max_rejects", 0.01),
        config.get("seed_everything"),
    )


def _of_memory(table: Any, settings: dict[str, Any]) -> RunData:
    if "columns" not in settings:
        raise UsageError("A table in memory needs columns, like columns={'image': 'picture', 'text': 'title'}.")
    known = {"options", *inspect.signature(Schema.from_settings).parameters}
    samples = Samples.of(table, **{key: value for key, value in settings.items() if key in known})
    return RunData(
        samples, settings.get("train", "train"), settings.get("test", "test"), settings.get("max_rejects", 0.01), None
    )


def _settings_for_table(settings: Mapping[str, Any], table: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The run's settings for another table, without what names columns that the other has not."""
    if table == settings.get("table"):
        return dict(settings)
    reader = {} if "options" in changes else {"options": None}  # they are of the run's file
    kept = {**settings, **reader, "table": table}
    columns = open_table(table, changes.get("options")).columns
    for name in ("key", "group", "split"):
        if name not in changes and isinstance(column := kept.get(name), str) and column not in columns:
            kept[name] = None
    return kept


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MultimodalError(f"The configuration {path} cannot be read: {error}") from error
    data = config.get("data") if isinstance(config, dict) else None
    known_table = isinstance(data, dict) and ("table" in data or path.name == RUN_CONFIG)  # a run's may be in memory
    if not (known_table and isinstance(data.get("columns"), dict)):
        raise MultimodalError(f"The configuration {path} has no `data:` with `table:` and `columns:`.")
    return config
