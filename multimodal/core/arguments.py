"""Checks of arguments against their names and annotations, for errors that say what to do.

Checked are strings, numbers, booleans, None, ``Literal``, mappings, sequences, callables, classes, and unions of these. What
has another annotation is not checked, and what behaves as the type does is accepted: NumPy's numbers, a path for a string, a
tuple for a list.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain, islice
from numbers import Integral
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

from multimodal.core.errors import UsageError, check_names, shown

NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
}
UNIONS = (Union, UnionType)
MAX_SHOWN = 60  # characters of a value in an error
MAX_CHECKED = 100  # entries of a list or mapping


class _Fault(NamedTuple):
    """A value that does not have the type of its annotation; ``name`` is the argument, or an entry like ``columns['text']``."""

    name: str
    value: Any
    annotation: Any


def check_arguments(
    owner: str,
    init: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    examples: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> None:
    """Check a call of a constructor.

    Args:
        owner: the name of the class, for the error.
        init: its ``__init__``.
        args: the positional arguments, without ``self``.
        kwargs: the keyword arguments.
        examples: argument -> a valid value as it is written in Python, for the error.
        elsewhere: an argument that people try -> where this is set instead, a sentence for the error.

    Raises:
        UsageError: an argument is unknown, missing or of another type than annotated.
    """
    parameters = dict(list(inspect.signature(init).parameters.items())[1:])
    kinds = {parameter.kind for parameter in parameters.values()}
    named = {name: p for name, p in parameters.items() if p.kind != inspect.Parameter.VAR_KEYWORD}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        check_names(owner, kwargs, named, elsewhere)
    if len(args) > len(named):
        raise UsageError(f"{owner}() takes at most {len(named)} arguments: {', '.join(named)}.")
    given = dict(zip(named, args, strict=False)) | {name: value for name, value in kwargs.items() if name in named}
    missing = [name for name, p in named.items() if p.default is inspect.Parameter.empty and name not in given]
    if missing:
        raise UsageError(f"{owner}() needs {', '.join(missing)}{_example(missing[0], examples)}.")
    check_types(owner, init, given, examples)


def check_types(
    owner: str, function: Callable[..., Any], given: Mapping[str, Any], examples: Mapping[str, str] | None = None
) -> None:
    """Check the types of arguments by the annotations of the function that takes them.

    Args:
        owner: the name of the function or class, for the error.
        function: the function. If an annotation names what is only imported for type checkers, nothing is checked.
        given: name -> value. The default of an argument is always accepted.
        examples: argument -> a valid value as it is written in Python, for the error.

    Raises:
        UsageError: a value has another type; the message says where, what was given and what is wanted.

    Examples:
        >>> def scale(factor: float, names: list[str]) -> None: ...
        >>> check_types("scale", scale, {"factor": 2, "names": ("text", "image")})
        >>> check_types("scale", scale, {"factor": "2", "names": []})
        Traceback (most recent call last):
        multimodal.core.errors.UsageError: scale: factor must be a number, not '2'.
    """
    hints, defaults, exact = _hints(function)
    for name, value in given.items():
        if name not in hints or type(value) in exact[name] or value is defaults.get(name, hints):
            continue
        if (fault := _find_fault(name, value, hints[name])) is not None:
            wanted = f"must be {_described(fault.annotation)}, not {describe_value(fault.value)}"
            raise UsageError(f"{owner}: {fault.name} {wanted}{_example(name, examples)}.")


@cache
def _hints(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, tuple[Any, ...]]]:
    """Return the types and the defaults of the arguments of a function, and the classes whose instances need no other check."""
    try:
        hints = get_type_hints(function)
    except NameError:  # a type that is imported for type checkers only
        return {}, {}, {}
    exact = {name: get_args(hint) if get_origin(hint) in UNIONS else (hint,) for name, hint in hints.items()}
    return hints, {name: p.default for name, p in inspect.signature(function).parameters.items()}, exact


def _example(name: str, examples: Mapping[str, str] | None) -> str:
    return f"; for example, {name}={examples[name]}" if examples and name in examples else ""


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value may be given where a type is annotated; True if that cannot be said.

    Examples:
        >>> fits(3, int), fits("3", int), fits({"a": 1.5}, dict[str, float]), fits("all", list[str])
        (True, False, True, False)
    """
    return _find_fault("", value, hint) is None


def _find_fault(name: str, value: Any, annotation: Any) -> _Fault | None:
    """Return the innermost value that is not of its type; None: all are."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in UNIONS:
        faults = [_find_fault(name, value, choice) for choice in inner]
        if None in faults:
            return None
        return next((fault for fault in faults if fault and fault.name != name), _Fault(name, value, annotation))
    if not _has_outer_type(value, origin or annotation, inner):
        return _Fault(name, value, annotation)
    entries: Iterable[_Fault | None] = ()
    if _is_kind(origin, Mapping) and len(inner) == 2:
        names = (_find_fault(f"a name in {name}", key, inner[0]) for key in value)
        items = (_find_fault(f"{name}[{key!r}]", item, inner[1]) for key, item in value.items())
        entries = chain(islice(names, MAX_CHECKED), islice(items, MAX_CHECKED))
    elif _is_kind(origin, Iterable) and len(inner) == 1 and isinstance(value, Collection):
        entries = (_find_fault(f"{name}[{n}]", item, inner[0]) for n, item in enumerate(islice(value, MAX_CHECKED)))
    return next((fault for fault in entries if fault is not None), None)


def _has_outer_type(value: Any, kind: Any, inner: tuple[Any, ...]) -> bool:
    """Return whether a value has a type, whatever it contains; True for types that are not checked."""
    if kind is Literal:
        return any(value == choice for choice in inner)
    if kind is bool:
        return isinstance(value, bool | np.bool_ | Integral)
    if kind in (int, float):  # the class int has these methods too, but is not a number
        methods = ("__index__",) if kind is int else ("__float__", "__index__")
        return not inspect.isclass(value) and any(hasattr(value, method) for method in methods)
    if kind is str:
        return isinstance(value, str | os.PathLike)
    if kind in (None, NoneType):
        return value is None
    if kind is Callable:
        return callable(value)
    if _is_kind(kind, Mapping):
        return isinstance(value, Mapping)
    if _is_kind(kind, Iterable):
        return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    try:
        return not inspect.isclass(kind) or isinstance(value, kind)
    except TypeError:  # a protocol that is not checked at runtime
        return True


def _is_kind(kind: Any, base: type) -> bool:
    """Return whether a class is one of the standard containers of a base."""
    standard = inspect.isclass(kind) and kind.__module__ in ("builtins", "collections", "collections.abc")
    return standard and kind not in (str, bytes) and issubclass(kind, base)


def _described(annotation: Any) -> str:
    """Say in words what an annotation wants, without None and the types of entries."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in UNIONS:
        return " or ".join(dict.fromkeys(_described(choice) for choice in inner if choice is not NoneType))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    kind = origin or annotation
    if kind in NAMES:
        return NAMES[kind]
    if kind is Callable:
        return "a function or a class"
    if _is_kind(kind, Mapping):
        return "a mapping"
    if _is_kind(kind, Iterable):
        return "a list"
    return _with_article(getattr(kind, "__name__", str(kind)))


def describe_value(value: Any) -> str:
    """Show a value in an error: short plain ones as Python writes them, else the type."""
    if value is None or isinstance(value, str | bytes | int | float | np.generic):
        return repr(value) if isinstance(value, str) and len(value) <= MAX_SHOWN else shown(value)
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    text = repr(value) if isinstance(value, list | tuple | dict | set | os.PathLike) else ""
    plain = text and len(text) <= MAX_SHOWN and "\n" not in text
    return text if plain else _with_article(type(value).__name__)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"
