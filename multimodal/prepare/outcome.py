"""Counts of a table's rows by what was done with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from multimodal.prepare.first_pass import FirstPass
from multimodal.prepare.plan import Plan

# reasons other than unreadable values
REASON_PHRASES = {
    "balanced": "to balance",
    "no balance": "without a value to balance by",
    "no split": "without a split",
    "empty row": "empty",
}


@dataclass(frozen=True)
class Outcome:
    """Result of ``prepare``: counts of rows.

    ``rows_in`` is the sum of ``rows_out``, ``rejects``, ``duplicates`` and ``near_duplicates``.

    Attributes:
        rows_in: rows of the table.
        rows_out: rows written.
        rejects: rows that cannot be used, including ``balanced_out``.
        balanced_out: rows left out to balance.
        duplicates: rows left out because they repeat an earlier row exactly.
        near_duplicates: rows left out because they nearly repeat an earlier row.
        splits: split -> rows written.
        reasons: reason -> rejected rows.
        warnings: remarks for the user, a sentence or two each.

    Examples:
        >>> counts = {"duplicates": 0, "near_duplicates": 0, "splits": {"train": 8}}
        >>> reasons = {"balanced": 1, "not a text": 1}
        >>> Outcome(rows_in=10, rows_out=8, rejects=2, balanced_out=1, reasons=reasons, **counts)
        10 rows in, 8 out (train 8); 0 duplicates, 0 near duplicates, 2 left out (1 to balance, 1 unreadable)
    """

    rows_in: int
    rows_out: int
    rejects: int
    balanced_out: int
    duplicates: int
    near_duplicates: int
    splits: dict[str, int]
    reasons: dict[str, int]
    warnings: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return "\n".join([self.summary, *(f"warning: {warning}" for warning in self.warnings)])

    @property
    def summary(self) -> str:
        """The counts on one line."""
        splits = ", ".join(f"{name} {rows:,}" for name, rows in self.splits.items())
        return (
            f"{self.rows_in:,} rows in, {self.rows_out:,} out ({splits}); {self.duplicates:,} duplicates,"
            f" {self.near_duplicates:,} near duplicates, {self.left_out}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts and warnings by name."""
        return dict(vars(self))

    @property
    def left_out(self) -> str:
        """Rejects in words: "54 left out (39 to balance, 10 without a value to balance by, 5 unreadable)"."""
        counts = [(self.reasons.get(reason, 0), words) for reason, words in REASON_PHRASES.items()]
        counts.append((self.rejects - sum(rows for rows, _ in counts), "unreadable"))
        parts = ", ".join(f"{rows:,} {words}" for rows, words in counts if rows)
        return f"{self.rejects:,} left out" + (f" ({parts})" if parts else "")


def count_outcome(reading: FirstPass, plan: Plan, splits: dict[str, int]) -> Outcome:
    """Count the rows by what was done with them.

    Args:
        reading: the first pass.
        plan: the plan.
        splits: split -> rows written.
    """
    repeated, near = ~plan.duplicates.kept, plan.duplicates.near
    balanced_out = int(plan.surplus.sum())
    reasons = Counter(reading.reasons)
    if balanced_out:
        reasons["balanced"] = balanced_out
    outcome = Outcome(
        rows_in=len(reading.rejected),
        rows_out=sum(splits.values()),
        rejects=sum(reading.rejected) + balanced_out,
        balanced_out=balanced_out,
        duplicates=int((repeated & ~near).sum()),
        near_duplicates=int(near.sum()),
        splits=splits,
        reasons=dict(reasons.most_common()),
    )
    left_out = outcome.rejects + outcome.duplicates + outcome.near_duplicates
    assert outcome.rows_in == outcome.rows_out + left_out, "a row was lost"
    return outcome
