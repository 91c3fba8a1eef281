"""Supervised targets: numbers, lists of numbers, names of classes and lists of labels' names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.predictors import TargetSummary
from multimodal.data.tables.cells import is_number

NUMERIC_FRACTION = 0.95  # of a target's values; if fewer are numbers, the values are class names


def class_names(values: Iterable[Any]) -> list[str]:
    """Return the names of a target's classes or labels, sorted; none if the target is numeric.

    A target is numeric if at least ``NUMERIC_FRACTION`` of its values are numbers; its other values are then unreadable.
    Of lists, the elements count.

    Examples:
        >>> class_names(["cup", None, "jug", "cup"]), class_names(["1.5", "2"])
        (['cup', 'jug'], [])
        >>> class_names([["red", "new"], ["red"], []]), class_names([[0, 1], [1, None]])
        (['new', 'red'], [])
    """
    names = [name for value in values for name in _names(value)]
    numbers = sum(map(is_number, names))
    return [] if numbers >= NUMERIC_FRACTION * len(names) else sorted(set(names))


def target_value(value: Any, classes: Mapping[str, int] | None) -> Any:
    """Convert a target's cell to a number, a list of numbers, or a class index.

    Args:
        value: the cell.
        classes: name -> index. None: the target is numeric.

    Returns:
        For a list of names, 1 for each class that it holds and else 0; None for a name that is not among the classes.

    Raises:
        Unreadable: it is not a number, but the target is numeric.

    Examples:
        >>> classes = {"cup": 0, "jug": 1}
        >>> target_value("jug", classes), target_value("pot", classes), target_value(["cup", "pot"], classes)
        (1, None, [1.0, 0.0])
    """
    if classes is not None:
        return (
            [float(name in set(_names(value))) for name in classes]
            if isinstance(value, list)
            else classes.get(str(value))
        )
    try:
        if isinstance(value, list):
            return [math.nan if v is None else float(v) for v in value]
        return float(value)
    except (TypeError, ValueError) as error:
        raise Unreadable("not a number", f"{value!r} is not a number, but other values of the target are.") from error


def unknown_names(values: Iterable[Any], classes: Mapping[str, int]) -> dict[str, int]:
    """Return the names that are not among the classes, with the number of values that have them.

    Examples:
        >>> unknown_names(["cup", "pot", None, "pot"], {"cup": 0})
        {'pot': 2}
    """
    counts: dict[str, int] = {}
    for value in values:
        for name in _names(value):
            if name not in classes:
                counts[name] = counts.get(name, 0) + 1
    return counts


def summarise(target: str, values: Iterable[Any], names: Sequence[str], complete: bool = True) -> TargetSummary:
    """Summarise the cells of a target in the training rows.

    Args:
        target: its name, for errors.
        values: its cells; None: missing. Numbers that cannot be read are reported when the rows are.
        names: those of its classes; empty: it is numeric.
        complete: whether these are all training rows.

    Raises:
        UsageError: no row has it.
    """
    numbers: list[list[float]] = []
    classes = {name: number for number, name in enumerate(names)} or None
    for value in values:
        try:
            number = None if value is None else target_value(value, classes)
        except Unreadable:
            continue
        if number is not None:
            numbers.append(number if isinstance(number, list) else [number])
    if not numbers or not numbers[0]:
        raise UsageError(f"targets.{target}: no row of the training split has a value.")
    if {len(row) for row in numbers} != {len(numbers[0])}:
        raise UsageError(f"targets.{target}: rows of the training split have lists of different lengths.")
    return TargetSummary.of(numbers, list(names), complete)


def _names(value: Any) -> list[str]:
    several = value if isinstance(value, list) else [value]
    return [str(each) for each in several if each is not None]
