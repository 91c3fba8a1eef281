"""Registered encoder names in configurations: turned into the class paths that jsonargparse understands."""

from __future__ import annotations

import re
from typing import Any

from multimodal.core import registry

ENCODERS = "model.encoders."


def in_config(config: Any) -> Any:
    """A loaded configuration with the registered names under ``model.encoders`` replaced by class paths, settings checked."""
    if not isinstance(config, dict):
        return config
    model = config.get("model")
    encoders = model.get("encoders") if isinstance(model, dict) else None
    if not (isinstance(model, dict) and isinstance(encoders, dict)):
        return config
    named = {modality: _encoder(str(modality), spec) for modality, spec in encoders.items()}
    return config | {"model": model | {"encoders": named}}


def _encoder(modality: str, spec: Any) -> Any:
    if isinstance(spec, str):
        return {"class_path": class_path(modality, spec)}
    if isinstance(spec, dict) and isinstance(spec.get("class_path"), str):
        if isinstance(spec.get("init_args"), dict):
            registry.check_settings(modality, spec["class_path"], spec["init_args"])
        return spec | {"class_path": class_path(modality, spec["class_path"])}
    return spec


def in_arguments(arguments: list[str]) -> list[str]:
    """Command-line arguments with the value of ``--model.encoders.MODALITY[.class_path]`` replaced likewise."""
    replaced = []
    pending: str | None = None  # the modality whose name is the next argument
    for argument in arguments:
        option = re.fullmatch(r"--model\.encoders\.(\w+)(?:\.class_path)?(?:=(.*))?", argument)
        if pending is not None:
            replaced.append(class_path(pending, argument))
            pending = None
        elif option and option[2] is not None:
            replaced.append(f"{argument.partition('=')[0]}={class_path(option[1], option[2])}")
        else:
            replaced.append(argument)
            pending = option[1] if option else None
    return replaced


def class_path(modality: str, name: str) -> str:
    """The class path of an encoder; its name is checked."""
    return registry.class_path(registry.find(modality, name))
