"""Names of classes in configurations: registered encoders, and class paths of earlier versions.

A configuration may name an encoder by its registered name; jsonargparse understands class paths. What a run saves names
encoders by their registered names again, which survive a move of the class.
"""

from __future__ import annotations

import re
from typing import Any

from multimodal.core import registry

# where configurations of version 0.1 name a class -> where it is exported now
EARLIER = {
    "multimodal.training.averaging.": "multimodal.training.",
    "multimodal.training.schedule.": "multimodal.training.",
    "multimodal.objectives.words.": "multimodal.objectives.",
}


def resolve_names_in_config(config: Any) -> Any:
    """A loaded configuration whose encoders and classes of earlier versions are named by class paths of today.

    Raises:
        UsageError: an encoder or a setting of one is unknown.
    """
    if not isinstance(config, dict):
        return config
    config = _with_current_paths(config)
    model = config.get("model")
    encoders = model.get("encoders") if isinstance(model, dict) else None
    if not (isinstance(model, dict) and isinstance(encoders, dict)):
        return config
    named = {modality: _resolve_encoder_spec(str(modality), spec) for modality, spec in encoders.items()}
    return config | {"model": model | {"encoders": named}}


def name_encoders(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as a run saves it: encoders by their registered names."""
    model = config["model"]
    encoders = {}
    for modality, spec in model["encoders"].items():
        name, _ = registry.saved_names(modality, registry.find_encoder(modality, spec["class_path"]))
        encoders[modality] = spec | {"class_path": name}
    return config | {"model": model | {"encoders": encoders}}


def _with_current_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: current_path(inner) if key == "class_path" and isinstance(inner, str) else _with_current_paths(inner)
            for key, inner in value.items()
        }
    return [_with_current_paths(inner) for inner in value] if isinstance(value, list) else value


def _with_current_path(argument: str) -> str:
    option, equals, value = argument.partition("=")
    return f"{option}={current_path(value)}" if equals and option.startswith("--") else current_path(argument)


def current_path(path: str) -> str:
    """The class path of today for one that a configuration of an earlier version holds."""
    earlier = next((prefix for prefix in EARLIER if path.startswith(prefix)), None)
    return path if earlier is None else EARLIER[earlier] + path.removeprefix(earlier)


def _resolve_encoder_spec(modality: str, spec: Any) -> Any:
    if isinstance(spec, str):
        return {"class_path": class_path(modality, spec)}
    if isinstance(spec, dict) and isinstance(spec.get("class_path"), str):
        if isinstance(spec.get("init_args"), dict):
            registry.check_settings(modality, spec["class_path"], spec["init_args"])
        return spec | {"class_path": class_path(modality, spec["class_path"])}
    return spec


def resolve_names_in_arguments(arguments: list[str]) -> list[str]:
    """Command-line arguments with the value of ``--model.encoders.MODALITY[.class_path]`` replaced likewise."""
    replaced = []
    pending: str | None = None  # the modality whose name is the next argument
    for argument in map(_with_current_path, arguments):
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
    return registry.class_path(registry.find_encoder(modality, name))
