"""Checks before the first step that rows, batches and splits have the pairs of modalities that are trained and measured."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np
from rich import box
from rich.table import Table

from multimodal.core.errors import UsageError


def pairs_without_rows(
    has: Mapping[str, np.ndarray],
    pairs: Collection[frozenset[str]] | None = None,
    groups: np.ndarray | None = None,
) -> tuple[list[str], int]:
    """Return the pairs of modalities that no row has, and how many pairs there are.

    Args:
        has: modality -> which rows have it, ``(n,)`` bool.
        pairs: the pairs to look for; None: all.
        groups: ``(n,)`` group of each row: a pair may also be in two rows of a group. None: it must be in one row.

    Examples:
        >>> pairs_without_rows({"image": np.array([True, False]), "text": np.array([False, True])})
        (['image-text'], 1)
    """
    wanted = [pair for pair in combinations(has, 2) if pairs is None or frozenset(pair) in pairs]

    def found(a: str, b: str) -> bool:
        if (has[a] & has[b]).any():
            return True
        return groups is not None and bool(np.isin(groups[has[a]], groups[has[b]]).any())

    return [f"{a}-{b}" for a, b in wanted if not found(a, b)], len(wanted)


def check_batches(split: str | Sequence[str], batch_size: int, groups: int | None) -> None:
    """Check that a batch can hold two things to compare.

    Args:
        split: the split to train on.
        batch_size: rows in a batch.
        groups: groups of rows in the split; None: unknown.

    Raises:
        UsageError: nothing could be learned, as every batch would hold only matches.
    """
    if batch_size < 2:
        raise UsageError(
            f"batch_size {batch_size}: the objective compares a row with the other rows of its batch, so a batch needs 2"
            " or more. Raise batch_size; micro_batch keeps the memory of a large batch small."
        )
    if groups == 1:
        raise UsageError(
            f"All rows of the split {split!r} are in one group, so that all of them match and there is nothing to"
            " compare: set group to another column, or leave it out."
        )


def check_training_pairs(split: str | Sequence[str], missing: Sequence[str], pairs: int, by_rows: bool) -> None:
    """Check that the rows to train on have a pair of modalities that the objective compares.

    Args:
        split: the split to train on.
        missing: the pairs that no row has.
        pairs: how many pairs the objective compares.
        by_rows: whether a batch may hold several rows of a group.

    Raises:
        UsageError: no row has any of the pairs.
    """
    if not missing:
        return
    which = "row or group" if by_rows else "row"
    if len(missing) < pairs:
        print(
            f"Note: no {which} of the split {split!r} has {', '.join(missing)}, which is not trained.", file=sys.stderr
        )
        return
    raise UsageError(
        f"No {which} of the split {split!r} has {' or '.join(missing)}, which the objective compares, so nothing could be"
        " learned. Check the columns; in tar files, the members of a sample must be next to each other. If the modalities"
        " of a thing are in several rows, name the column that they share as group, and set epoch: rows."
    )


def check_validation_pairs(split: str | Sequence[str], missing: Sequence[str], pairs: int) -> None:
    """Check that the rows to validate on have a pair of modalities.

    Args:
        split: the split to validate on.
        missing: the pairs that no row or group has.
        pairs: how many pairs the model has.

    Raises:
        UsageError: no row or group has any of the pairs.
    """
    if missing and len(missing) == pairs:
        raise UsageError(
            f"The split {split!r} has no pair of modalities to validate with: no row or group has"
            f" {' or '.join(missing)}. Set validation to another split, or the trainer's limit_val_batches to 0."
        )
    if missing:
        print(
            f"Note: no row or group of the split {split!r} has {', '.join(missing)}, which is not measured.",
            file=sys.stderr,
        )


def warn_of_first_rows(
    name: str, split: str | Sequence[str], has: Mapping[str, np.ndarray], pairs: Collection[frozenset[str]]
) -> None:
    """Print a warning if the first rows of a stream have no pair of modalities; to read all rows would take too long.

    Args:
        name: name of the stream.
        split: the split to train on.
        has: modality -> which of the rows have it, ``(n,)`` bool.
        pairs: those that the objective compares.
    """
    missing, count = pairs_without_rows(has, pairs)
    rows = len(next(iter(has.values())))
    if rows and len(missing) == count:
        print(
            f"Warning: none of the first {rows:,} rows of {name} in the split {split!r} has {' or '.join(missing)}; batches"
            " of such rows teach nothing.",
            file=sys.stderr,
        )


def pair_coverage_table(coverage_by_pair: Mapping[str, float], pairs: int) -> Table:
    """Return the table of pairs that are balanced in each batch.

    Args:
        coverage_by_pair: pair -> fraction of the groups that have it.
        pairs: the number of pairs that share a batch.
    """
    table = Table(
        "pair", "groups that have it", "share of a batch",
        title="Pairs of modalities, balanced in each batch", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for pair, fraction in coverage_by_pair.items():
        table.add_row(pair, f"{fraction:.1%}", f"{1 / pairs:.1%}" if fraction else "0 (no group has it)")
    return table
