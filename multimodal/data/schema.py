"""What the columns of a table mean: which hold a modality, what names a row, what groups rows, what splits them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multimodal.core.batch import Sample
from multimodal.core.encoder import Processor
from multimodal.core.errors import Unreadable, UsageError, suggest
from multimodal.core.rejects import Reject
from multimodal.data.splits import SHARES, dealt
from multimodal.data.tables.cells import is_number
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.joined import split_joined_name

Cell = Callable[[str], Any]  # column -> the value of one row there; None: missing
NUMERIC_FRACTION = 0.95  # the part of a target's values that are numbers, where it is no class


@dataclass(frozen=True)
class Row:
    """One row of a table, as a schema reads it.

    Attributes:
        number: its number in the table, of a stream in its file.
        name: what it is called if it has no key: its number, of a stream the file and the number.
        cell: column -> the value there; None: missing.
        base: the folder or URL that the paths in it are relative to.
    """

    number: int
    name: str
    cell: Cell
    base: str | None


class RowLookupProcessor(Processor):
    """A processor whose items are kept by row and column."""

    @abstractmethod
    def of_row(self, row: int, column: str) -> Any: ...


@dataclass(frozen=True)
class Schema:
    """The meaning of a table's columns.

    Args:
        columns: modality -> the columns that hold it. Several are alternatives; ``price+colour`` is one value of both.
        key: the column that names a row; None: the row number.
        group: the column whose equal values make rows positives of each other; None: every row is a group of its own.
        split: the column that names each row's split, or the shares of splits that groups are dealt to.
        split_seed: of that dealing.
        targets: name -> the column of what is known of a row: a number, a list of numbers, or the name of a class (see
            ``class_names``).
        negatives: modality -> the columns of values that are hard to tell from the row's and do not match it.
    """

    columns: Mapping[str, tuple[str, ...]]
    key: str | None
    group: str | None
    split: str | Mapping[str, float]
    split_seed: int
    targets: Mapping[str, str] = field(default_factory=dict)
    negatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_settings(
        cls,
        columns: Mapping[str, str | Sequence[str]],
        key: str | None = None,
        group: str | None = None,
        split: str | Mapping[str, float] | None = None,
        split_seed: int = 0,
        targets: Mapping[str, str] | None = None,
        negatives: Mapping[str, str | Sequence[str]] | None = None,
    ) -> Schema:
        """The schema from the settings that people write.

        Args:
            columns: modality -> its column, or several.
            key, group, split_seed, targets: as in ``Schema``.
            split: as in ``Schema``; None: ``SHARES``.
            negatives: modality -> the column, or columns, of its hard negatives.

        Raises:
            UsageError: there are no columns, or the shares do not add up to 1.
        """
        shares = SHARES if split is None else split
        return cls(_listed(columns), key, group, shares, split_seed, targets or {}, _listed(negatives))

    def __post_init__(self) -> None:
        if not self.columns or not all(self.columns.values()):
            raise UsageError("The data need columns: a mapping like {image: picture, text: title}.")
        if not isinstance(self.split, str):
            shares = list(self.split.values())
            if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
                raise UsageError(f"split: the shares {dict(self.split)} must be positive and add up to 1.")

    def check(self, table: str, columns: Sequence[str]) -> None:
        """Raise a ``UsageError`` if a column that is named here is none of the table's."""
        named = [(f"columns.{m}", column) for m, several in self.columns.items() for column in several]
        named += [(f"targets.{name}", column) for name, column in self.targets.items()]
        named += [(f"negatives.{m}", column) for m, several in self.negatives.items() for column in several]
        named += [(option, c) for option in ("key", "group", "split") if isinstance(c := getattr(self, option), str)]
        for option, column in named:
            for part in split_joined_name(column, columns) if option.startswith("columns.") else (column,):
                if part not in columns:
                    raise UsageError(
                        f"{option}: the table {table!r} has no column {part!r}.{suggest(part, list(columns))}"
                    )

    def key_of(self, row: Row) -> str:
        """The row's key; its name where it has none."""
        key = None if self.key is None else _cell_or_none(row.cell, self.key)
        return row.name if key is None else str(key)

    def group_of(self, row: Row) -> str:
        """``"=GROUP"``; a row without a group is a group of its own, ``"#NAME"``."""
        group = None if self.group is None else _cell_or_none(row.cell, self.group)
        return f"#{row.name}" if group is None else f"={group}"

    def split_of(self, row: Row) -> str:
        """The row's split. Rows of one group are assigned to one split, unless a column names it."""
        if isinstance(self.split, str):
            return str(_cell_or_none(row.cell, self.split))
        return dealt([self.group_of(row)], self.split, self.split_seed)[0]

    def items(
        self,
        row: Row,
        processors: Mapping[str, Processor],
        seed: tuple[int, ...] | None = None,
        kept: dict[tuple[int, str], Any] | None = None,
        classes: Mapping[str, Mapping[str, int]] | None = None,
    ) -> list[Sample | Reject]:
        """A row as samples of processed items, or as a reject if one of its values cannot be read.

        For training (``seed`` is given) it is one sample: of several columns of a modality one is drawn, and the items
        are augmented. Else it is as many samples of one group as a modality has columns, each with one of them.

        Args:
            row: the row.
            processors: modality -> its processor, for the modalities to read.
            seed: of what is drawn; None: nothing is.
            kept: items by row number and "modality column", taken from here and put here.
            classes: target -> class -> its number, for targets that are names of classes.

        Raises:
            UsageError: the settings are at fault, not this row.
        """
        cell, base = row.cell, row.base
        key, group = self.key_of(row), self.group_of(row)
        rng = None if seed is None else np.random.default_rng(seed)

        def item_of(modality: str, column: str, value: Any) -> Any:
            processor, place = processors[modality], (row.number, f"{modality} {column}")
            if isinstance(processor, RowLookupProcessor):
                return processor.of_row(row.number, column)
            if kept is None or place not in kept:
                item = processor(resolve_file_cell(value, base) if processor.reads_files else value)
                if kept is not None:
                    kept[place] = item
            else:
                item = kept[place]
            return item if rng is None else processor.augment(item, rng)

        column, value = "", None
        try:
            samples: list[dict[str, Any]] = [{}]
            for modality in processors:
                present = []
                for column in self.columns[modality]:
                    value = None  # if the cell cannot be read
                    if (value := cell(column)) is not None:
                        present.append((column, value))
                if rng is not None and len(present) > 1:
                    present = [present[rng.integers(len(present))]]
                for alternative, (column, value) in enumerate(present):
                    samples += [{}] * (alternative == len(samples))
                    samples[alternative] = samples[alternative] | {modality: item_of(modality, column, value)}
            negatives = []
            for modality, columns in self.negatives.items() if rng is not None else ():
                for column in columns if modality in processors else ():
                    if (value := cell(column)) is not None:
                        values = {modality: item_of(modality, column, value)}
                        negatives.append(Sample(f"{key} not {column}", values, f"!{row.name} {column}"))
            targets = {}
            for name, column in self.targets.items():
                if (value := cell(column)) is not None:
                    targets[name] = _target(value, (classes or {}).get(name))
        except UsageError:  # the settings are at fault, not this row
            raise
        except Exception as error:
            return [Reject.of(row.number, key, column, value, error)]
        first, *others = samples
        return [Sample(key, first, group, targets, tuple(negatives)), *(Sample(key, v, group) for v in others)]


def class_names(values: Iterable[Any]) -> list[str]:
    """The classes that a target names, sorted. There are none where 95 of 100 values are numbers or lists: then the others are
    values that cannot be read.
    """
    single = [str(value) for value in values if value is not None and not isinstance(value, list)]
    numbers = sum(map(is_number, single))
    return [] if numbers >= NUMERIC_FRACTION * len(single) else sorted(set(single))


def _cell_or_none(cell: Cell, column: str) -> Any:
    """What names a row; None where it cannot be read."""
    try:
        return cell(column)
    except Unreadable:
        return None


def _target(value: Any, classes: Mapping[str, int] | None) -> Any:
    """A number or a list of numbers; the number of a class."""
    if classes is not None:
        return classes[str(value)]
    try:
        if isinstance(value, list):
            return [math.nan if v is None else float(v) for v in value]
        return float(value)
    except (TypeError, ValueError) as error:
        raise Unreadable("no number", f"{value!r} is no number, as other values of the target are.") from error


def _listed(named: Mapping[str, str | Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    return {m: (c,) if isinstance(c, str) else tuple(c) for m, c in (named or {}).items()}
