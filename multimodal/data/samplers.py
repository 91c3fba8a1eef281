"""Samplers: the rows of an epoch's batches, as a function of the seed and the epoch only."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from torch.utils.data import Sampler

BALANCE_BELOW = 0.5  # of the groups; batches are balanced if a pair of modalities is in a smaller fraction


@dataclass(frozen=True)
class Draw:
    """One row to read.

    Attributes:
        row: row number.
        seed: seed of the row's augmentation and drawn columns; None: evaluation.
    """

    row: int
    seed: tuple[int, ...] | None = None


class BatchSampler(Sampler[list[Draw]]):
    """Base class of samplers of training batches, whose order depends on (seed, epoch) only.

    Args:
        batch_size: rows in a batch over all ranks.
        seed: seed of the order.
        rank, world_size: each rank reads every ``world_size``-th row of a batch, starting at row ``rank``.

    Attributes:
        epoch: epoch of the next iteration.
        start: batch at which the next iteration starts.

    Examples:
        >>> class InOrder(BatchSampler):
        ...     def __len__(self): return 2
        ...     def epoch_rows(self, rng): return np.arange(4).reshape(2, 2)
        >>> [[draw.row for draw in batch] for batch in InOrder(batch_size=2, seed=0, rank=0, world_size=1)]
        [[0, 1], [2, 3]]
    """

    def __init__(self, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.epoch = 0
        self.start = 0

    @property
    def order(self) -> dict[str, int]:
        """What the order of the rows depends on besides the epoch; a place in an epoch holds only for an equal order."""
        return {"batch_size": self.batch_size, "seed": self.seed}

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @abstractmethod
    def epoch_rows(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the rows of an epoch's batches, ``(len(self), batch_size)`` int64."""

    def __iter__(self) -> Iterator[list[Draw]]:
        batches = self.epoch_rows(np.random.default_rng([self.seed, self.epoch]))
        for batch in batches[self.start :]:
            own_rows = batch[self.rank :: self.world_size]
            yield [Draw(row, (self.seed, self.epoch, row)) for row in own_rows.tolist()]


class EpochSampler(BatchSampler):
    """Sampler that draws one random row of each group per epoch.

    The rows of a batch are all of different groups, and a group with many rows (a character in twelve fonts) has the same
    weight as a group with one row. Rows that do not fill the last batch are left out of the epoch.

    Args:
        rows: ``(n,)`` row numbers of the training split.
        groups: ``(n,)`` their groups, of any sortable type.
        batch_size, seed, rank, world_size: see ``BatchSampler``.

    Examples:
        >>> sampler = EpochSampler(np.arange(4), np.array(["cup", "cup", "jug", "pot"]), batch_size=3, seed=0)
        >>> sorted(draw.row for batch in sampler for draw in batch)
        [1, 2, 3]
    """

    def __init__(
        self, rows: np.ndarray, groups: np.ndarray, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(batch_size, seed, rank, world_size)
        self.groups = _RowsByGroup(rows, groups)

    @property
    def order(self) -> dict[str, int]:
        return super().order | {"rows": self.groups.row_count, "rows_checksum": self.groups.checksum()}

    def __len__(self) -> int:
        return len(self.groups) // self.batch_size

    def epoch_rows(self, rng: np.random.Generator) -> np.ndarray:
        chosen = self.groups.one_per_group(rng)
        chosen = chosen[rng.permutation(len(chosen))]
        return chosen[: len(self) * self.batch_size].reshape(len(self), self.batch_size)


class PairSampler(BatchSampler):
    """Sampler that gives every pair of modalities the same share of each batch, even if few rows have both.

    A batch contains ``batch_size / pairs`` rows for each pair; a remainder is given to the pairs alternately. The rows for
    a pair are one random row of each group that has the pair, in random order. When all these groups were drawn, they are
    drawn again in another order, so the groups of rare pairs are repeated more often.

    Args:
        rows: ``(n,)`` row numbers of the training split.
        groups: ``(n,)`` their groups, of any sortable type.
        rows_with_pair: pair -> ``(n,)`` bool, which rows have both modalities; see ``rows_with_pairs``.
        batch_size, seed, rank, world_size: see ``BatchSampler``.

    Examples:
        >>> has = {"image": np.ones(8, bool), "text": np.arange(8) < 7, "audio": np.arange(8) == 7}
        >>> sampler = PairSampler(np.arange(8), np.arange(8), rows_with_pairs(has), batch_size=4, seed=0)
        >>> [sum(draw.row == 7 for draw in batch) for batch in sampler]  # half of each batch has image-audio
        [2, 2]
    """

    def __init__(
        self,
        rows: np.ndarray,
        groups: np.ndarray,
        rows_with_pair: Mapping[str, np.ndarray],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(batch_size, seed, rank, world_size)
        self.groups_by_pair = {
            pair: _RowsByGroup(rows[mask], groups[mask]) for pair, mask in rows_with_pair.items() if mask.any()
        }
        has_pair = np.any(list(rows_with_pair.values()), axis=0) if rows_with_pair else np.zeros(len(rows), bool)
        self._group_count = len(np.unique(groups[has_pair]))

    @property
    def order(self) -> dict[str, int]:
        rows, checksum = 0, 0
        for pair, groups in self.groups_by_pair.items():
            rows += groups.row_count
            checksum = groups.checksum(zlib.crc32(pair.encode(), checksum))
        return super().order | {"rows": rows, "rows_checksum": checksum}

    def __len__(self) -> int:
        return self._group_count // self.batch_size if self.groups_by_pair else 0

    def epoch_rows(self, rng: np.random.Generator) -> np.ndarray:
        number, pairs = np.arange(len(self) * self.batch_size), len(self.groups_by_pair)
        batch, position = np.divmod(number, self.batch_size)
        pair_of_position = (position + batch) % pairs  # the first pair changes with every batch
        rows = np.empty(len(number), dtype=np.int64)
        for pair, groups in enumerate(self.groups_by_pair.values()):
            positions = np.flatnonzero(pair_of_position == pair)
            rows[positions] = groups.cycle_groups(rng, len(positions))
        return rng.permuted(rows.reshape(len(self), self.batch_size), axis=1)


class _RowsByGroup:
    """Rows, sorted by their groups."""

    def __init__(self, rows: np.ndarray, groups: np.ndarray) -> None:
        order = np.argsort(groups, kind="stable")
        _, self._starts, self._counts = np.unique(groups[order], return_index=True, return_counts=True)
        self._rows = rows[order]

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def row_count(self) -> int:
        return len(self._rows)

    def checksum(self, start: int = 0) -> int:
        """Return a CRC-32 of the rows and of their division into groups."""
        return zlib.crc32(self._counts.astype("<i8").tobytes(), zlib.crc32(self._rows.astype("<i8").tobytes(), start))

    def one_per_group(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a random row of each group, ``(groups,)``."""
        return self._rows[self._starts + rng.integers(self._counts)]

    def cycle_groups(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw ``(count,)`` rows: one of each group in random order, then again in another order, and so on."""
        rounds = [self.one_per_group(rng)[rng.permutation(len(self))] for _ in range(-(-count // len(self)))]
        return np.concatenate(rounds)[:count] if rounds else np.zeros(0, dtype=np.int64)


def rows_with_pairs(
    has: Mapping[str, np.ndarray], chosen: Collection[frozenset[str]] | None = None
) -> dict[str, np.ndarray]:
    """Return pair (``"image-text"``) -> which rows have both modalities, ``(n,)`` bool.

    Args:
        has: modality -> which rows have it, ``(n,)`` bool.
        chosen: the pairs to return; None: all.

    Examples:
        >>> rows_with_pairs({"image": np.array([True, True]), "text": np.array([True, False])})
        {'image-text': array([ True, False])}
    """
    return {
        f"{a}-{b}": has[a] & has[b] for a, b in combinations(has, 2) if chosen is None or frozenset((a, b)) in chosen
    }


def coverage(groups: np.ndarray, rows_with_pair: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return for each pair of modalities the fraction of groups, in [0, 1], with a row that has both.

    Args:
        groups: ``(n,)`` group of each row.
        rows_with_pair: pair -> ``(n,)`` bool; see ``rows_with_pairs``.
    """
    total = max(len(np.unique(groups)), 1)
    return {pair: len(np.unique(groups[mask])) / total for pair, mask in rows_with_pair.items()}
