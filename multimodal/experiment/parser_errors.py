"""What the parser of configurations says of a wrong setting, in our words.

1. Each class that a configuration names (an objective, an encoder, an optimizer) has a parser of its own. What is wrong
   with one of its settings is a ``SettingError``, as that parser alone knows the class.
2. The parsers around it tell in long words that the value as a whole fits none of its types. ``explain`` finds the
   ``SettingError`` among the causes, and puts what else they say in short words.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from importlib import import_module

from multimodal.core.errors import suggest

TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "dict": "a mapping",
}


class SettingError(argparse.ArgumentError):
    """One of the settings of a class is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(None, message)


def explain_setting_error(cls: type | None, settings: list[str], message: str) -> str:
    """What is wrong with a setting of a class, from what its parser says."""
    unknown = re.match(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w.]+)", message)
    if unknown is None or cls is None:
        return _shorten(message)
    name = unknown[1] or unknown[2]
    return f"{cls.__name__} has no parameter {name!r}.{suggest(name, settings)}"


def explain(message: str, error: Exception | None) -> str:
    """What is wrong with a configuration, from what its parser says and the error that led to it."""
    inner = [cause for cause in error_chain(error) if isinstance(cause, SettingError)]
    if not inner:
        return _shorten(message)
    key = re.match(r'Parser key "([\w.]+)"', message)
    return f"{key[1]}: {inner[-1].message}" if key else inner[-1].message


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what led to it, what led to that, ..."""
    while error is not None:
        yield error
        error = error.__cause__


def _shorten(message: str) -> str:
    missing = re.fullmatch(r"the following arguments are required: (.*)", message)
    if missing:
        names = [re.sub(r"^(fit|validate|test|predict)\.", "", name) for name in missing[1].split(", ")]
        return f"{', '.join(names)}: not set. Give a configuration by --config FILE; options like --data.table set single keys."
    wrong = re.match(r'Parser key "([\w.]+)"', message)
    values = re.findall(r"(?:Got value|Given value|import path string): (.*)", message)
    told = _explain_value(wrong[1], values[-1], message) if wrong and values else None
    return told or f"{message.removesuffix('.')}."


def _explain_value(key: str, value: str, message: str) -> str | None:
    told = _explain_missing_parent(key, value) or _explain_unknown_class(key, value, message)
    if told is None and (expected := _expected_types(message)):
        nested = re.fullmatch(r"NestedArg\(key='.*?', val='?(.*?)'?\)", value)
        told = f"{key} must be {expected}, not {nested[1] if nested else value!r}."
    return told


def _explain_missing_parent(key: str, value: str) -> str | None:
    """That a setting is of something that is not there, as single keys cannot make it."""
    nested = re.fullmatch(r"NestedArg\(key='(\w+)\.([\w.]+)', val='?(.*?)'?\)", value)
    if nested is None:
        return None
    whole = f"--{key} '{{{nested[1]}: {{{nested[2]}: {nested[3]}}}}}'"
    return f"{key} has no {nested[1]!r} whose {nested[2]!r} could be set; set it as a whole, like {whole}."


def _explain_unknown_class(key: str, value: str, message: str) -> str | None:
    """That a name is none of the classes that a key takes, if it takes classes; with the names of ours."""
    subtypes = re.search(r"Subtypes: \[(.*)\]", message)
    bases = [_import_class(path) for path in re.findall(r"<class '([\w.]+\.\w+)'>", subtypes[1] if subtypes else "")]
    names = sorted({cls.__name__ for base in bases if base is not None for cls in _concrete_subclasses(base)})
    if not (names or ("Errors:" not in message and "import path string" in message)):
        return None
    known = suggest(value, names) if names else ""
    return f"{key}: {value!r} is neither the name nor the path of a class that can be imported.{known}"


def _import_class(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    found = getattr(import_module(module), name, None) if module.startswith("multimodal") else None
    return found if inspect.isclass(found) else None


def _concrete_subclasses(base: type) -> Iterator[type]:
    """The classes of a family that can be built and are not private."""
    if not inspect.isabstract(base) and not base.__name__.startswith("_"):
        yield base
    for cls in base.__subclasses__():
        yield from _concrete_subclasses(cls)


def _expected_types(message: str) -> str:
    """The types and values that a message lists, as people say them; nothing if it lists none that we know."""
    choices = [choice for found in re.findall(r"typing\.Literal\[(.*?)\]", message) for choice in found.split(", ")]
    told = message.partition("Given value type:")[0]
    types = [TYPE_NAMES[name] for name in re.findall(r"<class '(\w+)'>", told) if name in TYPE_NAMES]
    if choices:
        return f"one of {', '.join(dict.fromkeys(choice.strip(chr(39)) for choice in choices))}"
    return " or ".join(dict.fromkeys(types))
