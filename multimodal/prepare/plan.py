"""Decision for each row (kept or left out, and its split), made from the fingerprints alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal.prepare.duplicates import Duplicates, Links, find_duplicates, find_links
from multimodal.prepare.first_pass import FirstPass
from multimodal.prepare.splitting import assign_components, balance_mask, components, count_crossing_rows


@dataclass(frozen=True)
class Plan:
    """Decision for each of n accepted rows.

    Attributes:
        duplicates: the row that each row repeats.
        surplus: ``(n,)`` bool, whether the row is left out to balance.
        links: links between the kept rows.
        component: ``(n,)`` int32, component of the row.
        split: ``(n,)`` int64, index of its split in ``names``.
        names: names of the splits.
        crossing_rows: number of kept rows whose component is in several splits; 0 unless the table has a split column.
        crossing_pairs: ``(m, 2)`` int64, links between two splits.

    Examples:
        >>> nothing = np.zeros((0, 2), dtype=np.int64)
        >>> plan = Plan(
        ...     duplicates=Duplicates(original=np.array([0, 0, 2]), near=np.zeros(3, dtype=bool)),
        ...     surplus=np.array([False, False, True]),
        ...     links=Links(nothing, near=np.zeros(0, dtype=bool), common=[]),
        ...     component=np.arange(3),
        ...     split=np.zeros(3, dtype=np.int64),
        ...     names=["train"],
        ...     crossing_rows=0,
        ...     crossing_pairs=nothing,
        ... )
        >>> plan.kept.tolist()
        [True, False, False]
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
    def kept(self) -> np.ndarray:
        """Whether each row is written, ``(n,)`` bool."""
        return self.duplicates.kept & ~self.surplus


def make_plan(reading: FirstPass) -> Plan:
    """Decide from the fingerprints which rows are kept and the split of each."""
    settings, contents = reading.settings, reading.contents
    neighbours = [content.neighbours() for content in contents]
    duplicates = find_duplicates(reading.values, neighbours)
    kept = duplicates.kept
    surplus = np.zeros(len(kept), dtype=bool)
    if (categories := reading.labels("balance")) is not None:
        surplus[kept] = ~balance_mask(categories[kept], settings.seed)
        kept = kept & ~surplus
    links = find_links(contents, kept, neighbours)
    component = components(len(kept), links.pairs, reading.labels("group"))
    split = np.zeros(len(kept), dtype=np.int64)
    split_of_table = reading.labels("split")
    if split_of_table is not None:
        names, split = reading.split_names, split_of_table.astype(np.int64)
    else:
        names = list(settings.shares)
        split[kept] = assign_components(
            np.unique(component[kept], return_inverse=True)[1], settings.shares, settings.seed
        )
    crossing_pairs = links.pairs[split[links.pairs[:, 0]] != split[links.pairs[:, 1]]]
    crossing_rows = count_crossing_rows(component[kept], split[kept])
    return Plan(duplicates, surplus, links, component, split, names, crossing_rows, crossing_pairs)
