"""Counts of what became of a table's rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from multimodal.prepare.first_pass import FirstPass
from multimodal.prepare.plan import Plan

# reasons that are no fault of the values
REASON_PHRASES = {
    "balanced": "to balance",
    "no balance": "without a value to balance by",
    "no split": "without a split",
    "empty row": "empty",
}


@dataclass(frozen=True)
class Outcome:
    """Counts of rows; ``rows_in`` is the sum of ``rows_out``, ``rejects``, ``duplicates`` and ``near_duplicates``.

    ``rejects`` counts the rows that cannot be read and those left out to balance (``balanced_out``).
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

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @property
    def left_out(self) -> str:
        """The rejects in words: "54 left out (39 to balance, 10 without a value to balance by, 5 unreadable)"."""
        told = [(self.reasons.get(reason, 0), words) for reason, words in REASON_PHRASES.items()]
        told.append((self.rejects - sum(rows for rows, _ in told), "unreadable"))
        parts = ", ".join(f"{rows:,} {words}" for rows, words in told if rows)
        return f"{self.rejects:,} left out" + (f" ({parts})" if parts else "")


def count_outcome(reading: FirstPass, plan: Plan, splits: dict[str, int]) -> Outcome:
    """Count what became of the rows; ``splits`` is what was written."""
    repeated, near = ~plan.duplicates.stays, plan.duplicates.near
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
    left = outcome.rejects + outcome.duplicates + outcome.near_duplicates
    assert outcome.rows_in == outcome.rows_out + left, "a row was lost"
    return outcome
