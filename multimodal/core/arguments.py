"""Checks of the arguments of constructors against their names and annotations, for errors that say what to do."""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, Union

from multimodal.core.errors import UsageError, check_names

SHOWN = 60  # characters of a value in an error
ITEMS = 100  # of a list or mapping whose types are checked


def check_arguments(owner: str, init: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Check a call of a constructor.

    Args:
        owner: the name of the class, for the error.
        init: its ``__init__``.
        args: the positional arguments, without ``self``.
        kwargs: the keyword arguments.

    Raises:
        UsageError: an argument is unknown, missing or of another type than annotated. Annotations that are neither of
            builtins, collections and classes nor unions of these are not checked.
    """
    parameters = dict(list(inspect.signature(init).parameters.items())[1:])
    kinds = {parameter.kind for parameter in parameters.values()}
    named = {name: p for name, p in parameters.items() if p.kind != inspect.Parameter.VAR_KEYWORD}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        check_names(owner, kwargs, named)
    if len(args) > len(named):
        raise UsageError(f"{owner}() takes at most {len(named)} arguments: {', '.join(named)}.")
    given = dict(zip(named, args, strict=False)) | {name: value for name, value in kwargs.items() if name in named}
    missing = [name for name, p in named.items() if p.default is inspect.Parameter.empty and name not in given]
    if missing:
        raise UsageError(f"{owner}() needs {', '.join(missing)}.")
    hints = _hints(init)
    for name, value in given.items():
        if name in hints and not fits(value, hints[name]):
            wanted = _annotated(named[name].annotation, hints[name])
            raise UsageError(f"{owner}({name}=...) takes {wanted}, got {_described(value)}.")


def _annotated(annotation: Any, hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _described(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{text} ({type(value).__name__})" if len(text) <= SHOWN else type(value).__name__


@cache
def _hints(init: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(init)
    except NameError:  # a type that is imported for type checkers only
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value may be given where a type is annotated; True if that cannot be said.

    Examples:
        >>> fits(3, int), fits("3", int), fits({"a": 1.5}, dict[str, float]), fits("all", list[str])
        (True, False, True, False)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Union or origin is types.UnionType:
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if hint is Any:  # a class since Python 3.11
        return True
    if hint is None or hint is type(None):
        return value is None
    kind = origin or hint
    if not isinstance(kind, type):
        return True  # Any, type variables, ...
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real)
    if kind is str:
        return isinstance(value, str | os.PathLike)
    if issubclass(kind, Mapping):
        if not isinstance(value, Mapping):
            return False
        return len(arguments) != 2 or all(
            fits(name, arguments[0]) and fits(item, arguments[1]) for name, item in list(value.items())[:ITEMS]
        )
    if kind in (list, tuple, set, frozenset) or (issubclass(kind, Iterable) and kind.__module__ == "collections.abc"):
        if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
            return False
        checked = arguments and kind is not tuple and isinstance(value, list | tuple)
        return not checked or all(fits(item, arguments[0]) for item in value[:ITEMS])
    if kind.__module__ == "collections.abc":
        return callable(value) if kind is Callable or issubclass(kind, Callable) else True
    if getattr(kind, "_is_protocol", False):
        return True
    return isinstance(value, kind)
