"""Encoders of rows of numbers and categories."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Corruption, Encoder, Inputs, Processor
from multimodal.core.errors import Unreadable, UsageError, shown, suggest
from multimodal.core.layers import check_layers
from multimodal.core.parts import Parts, nothing_left
from multimodal.core.registry import register

MISSING, UNKNOWN = 0, 1  # a categorical column's first two rows of the table of embeddings
MAX_DEVIATIONS = 10.0  # standard deviations; numbers beyond are taken as so far
# what stands for a missing number, in any case
MISSING_WORDS = frozenset({"na", "n/a", "#na", "#n/a", "<na>", "nan", "-nan", "null", "none", "-", "--", "?"})
NUMERIC_FRACTION = 0.95  # a column is numeric if this fraction of its values are numbers
SPELLING_SIMILARITY = 0.85  # similarity of a misspelled name
MISSING_SHARE, NOISE = 0.25, 0.3  # of corrupted rows: probability of a missing cell, standard deviations of noise
MAX_DECIMAL_BITS = 10_000  # bits of a whole number that Python writes in decimal


@dataclass(frozen=True)
class _NumericColumn:
    """What was learned of a numeric column: mean and scale of each of its numbers (a list has several)."""

    means: list[float]
    scales: list[float]


class TabularProcessor(Processor):
    """Turns rows of numbers and categories into standardised numbers and rows of a table of embeddings.

    Raw values: mappings from columns to a number, a string, a boolean, a list of numbers, or nothing (None, NaN, an
    empty string); or such a mapping as the text of a JSON object. ``fit`` learns the columns: one that holds nothing but
    numbers (also as text, as in CSV files), or lists of numbers of one length, is numeric, each other one categorical.
    In a numeric column "N/A", "nan", "-" and the like are missing; a few other words among many numbers (5 %) leave it
    numeric, with a warning, and their rows cannot be read. Numbers are scaled to mean 0 and standard deviation 1 over
    the training split. Every value of a categorical column in the training split has its own row in the table, and so have
    "missing" and "unknown". Columns that ``fit`` did not see are ignored, unless one is spelled nearly like a
    column that is missing in the row.

    Args:
        numbers: at most this many numbers in a row; a list counts with its length.
        categories: at most this many rows of the table, over all columns. The rarest values beyond it are unknown.
        numeric: columns that are numeric whatever they hold.
        categorical: columns that are categorical whatever they hold, such as codes.
        cell_drop: for training, the probability that a number is hidden as missing, a category as unknown.

    Examples:
        >>> processor = TabularProcessor(numbers=4, categories=16)
        >>> processor.fit([{"price": 1.0, "colour": "red"}, {"price": 3.0, "colour": "blue"}])
        >>> sorted(processor.collate([processor({"price": 2.0})]))
        ['categories', 'missing', 'numbers']
    """

    def __init__(
        self,
        numbers: int,
        categories: int,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        cell_drop: float = 0.0,
    ) -> None:
        self.numbers, self.categories, self.cell_drop = numbers, categories, cell_drop
        self.named = dict.fromkeys(numeric, True) | dict.fromkeys(categorical, False)  # column -> is it numeric
        self._numbers: dict[str, _NumericColumn] = {}
        self._values: dict[str, list[str]] = {}
        self._index()

    def fit(self, values: Iterable[Any]) -> None:
        cells: dict[str, list[Any]] = {}
        for row in values:
            with suppress(Unreadable):  # the reader skips this row
                for column, cell in _columns(row).items():
                    cells.setdefault(column, []).append(cell)
        cells = {c: cells[c] for c in sorted(cells)}
        for column in self.named:
            if column not in cells:
                raise UsageError(f"TabularMLP: the data have no column {column!r}.{suggest(column, list(cells))}")
        numeric = [column for column in cells if self.named.get(column, _is_numeric(column, cells[column]))]
        self._numbers = {column: _fit_numbers(column, cells[column]) for column in numeric}
        wanted = sum(len(learned.means) for learned in self._numbers.values())
        if wanted > self.numbers:
            raise UsageError(
                f"TabularMLP: a row of the data has {wanted} numbers; set numbers to at least that (now {self.numbers})."
            )
        self._values = self._most_frequent({c: cells[c] for c in cells if c not in self._numbers})
        self._index()

    def _most_frequent(self, cells: Mapping[str, list[Any]]) -> dict[str, list[str]]:
        counts = Counter((column, _name(c)) for column in cells for c in cells[column] if not _is_missing(c))
        room = self.categories - 2 * len(cells)
        if room < 0:
            raise UsageError(
                f"TabularMLP: the data have {len(cells)} categorical columns, which need two entries each, for"
                f" missing and unknown values; increase categories (now {self.categories})."
            )
        kept = sorted(counts, key=lambda key: (-counts[key], key))[:room]
        return {column: sorted(name for of, name in kept if of == column) for column in cells}

    def _index(self) -> None:
        """What is looked up for each row: for a categorical column, its first row and those of its values."""
        self._rows: dict[str, tuple[int, dict[str, int]]] = {}
        start = 0
        for column, names in self._values.items():
            self._rows[column] = (start, {name: start + 2 + n for n, name in enumerate(names)})
            start += 2 + len(names)

    def state(self) -> dict[str, Any]:
        if not (self._numbers or self._values):
            return {}
        return {"numeric": {c: asdict(learned) for c, learned in self._numbers.items()}, "categorical": self._values}

    def load_state(self, state: dict[str, Any]) -> None:
        self._numbers = {c: _NumericColumn(**learned) for c, learned in state.get("numeric", {}).items()}
        self._values = dict(state.get("categorical", {}))
        self._index()

    def __call__(self, value: Any) -> dict[str, Tensor]:
        """``numbers`` ``(numbers,)`` float32, ``missing`` the same with 1 for what is missing, ``categories`` ``(c,)``."""
        known = [*self._numbers, *self._values]
        if not known:
            raise UsageError("the columns have not been learned; call fit_processors, train, or load a trained model.")
        row = _columns(value)
        if row and not any(column in row for column in known):
            raise Unreadable(
                "no known column", f"the row has none of the columns of training.{suggest(next(iter(row)), known)}"
            )
        _check_spelling(row, known)
        if all(map(_is_missing, map(row.get, self._values))) and all(
            map(_is_missing_number, map(row.get, self._numbers))
        ):
            raise Unreadable("empty row", f"the row has no value; give one at least of {', '.join(known)}.")
        numbers, missing = torch.zeros(2, self.numbers)
        place = 0
        for column, learned in self._numbers.items():
            read = _floats(column, row.get(column), len(learned.means))
            for number, mean, scale in zip(read, learned.means, learned.scales, strict=True):
                if math.isnan(number):
                    missing[place] = 1
                else:
                    numbers[place] = min(max((number - mean) / scale, -MAX_DEVIATIONS), MAX_DEVIATIONS)
                place += 1
        categories = [self._row_of(column, row.get(column)) for column in self._values]
        return {"numbers": numbers, "missing": missing, "categories": torch.tensor(categories, dtype=torch.int64)}

    def _row_of(self, column: str, cell: Any) -> int:
        start, rows = self._rows[column]
        return start + MISSING if _is_missing(cell) else rows.get(_name(cell), start + UNKNOWN)

    def parts(self, value: Any) -> Parts:
        """Return the columns that have a value; without one, its value is missing."""
        row = dict(_columns(value))
        self(row)  # can it be read?
        columns = [c for c in (*self._numbers, *self._values) if not _is_missing(row.get(c))]

        def without(number: int) -> dict[str, Tensor]:
            if len(columns) == 1:
                raise nothing_left(f"the column {columns[number]!r}")
            return self(row | {columns[number]: None})

        return Parts([f"{c} = {shown(row[c])}" for c in columns], without, ["column"] * len(columns))

    def corruptions(self) -> Mapping[str, Corruption]:
        return {"missing cells": self._with_missing_cells, "noise in the numbers": self._with_noise}

    def _with_missing_cells(self, value: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return a row in which each cell is missing with probability 0.25; one is kept."""
        row = dict(_columns(value))
        known = [c for c in (*self._numbers, *self._values) if not _is_missing_number(row.get(c))]
        kept = rng.random(len(known)) >= MISSING_SHARE
        if known and not kept.any():
            kept[rng.integers(len(known))] = True
        return row | {column: None for column, keep in zip(known, kept, strict=True) if not keep}

    def _with_noise(self, value: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return a row whose numbers differ by normal noise, of 0.3 standard deviations of the training split."""
        row = dict(_columns(value))
        for column, learned in self._numbers.items():
            if not _is_missing_number(row.get(column)):
                read = np.array(_floats(column, row[column], len(learned.means)))
                noisy = (read + NOISE * np.array(learned.scales) * rng.normal(size=len(read))).tolist()
                row[column] = noisy if _is_list(row[column]) else noisy[0]
        return row

    def augment(self, item: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
        if not self.cell_drop:
            return item
        in_use = sum(len(learned.means) for learned in self._numbers.values())
        hidden = torch.from_numpy(rng.random(self.numbers) < self.cell_drop)
        hidden[in_use:] = False
        unknown = torch.tensor([start + UNKNOWN for start, _ in self._rows.values()], dtype=torch.int64)
        forgotten = torch.from_numpy(rng.random(len(unknown)) < self.cell_drop)
        return {
            "numbers": item["numbers"].masked_fill(hidden, 0),
            "missing": item["missing"].masked_fill(hidden, 1),
            "categories": torch.where(forgotten, unknown, item["categories"]),
        }

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Inputs:
        """``numbers`` and ``missing``: ``(n, numbers)`` float32; ``categories``: ``(n, categorical columns)`` int64."""
        return {name: torch.stack([item[name] for item in items]) for name in ("numbers", "missing", "categories")}

    def examples(self) -> list[Any]:
        means = {c: n.means[0] if len(n.means) == 1 else n.means for c, n in self._numbers.items()}
        full = means | {c: next(iter(names), "") for c, names in self._values.items()}
        return [full, dict([next(iter(full.items()))])]

    def linear_features(self) -> Any:
        """Standardised numbers, their missing flags, and each category as 0 or 1: ``(n, 2 * numbers + categories)``."""
        from sklearn.preprocessing import FunctionTransformer

        return FunctionTransformer(self._one_hot)

    def _one_hot(self, values: Sequence[Any]) -> np.ndarray:
        inputs = self.collate([self(value) for value in values])
        in_use = sum(len(learned.means) for learned in self._numbers.values())
        rows = sum(2 + len(names) for names in self._values.values())
        hot = torch.zeros(len(values), rows).scatter_(1, inputs["categories"], 1)
        return torch.cat([inputs["numbers"][:, :in_use], inputs["missing"][:, :in_use], hot], dim=1).numpy()


def _columns(row: Any) -> Mapping[str, Any]:
    if isinstance(row, str):
        with suppress(ValueError, RecursionError):
            row = json.loads(row)
    if not isinstance(row, Mapping):
        raise Unreadable("wrong type", f"a {type(row).__name__} is not a row; give a mapping from columns to values.")
    return row


def _check_spelling(row: Mapping[str, Any], known: Sequence[str]) -> None:
    """Reject a row in which a column of training is missing and another is spelled nearly like it."""
    unknown = [column for column in row if column not in known]
    if not unknown:
        return
    missing = {column.casefold(): column for column in known if column not in row}
    for column in unknown:
        close = get_close_matches(str(column).casefold(), missing, n=1, cutoff=SPELLING_SIMILARITY)
        if close:
            raise Unreadable(
                "unknown column",
                f"{column!r} is not a column of training. Did you mean {missing[close[0]]!r}, which is missing in the row?",
            )


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip()) or (_is_number(cell) and cell != cell)


def _is_missing_number(cell: Any) -> bool:
    """Whether a cell of a numeric column is missing."""
    return _is_missing(cell) or (isinstance(cell, str) and cell.strip().casefold() in MISSING_WORDS)


def _is_number(cell: Any) -> TypeGuard[float]:
    return isinstance(cell, int | float | np.integer | np.floating) and not isinstance(cell, bool)


def _is_list(cell: Any) -> bool:
    return isinstance(cell, Sequence | np.ndarray) and not isinstance(cell, str | bytes)


def _is_numeric(column: str, cells: Iterable[Any]) -> bool:
    there = [c for c in cells if not _is_missing_number(c)]
    lengths = {len(c) if _is_list(c) else None for c in there}
    if len(lengths) != 1:
        return False
    if lengths != {None}:
        return all(n is None or _reads_as_number(n) for c in there for n in c)
    others = [c for c in there if not _reads_as_number(c)]
    if len(others) > (1 - NUMERIC_FRACTION) * len(there) or not all(isinstance(c, str) for c in others):
        return False
    if others:
        warnings.warn(
            f"TabularMLP: the column {column!r} is taken as numeric: nearly all of its {len(there):,} values are numbers, but"
            f" {len(others):,} are not, such as {shown(others[0])!r}, and their rows cannot be read. Name it in `categorical`"
            " if that is wrong.",
            stacklevel=3,
        )
    return True


def _reads_as_number(cell: Any) -> bool:
    """A CSV file has text in all its cells."""
    if not isinstance(cell, str):
        return _is_number(cell)
    with suppress(ValueError):
        return math.isfinite(float(cell))
    return False


def _name(cell: Any) -> str:
    """A category's name; 3, 3.0 and "3" are one."""
    if isinstance(cell, int) and cell.bit_length() > MAX_DECIMAL_BITS:
        return hex(cell)
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        cell = int(cell)
    return str(cell).strip()


def _floats(column: str, cell: Any, length: int) -> list[float]:
    """The cell's numbers, NaN for those that are missing."""
    if _is_missing_number(cell):
        return [math.nan] * length
    several = list(cell) if _is_list(cell) else [cell]
    if len(several) != length:
        raise Unreadable("wrong number of numbers", f"column {column!r} has {len(several)} numbers, not {length}.")
    return [_float(column, one) for one in several]


def _float(column: str, cell: Any) -> float:
    try:
        number = math.nan if _is_missing_number(cell) else float(cell)
    except OverflowError as error:
        raise Unreadable("number too large", f"column {column!r} holds {shown(cell)}; give one below 1e308.") from error
    except (TypeError, ValueError) as error:
        raise Unreadable("not a number", f"column {column!r} is numeric, but {cell!r} is not a number.") from error
    if math.isinf(number):
        raise Unreadable("infinite number", f"column {column!r} is infinite; give a finite number or none.")
    return number


def _fit_numbers(column: str, cells: Sequence[Any]) -> _NumericColumn:
    """Mean and standard deviation of each number; of a constant, its size: it becomes 0, and what is far from it far."""
    length = next((len(c) for c in cells if _is_list(c)), 1)
    table = np.full((len(cells), length), math.nan)
    for n, cell in enumerate(cells):
        with suppress(Unreadable):  # the reader skips this row
            table[n] = _floats(column, cell, length)
    means, scales = np.zeros(length), np.ones(length)
    for n, numbers in enumerate(table.T):
        there = numbers[~np.isnan(numbers)]
        if len(there):
            largest = np.abs(there).max() or 1.0  # squares of large numbers would overflow
            small = there / largest
            means[n] = small.mean() * largest
            scales[n] = largest * (small.std() if small.std() > 1e-9 else 1.0)
    return _NumericColumn(means.tolist(), scales.tolist())


@register("tabular", "mlp")
class TabularMLP(Encoder):
    """A residual network (Gorishniy et al. 2021, "ResNet") over standardised numbers and embedded categories.

    The first layer is linear in the numbers, their missing flags and the categories, as on one-hot vectors.

    Args:
        numbers: the number of numbers that a row may have.
        categories: rows of the table of embeddings: values of all categorical columns, and two more for each column.
        numeric: columns that are numeric; the kind of the others is detected from the training split.
        categorical: columns that are categorical; the kind of the others is detected from the training split.
        width: width of the hidden vectors and of the features.
        layers: number of residual blocks.
        drop: dropout in the blocks.
        cell_drop: in training, the probability that a cell is hidden, so that missing and unknown ones are learned too.

    Examples:
        >>> encoder = TabularMLP(width=8)
        >>> encoder.fit([{"price": 1.0, "colour": "red"}, {"price": 3.0, "colour": "blue"}])
        >>> encoder.eval()(**encoder.processor.collate([encoder.processor({"price": 2.0})])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        numbers: int = 64,
        categories: int = 4096,
        numeric: list[str] | None = None,
        categorical: list[str] | None = None,
        width: int = 128,
        layers: int = 2,
        drop: float = 0.1,
        cell_drop: float = 0.05,
    ) -> None:
        super().__init__()
        if min(numbers, categories, width) < 1 or not 0 <= cell_drop < 1:
            raise UsageError(
                f"TabularMLP: numbers {numbers}, categories {categories} and width {width} must be at least 1,"
                f" cell_drop {cell_drop} in [0, 1)."
            )
        check_layers("TabularMLP", "layers", layers)
        both = sorted(set(numeric or ()) & set(categorical or ()))
        if both:
            raise UsageError(f"TabularMLP: {', '.join(both)} cannot be both numeric and categorical.")
        self.processor = TabularProcessor(numbers, categories, numeric or (), categorical or (), cell_drop)
        self.width = width
        self.numbers = nn.Linear(2 * numbers, width)
        self.categories = nn.Embedding(categories, width)
        nn.init.normal_(self.categories.weight, std=0.1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.ReLU(),
                nn.Dropout(drop),
                nn.Linear(2 * width, width),
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, numbers: Tensor, missing: Tensor, categories: Tensor) -> Tensor:
        """``numbers``, ``missing`` ``(n, numbers)`` floating point, ``categories`` ``(n, c)`` int64 -> ``(n, width)``."""
        x = self.numbers(torch.cat([numbers, missing], dim=1)) + self.categories(categories).sum(dim=1)
        for block in self.blocks:
            x = x + block(x)
        return self.norm(x).relu()
