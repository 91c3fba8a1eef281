"""The data of a run, a configuration or a table, for evaluation and embedding after training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from multimodal.core.errors import MultimodalError, UsageError, check_names
from multimodal.core.files import no_such_table
from multimodal.core.run_folder import RUN_CONFIG
from multimodal.core.yaml_file import read_yaml
from multimodal.data.samples import Samples
from multimodal.data.schema import Schema
from multimodal.data.tables.open import IN_MEMORY, open_table

USUAL_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "all")
ALL_ROWS = {"all": 1.0}  # split -> share, of a table without splits
SETTINGS = (
    "options",
    "access",
    "approved",
    "train",
    "test",
    "max_rejects",
    *inspect.signature(Schema.from_settings).parameters,
)
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
        is_another_table: whether these are not the rows that the run was trained on.
        validation_split: the split, or splits, that the run was validated on.
        missing_key: the run's column of keys, which another table does not have. None: it has it, or the run has none.
        missing_group: the same for the column of groups.

    Examples:
        >>> samples = Samples.of([{"title": "a cup"}], {"text": "title"})
        >>> RunData(samples, "train", "test", 0.01, seed=0, missing_key="sku").check_key()
        Traceback (most recent call last):
        multimodal.core.errors.UsageError: The run names its rows by the column 'sku', which the table 'in memory' does not ...
    """

    samples: Samples
    train_split: str | list[str]
    test_split: str | list[str]
    max_rejects: float
    seed: int | None
    is_another_table: bool = False
    validation_split: str | list[str] = "validation"
    missing_key: str | None = None
    missing_group: str | None = None

    def check_key(self) -> None:
        """Raise a ``UsageError`` if rows that are to be stored have no keys, though those of the run have."""
        if self.missing_key is not None:
            raise UsageError(
                f"The run names its rows by the column {self.missing_key!r}, which the table {self.samples.name!r} does not"
                " have. Name the column that has its keys: --key COLUMN; or take the numbers of the rows: --key ''."
            )


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

    The run's split shares do not apply to another table: unless it has a column of splits, all of its rows are used.

    Args:
        run: folder of the run. None: a model without a run, which has no data of its own.
        data: a configuration file (``.yaml``) whose ``data:`` is used instead; the name of a table, or in Python a table in
            memory, whose columns have the same names as those of the run's table; or in Python a ``DataModule`` or
            ``Samples``. None: the run's data.
        overrides: keys of ``data:`` that override the loaded settings.

    Raises:
        MultimodalError: a configuration is missing or damaged; the message names it.
        UsageError: there is neither a run nor data, ``columns`` is missing for a table that needs it, a key of ``overrides``
            is unknown, or ``overrides`` are given for a ``DataModule`` or ``Samples``.

    Examples:
        >>> data = load_run_data(None, [{"title": "a red cup"}], {"columns": {"text": "title"}})
        >>> data.samples[0].values, data.test_split
        ({'text': 'a red cup'}, 'all')
    """
    overrides = {name: None if name == "key" and value == "" else value for name, value in (overrides or {}).items()}
    check_names("data", overrides, SETTINGS)
    run_config = None if run is None else run / RUN_CONFIG
    config = _read_config(run_config) if run_config is not None and run_config.is_file() else {}
    of_run: dict[str, Any] = config.get("data", {})
    if isinstance(data, Samples) or (hasattr(data, "train_split") and hasattr(data, "samples")):
        return _with_own_settings(data, overrides, of_run)
    if data is None and run is None:
        raise UsageError("An embedder has no data of its own: give the table, as its name, rows or a DataModule.")
    missing: dict[str, str] = {}
    data = str(data) if isinstance(data, Path) else data
    if isinstance(data, str) and Path(data).suffix in (".yaml", ".yml"):
        settings = _read_config(Path(data))["data"] | overrides
    elif data is not None:
        _check_not_a_split(data, of_run)
        settings = _settings_for_table(of_run, data, overrides)
        dropped = [name for name in ("key", "group") if name not in overrides and settings.get(name) is None]
        missing = {f"missing_{name}": of_run[name] for name in dropped if of_run.get(name) is not None}
    else:
        settings = of_run | overrides
    if run is not None and not of_run and not settings.get("columns"):
        raise MultimodalError(
            f"{run} has no {RUN_CONFIG}, so its data are unknown; give a configuration with a `data:` section,"
            " or a table with --columns.MODALITY COLUMN."
        )
    if settings.get("table") is None:
        raise UsageError(
            f"{run_config if data is None else data} names no table, as the run was trained on a table in memory: pass the"
            " table as `data`."
        )
    if isinstance(data, str | None) and not isinstance(settings["table"], str):
        raise UsageError(f"The table {settings['table']!r} is not a name.")
    if not settings.get("columns"):
        raise UsageError(f"The table {_name(settings['table'])!r} needs columns, {COLUMNS_EXAMPLE}.")
    known = {"table", *SETTINGS} - {"train", "test", "max_rejects"}
    samples = Samples.of(**{key: value for key, value in settings.items() if key in known and value is not None})
    return RunData(
        samples,
        settings.get("train", "train"),
        settings.get("test", "test"),
        settings.get("max_rejects", 0.01),
        config.get("seed_everything"),
        data is not None and _is_another_table(of_run, _name(settings["table"]), run is not None),
        settings.get("validation", "validation"),
        **missing,
    )


def load_training_rows(run: Path | None, data: RunData) -> tuple[Samples, np.ndarray]:
    """Return the rows that a run was trained on, for what is fitted to be compared with the model.

    Args:
        run: folder of the run. None: a model without a run.
        data: the data that are evaluated.

    Returns:
        The samples, which are those of ``data`` if these are the run's, and ``(r,)`` row numbers.

    Raises:
        MultimodalError: the run's configuration or table cannot be read.
        UsageError: the table has no such split.
    """
    if data.is_another_table:
        data = load_run_data(run)
    return data.samples, data.samples.rows(data.train_split)


def _is_another_table(of_run: Mapping[str, Any], table: str, has_folder: bool) -> bool:
    """Return whether a table is, by its name, not the one that a run was trained on.

    A run that was trained on a table in memory does not know it; there, the given table is taken for it. So it is for a model
    without a folder. An exported model has a folder without a configuration.
    """
    if not of_run:
        return has_folder
    return of_run.get("table") is not None and of_run["table"] != table


def _check_not_a_split(table: Any, of_run: Mapping[str, Any]) -> None:
    """Check that a table's name is not that of a split, as in ``evaluate(run, "test")``, unless there is such a table."""
    shares = of_run.get("split")
    named = [of_run.get(key) for key in ("train", "validation", "test")]
    splits = {
        *USUAL_SPLITS,
        *(shares if isinstance(shares, Mapping) else ()),
        *(s for s in named if isinstance(s, str)),
    }
    if isinstance(table, str) and table in splits and not Path(table).exists():
        raise no_such_table(table, f" Did you mean split={table!r}?")


def _name(table: Any) -> str:
    return table if isinstance(table, str) else IN_MEMORY


def _with_own_settings(data: Samples | SplitData, overrides: Mapping[str, Any], of_run: Mapping[str, Any]) -> RunData:
    """Return data that are open already."""
    if overrides:
        raise UsageError(
            f"A {type(data).__name__} has settings of its own, so {', '.join(overrides)} cannot be given with it: set this"
            " where it is made, or give the table instead."
        )
    if isinstance(data, Samples):
        return RunData(data, "train", "test", 0.01, None, _is_another_table(of_run, data.name, False))
    another = _is_another_table(of_run, data.samples.name, False)
    return RunData(data.samples, data.train_split, data.test_split, data.max_rejects, None, another)


def _settings_for_table(of_run: Mapping[str, Any], table: Any, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's settings for another table, without its split shares and keys of columns that the table has not."""
    name = _name(table)
    if of_run and not _is_another_table(of_run, name, True):
        return {**of_run, "table": table, **overrides}
    reader = {} if "options" in overrides else {"options": None}  # they apply to the run's file
    opened = open_table(table, overrides.get("options"))
    settings = {**of_run, **reader, "approved": None, "table": table if isinstance(table, str) else opened, **overrides}
    for key in ("key", "group", "split"):
        if key not in overrides and isinstance(column := settings.get(key), str) and column not in opened.columns:
            settings[key] = None
    if "targets" not in overrides:  # they are trained on; elsewhere they are used where they are
        settings["targets"] = {n: c for n, c in (settings.get("targets") or {}).items() if c in opened.columns}
    if "negatives" not in overrides:  # so are these
        settings["negatives"] = None
    if "split" not in overrides and not isinstance(settings.get("split"), str):
        settings["split"] = ALL_ROWS
        settings["test"] = overrides.get("test", "all")
    return settings


def _read_config(path: Path) -> dict[str, Any]:
    config = read_yaml(path)
    data = config.get("data") if isinstance(config, dict) else None
    if not (
        isinstance(data, dict)
        and ("table" in data or path.name == RUN_CONFIG)  # a run's table may be in memory
        and isinstance(data.get("columns"), dict)
    ):
        raise MultimodalError(f"The configuration {path} has no `data:` with `table:` and `columns:`.")
    return config
