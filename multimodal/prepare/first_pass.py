"""The first reading: every row cleaned and fingerprinted, or rejected with its reason."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from itertools import islice
from typing import Any, TextIO

import numpy as np

from multimodal.core.errors import MultimodalError, Unreadable, UsageError, shown
from multimodal.core.rejects import Reject
from multimodal.prepare.arrow_types import Stored, StoredType
from multimodal.prepare.cleaning import Cleaner, to_text
from multimodal.prepare.column_kinds import SAMPLED_ROWS, TextCounts, describe_columns, truncate_value
from multimodal.prepare.columns import Column
from multimodal.prepare.distinct_values import MISSING, ContentValues, DistinctValues
from multimodal.prepare.encoder_check import default_check, encoder_checks
from multimodal.prepare.settings import Settings
from multimodal.prepare.source import Row, Source

Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
SPLIT = "split"  # the column of the shards that names each row's split
MAX_SPLITS = 100  # a column with more different values names no splits
MAX_BALANCE_VALUES = 1000  # and one with more is no category


class FirstPass:
    """What the first reading leaves: fingerprints of the *accepted* rows, numbered from 0, and rejects in a file.

    Attributes:
        columns: the table's columns as they were found to be.
        contents: the content columns with the number of each accepted row's value.
        labels: ``group``, ``split``, ``key`` or ``balance`` -> the number of each accepted row's value in that column.
        split_names: the values of the split column, in the order they came.
        rejected: for each row in the order of the table, whether it was rejected.
        numbers: for each accepted row, its number in the table.
        reasons: why rows were rejected, and how many for it.
        texts: for each column whose kind nobody named, how many of its texts are numbers.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        _check_names(source)
        settings.check_columns(source.name, source.columns)
        self.source, self.settings = source, settings
        first = _first_rows(source)
        beside = [settings.key, settings.group, settings.split, settings.balance]
        self.columns = describe_columns(source.columns, first, settings.columns, beside, source.resolve)
        if not any(c.modality for c in self.columns):
            raise UsageError(
                f"The table {source.name!r} has no column of pictures, sounds or texts (found:"
                f" {', '.join(f'{c.name} is {c.kind}' for c in self.columns) or 'no column'}); name one like"
                " --columns.text title."
            )
        self.clean = Cleaner(self.columns, settings.key, frozenset(c for c in beside if c), source.resolve)
        judge_of = encoder_checks(settings.encoders, [c.modality for c in self.columns if c.modality])
        self.contents = [
            ContentValues(c, settings.near, settings.near_bits, judge_of.get(c.modality, default_check(c.kind)))
            for c in self.columns
            if c.modality
        ]
        named = {"group": settings.group, "split": settings.split, "key": settings.key, "balance": settings.balance}
        self._labels = {name: (column, DistinctValues()) for name, column in named.items() if column is not None}
        self.split_names: list[str] = []
        self.rejected = bytearray()
        self.numbers = array("q")
        self.reasons: Counter[str] = Counter()
        self._first_of_reason: dict[str, Reject] = {}
        named_ones = {c for _, c in settings.named_columns()}
        self.texts = {c.name: TextCounts() for c in self.columns if not c.is_file and c.name not in named_ones}
        self._types = {c.name: StoredType(c.name) for c in self.columns if not c.is_file}

    def read(self, rejects: TextIO, progress: Progress) -> None:
        """Read all rows; those that cannot be used go to ``rejects`` as JSON lines."""
        with progress("Reading", self.source.total) as advance:
            for item in self.source:
                reject = item if isinstance(item, Reject) else self._accept(item)
                self.rejected.append(reject is not None)
                if reject is not None:
                    self.reasons[reject.reason] += 1
                    self._first_of_reason.setdefault(reject.reason, reject)
                    write_reject(rejects, reject)
                advance(1)

    def _accept(self, row: Row) -> Reject | None:
        clean = self.clean(row)
        if isinstance(clean, Reject):
            return clean
        numbers = []
        for content in self.contents:
            value = clean.get(content.column.name)
            try:
                numbers.append(MISSING if value is None else content.number(value))
            except Unreadable as error:
                raw = row.values[content.column.name]
                return self.clean.refuse(row, content.column.name, raw, error.reason, f"{shown(raw)}: {error}")
        for name in ("split", "balance"):
            if name in self._labels and (column := self._labels[name][0]) not in clean:
                return self.clean.refuse(row, column, "", f"no {name}", f"the row has no value in {column!r}.")
        try:
            labels = {n: MISSING if c not in clean else k.number(clean[c]) for n, (c, k) in self._labels.items()}
        except Unreadable as error:
            return self.clean.refuse(row, "", "", error.reason, str(error))
        for content, number in zip(self.contents, numbers, strict=True):
            content.append(number)
        for name, number in labels.items():
            self._labels[name][1].append(number)
        self._check_labels(clean, labels)
        for name, found in self._types.items():
            if name in clean:
                found.add(clean[name])
        for name, texts in self.texts.items():
            if isinstance(text := clean.get(name), str):
                texts.add(text, row.number)
        self.numbers.append(row.number)
        return None

    def _check_labels(self, clean: Mapping[str, Any], labels: Mapping[str, int]) -> None:
        if labels.get("split") == len(self.split_names):
            self.split_names.append(to_text(clean[self._labels["split"][0]]))
        for name, most in (("split", MAX_SPLITS), ("balance", MAX_BALANCE_VALUES)):
            if name in labels and labels[name] >= most:
                raise MultimodalError(
                    f"{name}: the column {self._labels[name][0]!r} has more than {most} different values; name a column"
                    f" that {'names the splits' if name == 'split' else 'holds a category'}."
                )

    def too_many_rejects(self) -> str | None:
        """If there are more rejects than the settings allow, the beginning of an error text that says so."""
        rejects, rows = sum(self.rejected), len(self.rejected)
        if rejects <= self.settings.max_rejects * rows:
            return None
        told = []
        for reason, count in self.reasons.most_common(5):
            first = self._first_of_reason[reason]
            where = f"row {first.row}" + (f", column {first.column!r}" if first.column else "")
            told.append(f"{count:,} {reason} (first: {where}: {first.message.rstrip('.')})")
        more = f"; and {len(self.reasons) - 5} reasons more" if len(self.reasons) > 5 else ""
        return (
            f"{rejects:,} of {rows:,} rows of {self.source.name!r} ({rejects / rows:.1%}) cannot be used, more than"
            f" max_rejects {self.settings.max_rejects:g}: {'; '.join(told)}{more}"
        )

    # -- what was found

    @property
    def values(self) -> np.ndarray:
        """``(accepted, content columns)`` int32: the number of each value, -1 for none."""
        return np.stack([content.rows for content in self.contents], axis=1)

    def labels(self, name: str) -> np.ndarray | None:
        """``(accepted,)`` int32: the number of each row's value in the column so called; None: no column is."""
        return self._labels[name][1].rows if name in self._labels else None

    @property
    def repeated_keys(self) -> int:
        """How many accepted rows have a key that an earlier one has."""
        keys = self.labels("key")
        return 0 if keys is None else int((keys != MISSING).sum()) - len(np.unique(keys[keys != MISSING]))

    @property
    def written(self) -> list[Column]:
        """The columns of the shards: those of the table, then the split; a column of the table of that name is left out."""
        return [*(c for c in self.columns if c.name != SPLIT), Column(SPLIT, "category", None)]

    @property
    def stored(self) -> dict[str, Stored]:
        """Column -> the type it is stored as; without those of files."""
        import pyarrow as pa

        found = {name: found.stored for name, found in self._types.items()}
        return found | {SPLIT: Stored(pa.string(), as_text=False)}


def _first_rows(source: Source) -> list[dict[str, Any]]:
    """As much of the first rows as their columns' kinds can be told by."""
    with closing(iter(source)) as items:
        found = [
            {column: truncate_value(value) for column, value in item.values.items()} if isinstance(item, Row) else None
            for item in islice(items, SAMPLED_ROWS)
        ]
    if not found:
        raise MultimodalError(f"The table {source.name!r} has no rows.")
    return [row for row in found if row is not None]


def _check_names(source: Source) -> None:
    repeated = [name for name, count in Counter(source.columns).items() if count > 1]
    if repeated:
        raise MultimodalError(f"The table {source.name!r} has several columns called {repeated[0]!r}; rename them.")
    broken = [name for name in source.columns if not name or shown(name) != name or "\0" in name]
    if broken:
        raise MultimodalError(
            f"The table {source.name!r} has a column called {shown(broken[0])!r}; give it a name of 1 to 200 characters"
            " of Unicode."
        )


def write_reject(file: TextIO, reject: Reject) -> None:
    """One line of ``rejects.jsonl``."""
    file.write(json.dumps(asdict(reject)) + "\n")
