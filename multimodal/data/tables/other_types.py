"""Columns of Arrow types that the ``datasets`` library does not have, such as maps and UUIDs: they become JSON values.

A map with texts as keys is a mapping, another map a list of pairs; bytes are their hexadecimal digits; what JSON does not have
is text.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Json


def features_of(schema: pa.Schema) -> Features:
    """Return the types of a table's columns, ``Json`` for those that the ``datasets`` library does not have.

    Examples:
        >>> features_of(pa.schema({"title": pa.string(), "id": pa.uuid()}))
        {'title': Value('string'), 'id': Json(decode=True)}
    """
    try:
        return Features.from_arrow_schema(schema)
    except ValueError:
        return Features({field.name: _feature_of(field) for field in schema})


def _feature_of(field: pa.Field) -> Any:
    try:
        return Features.from_arrow_schema(pa.schema([field]))[field.name]
    except ValueError:
        return Json()


def as_json_cells(table: pa.Table, features: Features | None) -> pa.Table:
    """Return a table whose columns of type ``Json`` are JSON texts, which the ``datasets`` library reads.

    Args:
        table: some rows.
        features: the types of the columns; None: not known yet.
    """
    for n, name in enumerate(table.column_names):
        kind = table.schema.field(n).type
        if isinstance((features or {}).get(name), Json) and not pa.types.is_string(kind) and kind != pa.json_():
            table = table.set_column(n, name, pa.array(map(_json_text, _values(table.column(n))), pa.string()))
    return table


def dataset_of(table: pa.Table) -> Dataset:
    """Return a table in memory as a ``Dataset``, whatever its types."""
    features = features_of(table.schema)
    dataset = Dataset(as_json_cells(table, features))  # pyright: ignore[reportArgumentType]
    for name, feature in features.items():
        if isinstance(feature, Json):
            dataset = dataset.cast_column(name, feature)  # pyright: ignore[reportArgumentType]
    return dataset


def _values(column: pa.ChunkedArray) -> list[Any]:
    values = column.to_pylist()
    is_mapping = pa.types.is_map(column.type) and pa.types.is_string(column.type.key_type)
    return [None if value is None else dict(value) for value in values] if is_mapping else values


def _json_text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, default=_without_json)


def _without_json(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
