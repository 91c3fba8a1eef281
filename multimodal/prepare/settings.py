"""Settings of ``prepare``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from multimodal.core.errors import UsageError, suggest
from multimodal.data.tables.joined import split_joined_name
from multimodal.prepare.shard_writer import FORMATS


@dataclass(frozen=True)
class Settings:
    """Validated settings of ``prepare``.

    Args:
        columns: modality -> its column or columns. Empty: inferred from the values.
        key: the column that names a row.
        group: the column whose equal values keep rows in one split.
        split: the column that names each row's split. None: rows are split by ``shares``.
        max_rejects: maximum fraction of the rows that may be unusable, in [0, 1].
        seed: seed of the splits and the balancing, at least 0.
        format: ``parquet`` or ``webdataset``.
        near: two texts are near if the Jaccard similarity of their 5-character shingles is at least this value, in [0.3, 1];
            texts of fewer than 50 characters must also have the same words. None: only equal ones are.
        near_bits: two pictures are near if their perceptual hashes differ in at most this many of 64 bits, in [0, 12].
            None: only pictures of equal pixels are.
        shares: split -> its fraction of the rows, above 0; the fractions add up to 1.
        balance: the column whose values all keep as many rows as the rarest value has.
        shard_rows: rows in a shard, at least 1.
        encoders: modality -> name of the encoder that will be trained on it; values that its processor cannot read are
            rejected. Without an encoder, pictures and sounds are decoded, and other values are not checked.

    Raises:
        UsageError: a value is out of range; the message says which values are valid.

    Examples:
        >>> Settings(columns={"text": "title"}, key="sku").named_columns()
        [('columns.text', 'title'), ('key', 'sku')]
    """

    columns: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    key: str | None = None
    group: str | None = None
    split: str | None = None
    max_rejects: float = 0.01
    seed: int = 0
    format: str = "parquet"
    near: float | None = 0.8
    near_bits: int | None = 4
    shares: Mapping[str, float] = field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    balance: str | None = None
    shard_rows: int = 10_000
    encoders: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.max_rejects <= 1:
            raise UsageError(f"max_rejects must be a fraction of the rows, from 0 to 1; got {self.max_rejects}.")
        if self.format not in FORMATS:
            raise UsageError(f"There is no format {self.format!r}.{suggest(self.format, list(FORMATS))}")
        if self.near is not None and not 0.3 <= self.near <= 1:
            raise UsageError(
                "near must be a similarity from 0.3 (some words in common) to 1 (all of them), or off;"
                f" got {self.near}."
            )
        if self.near_bits is not None and not 0 <= self.near_bits <= 12:
            raise UsageError(
                f"near_bits must be a number of bits from 0 (equal hashes) to 12, or off; got {self.near_bits}."
            )
        if self.shard_rows < 1:
            raise UsageError(f"shard_rows must be at least 1; got {self.shard_rows}.")
        if self.seed < 0:
            raise UsageError(f"seed must be at least 0; got {self.seed}.")
        shares = list(self.shares.values())
        if not all(share > 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise UsageError(f"shares must be above 0 and add up to 1; got {dict(self.shares)}.")
        if not all(self.shares):
            raise UsageError("shares: a split needs a name.")

    def named_columns(self) -> list[tuple[str, str]]:
        """Return (option, column) for every column that the settings name."""
        content = [(f"columns.{m}", c) for m, cs in self.columns.items() for c in ([cs] if isinstance(cs, str) else cs)]
        single = [(name, getattr(self, name)) for name in ("key", "group", "split", "balance")]
        return content + [(name, column) for name, column in single if column is not None]

    def check_columns(self, table: str, columns: Sequence[str]) -> None:
        """Check that the table has every named column and that no column has two modalities.

        Args:
            table: name of the table, for errors.
            columns: its columns.

        Raises:
            UsageError: a named column is missing, joins several columns, or is named for two modalities.
        """
        option_of: dict[str, str] = {}
        for option, column in self.named_columns():
            if column not in columns and len(split_joined_name(column, columns)) > 1:
                raise UsageError(
                    f"{option}: prepare takes single columns, not joined ones like {column!r}. Leave it out: all columns"
                    " are copied to the output, and you can join them in training."
                )
            if column not in columns:
                raise UsageError(
                    f"{option}: the table {table!r} has no column {column!r}.{suggest(column, [*columns])}"
                )
            if option.startswith("columns.") and option_of.setdefault(column, option) != option:
                raise UsageError(
                    f"{option}: the column {column!r} is already used by {option_of[column]}; use it for one of them."
                )

    def to_json(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)
