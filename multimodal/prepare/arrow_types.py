"""Arrow type of a column whose values may be of any type."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from multimodal.core.errors import MultimodalError
from multimodal.prepare.cleaning import to_text

MAX_EXACT_FLOAT_INTEGER = 2**53  # float64 represents every integer up to this one exactly


@dataclass(frozen=True)
class Stored:
    """Type in which a column is stored.

    Attributes:
        arrow: the Arrow type.
        as_text: values are converted to texts (JSON unless they are texts), because they have several types.
    """

    arrow: Any
    as_text: bool


def stored_value(value: Any, stored: Stored) -> Any:
    """Return the value in the form in which it is stored."""
    return to_text(value) if stored.as_text else value


class StoredType:
    """Type shared by all values of a column, determined one value at a time.

    Args:
        column: name of the column, for errors.

    Examples:
        >>> price = StoredType("price")
        >>> price.add(1)
        >>> price.add(2.5)
        >>> price.stored
        Stored(arrow=DataType(double), as_text=False)
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._types: set[Any] = set()
        self._nested: Any = None
        self._small = True

    def add(self, value: Any) -> None:
        """Include a clean value, which must not be a file.

        Raises:
            MultimodalError: no table file can store a value of its type.
        """
        if isinstance(value, bool | str | bytes | float):
            self._types.add(type(value))
        elif isinstance(value, int):
            self._types.add(int if -(2**63) <= value < 2**63 else object)
            self._small = self._small and abs(value) <= MAX_EXACT_FLOAT_INTEGER
        else:
            self._add_other(value)

    def _add_other(self, value: Any) -> None:
        """Include a list, a mapping, a date, ...: one Arrow type for all, or text."""
        import pyarrow as pa

        if not isinstance(value, list | tuple | dict | date | time | timedelta | Decimal):
            raise MultimodalError(
                f"The column {self._column!r} holds values of the type {type(value).__name__}, which no shard can hold;"
                " prepare takes texts, numbers, lists, mappings, dates, bytes and files."
            )
        try:
            inferred = pa.infer_type([value])
            unified = pa.unify_schemas([pa.schema([("", t)]) for t in (self._nested or inferred, inferred)])
            self._nested = unified.field(0).type
            pa.array([value], type=self._nested)
            self._types.add(pa.DataType)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError):
            self._types.add(object)

    @property
    def stored(self) -> Stored:
        """Type of all values so far."""
        import pyarrow as pa

        if self._types == {int, float} and self._small:
            return Stored(pa.float64(), as_text=False)
        single = {bool: pa.bool_(), str: pa.string(), bytes: pa.binary(), float: pa.float64(), int: pa.int64()}
        single[pa.DataType] = self._nested
        if self._nested is not None and _has_empty_struct(self._nested):
            return Stored(pa.string(), as_text=True)
        if len(self._types) == 1 and (only := next(iter(self._types))) in single:
            return Stored(single[only], as_text=False)
        return Stored(pa.string(), as_text=bool(self._types))


def _has_empty_struct(kind: Any) -> bool:
    """Return whether the type contains a mapping without entries, which Parquet cannot store."""
    import pyarrow as pa

    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not inner) or any(map(_has_empty_struct, inner))
