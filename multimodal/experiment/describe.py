"""Objects -> configuration: what a model, a data module and a trainer's settings amount to."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from multimodal.data.datamodule import DataModule
from multimodal.training.training_module import TrainingModule

MISSING = object()  # what no configuration can hold


def describe(
    model: TrainingModule, data: DataModule, run: str | Path, trainer: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The configuration that three objects amount to.

    Args:
        model: what is trained.
        data: its data.
        run: the run's folder.
        trainer: the settings that the trainer was made with, callbacks of the user's own included.

    Returns:
        The configuration as JSON values, and the keys that it leaves out because a program made them (a table in memory, a
        function without a name, a callback of another library).
    """
    left_out: list[str] = []
    model_settings = {name: value for name, value in model.init_args.items() if name != "seed" and value is not None}
    config = {
        "run": str(run),
        "seed_everything": model.seed,
        "trainer": {n: v for n, v in trainer.items() if v is not None and n not in ("logger", "default_root_dir")},
        "data": {name: value for name, value in data.init_args.items() if value is not None},
        "model": model_settings,
    }
    return _plain(config, "", left_out), left_out


def _plain(value: Any, key: str, left_out: list[str]) -> Any:
    """A setting as JSON values."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        inner = {str(name): _plain(v, f"{key}.{name}".lstrip("."), left_out) for name, v in value.items()}
        return {name: v for name, v in inner.items() if v is not MISSING}
    if isinstance(value, list | tuple) and key != "data.table":
        return [v for n, item in enumerate(value) if (v := _plain(item, f"{key}[{n}]", left_out)) is not MISSING]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value), key, left_out)
    if isinstance(value, functools.partial) and not value.args and inspect.isclass(value.func):
        return {"class_path": public_path(value.func), "init_args": _plain(value.keywords, key, left_out)}
    if inspect.isclass(value):
        return {"class_path": public_path(value)}
    if (arguments := getattr(value, "init_args", None)) is not None:
        given = {name: argument for name, argument in arguments.items() if argument is not None}
        return {"class_path": public_path(type(value)), "init_args": _plain(given, key, left_out)}
    left_out.append(f"{key} ({type(value).__name__})")
    return MISSING


def public_path(cls: type) -> str:
    """The class path by the nearest package that exports the class: ``multimodal.objectives.InfoNCE``."""
    parents = cls.__module__.split(".")
    for depth in range(len(parents) - 1, 0, -1):
        package = ".".join(parents[:depth])
        if getattr(import_module(package), cls.__name__, None) is cls:
            return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"
