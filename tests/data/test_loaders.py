"""The order of training depends on seed and epoch only, and training resumes where it was stopped."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from multimodal.core.batch import Batch, Sample
from multimodal.core.encoder import Inputs, Processor
from multimodal.core.errors import MultimodalError
from multimodal.core.rejects import Reject, Rejects
from multimodal.core.table import Table
from multimodal.data.loaders import Collate, ProcessedSamples, ResumableLoader, ordered_loader
from multimodal.data.samplers import Draw, EpochSampler, PairSampler, coverage, rows_with_pairs
from multimodal.data.samples import Samples


class NumberTable(Table):
    """Row r has the number r; every third row has no ``even`` number; some cells cannot be read."""

    name = "numbers"
    columns = ("number", "even", "key")
    metadata_columns = ()

    def __init__(self, rows: int, unreadable: Sequence[int] = ()) -> None:
        self.rows, self.unreadable = rows, unreadable

    def __len__(self) -> int:
        return self.rows

    def value(self, row: int, column: str) -> Any:
        if column == "key":
            return f"n{row}"
        if column == "even":
            return None if row % 3 == 0 else 2 * row
        return "unreadable" if row in self.unreadable else row


class NumberProcessor(Processor):
    """Returns a number unchanged; training adds noise."""

    def __call__(self, value: Any) -> float:
        if not isinstance(value, int):
            raise MultimodalError(f"{value} is not a number.")
        return float(value)

    def augment(self, item: float, rng: np.random.Generator) -> float:
        return item + rng.random()

    def collate(self, items: Sequence[float]) -> Inputs:
        return {"x": torch.tensor(items, dtype=torch.float64)}


PROCESSORS = {"number": NumberProcessor(), "even": NumberProcessor()}


def samples_of(rows: int, unreadable: Sequence[int] = ()) -> Samples:
    return Samples.of(NumberTable(rows, unreadable), {"number": "number", "even": "even"}, key="key")


def few_rejects() -> Rejects:
    return Rejects(max_rejects=1.0, rows=None)


def training_loader(groups: Sequence[int], batch_size: int, seed: int = 0, **options: Any) -> ResumableLoader:
    sampler = EpochSampler(np.arange(len(groups)), np.array(groups), batch_size, seed)
    return ResumableLoader(ProcessedSamples(samples_of(len(groups)), PROCESSORS), sampler, few_rejects(), **options)


def batches_of(sampler: EpochSampler, epoch: int) -> list[list[Draw]]:
    sampler.epoch = epoch
    return list(sampler)


groups_strategy = st.lists(st.integers(0, 25), min_size=1, max_size=60)


# -- the order


@given(groups_strategy, st.integers(1, 8), st.integers(0, 2**40), st.integers(0, 2**20))
@settings(deadline=None, max_examples=60)
def test_an_epoch_takes_a_row_of_each_group_in_full_batches(
    groups: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    rows = np.arange(len(groups)) * 10 + 3
    sampler = EpochSampler(rows, np.array(groups), batch_size, seed)
    batches = batches_of(sampler, epoch)
    assert [len(batch) for batch in batches] == [batch_size] * (len(set(groups)) // batch_size)
    assert len(sampler) == len(batches)
    drawn = [draw.row for batch in batches for draw in batch]
    group_of_row = dict(zip(rows.tolist(), groups, strict=True))
    assert max(Counter(group_of_row[row] for row in drawn).values(), default=1) == 1
    assert all(draw.seed == (seed, epoch, draw.row) for batch in batches for draw in batch)


@given(groups_strategy, st.integers(1, 8), st.integers(0, 99), st.lists(st.integers(0, 9), max_size=4))
@settings(deadline=None, max_examples=40)
def test_an_epoch_does_not_depend_on_what_was_read_before(
    groups: list[int], batch_size: int, seed: int, before: list[int]
) -> None:
    one, other = (EpochSampler(np.arange(len(groups)), np.array(groups), batch_size, seed) for _ in range(2))
    for epoch in before:
        batches_of(other, epoch)
    assert batches_of(other, 5) == batches_of(one, 5)


def test_other_epochs_and_other_seeds_have_other_orders() -> None:
    def rows(seed: int, epoch: int) -> tuple[int, ...]:
        sampler = EpochSampler(np.arange(100), np.arange(100), 10, seed)
        return tuple(draw.row for batch in batches_of(sampler, epoch) for draw in batch)

    orders = {rows(seed, epoch) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(100))}


def test_every_row_of_a_group_and_every_group_gets_its_turn() -> None:
    groups = np.array(["a", "b", "b", "b", "c"])
    sampler = EpochSampler(np.arange(5), groups, batch_size=2, seed=0)  # one of the three groups is left out
    counts = Counter(draw.row for epoch in range(3000) for batch in batches_of(sampler, epoch) for draw in batch)
    # binomial: 3000 epochs, 2 of 3 groups, and a third of that for each row of b; six standard deviations
    assert [counts[0], counts[4]] == pytest.approx([2000, 2000], abs=160)
    assert [counts[row] for row in (1, 2, 3)] == pytest.approx([2000 / 3] * 3, abs=140)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 5), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_the_ranks_divide_each_batch(groups: int, batch_size: int, world_size: int, epoch: int) -> None:
    def of_rank(rank: int, world_size: int) -> list[list[Draw]]:
        rows = np.arange(groups)
        return batches_of(EpochSampler(rows, rows, batch_size, 1, rank, world_size), epoch)

    full, parts = of_rank(0, 1), [of_rank(rank, world_size) for rank in range(world_size)]
    for number, batch in enumerate(full):
        assert [part[number] for part in parts] == [batch[rank::world_size] for rank in range(world_size)]


# -- resuming


def stream(loader: ResumableLoader) -> Iterator[Batch]:
    """One epoch after another; none may be empty, as a trainer would stop at an empty one."""
    while True:
        batches = iter(loader)
        yield next(batches)
        yield from batches


def seen(batch: Batch) -> tuple[Any, ...]:
    values = {m: inputs["x"].tolist() for m, inputs in batch.inputs.items()}
    return batch.keys, values, {m: rows.tolist() for m, rows in batch.rows.items()}, batch.groups.tolist()


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_loader_resumed_at_any_batch_continues_as_one_that_was_not_stopped(data: st.DataObject) -> None:
    batch_size = data.draw(st.integers(1, 4), "batch size")
    groups = data.draw(
        st.lists(st.integers(0, 12), min_size=6, max_size=30).filter(lambda g: len(set(g)) >= batch_size)
    )
    seed = data.draw(st.integers(0, 9), "seed")
    total = data.draw(st.integers(1, 3 * (len(set(groups)) // batch_size) + 1), "batches")
    uninterrupted = [
        seen(batch) for batch in itertools.islice(stream(training_loader(groups, batch_size, seed)), total)
    ]

    stops = sorted(data.draw(st.sets(st.integers(1, total), max_size=3), "stops"))
    parts: list[tuple[Any, ...]] = []
    state = None
    for start, stop in itertools.pairwise([0, *stops, total]):
        loader = training_loader(groups, batch_size, seed)
        if state is not None:
            loader.load_state_dict(state)
        if stop > start:
            parts += [seen(batch) for batch in itertools.islice(stream(loader), stop - start)]
            state = json.loads(json.dumps(loader.state_dict()))
    assert parts == uninterrupted


def test_a_loader_resumed_with_workers_continues_as_one_without() -> None:
    """The workers have prefetched batches after the last one that was returned."""
    groups = [row // 2 for row in range(40)]
    uninterrupted = [seen(batch) for batch in itertools.islice(stream(training_loader(groups, 2)), 17)]
    first = training_loader(groups, 2, num_workers=2)
    parts = [seen(batch) for batch in itertools.islice(stream(first), 13)]  # three into the second epoch
    second = training_loader(groups, 2, num_workers=2)
    second.load_state_dict(first.state_dict())
    parts += [seen(batch) for batch in itertools.islice(stream(second), 4)]
    assert parts == uninterrupted


def test_a_loaded_position_is_saved_again() -> None:
    loader = training_loader(range(20), 2)
    loader.load_state_dict({"epoch": 3, "batch": 4})
    assert loader.position == {"epoch": 3, "batch": 4}


def test_an_abandoned_iteration_is_continued_to_the_end_of_its_epoch() -> None:
    loader = training_loader(range(10), 2)
    uninterrupted = [seen(batch) for batch in itertools.islice(stream(training_loader(range(10), 2)), 10)]
    parts = [seen(batch) for batch in itertools.islice(loader, 3)]
    rest = [list(loader), list(loader)]
    assert [len(part) for part in rest] == [2, 5]
    assert parts + [seen(batch) for part in rest for batch in part] == uninterrupted


# -- items


def number_of(row: int, seed: tuple[int, ...] | None) -> float:
    (sample,) = ProcessedSamples(samples_of(20), PROCESSORS)[Draw(row, seed)]
    assert isinstance(sample, Sample)
    return sample.values["number"]


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 19))
@settings(deadline=None, max_examples=30)
def test_augmentation_depends_on_seed_epoch_and_row_only(seed: int, epoch: int, row: int) -> None:
    once = number_of(row, (seed, epoch, row))
    number_of(5, (1, 2, 5))
    assert number_of(row, (seed, epoch, row)) == once
    assert row < once < row + 1
    others = [number_of(row, s) for s in ((seed + 1, epoch, row), (seed, epoch + 1, row))]
    assert len({once, *others}) == 3
    assert number_of(row, None) == row


def test_every_row_of_an_epoch_gets_different_noise() -> None:
    noise = {number_of(row, (0, 0, row)) - row for row in range(20)}
    assert len(noise) == 20


@given(st.lists(st.integers(0, 19), max_size=20), st.integers(1, 7))
@settings(deadline=None, max_examples=40)
def test_an_ordered_loader_reads_the_rows_in_order_and_unchanged(rows: list[int], batch_size: int) -> None:
    loader = ordered_loader(samples_of(20), np.array(rows, dtype=np.int64), PROCESSORS, batch_size, few_rejects())
    batches = list(loader)
    assert len(loader) == len(batches) == -(-len(rows) // batch_size)
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert [key for batch in batches for key in batch.keys] == [f"n{row}" for row in rows]
    for number, batch in enumerate(batches):
        of_batch = rows[number * batch_size :][:batch_size]
        with_even = [(i, row) for i, row in enumerate(of_batch) if row % 3]
        assert batch.inputs["number"]["x"].tolist() == of_batch
        assert ("even" in batch.inputs) == bool(with_even)
        if with_even:
            assert batch.rows["even"].tolist() == [i for i, _ in with_even]
            assert batch.inputs["even"]["x"].tolist() == [2 * row for _, row in with_even]


@pytest.mark.parametrize("seed", [None, (0, 0, 4)])
def test_a_row_that_cannot_be_read_is_a_reject(seed: tuple[int, ...] | None) -> None:
    (reject,) = ProcessedSamples(samples_of(9, unreadable=[4]), PROCESSORS)[Draw(4, seed)]
    assert reject == Reject(4, "n4", "number", "unreadable", "unreadable", "unreadable is not a number.")


@pytest.mark.parametrize("workers", [0, 1])
def test_rejects_are_left_out_of_batches_and_written_once(workers: int, tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    for _ in range(2):  # a second run does not write them again
        rejects = Rejects(0.25, 9, path)
        loader = ordered_loader(samples_of(9, [4, 7]), np.arange(9), PROCESSORS, 3, rejects, {"num_workers": workers})
        for _ in range(2):
            batches = list(loader)
            assert [batch.keys for batch in batches] == [("n0", "n1", "n2"), ("n3", "n5"), ("n6", "n8")]
            assert [[r.row for r in batch.rejects] for batch in batches] == [[], [4], [7]]
        assert (len(rejects), rejects.reasons) == (2, {"unreadable": 2})
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["n4", "n7"]


def test_too_many_rejects_stop_the_reading_with_a_summary(tmp_path: Path) -> None:
    rejects = Rejects(0.2, 9, tmp_path / "rejects.jsonl")
    loader = ordered_loader(samples_of(9, [4, 7]), np.arange(9), PROCESSORS, 3, rejects)
    with pytest.raises(
        MultimodalError, match=r"^2 of 9 rows cannot be read \(2 x unreadable\); max_rejects 0.2 allows 1"
    ):
        list(loader)


def test_a_batch_may_lose_all_its_rows() -> None:
    loader = ordered_loader(samples_of(4, [0, 1]), np.arange(4), PROCESSORS, 2, few_rejects())
    empty, full = list(loader)
    assert (len(empty), empty.inputs, len(empty.rejects), len(full)) == (0, {}, 2, 2)


@given(
    st.integers(0, 5),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 30)), min_size=1, max_size=60),
    st.integers(1, 9),
)
@settings(deadline=None, max_examples=60)
def test_every_pair_gets_its_share_of_each_batch(
    seed: int, rows: list[tuple[bool, bool, bool, int]], size: int
) -> None:
    numbers = np.arange(len(rows)) * 3  # row numbers are not positions
    has = {m: np.array([row[i] for row in rows]) for i, m in enumerate("abc")}
    groups = np.array([row[3] for row in rows])
    sampler = PairSampler(numbers, groups, rows_with_pairs(has), size, seed)
    pairs = [p for p in (("a", "b"), ("a", "c"), ("b", "c")) if (has[p[0]] & has[p[1]]).any()]
    with_pair = {int(g) for g, *h in zip(groups, *has.values(), strict=True) if sum(h) > 1}
    assert len(sampler) == (len(with_pair) // size if pairs else 0)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [size] * len(sampler)
    share = size // max(len(pairs), 1)
    for batch in batches:
        drawn = [draw.row // 3 for draw in batch]
        for a, b in pairs:
            assert sum(bool(has[a][row] and has[b][row]) for row in drawn) >= share
        assert all(sum(h[row] for h in has.values()) > 1 for row in drawn)
    assert batches == list(sampler)


def test_rare_pairs_are_repeated_evenly_over_their_groups() -> None:
    """1,000 rows of a and b, 8 of a and c: each pair fills half of every batch."""
    has = {"a": np.ones(1008, bool), "b": np.arange(1008) < 1000, "c": np.arange(1008) >= 1000}
    sampler = PairSampler(np.arange(1008), np.arange(1008), rows_with_pairs(has), 16, seed=1)
    rows = np.array([[draw.row for draw in batch] for batch in sampler])
    assert ((rows >= 1000).sum(axis=1) == 8).all()
    counts = Counter(rows[rows >= 1000].tolist())
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(set(rows[rows < 1000].tolist())) == 8 * len(sampler)  # none twice in an epoch


def test_the_coverage_counts_groups() -> None:
    has = {"a": np.array([True, True, True, False]), "b": np.array([True, False, False, True])}
    assert coverage(np.array([0, 0, 1, 2]), rows_with_pairs(has)) == {"a-b": 1 / 3}


def test_pairs_that_are_not_chosen_are_left_out() -> None:
    has = {m: np.ones(2, bool) for m in "abc"}
    assert list(rows_with_pairs(has)) == ["a-b", "a-c", "b-c"]
    assert list(rows_with_pairs(has, {frozenset("cb")})) == ["b-c"]


def test_micro_batches_of_a_worker_share_one_block_of_memory() -> None:
    samples, draws, collate = samples_of(64), [Draw(n) for n in range(64)], Collate(dict(PROCESSORS), micro_batch=1)
    plain, batch = (
        next(
            iter(
                DataLoader(ProcessedSamples(samples, PROCESSORS), 64, sampler=draws, collate_fn=collate, num_workers=n)
            )
        )
        for n in (0, 1)
    )
    assert batch.keys == plain.keys
    storages = {t.untyped_storage().data_ptr() for part in batch.parts for t in (part.groups, *part.rows.values())}
    assert len(storages) == 1
