"""The LightningDataModule: loaders of ``Batch`` for the splits of a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import lightning.pytorch as pl
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from torch.utils.data import DataLoader

from multimodal.core.batch import Batch
from multimodal.core.distributed import check_equal_over_ranks
from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.files import default_cache
from multimodal.core.html_table import html_table
from multimodal.core.progress import progress
from multimodal.core.recording import Recorded
from multimodal.core.rejects import Rejects
from multimodal.core.run_folder import REJECTS
from multimodal.data.frozen_features import load_or_compute_features
from multimodal.data.loaders import CheckedLoader, ProcessedSamples, ResumableLoader, ordered_loader
from multimodal.data.samplers import BALANCE_BELOW, BatchSampler, EpochSampler, PairSampler, coverage, rows_with_pairs
from multimodal.data.samples import Samples
from multimodal.data.schema import Schema
from multimodal.data.stream import Stream, StreamedBatches, StreamLoader
from multimodal.data.tables.open import Access, locate
from multimodal.data.trained_model import TrainedModel


class DataModule(Recorded, pl.LightningDataModule):
    """Data module with batches for the modalities of the trainer's module.

    The processors belong to the module. Processors that need fitting (such as a tokenizer) are fitted on the training split
    when training starts, and loaded from the checkpoint when it resumes.

    Args:
        table: "glyphs"; a CSV, TSV, JSON Lines or Parquet file, WebDataset tar shards or a pattern for several files; a
            folder of such files, of a saved ``datasets`` data set or of any files; an fsspec URL; hf:OWNER/NAME.
        columns: modality -> its column. Several columns are alternatives: training draws one each time, evaluation uses
            all, as one group. price+colour is one value of both columns, for encoders of rows.
        key: the column that names a row; null: the row number.
        group: the column whose equal values make rows positives of each other; null: every row has its own group.
        split: the column that names each row's split, or shares like {train: 0.9, test: 0.1} to which groups are assigned
            at random; null: 80 % train, 10 % validation, 10 % test.
        split_seed: seed of this assignment.
        targets: name of a supervised target -> its column, for objectives with heads: a number, a list of numbers, or a
            class name.
        negatives: modality -> the column, or columns, with hard negatives: values that are similar to the row's but do not
            match it.
        options: settings of the table's reader, named as in the datasets library (delimiter, encoding, ...).
        access: "mapped" from disk, in "memory", or "streamed": training reads the files sequentially.
        buffer: rows of a stream that are shuffled together.
        epoch: what an epoch contains: "groups", one random row of each, so that all groups count the same and those of a
            batch differ; or "rows", all of them, so that a batch may hold several rows of a group. Streams contain all rows.
        balance_pairs: give every pair of modalities that the objective compares the same share of each batch; null: only
            if fewer than half of the groups have some pair. Not available for streams.
        max_rejects: fraction of the rows, in [0, 1], that may be unreadable before the run stops.
        train: the split to train on, or several splits.
        validation: the split to validate on during training.
        test: the split that ``test`` and ``evaluate`` use by default.
        batch_size: rows in a training batch, over all devices.
        micro_batch: rows of a device's batch that are embedded at a time, so that memory does not grow with the batch size;
            the gradients are those of the full batch. null: all rows at once.
        eval_batch_size: rows in a batch of the other splits; it affects the speed only, not the results.
        workers: processes that read and process samples; 0: the training process does it.
        keep_items: keep the processed training rows in memory, for small data that is slow to read.

    Raises:
        UsageError: a setting is invalid, settings exclude each other, or there is no such table or column.

    Examples:
        >>> data = DataModule([{"title": "a red cup", "part": "train"}], {"text": "title"}, split="part")
        >>> len(data.samples), data.samples.rows("train").tolist()
        (1, [0])
    """

    argument_examples: ClassVar[Mapping[str, str]] = {
        "columns": "{'image': 'picture', 'text': 'title'}",
        "group": "'product'",
        "split": "{'train': 0.9, 'validation': 0.05, 'test': 0.05}",
        "targets": "{'price': 'price'}",
        "negatives": "{'text': 'wrong_title'}",
        "options": "{'delimiter': ';'}",
    }

    def __init__(
        self,
        table: Any,
        columns: dict[str, str | list[str]],
        key: str | None = None,
        group: str | None = None,
        split: str | dict[str, float] | None = None,
        split_seed: int = 0,
        targets: dict[str, str] | None = None,
        negatives: dict[str, str | list[str]] | None = None,
        options: dict[str, Any] | None = None,
        access: Access = "mapped",
        buffer: int = 10_000,
        epoch: Literal["groups", "rows"] = "groups",
        balance_pairs: bool | None = None,
        max_rejects: float = 0.01,
        train: str | list[str] = "train",
        validation: str | list[str] = "validation",
        test: str | list[str] = "test",
        batch_size: int = 256,
        micro_batch: int | None = None,
        eval_batch_size: int = 256,
        workers: int = 0,
        keep_items: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= max_rejects <= 1:
            raise UsageError(f"max_rejects is a fraction of the rows, in [0, 1]; got {max_rejects}.")
        if isinstance(table, os.PathLike):
            table = os.fspath(table)
        if access == "streamed" and not isinstance(table, str):
            raise UsageError("access: streamed is for tables of files; leave it out for a table in memory.")
        self.source = locate(table, options) if access == "streamed" else None
        self.schema = Schema.from_settings(columns, key, group, split, split_seed, targets, negatives)
        if self.source is not None and group is None and not isinstance(split, str) and len(self.schema.split) > 1:
            raise UsageError(
                "A streamed table is split by a column: set split to the column that names each row's split, or"
                " group to the column whose values are assigned to splits."
            )
        if self.source is not None and balance_pairs:
            raise UsageError(
                "balance_pairs is not available with access: streamed, as the rows of each pair are not known in"
                " advance. Leave it out, or read the table with access: mapped."
            )
        if batch_size < 1 or eval_batch_size < 1:
            raise UsageError(
                f"batch_size and eval_batch_size must be at least 1, got {batch_size} and {eval_batch_size}."
            )
        if workers < 0:
            raise UsageError(f"workers must be 0 (the training process reads) or more, got {workers}.")
        self._table = (table, self.schema, options or {}, access)
        self._samples: Samples | None = None
        self._stream_loader: StreamLoader | None = None
        if self.source is None:
            self._samples = Samples(*self._table)
        self.buffer, self.balance_pairs, self.max_rejects = buffer, balance_pairs, max_rejects
        self.epoch = epoch
        self.train_split, self.validation_split, self.test_split = train, validation, test
        if micro_batch is not None and micro_batch < 1:
            raise UsageError(f"micro_batch must be at least 1, got {micro_batch}.")
        self.micro_batch = micro_batch
        self.keep_items = keep_items
        self.batch_size, self.eval_batch_size, self.workers = batch_size, eval_batch_size, workers

    def __repr__(self) -> str:
        columns = self.schema.columns_text
        if self.source is not None:
            return f"DataModule of the stream {self.source.name!r}: {columns}"
        splits = ", ".join(f"{name} {len(rows):,}" for name, rows in self.samples.splits.items())
        return f"DataModule of {self.samples.name!r}: {columns}; rows: {splits}"

    __str__ = __repr__  # Lightning's lists the loaders

    def _repr_html_(self) -> str:
        """The columns, and the rows of the splits unless the table is streamed, for a notebook."""
        columns = [(modality, " or ".join(names)) for modality, names in self.schema.columns.items()]
        if self.source is not None:
            return html_table(("modality", "column"), columns, f"DataModule of the stream {self.source.name!r}")
        splits = [(name, f"{len(rows):,}") for name, rows in self.samples.splits.items()]
        title = f"DataModule of {self.samples.name!r}"
        return html_table(("modality", "column"), columns, title) + html_table(("split", "rows"), splits)

    @property
    def samples(self) -> Samples:
        """The samples, by row number; a streamed table is opened when they are first used."""
        if self._samples is None:
            self._samples = Samples(*self._table)
        return self._samples

    def setup(self, stage: str) -> None:
        """Check that splits and modalities exist, and fit the processors on the training split.

        Raises:
            UsageError: a modality has no column, or the validation split has no pair of modalities.
        """
        for modality in self._processors:
            if modality not in self.schema.columns:
                raise UsageError(
                    f"The model has an encoder for {modality!r}, but columns names none for it;"
                    f" have {list(self.schema.columns)}."
                )
        if stage != "fit":
            return
        assert self.trainer is not None
        if (
            self.trainer.ckpt_path is None and self.trainer.is_global_zero
        ):  # a new run: discard the rejects of an old one
            self._rejects_file.unlink(missing_ok=True)
        if self.source is None and len(self._processors) > 1:
            rows = self.samples.rows(self.validation_split)
            present = [m for m in self._processors if self.samples.present(m)[rows].any()]
            if len(present) < 2:
                raise UsageError(
                    f"The split {self.validation_split!r} has no pair of modalities to validate with, only"
                    f" {present or 'no modality'}: set validation to another split."
                )
        embedder = self._module.embedder
        for modality in embedder.encoders:
            if not embedder.encoder(modality).processor.state():
                shared = embedder.modalities_sharing(modality)
                with progress(f"Fitting the processor of {modality}"):
                    embedder.fit_processors({m: self.training_values(m) for m in shared})

    def training_values(self, modality: str) -> Iterator[Any]:
        """Return the raw values of a modality in the training split; for a stream, in its first rows."""
        processor = self._processors[modality]
        if self.source is not None:
            return self._stream(self.train_split).values(modality, processor)
        return self.samples.values(modality, self.samples.rows(self.train_split), processor)

    @property
    def _module(self) -> TrainedModel:
        if self.trainer is None:
            raise UsageError("The data module needs a trainer, as its processors belong to the trainer's module.")
        return cast(TrainedModel, self.trainer.lightning_module)

    @property
    def _processors(self) -> Mapping[str, Processor]:
        return self._module.embedder.processors

    def train_dataloader(self) -> ResumableLoader | StreamLoader:
        trainer = self.trainer
        assert trainer is not None
        distributed_position = {
            "seed": self._module.seed,
            "rank": trainer.global_rank,
            "world_size": trainer.world_size,
        }
        if self.source is not None:
            stream = self._stream(self.train_split)
            stream.check()
            batches = StreamedBatches(
                stream,
                self._processors,
                self.batch_size,
                max(self.buffer, 1),
                **distributed_position,
                micro_batch=self.micro_batch,
            )
            self._stream_loader = StreamLoader(batches, self._rejects(None), **self._worker_options())
            return self._stream_loader
        rows = self.samples.rows(self.train_split)
        sampler = self._sampler(rows, **distributed_position)
        if not len(sampler):
            raise MultimodalError(
                f"The split {self.train_split!r} has {len(rows)} rows, too few for a batch with batch_size"
                f" {self.batch_size}: further rows of a group, and rows without a pair of modalities, do not count. Lower"
                " batch_size."
            )
        check_equal_over_ranks("rows and batches to train on", (len(rows), len(sampler)))
        rejects = self._rejects(len(self.samples))
        return ResumableLoader(
            ProcessedSamples(self.samples, self._with_frozen_features(rows), self.keep_items),
            sampler,
            rejects,
            self.micro_batch,
            **self._worker_options(),
        )

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self._stream_loader is not None and self.trainer is not None and self.trainer.training:
            self._stream_loader.mark_used()
        return batch

    def _sampler(self, rows: np.ndarray, **distributed_position: int) -> BatchSampler:
        groups = self.samples.group_numbers[rows]
        has = {modality: self.samples.present(modality)[rows] for modality in self._processors}
        rows_with_pair = rows_with_pairs(has, self._module.trained_pairs)
        coverage_by_pair = coverage(groups, rows_with_pair)
        if self.balance_pairs is None:
            fractions = coverage_by_pair.values()
            balance = bool(fractions) and min(fractions) < BALANCE_BELOW and max(fractions) > 0
        else:
            balance = self.balance_pairs
        if self.epoch == "rows" or len(np.unique(groups)) < self.batch_size:  # one row per group cannot fill a batch
            groups = np.arange(len(rows))
        if not balance:
            return EpochSampler(rows, groups, self.batch_size, **distributed_position)
        sampler = PairSampler(rows, groups, rows_with_pair, self.batch_size, **distributed_position)
        assert self.trainer is not None
        if self.trainer.is_global_zero:
            Console(stderr=True).print(_pair_coverage_table(coverage_by_pair, len(sampler.groups_by_pair)))
        return sampler

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.split_loader(self.validation_split)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.split_loader(self.test_split)

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self.split_loader("all")

    def split_loader(self, split: str | list[str]) -> CheckedLoader:
        """Create a loader of a split, or of several splits, in row order and without augmentation."""
        if self.source is not None:
            batches = StreamedBatches(self._stream(split), self._processors, self.eval_batch_size, buffer=0, seed=0)
            return CheckedLoader(batches, self._rejects(None), batch_size=None, **self._worker_options())
        rows = self.samples.rows(split)
        rejects = self._rejects(len(self.samples))
        return ordered_loader(
            self.samples, rows, self._with_frozen_features(rows), self.eval_batch_size, rejects, self._worker_options()
        )

    def _with_frozen_features(self, rows: np.ndarray) -> Mapping[str, Processor]:
        """Return the processors, with lookups of cached features in place of frozen encoders' processors."""
        embedder, trainer = self._module.embedder, self.trainer
        assert trainer is not None
        processors = dict(self._processors)
        for modality in sorted(self._module.frozen):
            columns = [*self.schema.columns[modality], *self.schema.negatives.get(modality, ())]
            with progress(f"Computing the features of {modality}", len(rows) * len(columns)) as advance:
                processors[modality] = load_or_compute_features(
                    embedder.encoder(modality),
                    self.samples,
                    modality,
                    rows,
                    default_cache() / "frozen",
                    trainer.precision_plugin.forward_context,
                    self._rejects(len(self.samples)),
                    {"num_workers": self.workers},
                    self.eval_batch_size,
                    (trainer.global_rank, trainer.world_size),
                    advance,
                )
                trainer.strategy.barrier()
        return processors

    def _stream(self, split: str | list[str]) -> Stream:
        assert self.source is not None
        return Stream(self.source, self.schema, (split,) if isinstance(split, str) else tuple(split))

    def _rejects(self, rows: int | None) -> Rejects:
        return Rejects(self.max_rejects, rows, self._rejects_file)

    @property
    def _rejects_file(self) -> Path:
        assert self.trainer is not None
        return Path(self.trainer.default_root_dir) / REJECTS

    def _worker_options(self) -> dict[str, Any]:
        assert self.trainer is not None
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        return {"num_workers": self.workers, "persistent_workers": self.workers > 0, "pin_memory": on_gpu}


def _pair_coverage_table(coverage_by_pair: Mapping[str, float], pairs: int) -> RichTable:
    table = RichTable(
        "pair", "groups that have it", "share of a batch",
        title="Pairs of modalities, balanced in each batch", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for pair, fraction in coverage_by_pair.items():
        table.add_row(pair, f"{fraction:.1%}", f"{1 / pairs:.1%}" if fraction else "0 (no group has it)")
    return table
