"""Tables of the ``datasets`` library: rows in Arrow, in memory or mapped from disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.table import Table
from multimodal.data.tables.cells import (
    CELL_FIELDS,
    FILE_FIELDS,
    decode_or_none,
    encode_json_cell,
    is_missing,
    raw_value,
)

if TYPE_CHECKING:
    from datasets import Dataset, Features


class ArrowTable(Table):
    """A ``datasets.Dataset`` as a table.

    Values of ``Image`` and ``Audio`` columns are the bytes or paths of their files; values of ``ClassLabel`` columns are
    class names.

    Args:
        name: name of the table in reports.
        data: the rows; an indices mapping (from ``select``, ``shuffle``, ...) is flattened.
        base: the folder or URL that paths in the cells are relative to; None: paths are used as given.
        metadata_columns: the columns that describe a row to users; None: see ``default_metadata_columns``.

    Examples:
        >>> from datasets import Dataset
        >>> table = ArrowTable("shop", Dataset.from_dict({"title": ["a red cup", None]}))
        >>> len(table), table.value(0, "title"), table.present("title").tolist()
        (2, 'a red cup', [True, False])
    """

    def __init__(
        self, name: str, data: Dataset, base: str | None = None, metadata_columns: tuple[str, ...] | None = None
    ) -> None:
        self.name, self.base = name, base
        self._data = without_decoding(data) if data._indices is None else without_decoding(data).flatten_indices()
        self.columns = tuple(data.column_names)
        self.metadata_columns = (
            default_metadata_columns(data.features) if metadata_columns is None else metadata_columns
        )
        self._columns: dict[str, Any] = {}
        self._decoders = _decoders(self._data.features)

    @property
    def fingerprint(self) -> str:
        return self._data._fingerprint  # of the datasets library; it changes with the files that were read

    def __len__(self) -> int:
        return len(self._data)

    def value(self, row: int, column: str) -> Any:
        return raw_value(self._decoded(column, self._column(column)[row].as_py()))

    def _decoded(self, column: str, cell: Any) -> Any:
        return self._decoders[column](cell) if column in self._decoders else cell

    def _column(self, name: str) -> Any:
        if name not in self._columns:
            self._columns[name] = self._data.data.column(name)
        return self._columns[name]

    def __getstate__(self) -> dict[str, Any]:  # a process that unpickles the table maps the files itself
        return vars(self) | {"_columns": {}}

    def column(self, name: str) -> Sequence[Any]:
        import pyarrow as pa

        column = self._column(name)
        if pa.types.is_struct(column.type) and {field.name for field in column.type} == set(CELL_FIELDS):
            field = column.type.get_field_index("json")  # files are not keys, groups or splits
            texts = [text for chunk in column.chunks for text in chunk.flatten()[field].to_pylist()]
            cells = (None if text is None else decode_or_none(text) for text in texts)
        else:
            cells = (self._decoded(name, cell) for cell in column.to_pylist())
        return [None if is_missing(cell) else cell for cell in cells]

    def present(self, name: str) -> np.ndarray:
        import pyarrow as pa

        column = self._column(name)
        if name in self._decoders or pa.types.is_string_view(column.type):  # Arrow does not compare views
            return super().present(name)
        if pa.types.is_floating(column.type):
            return ~np.isnan(column.to_numpy())  # missing values become NaN
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return _is_not(column, "")
        fields = {field.name for field in column.type} if pa.types.is_struct(column.type) else set()
        present = column.is_valid().to_numpy(zero_copy_only=False)
        if fields == set(CELL_FIELDS):  # of JSON, or a file
            present &= ~_is(_field(column, "json"), encode_json_cell(""))
        if fields == FILE_FIELDS:
            present &= _is_not(_field(column, "path"), "") | _field(column, "bytes").is_valid().to_numpy()
        return present


def _field(column: Any, name: str) -> Any:
    return _compute().struct_field(column, name)


def _is(column: Any, text: str) -> np.ndarray:
    """Return which texts of an Arrow column are a text."""
    return _compute().fill_null(_compute().equal(column, text), False).to_numpy()


def _is_not(column: Any, text: str) -> np.ndarray:
    """Return which texts of an Arrow column are another text than this, and not missing."""
    return _compute().fill_null(_compute().not_equal(column, text), False).to_numpy()


def _compute() -> Any:
    import pyarrow.compute  # its functions are made when it is imported

    return pyarrow.compute


def _decoders(features: Features) -> dict[str, Callable[[Any], Any]]:
    """Return column -> decoder of Arrow values, for the columns whose values differ from Arrow's."""
    from datasets.features.features import decode_nested_example

    mixed: dict[str, Any] = {c: partial(decode_nested_example, f) for c, f in features.items() if _holds_json(f)}
    return mixed | {c: partial(class_name, classes) for c, classes in class_names(features).items()}


def _holds_json(feature: Any) -> bool:
    """Return whether a column has values of several types, which the datasets library stores as JSON."""
    from datasets import Json

    if isinstance(feature, dict):
        return any(map(_holds_json, feature.values()))
    return isinstance(feature, Json) or (hasattr(feature, "feature") and _holds_json(feature.feature))


def class_names(features: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Return column -> the names of its classes, for columns of class indices."""
    from datasets import ClassLabel

    return {c: list(f.names) for c, f in (features or {}).items() if isinstance(f, ClassLabel) and f.names}


def class_name(classes: Sequence[str], number: int | None) -> str | None:
    """Return the name of a class; None if it is missing, which the ``datasets`` library also writes as -1."""
    return None if number is None or number < 0 else classes[number]


def without_decoding(data: Any) -> Any:
    """Return a data set, or a stream, whose images and audio are files rather than decoded arrays."""
    from datasets import Audio, Image

    for column, feature in (data.features or {}).items():
        if isinstance(feature, Image | Audio):
            data = data.cast_column(column, type(feature)(decode=False))
    return data


def default_metadata_columns(features: Features) -> tuple[str, ...]:
    """Return the columns whose cells are JSON values that users can read."""
    from datasets import ClassLabel, Value

    kinds = ("string", "large_string", "bool", "int", "uint", "float")
    return tuple(
        name
        for name, feature in features.items()
        if isinstance(feature, Value | ClassLabel) and feature.dtype.rstrip("0123456789") in kinds
    )
