"""Steps of ``synthesize``, from a table to a folder of shards with more rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from multimodal.core.digests import FILES, describe_files, with_digest
from multimodal.core.errors import MultimodalError, Unreadable, UsageError, shown
from multimodal.core.extras import require
from multimodal.core.files import atomic_folder
from multimodal.core.manifests import PREPARED
from multimodal.prepare.columns import Column
from multimodal.prepare.copied_table import CleanRow, CopiedTable, Progress
from multimodal.prepare.distinct_values import ContentValues
from multimodal.prepare.pipeline import REJECTS, no_progress
from multimodal.prepare.shard_writer import ShardWriter
from multimodal.prepare.synthesize.outcome import Synthesized
from multimodal.prepare.synthesize.recipe import Made, Recipe
from multimodal.prepare.synthesize.settings import Settings
from multimodal.prepare.synthesize.swaps import Swaps

MADE_BY = "made_by"  # the column that says how a row was made; missing in the table's own rows
REFUSED = "refused.jsonl"
BLOCK_ROWS = 512  # rows whose made values are compared with the other splits at a time
BLOCK_BYTES = 64 << 20  # of made files
NO_SPLIT = "none"  # file name of rows without a split


class _Work(NamedTuple):
    """What is made of a row: the recipe and row made, and candidates for hard negatives of its captions."""

    row: CleanRow
    made: list[tuple[Recipe, Made]]
    negatives: list[list[list[str]]]  # for the row and each made one, for each of the swaps: candidates


def synthesize(
    table: CopiedTable,
    recipes: Sequence[Recipe],
    swaps: Sequence[Swaps],
    settings: Settings,
    out: Path,
    progress: Progress = no_progress,
) -> Synthesized:
    """Write a table with rows that are made from its training rows, and with hard negatives.

    The folder ``out`` appears only when it is complete. It contains shards, with the columns ``split``, ``made_by`` and, if the
    table has no groups, ``group``; ``refused.jsonl``, ``rejects.jsonl`` and ``prepare.json``.

    Args:
        table: the table.
        recipes: they make rows.
        swaps: they make hard negatives.
        settings: the settings.
        out: the folder to write. The output of an earlier run is replaced; any other non-empty folder is an error.
        progress: see ``prepare``.

    Raises:
        MultimodalError: too many rows cannot be read, a recipe makes nothing, or the table changed while it was read.
        UsageError: the table has no training rows, or a library is not installed.
    """
    require("prepare", "Making rows for a table", "datasketch", "imagehash")
    run = _Run(table, recipes, swaps, settings)
    run.read(progress)
    with atomic_folder(out, PREPARED) as new:
        with (new / REJECTS).open("w", encoding="utf-8", newline="\n") as rejects:
            rejects.writelines(json.dumps(asdict(reject)) + "\n" for reject in table.rejects)
        with (new / REFUSED).open("w", encoding="utf-8", newline="\n") as refused:
            outcome = run.write(new, refused, progress)
        document = outcome.to_json() | {"table": table.source.name, "settings": settings.to_json()}
        document = with_digest(document | {FILES: describe_files(new, sorted(path.name for path in new.iterdir()))})
        (new / PREPARED).write_text(
            json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
        )
    return outcome


class _Run:
    def __init__(
        self, table: CopiedTable, recipes: Sequence[Recipe], swaps: Sequence[Swaps], settings: Settings
    ) -> None:
        self.table, self.recipes, self.swaps, self.settings = table, recipes, swaps, settings
        self.train = {*settings.train_splits}
        written = {recipe.column for recipe in recipes} | {swap.caption for swap in swaps}
        modality_of = {c: m for m, columns in table.schema.columns.items() for c in columns}
        # column that is written -> the columns of its modality, whose values in other splits must not be copied
        self.same_modality = {c: table.schema.columns[modality_of[c]] if c in modality_of else (c,) for c in written}
        self.held_out = {column: self._values(column) for column in written}
        self.made, self.refused, self.negatives = Counter[str](), Counter[str](), Counter[str]()
        self.unreadable, self.splits = Counter[str](), Counter[str]()
        self.rows_in = self.rows_out = 0

    def _values(self, column: str) -> ContentValues:
        return ContentValues(self.table.kinds[column], self.settings.near, self.settings.near_bits)

    # -- the first reading

    def read(self, progress: Progress) -> None:
        """Read the table: fingerprint the values of other splits, collect attributes and types."""
        self.table.scan(self._visit, progress)
        if not any(self.splits[split] for split in self.train):
            raise UsageError(
                f"The table {self.table.source.name!r} has no rows of the split {' or '.join(sorted(self.train))}, which rows"
                f" are made from; it has {', '.join(map(shown, sorted(self.splits))) or 'no splits'}: name it by --train."
            )

    def _visit(self, row: CleanRow) -> None:
        if row.split is not None:
            self.splits[row.split] += 1
        if row.split in self.train:
            for swap in self.swaps:
                swap.add(row.values, row.group)
        else:
            for column, several in self.same_modality.items():
                for one in several:
                    if one in row.values and self.table.kinds[one].kind == self.table.kinds[column].kind:
                        self._hold_out(column, row.values[one])
        self._add_types(row)

    def _hold_out(self, column: str, value: Any) -> None:
        with suppress(Unreadable):  # a picture that nothing can be compared with
            self.held_out[column].number(value)

    def _add_types(self, row: CleanRow) -> None:
        """Include in the types of columns the keys and groups that made rows get."""
        key, group = self.table.schema.key, self.table.schema.group
        if key is not None and self.recipes:
            self.table.add_types({key: f"{row.key}-made-1"})
        if group is not None and group not in row.values:
            self.table.add_types({group: row.group})

    # -- making

    def _made(self, row: CleanRow) -> list[tuple[Recipe, list[Made] | None]]:
        """Return what each recipe makes of a row; None: it cannot read the row's value."""
        if row.split not in self.train or MADE_BY in row.values:
            return []
        made: list[tuple[Recipe, list[Made] | None]] = []
        for number, recipe in enumerate(self.recipes):
            rng = np.random.default_rng((self.settings.seed, number, row.number))
            try:
                made.append((recipe, recipe.make(row.values, rng)))
            except Unreadable:
                made.append((recipe, None))
        return made

    def _work(self, row: CleanRow) -> _Work:
        made = []
        for recipe, several in self._made(row):
            self.unreadable[recipe.name] += several is None
            made += [(recipe, one) for one in several or ()]
        negatives = []
        for values in (row.values, *({**row.values, one.column: one.value} for _, one in made)):
            rng = np.random.default_rng((self.settings.seed, len(self.recipes), row.number, len(negatives)))
            negatives.append([self._candidates(swap, values, row, rng) for swap in self.swaps])
        return _Work(row, made, negatives)

    def _candidates(self, swap: Swaps, values: Any, row: CleanRow, rng: np.random.Generator) -> list[str]:
        caption = values.get(swap.caption)
        if row.split not in self.train or not isinstance(caption, str):
            return []
        return swap.candidates(caption, values, row.group, rng)

    # -- writing

    def write(self, folder: Path, refused: TextIO, progress: Progress) -> Synthesized:
        """Read the table again and write its rows, each followed by those that are made from it."""
        added = {MADE_BY: Column(MADE_BY, "other", None)}
        added |= {swap.column: Column(swap.column, "text", None) for swap in self.swaps}
        for name in [swap.column for swap in self.swaps if swap.column in self.table.kinds]:
            raise UsageError(
                f"The table has a column {name!r} already, to which the negatives would be written; rename it."
            )
        columns, types = self.table.output(added)
        shards = ShardWriter(folder, self.settings.format, self.settings.shard_rows, columns, types)
        try:
            with progress("Making rows", self.table.source.total) as advance:
                for block in self._blocks():
                    self._write_block(block, shards, refused)
                    advance(len(block))
        finally:
            shards.close()
        return self._outcome()

    def _blocks(self) -> Iterator[list[_Work]]:
        block: list[_Work] = []
        size = 0
        for row in self.table.rows():
            block.append(work := self._work(row))
            size += sum(len(getattr(made.value, "data", b"")) for _, made in work.made)
            if len(block) == BLOCK_ROWS or size > BLOCK_BYTES:
                yield block
                block, size = [], 0
        if block:
            yield block

    def _write_block(self, block: Sequence[_Work], shards: ShardWriter, refused: TextIO) -> None:
        is_copy = self._copies(block)
        for work in block:
            values = self.table.labelled(work.row)
            self.rows_in += 1
            self._write(shards, work.row, values | self._chosen(work.negatives[0], is_copy))
            number = 0
            for (recipe, made), candidates in zip(work.made, work.negatives[1:], strict=True):
                if _hashable(made.value) in is_copy[made.column]:
                    self.refused[recipe.name] += 1
                    line = {
                        "row": work.row.number,
                        "key": work.row.key,
                        "column": made.column,
                        "value": _said(made.value),
                    }
                    refused.write(json.dumps(line | {"made_by": made.made_by}, ensure_ascii=False) + "\n")
                    continue
                number += 1
                new = values | {made.column: made.value, MADE_BY: made.made_by}
                if self.table.schema.key is not None:
                    new[self.table.schema.key] = f"{work.row.key}-made-{number}"
                self._write(shards, work.row, new | self._chosen(candidates, is_copy))
                self.made[recipe.name] += 1

    def _write(self, shards: ShardWriter, row: CleanRow, values: dict[str, Any]) -> None:
        group = self.table.schema.group
        if group is not None and group not in values:
            values[group] = row.group  # of its own, which the rows that are made from it are in too
        shards.write(row.split or NO_SPLIT, self.rows_out, values)
        self.rows_out += 1

    def _chosen(self, candidates: Sequence[Sequence[str]], is_copy: dict[str, set[Any]]) -> dict[str, str]:
        """Return the first candidate of each swap that copies no value of another split."""
        chosen = {}
        for swap, captions in zip(self.swaps, candidates, strict=True):
            allowed = [caption for caption in captions if caption not in is_copy[swap.caption]]
            self.refused[swap.column] += len(captions) - len(allowed)
            if allowed:
                chosen[swap.column] = allowed[0]
                self.negatives[swap.column] += 1
        return chosen

    def _copies(self, block: Sequence[_Work]) -> dict[str, set[Any]]:
        """Return the values of a block that are equal or near to a value of another split, by column."""
        of_column: dict[str, dict[Any, Any]] = {column: {} for column in self.held_out}
        for work in block:
            for _, made in work.made:
                of_column[made.column][_hashable(made.value)] = made.value
            for candidates in work.negatives:
                for swap, captions in zip(self.swaps, candidates, strict=True):
                    of_column[swap.caption].update((caption, caption) for caption in captions)
        copies: dict[str, set[Any]] = {}
        for column, values in of_column.items():
            contents = self._values(column)
            numbers = {name: contents.number(value) for name, value in values.items()}
            near = contents.copies_of(self.held_out[column])
            copies[column] = {name for name, number in numbers.items() if near[number]}
        return copies

    def _outcome(self) -> Synthesized:
        for recipe in self.recipes:
            if not self.made[recipe.name]:
                refused = self.refused[recipe.name]
                why = (
                    f"all {refused:,} values that it made are copies of values of other splits; if they are labels that many"
                    " rows share, split the table so that rows of one label are in one split (--group)"
                    if refused
                    else f"no training row has the values that it needs, or all have such a {recipe.column!r} already"
                )
                raise MultimodalError(f"The recipe {recipe.name} made no row: {why}.")
        for swap in self.swaps:
            if not self.negatives[swap.column]:
                refused = self.refused[swap.column]
                why = (
                    f"all {refused:,} are copies of captions of other splits"
                    if refused
                    else f"no caption in {swap.caption!r} contains its row's {swap.attribute!r}, or there is no other value"
                )
                raise MultimodalError(f"No hard negative was made for {swap.attribute!r}: {why}.")
        return Synthesized(
            self.rows_in,
            self.rows_out,
            {recipe.name: self.made[recipe.name] for recipe in self.recipes},
            dict(self.refused),
            {swap.column: self.negatives[swap.column] for swap in self.swaps},
            len(self.table.rejects),
            dict(self.unreadable),
        )


def _hashable(value: Any) -> Any:
    """Return what distinguishes a made value from others: a text itself, the bytes of a file, the JSON of a mapping."""
    if isinstance(value, str):
        return value
    data = getattr(value, "data", None)
    return data if isinstance(data, bytes) else json.dumps(value, sort_keys=True)


def _said(value: Any) -> str:
    return getattr(value, "name", None) or shown(value)
