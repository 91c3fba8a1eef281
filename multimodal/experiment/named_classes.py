"""A check of the class paths of a configuration, before anything that they name is called.

jsonargparse also accepts functions: where a function is wanted, as for the optimizer, any that has no annotations, which
would let a configuration run a command. What a configuration names must be a class of the kind that belongs there.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any

from jsonargparse import Namespace
from torch.optim import Optimizer

from multimodal.core.errors import UsageError

KINDS: Mapping[str, type] = {"model.optimizer": Optimizer}  # jsonargparse checks the other keys by their annotations


def check_named_classes(config: Any) -> None:
    """Check that each class path of a parsed configuration names a class, and the optimizer's a subclass of ``Optimizer``.

    Raises:
        UsageError: one names something else.

    Examples:
        >>> check_named_classes({"model": {"optimizer": {"class_path": "torch.optim.SGD"}}})
        >>> check_named_classes({"model": {"optimizer": {"class_path": "os.system"}}})
        Traceback (most recent call last):
        multimodal.core.errors.UsageError: model.optimizer: os.system is not a subclass of torch.optim.Optimizer.
    """
    for key, path in _class_paths(config, ""):
        named, kind = resolve_name(path), KINDS.get(key)
        if kind is not None and not (inspect.isclass(named) and issubclass(named, kind)):
            raise UsageError(f"{key}: {path} is not a subclass of torch.optim.{kind.__name__}.")
        if not inspect.isclass(named):
            raise UsageError(f"{key}: {path} is not a class.")


def _class_paths(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the key and the class path of each class that a configuration names."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if isinstance(value, Mapping):
        if isinstance(path := value.get("class_path"), str):
            yield key, path
        for name, inner in value.items():
            yield from _class_paths(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _class_paths(inner, f"{key}[{number}]")
