"""What becomes of each row, decided from the fingerprints alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multimodal.data.prepare.duplicates import Duplicates, Links, find_duplicates, find_links
from multimodal.data.prepare.reading import Reading
from multimodal.data.prepare.splitting import assign, balanced, components, crossing

# reasons that are no fault of the values
IN_WORDS = {
    "balanced": "to balance",
    "no balance": "without a value to balance by",
    "no split": "without a split",
    "empty row": "empty",
}


@dataclass(frozen=True)
class Plan:
    """What becomes of each accepted row.

    Attributes:
        duplicates: what repeats what.
        surplus: ``(n,)`` bool: left out to balance.
        links: the links between the rows that stay.
        component: ``(n,)`` the component of each row.
        split: ``(n,)`` the number of its split in ``names``.
        names: the splits.
        crossing_rows, crossing_pairs: rows whose component is in several splits and links between two splits; none,
            unless the table's own split column says so.
    """

    duplicates: Duplicates
    surplus: np.ndarray
    links: Links
    component: np.ndarray
    split: np.ndarray
    names: list[str]
    crossing_rows: int
    crossing_pairs: np.ndarray

    @property
    def stays(self) -> np.ndarray:
        return self.duplicates.stays & ~self.surplus


def make_plan(reading: Reading) -> Plan:
    """Decide what becomes of each accepted row, from the fingerprints alone."""
    settings, contents = reading.settings, reading.contents
    neighbours = [content.neighbours() for content in contents]
    duplicates = find_duplicates(reading.values, neighbours)
    stays = duplicates.stays
    surplus = np.zeros(len(stays), dtype=bool)
    if (categories := reading.labels("balance")) is not None:
        surplus[stays] = ~balanced(categories[stays], settings.seed)
        stays = stays & ~surplus
    links = find_links(contents, stays, neighbours)
    component = components(len(stays), links.pairs, reading.labels("group"))
    split = np.zeros(len(stays), dtype=np.int64)
    given = reading.labels("split")
    if given is not None:
        names, split = reading.split_names, given.astype(np.int64)
    else:
        names = list(settings.shares)
        split[stays] = assign(np.unique(component[stays], return_inverse=True)[1], settings.shares, settings.seed)
    apart = links.pairs[split[links.pairs[:, 0]] != split[links.pairs[:, 1]]]
    rows = crossing(component[stays], split[stays])
    return Plan(duplicates, surplus, links, component, split, names, rows, apart)


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
        told = [(self.reasons.get(reason, 0), words) for reason, words in IN_WORDS.items()]
        told.append((self.rejects - sum(rows for rows, _ in told), "unreadable"))
        parts = ", ".join(f"{rows:,} {words}" for rows, words in told if rows)
        return f"{self.rejects:,} left out" + (f" ({parts})" if parts else "")


def count(reading: Reading, plan: Plan, splits: dict[str, int]) -> Outcome:
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
