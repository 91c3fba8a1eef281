"""What becomes of each row, decided from the fingerprints alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal.prepare.duplicates import Duplicates, Links, find_duplicates, find_links
from multimodal.prepare.first_pass import FirstPass
from multimodal.prepare.splitting import assign_components, balance_mask, components, count_crossing_rows


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


def make_plan(reading: FirstPass) -> Plan:
    """Decide what becomes of each accepted row, from the fingerprints alone."""
    settings, contents = reading.settings, reading.contents
    neighbours = [content.neighbours() for content in contents]
    duplicates = find_duplicates(reading.values, neighbours)
    stays = duplicates.stays
    surplus = np.zeros(len(stays), dtype=bool)
    if (categories := reading.labels("balance")) is not None:
        surplus[stays] = ~balance_mask(categories[stays], settings.seed)
        stays = stays & ~surplus
    links = find_links(contents, stays, neighbours)
    component = components(len(stays), links.pairs, reading.labels("group"))
    split = np.zeros(len(stays), dtype=np.int64)
    given = reading.labels("split")
    if given is not None:
        names, split = reading.split_names, given.astype(np.int64)
    else:
        names = list(settings.shares)
        split[stays] = assign_components(
            np.unique(component[stays], return_inverse=True)[1], settings.shares, settings.seed
        )
    apart = links.pairs[split[links.pairs[:, 0]] != split[links.pairs[:, 1]]]
    rows = count_crossing_rows(component[stays], split[stays])
    return Plan(duplicates, surplus, links, component, split, names, rows, apart)
