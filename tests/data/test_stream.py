"""Streams lose and repeat no row, and resume where they were stopped, with any number of workers and ranks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from multimodal.core.batch import Batch
from multimodal.core.encoder import Inputs, Processor
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.core.rejects import Rejects
from multimodal.data.datamodule import DataModule
from multimodal.data.samples import Samples
from multimodal.data.schema import Schema
from multimodal.data.stream import Stream, StreamedBatches, StreamLoader
from multimodal.data.tables.open import locate


class Numbers(Processor):
    """Returns a number unchanged; training adds noise; 13 cannot be read."""

    def __call__(self, value: Any) -> float:
        if value == 13:
            raise Unreadable("unlucky", "13 is not read.")
        return float(value)

    def augment(self, item: float, rng: np.random.Generator) -> float:
        return item + rng.random()

    def collate(self, items: Sequence[float]) -> Inputs:
        return {"x": torch.tensor(items, dtype=torch.float64)}


PROCESSORS = {"number": Numbers()}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))


def stream_of(folder: Path, files: Sequence[int], splits: tuple[str, ...] = ("all",), **settings: Any) -> Stream:
    """Write files with the given numbers of rows; the rows are numbered over all files."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.jsonl"):
        old.unlink()
    number = iter(range(10_000))
    for file, rows in enumerate(files):
        lines = [json.dumps({"n": (n := next(number)), "part": "ab"[n % 2]}) + "\n" for _ in range(rows)]
        (folder / f"{file:03}.jsonl").write_text("".join(lines))
    settings = {"key": "n", "group": None, "split": None, "split_seed": 0, "targets": {}, "negatives": {}} | settings
    return Stream(locate(f"{folder}/*.jsonl"), Schema.from_settings({"number": "n"}, **settings), splits)


def loader_of(
    stream: Stream, batch_size: int = 4, buffer: int = 5, rank: int = 0, world: int = 1, **options: Any
) -> StreamLoader:
    batches = StreamedBatches(stream, PROCESSORS, batch_size, buffer, 0, rank, world)
    return StreamLoader(batches, Rejects(1.0, None), **options)


def read(loader: StreamLoader) -> Iterator[Batch]:
    """The batches of an epoch, each marked as used."""
    for batch in loader:
        loader.mark_used()
        yield batch


def keys(batches: Sequence[Batch]) -> list[tuple[str, ...]]:
    return [batch.keys for batch in batches]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(1, 7),
    st.integers(1, 12),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_epoch_has_each_row_once_over_all_ranks(
    tmp_path: Path, files: list[int], batch_size: int, buffer: int, world: int
) -> None:
    assume(batch_size >= world <= sum(files))  # else there is no batch
    stream = stream_of(tmp_path / "s", files)
    of_ranks = [list(read(loader_of(stream, batch_size, buffer, rank, world))) for rank in range(world)]
    assert len({len(batches) for batches in of_ranks}) == 1  # no rank waits for another
    seen = Counter(key for batches in of_ranks for batch in batches for key in batch.keys)
    seen.update(reject.key for batches in of_ranks for batch in batches for reject in batch.rejects)
    total = sum(files)
    remainder = total % batch_size
    expected = (
        total if remainder == 0 or remainder >= world else total - remainder
    )  # a last batch of fewer rows than ranks
    assert set(seen.values()) <= {1}
    assert len(seen) == expected
    assert set(seen) <= {str(n) for n in range(total)}


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_order(tmp_path: Path, workers: int) -> None:
    stream = stream_of(tmp_path / "s", [9, 4, 10])
    alone, shared = loader_of(stream), loader_of(stream, num_workers=workers, persistent_workers=True)
    for _ in range(2):  # the second epoch has another order, in persistent workers too
        one, other = list(read(alone)), list(read(shared))
        assert keys(one) == keys(other)
        for a, b in zip(one, other, strict=True):
            assert a.inputs["number"]["x"].equal(b.inputs["number"]["x"])


def test_epochs_differ_and_shuffle_across_files(tmp_path: Path) -> None:
    stream = stream_of(tmp_path / "s", [8] * 6)
    loader = loader_of(stream, batch_size=8, buffer=16)
    first, second = keys(list(read(loader))), keys(list(read(loader)))
    assert first != second
    assert any(len({int(key) // 8 for key in batch}) > 1 for batch in first)
    again = loader_of(stream, batch_size=8, buffer=16)
    assert keys(list(read(again))) == first


@given(st.integers(0, 12))
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_stream_resumed_at_any_batch_continues_as_one_that_was_not_stopped(tmp_path: Path, at: int) -> None:
    stream = stream_of(tmp_path / "s", [9, 4, 10])  # six batches an epoch

    def endless(loader: StreamLoader) -> Iterator[Batch]:
        while True:
            yield from read(loader)

    uninterrupted = keys(list(islice(endless(loader_of(stream)), 20)))
    stopped = loader_of(stream)
    begun = keys(list(islice(endless(stopped), at)))
    resumed = loader_of(stream)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert begun + keys(list(islice(endless(resumed), 20 - at))) == uninterrupted


def test_a_prefetched_batch_does_not_count(tmp_path: Path) -> None:
    loader = loader_of(stream_of(tmp_path / "s", [12]))
    batches = iter(loader)
    next(batches)
    next(batches)
    assert loader.position == {"epoch": 0, "batch": 0}
    loader.mark_used()
    assert loader.position == {"epoch": 0, "batch": 1}
    next(batches)
    assert next(batches, None) is None
    loader.mark_used()
    loader.mark_used()
    assert loader.position == {"epoch": 1, "batch": 0}


def test_only_the_rows_of_the_splits_are_read(tmp_path: Path) -> None:
    a = stream_of(tmp_path / "s", [7, 6], splits=("a",), split="part")
    assert sorted(int(key) for batch in read(loader_of(a)) for key in batch.keys) == [0, 2, 4, 6, 8, 10, 12]


def test_assigned_splits_are_those_of_the_same_table_by_rows(tmp_path: Path) -> None:
    shares = {"train": 0.5, "test": 0.5}
    stream = stream_of(tmp_path / "s", [30, 30], splits=("test",), group="n", split=shares)
    streamed = {int(key) for batch in read(loader_of(stream)) for key in batch.keys}
    by_row = Samples.of(f"{tmp_path}/s/*.jsonl", {"number": "n"}, key="n", group="n", split=shares)
    assert streamed == set(by_row.rows("test").tolist())


def test_without_shuffling_the_rows_are_in_order_and_unchanged(tmp_path: Path) -> None:
    batches = list(StreamedBatches(stream_of(tmp_path / "s", [3, 4]), PROCESSORS, 4, buffer=0, seed=0))
    assert keys(batches) == [("0", "1", "2", "3"), ("4", "5", "6")]
    assert [n for batch in batches for n in batch.inputs["number"]["x"].tolist()] == list(range(7))


def test_rejects_of_a_stream_are_recorded_and_too_many_stop_it(tmp_path: Path) -> None:
    stream = stream_of(tmp_path / "s", [10, 10])
    loader = loader_of(stream)
    assert sum(len(batch) for batch in read(loader)) == 19
    assert loader.rejects.reasons == {"unlucky": 1}
    strict = StreamLoader(StreamedBatches(stream, PROCESSORS, 4, 5, 0), Rejects(0.0, None))
    with pytest.raises(MultimodalError, match=r"1 of .* read so far rows cannot be read \(1 x unlucky\)"):
        list(strict)


def test_processors_are_fitted_on_the_beginning_of_the_stream(tmp_path: Path) -> None:
    assert list(stream_of(tmp_path / "s", [2, 3]).values("number", PROCESSORS["number"])) == [0, 1, 2, 3, 4]


def test_a_column_that_is_not_there_is_reported_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"key: .* has no column 'm'\. Known: n, part"):
        stream_of(tmp_path / "s", [2], key="m").check()


def test_a_file_without_the_column_of_splits_is_reported(tmp_path: Path) -> None:
    stream = stream_of(tmp_path / "s", [4, 4], ("a",), split="part")
    assert len(list(stream.rows())) == 4
    (tmp_path / "s" / "001.jsonl").write_text('{"n": 4}\n')
    with pytest.raises(UsageError, match=r"001\.jsonl has no column 'part', which names each row's split"):
        list(stream.rows())


def test_an_empty_file_among_others_has_no_rows(tmp_path: Path) -> None:
    stream = stream_of(tmp_path / "s", [2, 2, 2])
    for empty in ("000", "001"):
        (tmp_path / "s" / f"{empty}.jsonl").write_text("")
    stream.check()
    assert [row.cell("n") for row in stream.rows()] == [4, 5]
    (tmp_path / "s" / "002.jsonl").write_text("")
    with pytest.raises(UsageError, match="has no rows"):
        stream.check()


def test_class_names_are_rejected_in_a_stream(tmp_path: Path) -> None:
    stream_of(tmp_path / "s", [4], targets={"n": "n"}).check()
    with pytest.raises(UsageError, match=r"targets\.kind: the column 'part' has class names \(a, b, \.\.\.\)"):
        stream_of(tmp_path / "s", [4], targets={"kind": "part"}).check()


def test_a_split_without_rows_is_reported_at_the_first_epoch(tmp_path: Path) -> None:
    stream = stream_of(tmp_path / "s", [4, 4], ("c",), split="part")
    with pytest.raises(UsageError, match=r"has too few rows for a batch in the split 'c'\."):
        list(loader_of(stream))


def test_rows_of_files_of_one_name_are_distinguished(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    schema = Schema.from_settings({"number": "n"})
    stream = Stream(locate(f"{tmp_path}/*/p.jsonl"), schema, ("all",))
    assert len({row.name for row in stream.rows()}) == 4


def test_splits_of_a_stream_are_not_assigned_by_row_numbers(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"n": 1}\n')
    settings: dict[str, Any] = {"table": str(tmp_path / "p.jsonl"), "columns": {"number": "n"}, "access": "streamed"}
    with pytest.raises(UsageError, match=r"set split to the column .*, or group to the column"):
        DataModule(**settings)
    DataModule(**settings, group="n")
    with pytest.raises(UsageError, match="balance_pairs is not available with access: streamed"):
        DataModule(**settings, group="n", balance_pairs=True)
    with pytest.raises(UsageError, match="batch_size and eval_batch_size must be at least 1"):
        DataModule(**settings, group="n", batch_size=0)
    DataModule(**settings, split={"train": 1.0})
    DataModule(**settings, split="n")
