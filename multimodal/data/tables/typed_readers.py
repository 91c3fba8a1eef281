"""The readers of the ``datasets`` library, but for conversions that would change values without a word.

The types of a table are those of its beginning. The library casts whatever comes later to them: ``"007"`` to 7, ``true`` to 1,
a text that looks like a date to another text. These readers stop there.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import Features
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet

from multimodal.core.errors import MultimodalError

t = pa.types
COMPATIBLE_TYPES = (  # types whose values are the same in one another
    (t.is_floating,),
    (t.is_string, t.is_large_string, t.is_string_view),
    (t.is_binary, t.is_large_binary, t.is_binary_view, t.is_fixed_size_binary),
    (t.is_decimal,),
)
LISTS = (t.is_list, t.is_large_list, t.is_fixed_size_list)


class JsonReader(Json):
    def _cast_table(self, pa_table: pa.Table, json_field_paths: Any = ()) -> pa.Table:
        pa_table.validate(full=True)  # texts that are not UTF-8 would be found only as they are used
        if self.config.features is None:  # pyright: ignore[reportAttributeAccessIssue]
            check_types(pa_table.schema, self.info.features)
        return super()._cast_table(pa_table, json_field_paths)


class ParquetReader(Parquet):
    def _cast_table(self, pa_table: pa.Table) -> pa.Table:
        if self.config.features is None:  # pyright: ignore[reportAttributeAccessIssue]
            check_types(pa_table.schema, self.info.features)
        return super()._cast_table(pa_table)


def check_types(found: pa.Schema, features: Features | None) -> None:
    """Raise a ``MultimodalError`` if a column that is in both cannot be cast to the features with its values kept."""
    for field in () if features is None else features.arrow_schema:
        place = found.get_field_index(field.name)
        if place >= 0 and not preserves_values(found.field(place).type, field.type):
            raise MultimodalError(
                f"the values of the column {field.name!r} are {field.type} where the table begins and"
                f" {found.field(place).type} later on; write them alike in all rows and files"
            )


def preserves_values(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of a type stay the same values as those of another."""
    if t.is_dictionary(found):
        found = found.value_type
    if found == wanted or isinstance(wanted, pa.BaseExtensionType):  # an extension is made of its storage
        return True
    if t.is_null(found) or t.is_null(wanted):  # to nothing the library casts nothing
        return True
    if t.is_struct(found) and t.is_struct(wanted):
        return all(
            preserves_values(f.type, wanted.field(f.name).type) for f in found if wanted.get_field_index(f.name) >= 0
        )
    if any(kind(found) for kind in LISTS) and any(kind(wanted) for kind in LISTS):
        return preserves_values(found.value_type, wanted.value_type)
    if t.is_integer(found):
        return t.is_integer(wanted) or t.is_floating(wanted)
    for kinds in COMPATIBLE_TYPES:
        if any(kind(found) for kind in kinds):
            return any(kind(wanted) for kind in kinds)
    return found.id == wanted.id
