"""Configuration -> objects: the model, data module and trainer that a YAML file describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl

from multimodal.core.errors import MultimodalError, UsageError, shown
from multimodal.core.run_folder import RUN_CONFIG
from multimodal.core.yaml_file import read_yaml
from multimodal.data.datamodule import DataModule
from multimodal.experiment.class_paths import resolve_names_in_config
from multimodal.experiment.lightning_cli import PretrainCLI, TrainCLI, objects_of
from multimodal.experiment.parser_errors import concrete_subclasses, error_chain, explain
from multimodal.objectives.text_pretraining import TextObjective


class Experiment(NamedTuple):
    """What a configuration makes: ``model, data, trainer = load_config(path)``.

    Attributes:
        model: an ``EmbedderModule``, or for text pre-training a ``TextPretrainingModule``.
        data: the data module.
        trainer: ``trainer.fit(model, datamodule=data)`` trains as ``multimodal fit`` does.
    """

    model: Any
    data: DataModule
    trainer: pl.Trainer

    def __repr__(self) -> str:
        model = repr(self.model).partition("\n")[0]
        return f"model: {model}\ndata: {self.data!r}\ntrainer: {_describe_trainer(self.trainer)}"


def load_config(path: str | Path, changes: Mapping[str, Any] | None = None) -> Experiment:
    """Make the three objects that a configuration file describes, with the weights of its seed.

    Args:
        path: a YAML file like ``configs/glyphs.yaml``, or a run's folder.
        changes: nested settings that replace those of the file: ``{"run": "runs/b", "trainer": {"max_steps": 100}}``.

    Raises:
        MultimodalError: the file cannot be read.
        UsageError: a setting is unknown or has a wrong value; the message says which and what would be right.
    """
    config = resolve_names_in_config(_merged(_read(Path(path)), changes or {}))
    try:
        cli = objects_of(PretrainCLI if _has_text_objective(config) else TrainCLI, config)
    except MultimodalError:
        raise
    except Exception as error:  # classes and their parsers raise errors of all kinds for a wrong setting
        ours = [cause for cause in error_chain(error) if isinstance(cause, MultimodalError)]
        said = str(ours[-1]) if ours else f"{type(error).__name__}: {shown(explain(str(error), error))}"
        raise UsageError(f"The configuration {path} cannot be used: {said}") from error
    return Experiment(cli.model, cli.datamodule, cli.trainer)


def _has_text_objective(config: Mapping[str, Any]) -> bool:
    """Whether the objective, by its name or class path, is one of texts alone."""
    model = config.get("model")
    objective = model.get("objective") if isinstance(model, Mapping) else None
    path = objective.get("class_path") if isinstance(objective, Mapping) else objective
    return str(path).rpartition(".")[2] in {cls.__name__ for cls in concrete_subclasses(TextObjective)}


def _describe_trainer(trainer: pl.Trainer) -> str:
    length = "steps without a limit"
    if trainer.max_steps >= 0:
        length = f"{trainer.max_steps:,} steps"
    elif trainer.max_epochs is not None and trainer.max_epochs >= 0:
        length = f"{trainer.max_epochs:,} epochs"
    devices = f"{trainer.num_devices} {trainer.strategy.root_device.type}"
    return f"{length} in {trainer.precision} on {devices}, in {trainer.default_root_dir}"


def _read(path: Path) -> dict[str, Any]:
    path = path / RUN_CONFIG if path.is_dir() else path
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise MultimodalError(f"The configuration {path} is not a mapping of settings.")
    return {key: value for key, value in config.items() if key not in ("ckpt_path", "weights_only")}


def _merged(config: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(config)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged
