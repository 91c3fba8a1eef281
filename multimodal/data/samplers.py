"""Which rows make the batches of an epoch: a function of seed and epoch alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from torch.utils.data import Sampler

BALANCE_BELOW = 0.5  # of the groups; a pair of modalities that fewer of them have is sampled for


@dataclass(frozen=True)
class Draw:
    """One row to read; ``seed`` is given for training and determines its augmentation."""

    row: int
    seed: tuple[int, ...] | None = None


class BatchSampler(Sampler[list[Draw]]):
    """The batches of training epochs: the order is a function of (seed, epoch), whatever was read before.

    Args:
        batch_size: rows in a batch over all ranks.
        seed, rank, world_size: each rank reads every ``world_size``-th row of a batch, starting with its own number.
    """

    def __init__(self, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.epoch = 0
        self.start = 0  # the batch of the epoch that the next iteration begins with

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch."""

    @abstractmethod
    def epoch_rows(self, rng: np.random.Generator) -> np.ndarray:
        """``(len(self), batch_size)`` int64: the rows of an epoch's batches."""

    def __iter__(self) -> Iterator[list[Draw]]:
        batches = self.epoch_rows(np.random.default_rng([self.seed, self.epoch]))
        for batch in batches[self.start :]:
            mine = batch[self.rank :: self.world_size]
            yield [Draw(row, (self.seed, self.epoch, row)) for row in mine.tolist()]


class EpochSampler(BatchSampler):
    """In an epoch every group gives one row, drawn at random.

    A batch holds as many different things as it can, and a thing with many rows (a letter that twelve fonts draw)
    weighs no more than one with a single row. What does not fill the last batch is left to other epochs.

    Args:
        rows: ``(n,)`` the rows of the training split.
        groups: ``(n,)`` their groups, as any comparable values.
        batch_size, seed, rank, world_size: see ``BatchSampler``.
    """

    def __init__(
        self, rows: np.ndarray, groups: np.ndarray, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(batch_size, seed, rank, world_size)
        self.of = _RowsByGroup(rows, groups)

    def __len__(self) -> int:
        return len(self.of) // self.batch_size

    def epoch_rows(self, rng: np.random.Generator) -> np.ndarray:
        chosen = self.of.one_each(rng)
        chosen = chosen[rng.permutation(len(chosen))]
        return chosen[: len(self) * self.batch_size].reshape(len(self), self.batch_size)


class PairSampler(BatchSampler):
    """Every chosen pair of modalities gets the same share of each batch, however few rows have both.

    A batch takes ``batch_size / pairs`` rows that have the one pair, as many that have the next, and so on (what does
    not divide goes to the pairs in turn). The rows for a pair run through all groups that have it, one row of each, in
    a random order, and begin anew when they are through: where few have a pair, they come again the more often.

    Args:
        rows: ``(n,)`` the rows of the training split.
        groups: ``(n,)`` their groups, as any comparable values.
        both: pair -> ``(n,)`` bool, which of the rows have both modalities; see ``rows_with_pairs``.
        batch_size, seed, rank, world_size: see ``BatchSampler``.
    """

    def __init__(
        self,
        rows: np.ndarray,
        groups: np.ndarray,
        both: Mapping[str, np.ndarray],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(batch_size, seed, rank, world_size)
        self.of = {
            pair: _RowsByGroup(rows[has_both], groups[has_both]) for pair, has_both in both.items() if has_both.any()
        }
        any_pair = np.any(list(both.values()), axis=0) if both else np.zeros(len(rows), bool)
        self.groups = len(np.unique(groups[any_pair]))

    def __len__(self) -> int:
        return self.groups // self.batch_size if self.of else 0

    def epoch_rows(self, rng: np.random.Generator) -> np.ndarray:
        number, pairs = np.arange(len(self) * self.batch_size), len(self.of)
        batch, place = np.divmod(number, self.batch_size)
        turn = (place + batch) % pairs  # which pair a place is for; the first pair moves on with every batch
        rows = np.empty(len(number), dtype=np.int64)
        for pair, of in enumerate(self.of.values()):
            places = np.flatnonzero(turn == pair)
            rows[places] = of.endless(rng, len(places))
        return rng.permuted(rows.reshape(len(self), self.batch_size), axis=1)


class _RowsByGroup:
    """Rows by their groups."""

    def __init__(self, rows: np.ndarray, groups: np.ndarray) -> None:
        order = np.argsort(groups, kind="stable")
        _, self._starts, self._counts = np.unique(groups[order], return_index=True, return_counts=True)
        self._rows = rows[order]

    def __len__(self) -> int:
        return len(self._counts)

    def one_each(self, rng: np.random.Generator) -> np.ndarray:
        """A random row of each group, ``(groups,)``."""
        return self._rows[self._starts + rng.integers(self._counts)]

    def endless(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """``(count,)`` rows, one of each group in a random order, then again in another."""
        rounds = [self.one_each(rng)[rng.permutation(len(self))] for _ in range(-(-count // len(self)))]
        return np.concatenate(rounds)[:count] if rounds else np.zeros(0, dtype=np.int64)


def rows_with_pairs(
    has: Mapping[str, np.ndarray], chosen: Collection[frozenset[str]] | None = None
) -> dict[str, np.ndarray]:
    """Pair, as ``"image-text"`` -> ``(n,)`` bool, which rows have both; ``has`` tells it of each modality.

    ``chosen`` are the pairs that count; None: all.
    """
    return {
        f"{a}-{b}": has[a] & has[b] for a, b in combinations(has, 2) if chosen is None or frozenset((a, b)) in chosen
    }


def coverage(groups: np.ndarray, both: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The part of the groups that have a row with both modalities, for each pair, in [0, 1]."""
    total = max(len(np.unique(groups)), 1)
    return {pair: len(np.unique(groups[has_both])) / total for pair, has_both in both.items()}
