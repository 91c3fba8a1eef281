"""The meaning of a table's columns: modalities, keys, groups, splits, targets and negatives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multimodal.core.batch import Sample
from multimodal.core.encoder import Processor
from multimodal.core.errors import Unreadable, UsageError, suggest
from multimodal.core.rejects import Reject
from multimodal.data.splits import DEFAULT_SHARES, assign_splits
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.joined import split_joined_name
from multimodal.data.targets import target_value

Cell = Callable[[str], Any]  # column -> the value of one row; None: missing


@dataclass(frozen=True)
class Row:
    """One row of a table, as a schema reads it.

    Attributes:
        number: its number in the table; in a stream, its number in the file.
        name: name of a row without a key: its number; in a stream, the file and the number.
        cell: column -> value; None: missing.
        base: the folder or URL that paths in the row are relative to.
    """

    number: int
    name: str
    cell: Cell
    base: str | None


class RowLookupProcessor(Processor):
    """Base class of processors that look up precomputed items by row and column.

    Examples:
        >>> class Precomputed(RowLookupProcessor):
        ...     def __init__(self, items): self.items = items
        ...     def item_of_row(self, row, column): return self.items[column][row]
        ...     def __call__(self, value): raise NotImplementedError
        ...     def collate(self, items): raise NotImplementedError
        >>> Precomputed({"title": [0.5, 0.25]}).item_of_row(1, "title")
        0.25
    """

    @abstractmethod
    def item_of_row(self, row: int, column: str) -> Any:
        """Return the item of a row's value in a column."""


@dataclass(frozen=True)
class Schema:
    """The meaning of a table's columns.

    Args:
        columns: modality -> its columns. Several columns are alternatives; ``price+colour`` is one value of both.
        key: the column that names a row; None: the row number.
        group: the column whose equal values make rows positives of each other; None: every row has its own group.
        split: the column that names each row's split, or split -> share, to which groups are assigned at random.
        split_seed: seed of this assignment.
        targets: name of a supervised target -> its column: a number, a list of numbers, a class name, or a list of labels'
            names (see ``targets.class_names``).
        negatives: modality -> the columns with hard negatives: values that are similar to the row's but do not match it.
        joined: group -> the group that its rows are in instead, as ``group_of`` names them.

    Raises:
        UsageError: there are no columns, or the shares do not add up to 1.

    Examples:
        >>> schema = Schema.from_settings({"image": "picture", "text": ["title", "caption"]}, key="sku")
        >>> schema.columns["text"], schema.split["test"]
        (('title', 'caption'), 0.1)
    """

    columns: Mapping[str, tuple[str, ...]]
    key: str | None
    group: str | None
    split: str | Mapping[str, float]
    split_seed: int
    targets: Mapping[str, str] = field(default_factory=dict)
    negatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    joined: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns_text(self) -> str:
        """The modalities and their columns in words: "image from photo, text from title or note"."""
        return ", ".join(f"{modality} from {' or '.join(names)}" for modality, names in self.columns.items())

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
        """Create the schema from the settings of a configuration.

        Args:
            columns: modality -> its column, or several columns.
            key, group, split_seed, targets: see ``Schema``.
            split: see ``Schema``; None: ``DEFAULT_SHARES``.
            negatives: modality -> the column, or columns, of its hard negatives.

        Raises:
            UsageError: there are no columns, or the shares do not add up to 1.
        """
        shares = DEFAULT_SHARES if split is None else split
        return cls(_listed(columns), key, group, shares, split_seed, targets or {}, _listed(negatives))

    def __post_init__(self) -> None:
        if not self.columns or not all(self.columns.values()):
            raise UsageError("The data need columns: a mapping like {image: picture, text: title}.")
        if not isinstance(self.split, str):
            shares = list(self.split.values())
            if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
                raise UsageError(f"split: the shares {dict(self.split)} must be positive and add up to 1.")

    def check(self, table: str, columns: Sequence[str]) -> None:
        """Raise a ``UsageError`` if the table does not have all columns of the schema.

        Args:
            table: name of the table, for the error.
            columns: the columns of the table.
        """
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
        """Return the row's key; its name if it has no key."""
        key = None if self.key is None else _cell_or_none(row.cell, self.key)
        return row.name if key is None else str(key)

    def group_of(self, row: Row) -> str:
        """Return the row's group, ``"=GROUP"``; a row without a group has its own, ``"#NAME"``."""
        group = None if self.group is None else _cell_or_none(row.cell, self.group)
        label = f"#{row.name}" if group is None else f"={group}"
        return self.joined.get(label, label)

    def split_of(self, row: Row) -> str:
        """Return the row's split: the value of its column, or the split that its group is assigned to."""
        if isinstance(self.split, str):
            return str(_cell_or_none(row.cell, self.split))
        return assign_splits([self.group_of(row)], self.split, self.split_seed)[0]

    def items(
        self,
        row: Row,
        processors: Mapping[str, Processor],
        seed: tuple[int, ...] | None = None,
        cache: dict[tuple[int, str], Any] | None = None,
        classes: Mapping[str, Mapping[str, int]] | None = None,
    ) -> list[Sample | Reject]:
        """Convert a row to samples of processed items, or to a reject if one of its values cannot be read.

        In training (``seed`` is set), the row is one sample: one of a modality's alternative columns is drawn, and the
        items are augmented. In evaluation, it is one sample per alternative column; they are in the same group.

        Args:
            row: the row.
            processors: modality -> its processor, for the modalities to read.
            seed: seed of the drawn column and of the augmentation; None: evaluation.
            cache: items by row number and "modality column", which are reused from and added to this mapping.
            classes: target -> class name -> class index, for targets that are class names; others are not known.

        Returns:
            The samples, or a list of one reject.

        Raises:
            UsageError: the settings are at fault, not this row.
        """
        cell, base = row.cell, row.base
        key, group = self.key_of(row), self.group_of(row)
        rng = None if seed is None else np.random.default_rng(seed)

        items: dict[tuple[int, str], Any] = {} if cache is None else cache

        def key_of_item(modality: str, column: str) -> tuple[int, str]:
            return row.number, f"{modality} {column}"

        def item_of(modality: str, column: str, value: Any) -> Any:
            processor, item_key = processors[modality], key_of_item(modality, column)
            if isinstance(processor, RowLookupProcessor):
                return processor.item_of_row(row.number, column)
            if item_key not in items:
                items[item_key] = processor(resolve_file_cell(value, base) if processor.reads_files else value)
            return items[item_key] if rng is None else processor.augment(items[item_key], rng)

        column, value = "", None
        try:
            samples: list[dict[str, Any]] = [{}]
            for modality in processors:
                present = []
                for column in self.columns[modality]:
                    value = None  # the value to report if the cell cannot be read
                    if key_of_item(modality, column) in items or (value := cell(column)) is not None:
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
                    value = target_value(value, (classes or {}).get(name))
                if value is not None:
                    targets[name] = value
        except UsageError:  # the settings are at fault, not this row
            raise
        except Exception as error:
            return [Reject.of(row.number, key, column, value, error)]
        first, *alternatives = samples
        return [Sample(key, first, group, targets, tuple(negatives)), *(Sample(key, v, group) for v in alternatives)]


def _cell_or_none(cell: Cell, column: str) -> Any:
    """Return the cell of a key, group or split; None if it cannot be read."""
    try:
        return cell(column)
    except Unreadable:
        return None


def _listed(named: Mapping[str, str | Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    return {m: (c,) if isinstance(c, str) else tuple(c) for m, c in (named or {}).items()}
