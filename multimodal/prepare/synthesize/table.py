"""``synthesize`` for a table given by its name, from Python and from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from multimodal.core.errors import UsageError, check_names, suggest
from multimodal.core.progress import progress
from multimodal.data.schema import Schema
from multimodal.prepare.column_kinds import SAMPLED_ROWS, describe_columns, truncate_value
from multimodal.prepare.copied_table import CopiedTable, StorableSource
from multimodal.prepare.source import Row, Source, open_source
from multimodal.prepare.synthesize.captions import Captions
from multimodal.prepare.synthesize.molecules import MoleculeSentences
from multimodal.prepare.synthesize.outcome import Synthesized
from multimodal.prepare.synthesize.outlines import OutlineVariants, normalized_graph
from multimodal.prepare.synthesize.pictures import PictureVariants
from multimodal.prepare.synthesize.pipeline import MADE_BY, synthesize
from multimodal.prepare.synthesize.recipe import Recipe
from multimodal.prepare.synthesize.settings import Settings
from multimodal.prepare.synthesize.swaps import Swaps
from multimodal.prepare.synthesize.templates import Template

SCHEMA = ("columns", "key", "group", "split", "split_seed")


def synthesize_table(
    table: str | Path,
    out: str | Path,
    recipes: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    files: str | Path | None = None,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    key: str | None = None,
    group: str | None = None,
    split: str | Mapping[str, float] | None = None,
    split_seed: int = 0,
    **settings: Any,
) -> Synthesized:
    r"""Write a table with rows made from its training rows: captions, variants of pictures, sentences about molecules, ...

    Args:
        table: a file, pattern, folder or address; see ``open_table``.
        out: the folder to write, which is then a table; the output of an earlier call is replaced.
        recipes: what to make: "captions", "swaps", "pictures", "molecules", "outlines".
        options: settings of the table's reader.
        files: a folder, in addition to the table's own, whose files the cells may name.
        columns: modality -> its column or columns. Captions, swaps and sentences are written to the first of ``text``;
            ``image`` has the pictures, ``graph`` the molecules or outlines. None: inferred from the values.
        key: the column that names a row.
        group: the column whose equal values belong together; made rows are in their origin's group.
        split: the column that names each row's split, or split -> share, as in a configuration. None: 80, 10, 10 %.
        split_seed: seed of the shares.
        **settings: fields of ``prepare.synthesize.settings.Settings``: ``templates``, ``swap``, ``vary``, ``count``, ...

    Returns:
        Counts of what was made and refused.

    Raises:
        MultimodalError: too many rows cannot be read, or a recipe makes nothing.
        UsageError: a setting is out of range, or names a column that the table does not have.

    Examples:
        >>> lines = ["title,colour,set", "my mug,red,train", "a pot,blue,train", "a blue cup,blue,test"]
        >>> _ = Path("shop.csv").write_text("\n".join(lines))
        >>> templates = ["a {colour} cup"]
        >>> synthesize_table("shop.csv", "more", ["captions"], columns={"text": "title"}, split="set", templates=templates)
        3 rows in, 4 out; made: 1 by captions; refused as copies of other splits: 1 of captions
    """
    check_names("synthesize_table", settings, (f.name for f in fields(Settings) if f.name != "recipes"))
    chosen = Settings(recipes, **settings)
    if Path(table).exists() and Path(out).resolve() == Path(table).resolve():
        raise UsageError(f"out: {out} is the table itself; name another folder.")
    source = open_source(str(table), options, None if files is None else Path(files))
    schema = Schema.from_settings(columns or _inferred(source, key, group, split), key, group, split, split_seed)
    outlines = {column: normalized_graph for column in schema.columns.get("graph", ()) if "outlines" in recipes}
    copied = CopiedTable(source, schema, chosen.max_rejects, outlines)
    made = [_recipe(name, copied, chosen) for name in dict.fromkeys(chosen.recipes) if name != "swaps"]
    swaps = _swaps(copied, chosen) if "swaps" in chosen.recipes else []
    return synthesize(copied, made, swaps, chosen, Path(out), progress)


def _inferred(source: Source, *labels: Any) -> dict[str, list[str]]:
    """Return the columns of modalities, inferred from the first rows."""
    with closing(iter(StorableSource(source))) as items:
        first = [
            {column: truncate_value(value) for column, value in item.values.items()}
            for item in islice(items, SAMPLED_ROWS)
            if isinstance(item, Row)
        ]
    known = describe_columns(source.columns, first, {}, [c for c in labels if isinstance(c, str)], source.resolve)
    found: dict[str, list[str]] = {}
    for column in known:
        if column.modality is not None and column.name != MADE_BY:
            found.setdefault(column.modality, []).append(column.name)
    if not found:
        raise UsageError(
            f"The table {source.name!r} has no column of pictures or texts; name one like --columns.text title."
        )
    return found


def _column(table: CopiedTable, modality: str, recipe: str) -> str:
    """Return the first column of a modality."""
    columns = table.schema.columns.get(modality)
    if not columns:
        raise UsageError(
            f"The recipe {recipe} needs a column of the modality {modality}; the table has {table.schema.columns_text}: name it"
            f" by --columns.{modality} COLUMN."
        )
    return columns[0]


def _recipe(name: str, table: CopiedTable, settings: Settings) -> Recipe:
    if name == "captions":
        templates = [Template.parse(text, table.source.columns) for text in settings.templates]
        return Captions(_column(table, "text", name), templates, settings.count)
    if name == "molecules":
        return MoleculeSentences(_column(table, "graph", name), _column(table, "text", name), settings.count)
    if name == "pictures":
        return PictureVariants(_column(table, "image", name), settings.vary, settings.count)
    return OutlineVariants(_column(table, "graph", name), settings.count)


def _swaps(table: CopiedTable, settings: Settings) -> list[Swaps]:
    caption = _column(table, "text", "swaps")
    for column in settings.swap:
        if column not in table.source.columns or column == caption:
            known = suggest(column, [c for c in table.source.columns if c != caption])
            raise UsageError(f"swap: the table {table.source.name!r} has no attribute {column!r}.{known}")
    return [Swaps(caption, column) for column in dict.fromkeys(settings.swap)]
