"""Warnings about the rows that a person should know before training on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from multimodal.core.errors import shown
from multimodal.prepare.first_pass import SPLIT, FirstPass
from multimodal.prepare.outcome import Outcome
from multimodal.prepare.plan import Plan
from multimodal.prepare.report.statistics import Statistics

RARE_FACTOR = 10  # a value is rare if it is this many times rarer than the most frequent one
MAJORITY = 0.5  # fraction of the rows
NOTABLE_SHARE = 0.01  # fraction of the rows
MOSTLY_NUMERIC = 0.95  # fraction of a column's values
SPLIT_TOLERANCE = 0.02  # difference between the fraction of the rows in a split and its share


def make_warnings(reading: FirstPass, plan: Plan, statistics: Statistics, outcome: Outcome) -> list[str]:
    """Return the warnings, each of one or two sentences.

    Args:
        reading: the first pass.
        plan: the plan.
        statistics: statistics of the written rows.
        outcome: counts of the rows.
    """
    if not outcome.rows_out:
        return ["No row is left."]
    parts = (
        _left_out(reading, outcome),
        _splits(reading, plan, outcome),
        _values(plan),
        _columns(reading, statistics),
        _modalities(statistics),
    )
    return [warning for part in parts for warning in part]


def _left_out(reading: FirstPass, outcome: Outcome) -> Iterator[str]:
    if len(reading.contents) == 1 and outcome.near_duplicates > NOTABLE_SHARE * outcome.rows_in:
        yield (
            f"{outcome.near_duplicates:,} rows were left out as near duplicates by {reading.contents[0].column.name!r}"
            " alone: look at them below. If they differ, name further columns by --columns, or raise --near."
        )


def _splits(reading: FirstPass, plan: Plan, outcome: Outcome) -> Iterator[str]:
    if plan.crossing_rows:
        yield (
            f"Leakage: {plan.crossing_rows:,} rows share a group, or content that is equal or near, with rows of another"
            f" split of the column {reading.settings.split!r}. Leave the column out to split again."
        )
    sizes = np.bincount(plan.component[plan.kept])
    if (largest := int(sizes.max())) > max(1, outcome.rows_out // 10):
        yield (
            f"{largest:,} of {outcome.rows_out:,} rows are linked by groups or near duplicates, so they are in one"
            " split."
        )
    if reading.settings.split is None:
        for name, share in reading.settings.shares.items():
            actual_share = outcome.splits[name] / outcome.rows_out
            if not outcome.splits[name]:
                yield f"The split {name!r} got no row."
            elif abs(actual_share - share) > SPLIT_TOLERANCE:
                yield (
                    f"The split {name!r} got {actual_share:.1%} of the rows, not {share:.1%}: linked rows are kept together."
                )
    if outcome.balanced_out > MAJORITY * (outcome.balanced_out + outcome.rows_out):
        yield (
            f"Balancing over {reading.settings.balance!r} left out {outcome.balanced_out:,} rows, because its rarest value"
            " is rare."
        )
    if SPLIT in reading.source.columns and reading.settings.split != SPLIT:
        yield f"The table's own column {SPLIT!r} is replaced by the new splits; --split {SPLIT} would keep them."
    if reading.repeated_keys:
        yield f"{reading.repeated_keys:,} rows have a key in {reading.settings.key!r} that an earlier row has."


def _values(plan: Plan) -> Iterator[str]:
    for column in dict.fromkeys(c.column for c in plan.links.common):
        values_of_column = [c for c in plan.links.common if c.column == column]
        for near, phrase in ((False, "occur in"), (True, "are near the values of")):
            rows = [c.rows for c in values_of_column if c.near == near and not c.links]
            if rows:
                count = f"{len(rows):,} values" if len(rows) > 1 else "1 value"
                yield (
                    f"{column}: {count} {phrase} up to {max(rows):,} rows each, too many to distinguish items: rows that"
                    " are alike only in these may be in different splits."
                )
        rows = [c.rows for c in values_of_column if c.links]
        if rows:
            yield (
                f"{column}: {len(rows):,} {'values occur' if len(rows) > 1 else 'value occurs'} in up to {max(rows):,} rows"
                " each, which are therefore in one split. If this is a placeholder, empty these cells."
            )


def _columns(reading: FirstPass, statistics: Statistics) -> Iterator[str]:
    for column in statistics.columns:
        present = statistics.present[column.name]
        if column.modality and present < MAJORITY * statistics.rows:
            yield f"{column.name}: {1 - present / statistics.rows:.0%} of the rows have no value."
    for name, texts in reading.texts.items():
        if texts.first_non_number is not None and texts.numbers >= MOSTLY_NUMERIC * texts.count:
            yield (
                f"{name}: nearly all of its {texts.count:,} values are numbers, but {shown(texts.first_non_number[0])!r} in row"
                f" {texts.first_non_number[1]} is not."
            )
    for name, counts in statistics.categories.items():
        if len(counts) < 2 or name in (SPLIT, reading.settings.split):
            continue
        (most, most_rows), (least, fewest_rows) = counts.most_common()[0], counts.most_common()[-1]
        if most_rows > MAJORITY * statistics.rows and len(counts) > 2:
            yield f"{name}: {most!r} alone has {most_rows / statistics.rows:.0%} of the rows."
        elif most_rows >= RARE_FACTOR * fewest_rows:
            yield f"{name}: {most!r} has {most_rows:,} rows, {least!r} {fewest_rows:,}; --balance {name} would even that out."


def _modalities(statistics: Statistics) -> Iterator[str]:
    names = statistics.modalities
    if len(names) == 1:
        yield f"All content is of one modality ({names[0]}); a shared space needs pairs of two. Name columns by --columns."
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if not statistics.rows_with_both[a, b]:
                yield f"No row has both {a} and {b}: nothing can be learned about that pair."
