"""Readers of the ``datasets`` library that reject conversions which would silently change values.

The column types are inferred from the first rows of a table. The library casts all later values to these types: ``"007"`` to
7, ``true`` to 1, a text that looks like a date to another text. These readers raise an error instead.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as parquet
from datasets import Features
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.utils.file_utils import xopen

from multimodal.core.errors import MultimodalError
from multimodal.data.tables.other_types import as_json_cells, features_of
from multimodal.data.tables.whole_numbers import LISTS, Place, check_json, places_of_large_floats

types = pa.types
COMPATIBLE_TYPES = (  # values are preserved by casts within a line
    (types.is_floating,),
    (types.is_string, types.is_large_string, types.is_string_view),
    (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary),
    (types.is_decimal,),
)


class JsonReader(Json):
    """Reader of JSON and JSON Lines that keeps the types of values and checks that texts are UTF-8.

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("shop.jsonl").write_text('{"price": 2}')
        >>> reader = JsonReader(cache_dir="cache", data_files=["shop.jsonl"])
        >>> list(reader.as_streaming_dataset(split="train"))
        [{'price': 2}]
    """

    def _generate_tables(self, base_files: Any, files_iterables: Any, original_files: Any, **kwargs: Any) -> Any:
        def check(shard: int, places: set[Place] | None) -> None:
            for file in files_iterables[shard]:
                with xopen(file, "rb") as stream:
                    check_json(cast("IO[bytes]", stream), original_files[shard], places, config.encoding, config.field)

        config: Any = self.config
        checked: dict[int, set[Place]] = {}
        try:
            for key, table in super()._generate_tables(base_files, files_iterables, original_files, **kwargs):
                of_shard = checked.setdefault(key.original_shard_id, set())
                if places := places_of_large_floats(table) - of_shard:
                    check(key.original_shard_id, places)
                    of_shard |= places
                yield key, table
        except ValueError as error:
            if "Value is too" in str(error):  # big or small, for the library's reader of mixed types
                for shard in range(len(files_iterables)):
                    check(shard, None)
            raise

    def _cast_table(self, pa_table: pa.Table, json_field_paths: Any = ()) -> pa.Table:
        pa_table.validate(full=True)  # otherwise invalid UTF-8 would only be found when it is used
        if self.config.features is None:  # pyright: ignore[reportAttributeAccessIssue]
            check_types(pa_table.schema, self.info.features)
        return super()._cast_table(pa_table, json_field_paths)


class ParquetReader(Parquet):
    """Reader of Parquet files that rejects files whose column types differ from those of the first file.

    Columns of types that the library does not have are JSON values, see ``other_types``.

    Examples:
        >>> pa.parquet.write_table(pa.table({"price": [2]}), "shop.parquet")
        >>> reader = ParquetReader(cache_dir="cache", data_files=["shop.parquet"])
        >>> list(reader.as_streaming_dataset(split="train"))
        [{'price': 2}]
    """

    def _split_generators(self, dl_manager: Any) -> Any:
        if self.info.features is None:
            dl_manager.download_config.extract_on_the_fly = True
            for file in next(iter(dl_manager.download(self.config.data_files).values())):  # pyright: ignore
                with suppress(pa.ArrowInvalid), xopen(file, "rb") as stream:  # damaged: the library reports it
                    self.info.features = features_of(parquet.read_schema(stream))
                    break
        return super()._split_generators(dl_manager)

    def _cast_table(self, pa_table: pa.Table) -> pa.Table:
        pa_table = as_json_cells(pa_table, self.info.features)
        if self.config.features is None:  # pyright: ignore[reportAttributeAccessIssue]
            check_types(pa_table.schema, self.info.features)
        return super()._cast_table(pa_table)


def check_types(schema: pa.Schema, features: Features | None) -> None:
    """Raise a ``MultimodalError`` if casting a column to the features would change its values.

    Args:
        schema: types of some rows. Columns that are not in both arguments are ignored.
        features: types of the first rows; None: not inferred yet.
    """
    for field in () if features is None else features.arrow_schema:
        index = schema.get_field_index(field.name)
        if index >= 0 and not preserves_values(schema.field(index).type, field.type):
            raise MultimodalError(
                f"the values of the column {field.name!r} are {field.type} in the first rows of the table and"
                f" {schema.field(index).type} later; write all rows and files with the same type"
            )


def preserves_values(found: pa.DataType, expected: pa.DataType) -> bool:
    """Return whether casting from one type to another keeps all values.

    Examples:
        >>> preserves_values(pa.int64(), pa.float64()), preserves_values(pa.string(), pa.int64())
        (True, False)
    """
    if types.is_dictionary(found):
        found = found.value_type
    if found == expected or isinstance(expected, pa.BaseExtensionType):  # built from its storage
        return True
    if types.is_null(found) or types.is_null(expected):  # the library does not cast to or from null
        return True
    if types.is_struct(found) and types.is_struct(expected):
        return all(
            preserves_values(f.type, expected.field(f.name).type)
            for f in found
            if expected.get_field_index(f.name) >= 0
        )
    if any(kind(found) for kind in LISTS) and any(kind(expected) for kind in LISTS):
        return preserves_values(found.value_type, expected.value_type)
    if types.is_integer(found):
        return types.is_integer(expected) or types.is_floating(expected)
    for kinds in COMPATIBLE_TYPES:
        if any(kind(found) for kind in kinds):
            return any(kind(expected) for kind in kinds)
    return found.id == expected.id
