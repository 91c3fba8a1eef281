"""Short explanations of wrong settings, from what the parser of configurations says.

1. Each class that a configuration names (an objective, an encoder, an optimizer) has its own parser, which alone knows the
   class. It raises a ``SettingError`` for a wrong setting.
2. The parsers around it report at length that the value as a whole fits none of its types. ``explain`` finds the
   ``SettingError`` among the causes, and shortens other messages.
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
    """What is wrong with a setting of a class.

    Args:
        cls: the class; None: not known.
        settings: the names of its settings.
        message: of its parser.
    """
    unknown = re.match(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w.]+)", message)
    if unknown is None or cls is None:
        return _shorten(message)
    name = unknown[1] or unknown[2]
    return f"{cls.__name__} has no parameter {name!r}.{suggest(name, settings)}"


def explain(message: str, error: Exception | None) -> str:
    """What is wrong with a configuration, from its parser's message and the error that caused it."""
    inner = [cause for cause in error_chain(error) if isinstance(cause, SettingError)]
    if not inner:
        return _shorten(message)
    key = re.match(r'Parser key "([\w.]+)"', message)
    return f"{key[1]}: {inner[-1].message}" if key else inner[-1].message


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its cause, the cause of that, ..."""
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
    explanation = _explain_value(wrong[1], values[-1], message) if wrong and values else None
    return explanation or f"{message.removesuffix('.')}."


def _explain_value(key: str, value: str, message: str) -> str | None:
    explanation = _explain_missing_parent(key, value) or _explain_unknown_class(key, value, message)
    if explanation is None and (expected := _expected_types(message)):
        nested = re.fullmatch(r"NestedArg\(key='.*?', val='?(.*?)'?\)", value)
        explanation = f"{key} must be {expected}, not {nested[1] if nested else value!r}."
    return explanation


def _explain_missing_parent(key: str, value: str) -> str | None:
    """Explain that a key is set of an object that is not set itself, which single keys cannot make."""
    nested = re.fullmatch(r"NestedArg\(key='(\w+)\.([\w.]+)', val='?(.*?)'?\)", value)
    if nested is None:
        return None
    whole = f"--{key} '{{{nested[1]}: {{{nested[2]}: {nested[3]}}}}}'"
    return f"{key} has no {nested[1]!r} whose {nested[2]!r} could be set; set it as a whole, like {whole}."


def _explain_unknown_class(key: str, value: str, message: str) -> str | None:
    """Explain that a name is not a class that the key takes, if it takes classes; lists the names of ours."""
    subtypes = re.search(r"Subtypes: \[(.*)\]", message)
    bases = [_import_class(path) for path in re.findall(r"<class '([\w.]+\.\w+)'>", subtypes[1] if subtypes else "")]
    names = sorted({cls.__name__ for base in bases if base is not None for cls in concrete_subclasses(base)})
    if not (names or ("Errors:" not in message and "import path string" in message)):
        return None
    known = suggest(value.rpartition(".")[2], names) if names else ""
    return f"{key}: {value!r} is neither the name nor the path of a class that can be imported.{known}"


def _import_class(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    found = getattr(import_module(module), name, None) if module.startswith("multimodal") else None
    return found if inspect.isclass(found) else None


def concrete_subclasses(base: type) -> Iterator[type]:
    """The classes of a family that can be built and are not private."""
    if not inspect.isabstract(base) and not base.__name__.startswith("_"):
        yield base
    for cls in base.__subclasses__():
        yield from concrete_subclasses(cls)


def _expected_types(message: str) -> str:
    """The types and values that a message lists, in plain words; empty if it lists none that are known."""
    choices = [choice for found in re.findall(r"typing\.Literal\[(.*?)\]", message) for choice in found.split(", ")]
    listed = message.partition("Given value type:")[0]
    types = [TYPE_NAMES[name] for name in re.findall(r"<class '(\w+)'>", listed) if name in TYPE_NAMES]
    if choices:
        return f"one of {', '.join(dict.fromkeys(choice.strip(chr(39)) for choice in choices))}"
    return " or ".join(dict.fromkeys(types))
