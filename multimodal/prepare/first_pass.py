"""First pass over a table: every row is cleaned and fingerprinted, or rejected with a reason."""

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
MAX_SPLITS = 100  # a column with more distinct values does not name splits
MAX_BALANCE_VALUES = 1000  # a column with more distinct values is not a category


class FirstPass:
    r"""First pass over a table: fingerprints of the *accepted* rows, numbered from 0; rejects go to a file.

    Args:
        source: the table.
        settings: the settings.

    Attributes:
        columns: the table's columns with their inferred kinds.
        contents: the content columns with the number of each accepted row's value.
        split_names: values of the split column, in order of appearance.
        rejected: for each row in the order of the table, whether it was rejected.
        numbers: for each accepted row, its number in the table.
        reasons: reason -> number of rejected rows.
        texts: for each column whose kind is inferred, how many of its texts are numbers.

    Raises:
        MultimodalError: the table has no rows, or an invalid column name.
        UsageError: a setting does not fit the table, or no column contains a modality.

    Examples:
        >>> from pathlib import Path
        >>> from multimodal.prepare.pipeline import no_progress
        >>> from multimodal.prepare.source import open_source
        >>> _ = Path("cups.csv").write_text("title\na red cup\na red cup\na blue bowl\n")
        >>> reading = FirstPass(open_source("cups.csv"), Settings(columns={"text": "title"}))
        >>> with open("rejects.jsonl", "w") as rejects:
        ...     reading.read(rejects, no_progress)
        >>> reading.values.tolist()
        [[0], [0], [1]]
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        _check_names(source)
        settings.check_columns(source.name, source.columns)
        self.source, self.settings = source, settings
        first = _first_rows(source)
        label_columns = [settings.key, settings.group, settings.split, settings.balance]
        self.columns = describe_columns(source.columns, first, settings.columns, label_columns, source.resolve)
        if not any(c.modality for c in self.columns):
            raise UsageError(
                f"The table {source.name!r} has no column of pictures, sounds or texts (found:"
                f" {', '.join(f'{c.name} is {c.kind}' for c in self.columns) or 'no column'}); name one like"
                " --columns.text title."
            )
        self.clean = Cleaner(self.columns, settings.key, frozenset(c for c in label_columns if c), source.resolve)
        checks = encoder_checks(settings.encoders, [c.modality for c in self.columns if c.modality])
        self.contents = [
            ContentValues(c, settings.near, settings.near_bits, checks.get(c.modality, default_check(c.kind)))
            for c in self.columns
            if c.modality
        ]
        label_settings = {
            "group": settings.group,
            "split": settings.split,
            "key": settings.key,
            "balance": settings.balance,
        }
        self._labels = {
            name: (column, DistinctValues()) for name, column in label_settings.items() if column is not None
        }
        self.split_names: list[str] = []
        self.rejected = bytearray()
        self.numbers = array("q")
        self.reasons: Counter[str] = Counter()
        self._first_of_reason: dict[str, Reject] = {}
        named_columns = {c for _, c in settings.named_columns()}
        self.texts = {c.name: TextCounts() for c in self.columns if not c.is_file and c.name not in named_columns}
        self._types = {c.name: StoredType(c.name) for c in self.columns if not c.is_file}

    def read(self, rejects: TextIO, progress: Progress) -> None:
        """Read all rows and write rejects as JSON lines.

        Args:
            rejects: the file to write rejects to.
            progress: see ``pipeline.prepare``.

        Raises:
            MultimodalError: a value cannot be stored, or the split or balance column has too many distinct values.
        """
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
                return self.clean.reject(row, content.column.name, raw, error.reason, f"{shown(raw)}: {error}")
        for name in ("split", "balance"):
            if name in self._labels and (column := self._labels[name][0]) not in clean:
                return self.clean.reject(row, column, "", f"no {name}", f"the row has no value in {column!r}.")
        try:
            labels = {n: MISSING if c not in clean else k.number(clean[c]) for n, (c, k) in self._labels.items()}
        except Unreadable as error:
            return self.clean.reject(row, "", "", error.reason, str(error))
        for content, number in zip(self.contents, numbers, strict=True):
            content.append(number)
        for name, number in labels.items():
            self._labels[name][1].append(number)
        self._check_labels(clean, labels)
        for name, stored_type in self._types.items():
            if name in clean:
                stored_type.add(clean[name])
        for name, texts in self.texts.items():
            if isinstance(text := clean.get(name), str):
                texts.add(text, row.number)
        self.numbers.append(row.number)
        return None

    def _check_labels(self, clean: Mapping[str, Any], labels: Mapping[str, int]) -> None:
        if labels.get("split") == len(self.split_names):
            self.split_names.append(to_text(clean[self._labels["split"][0]]))
        for name, limit in (("split", MAX_SPLITS), ("balance", MAX_BALANCE_VALUES)):
            if name in labels and labels[name] >= limit:
                raise MultimodalError(
                    f"{name}: the column {self._labels[name][0]!r} has more than {limit} different values; name a column"
                    f" that {'names the splits' if name == 'split' else 'holds a category'}."
                )

    def too_many_rejects(self) -> str | None:
        """Return the beginning of an error text if there are more rejects than the settings allow, else None."""
        rejects, rows = sum(self.rejected), len(self.rejected)
        if rejects <= self.settings.max_rejects * rows:
            return None
        reasons_text = []
        for reason, count in self.reasons.most_common(5):
            first = self._first_of_reason[reason]
            where = f"row {first.row}" + (f", column {first.column!r}" if first.column else "")
            reasons_text.append(f"{count:,} {reason} (first: {where}: {first.message.rstrip('.')})")
        more = f"; and {len(self.reasons) - 5} reasons more" if len(self.reasons) > 5 else ""
        return (
            f"{rejects:,} of {rows:,} rows of {self.source.name!r} ({rejects / rows:.1%}) cannot be used, more than"
            f" max_rejects {self.settings.max_rejects:g}: {'; '.join(reasons_text)}{more}"
        )

    # -- results

    @property
    def values(self) -> np.ndarray:
        """Number of each value, ``(accepted, content columns)`` int32; -1 for none."""
        return np.stack([content.rows for content in self.contents], axis=1)

    def labels(self, name: str) -> np.ndarray | None:
        """Return the number of each accepted row's value in a label column, ``(accepted,)`` int32.

        Args:
            name: ``group``, ``split``, ``key`` or ``balance``.

        Returns:
            The numbers, -1 for none; None if the settings name no such column.
        """
        return self._labels[name][1].rows if name in self._labels else None

    @property
    def repeated_keys(self) -> int:
        """Number of accepted rows whose key an earlier row has."""
        keys = self.labels("key")
        return 0 if keys is None else int((keys != MISSING).sum()) - len(np.unique(keys[keys != MISSING]))

    @property
    def output_columns(self) -> list[Column]:
        """Columns of the shards: the table's columns, then the split, which replaces a table column of that name."""
        return [*(c for c in self.columns if c.name != SPLIT), Column(SPLIT, "category", None)]

    @property
    def stored_types(self) -> dict[str, Stored]:
        """Column -> the type in which it is stored; file columns have no entry."""
        import pyarrow as pa

        types = {name: stored_type.stored for name, stored_type in self._types.items()}
        return types | {SPLIT: Stored(pa.string(), as_text=False)}


def _first_rows(source: Source) -> list[dict[str, Any]]:
    """Return the first rows, truncated to what the kinds of columns are inferred from."""
    with closing(iter(source)) as items:
        rows = [
            {column: truncate_value(value) for column, value in item.values.items()} if isinstance(item, Row) else None
            for item in islice(items, SAMPLED_ROWS)
        ]
    if not rows:
        raise MultimodalError(f"The table {source.name!r} has no rows.")
    return [row for row in rows if row is not None]


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
    """Write a reject as a line of ``rejects.jsonl``."""
    file.write(json.dumps(asdict(reject)) + "\n")
