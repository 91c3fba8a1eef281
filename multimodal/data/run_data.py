"""The data of a run, a configuration or a table, for evaluation and embedding after training."""

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

COLUMNS_EXAMPLE = "like columns={'image': 'picture', 'text': 'title'}"


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        samples: the samples.
        train_split: the split, or splits, that the run was trained on.
        test_split: the split, or splits, that commands use by default.
        max_rejects: fraction of the rows, in [0, 1], that may be unreadable.
        seed: seed of the run; None: unknown.
    """

    samples: Samples
    train_split: str | list[str]
    test_split: str | list[str]
    max_rejects: float
    seed: int | None


class SplitData(Protocol):
    """Samples with their splits, such as a ``DataModule`` or ``RunData``."""

    @property
    def samples(self) -> Samples:
        """The samples of all splits."""
        ...

    train_split: str | list[str]
    test_split: str | list[str]
    max_rejects: float


def load_run_data(run: Path | None, data: Any = None, overrides: Mapping[str, Any] | None = None) -> RunData:
    """Load the data that a run was trained on, or other data with the same settings.

    Args:
        run: folder of the run. None: a model without a run, which has no data of its own.
        data: a configuration file (``.yaml``) whose ``data:`` is used instead; the name of a table whose columns have the
            same names as those of the run's table; or in Python a ``DataModule``, ``Samples``, or a table in memory. None:
            the run's data.
        overrides: keys of ``data:`` that override the loaded settings.

    Raises:
        MultimodalError: a configuration is missing or damaged; the message names it.
        UsageError: there is neither a run nor data, ``columns`` is missing for a table that needs it, a key of ``overrides``
            is unknown, or ``overrides`` are given for a ``DataModule`` or ``Samples``.

    Examples:
        >>> data = load_run_data(None, [{"title": "a red cup"}], {"columns": {"text": "title"}})
        >>> data.samples[0].values, data.test_split
        ({'text': 'a red cup'}, 'test')
    """
    schema = inspect.signature(Schema.from_settings).parameters
    check_names("data", overrides or (), {"options", "access", "train", "test", "max_rejects", *schema})
    if isinstance(data, Samples) or (hasattr(data, "train_split") and hasattr(data, "samples")):
        return _with_own_settings(data, overrides or {})
    if data is not None and not isinstance(data, str | Path):
        return _from_memory(data, dict(overrides or {}))
    if data is None and run is None:
        raise UsageError("An embedder has no data of its own: give the table, as its name, rows or a DataModule.")
    data = None if data is None else str(data)
    run_config = None if run is None else run / RUN_CONFIG
    config = _read_config(run_config) if run_config is not None and run_config.is_file() else {}
    config_path = run_config
    settings: dict[str, Any]
    if data is not None and Path(data).suffix in (".yaml", ".yml"):
        config_path = Path(data)
        settings = _read_config(config_path)["data"]
    elif config:
        settings = config["data"] if data is None else _settings_for_table(config["data"], data, overrides or {})
    elif data is not None and overrides and "columns" in overrides:
        settings = {"table": data}
    elif run is None:
        raise UsageError(f"The table {data!r} needs columns, {COLUMNS_EXAMPLE}.")
    else:
        raise MultimodalError(
            f"{run} has no {RUN_CONFIG}, so its data are unknown; give a configuration with a `data:` section,"
            " or a table with --columns.MODALITY COLUMN."
        )
    settings = settings | dict(overrides or {})
    if settings.get("table") is None:
        raise UsageError(
            f"{config_path} names no table, as the run was trained on a table in memory: pass the table as `data`."
        )
    if not isinstance(settings["table"], str):
        raise UsageError(f"The table {settings['table']!r} is not a name.")
    known = {"table", "options", "access", *inspect.signature(Schema.from_settings).parameters}
    samples = Samples.of(**{key: value for key, value in settings.items() if key in known and value is not None})
    return RunData(
        samples,
        settings.get("train", "train"),
        settings.get("test", "test"),
        settings.get("max_rejects", 0.01),
        config.get("seed_everything"),
    )


def _with_own_settings(data: Samples | SplitData, overrides: Mapping[str, Any]) -> RunData:
    """Return data that are open already."""
    if overrides:
        raise UsageError(
            f"A {type(data).__name__} has settings of its own, so {', '.join(overrides)} cannot be given with it: set this"
            " where it is made, or give the table instead."
        )
    if isinstance(data, Samples):
        return RunData(data, "train", "test", 0.01, None)
    return RunData(data.samples, data.train_split, data.test_split, data.max_rejects, None)


def _from_memory(table: Any, settings: dict[str, Any]) -> RunData:
    if "columns" not in settings:
        raise UsageError(f"A table in memory needs columns, {COLUMNS_EXAMPLE}.")
    known = {"options", "access", *inspect.signature(Schema.from_settings).parameters}
    samples = Samples.of(table, **{key: value for key, value in settings.items() if key in known})
    return RunData(
        samples, settings.get("train", "train"), settings.get("test", "test"), settings.get("max_rejects", 0.01), None
    )


def _settings_for_table(settings: Mapping[str, Any], table: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's settings for another table, without keys of columns that this table does not have."""
    if table == settings.get("table"):
        return dict(settings)
    reader = {} if "options" in overrides else {"options": None}  # they apply to the run's file
    settings_for_table = {**settings, **reader, "table": table}
    columns = open_table(table, overrides.get("options")).columns
    for name in ("key", "group", "split"):
        if name not in overrides and isinstance(column := settings_for_table.get(name), str) and column not in columns:
            settings_for_table[name] = None
    return settings_for_table


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MultimodalError(f"The configuration {path} cannot be read: {error}") from error
    data = config.get("data") if isinstance(config, dict) else None
    if not (
        isinstance(data, dict)
        and ("table" in data or path.name == RUN_CONFIG)  # a run's table may be in memory
        and isinstance(data.get("columns"), dict)
    ):
        raise MultimodalError(f"The configuration {path} has no `data:` with `table:` and `columns:`.")
    return config
