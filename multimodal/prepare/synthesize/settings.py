"""Settings of ``synthesize``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from multimodal.core.errors import UsageError, suggest
from multimodal.prepare.shard_writer import FORMATS
from multimodal.prepare.synthesize.pictures import CHANGES

RECIPES = ("captions", "swaps", "pictures", "molecules", "outlines")
MAX_COUNT = 100


@dataclass(frozen=True)
class Settings:
    """Validated settings of ``synthesize``.

    Args:
        recipes: what to make, of ``RECIPES``: "captions" from templates; "swaps", hard negatives by attributes; "pictures",
            "outlines": variants; "molecules": sentences by RDKit.
        templates: texts with columns in braces, for captions.
        swap: columns of attributes, for swaps.
        vary: how pictures change, of ``CHANGES``.
        count: rows that a recipe makes from each row, from 1 to 100.
        train: the split, or splits, that rows are made from; copies of values of all other splits are refused.
        seed: seed of all choices, at least 0.
        near: see ``prepare.settings.Settings``.
        near_bits: see ``prepare.settings.Settings``.
        format: ``parquet`` or ``webdataset``.
        shard_rows: rows in a shard, at least 1.
        max_rejects: fraction of the rows that may be unreadable, in [0, 1].

    Raises:
        UsageError: a value is out of range, or a recipe's own setting is missing.

    Examples:
        >>> Settings(["captions"], templates=["a {colour} cup"]).count
        1
        >>> Settings(["captions"])
        Traceback (most recent call last):
        multimodal.core.errors.UsageError: The recipe captions needs templates, such as --template "a {colour} {kind}".
    """

    recipes: Sequence[str]
    templates: Sequence[str] = ()
    swap: Sequence[str] = ()
    vary: Sequence[str] = CHANGES
    count: int = 1
    train: str | Sequence[str] = "train"
    seed: int = 0
    near: float = 0.8
    near_bits: int = 4
    format: str = "parquet"
    shard_rows: int = 10_000
    max_rejects: float = 0.01

    def __post_init__(self) -> None:
        for option, given, known in (("recipes", self.recipes, RECIPES), ("vary", self.vary, CHANGES)):
            if not given:
                raise UsageError(f"{option}: name at least one of {', '.join(known)}.")
            for name in given:
                if name not in known:
                    raise UsageError(f"{option}: there is no {name!r}.{suggest(str(name), list(known))}")
        needs = {
            "captions": (self.templates, 'templates, such as --template "a {colour} {kind}"'),
            "swaps": (self.swap, "the columns of attributes, such as --swap colour"),
        }
        for recipe, (given, what) in needs.items():
            if recipe in self.recipes and not given:
                raise UsageError(f"The recipe {recipe} needs {what}.")
            if recipe not in self.recipes and given:
                raise UsageError(f"{what} is for the recipe {recipe}, which is not among {', '.join(self.recipes)}.")
        if not 1 <= self.count <= MAX_COUNT:
            raise UsageError(f"count must be from 1 to {MAX_COUNT}; got {self.count}.")
        if not 0 <= self.max_rejects <= 1:
            raise UsageError(f"max_rejects must be a fraction of the rows, from 0 to 1; got {self.max_rejects}.")
        if self.format not in FORMATS:
            raise UsageError(f"There is no format {self.format!r}.{suggest(self.format, list(FORMATS))}")
        if not 0.3 <= self.near <= 1:
            raise UsageError(f"near must be a similarity from 0.3 to 1; got {self.near}.")
        if not 0 <= self.near_bits <= 12:
            raise UsageError(f"near_bits must be a number of bits from 0 to 12; got {self.near_bits}.")
        if self.shard_rows < 1:
            raise UsageError(f"shard_rows must be at least 1; got {self.shard_rows}.")
        if self.seed < 0:
            raise UsageError(f"seed must be at least 0; got {self.seed}.")

    @property
    def train_splits(self) -> list[str]:
        """The splits that rows are made from."""
        return [self.train] if isinstance(self.train, str) else list(self.train)

    def to_json(self) -> dict[str, Any]:
        """Return the settings by name."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
