"""The LightningDataModule: loaders of ``Batch`` for the splits of a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import lightning.pytorch as pl
import numpy as np
from rich.console import Console
from rich.table import Table as RichTable
from torch.utils.data import DataLoader

from multimodal.core.batch import Batch
from multimodal.core.distributed import check_equal_over_ranks
from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.files import default_cache
from multimodal.core.html_table import html_table
from multimodal.core.predictors import TargetSummary
from multimodal.core.progress import progress
from multimodal.core.recording import Recorded
from multimodal.core.rejects import Rejects
from multimodal.core.run_folder import REJECTS
from multimodal.data.frozen_features import load_or_compute_features
from multimodal.data.loaders import CheckedLoader, ProcessedSamples, ResumableLoader, ordered_loader
from multimodal.data.modality_drop import check_modality_drop
from multimodal.data.pair_checks import (
    check_batches,
    check_training_pairs,
    check_validation_pairs,
    pair_coverage_table,
    pairs_without_rows,
    warn_of_first_rows,
)
from multimodal.data.position import repeated_batches, resumed_position
from multimodal.data.samplers import BALANCE_BELOW, BatchSampler, EpochSampler, PairSampler, coverage, rows_with_pairs
from multimodal.data.samples import Samples
from multimodal.data.schema import Schema
from multimodal.data.stream import Stream, StreamedBatches, StreamLoader
from multimodal.data.tables.open import Access, locate
from multimodal.data.targets import class_names, summarise, unknown_names
from multimodal.data.trained_model import TrainedModel

CHECKED_ROWS = 100  # of a stream, in which a pair of modalities is looked for
MAX_NAMES_SHOWN = 3


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
        targets: name of a supervised target -> its column, for objectives with heads: a number, a list of numbers, a class
            name, or a list of labels' names. The names are those of the training split.
        negatives: modality -> the column, or columns, with hard negatives: values that are similar to the row's but do not
            match it.
        options: settings of the table's reader, named as in the datasets library (delimiter, encoding, ...).
        access: "mapped" from disk, in "memory", or "streamed": training reads the files sequentially.
        approved: a table of suspected faults that `multimodal faults` wrote, with yes in the column approve of those that are
            right: rows of one item become one group, in one split; mismatched rows are left out. Not available for streams.
        buffer: rows of a stream that are shuffled together.
        epoch: what an epoch contains: "groups", one random row of each, so that all groups count the same and those of a
            batch differ; or "rows", all of them, so that a batch may hold several rows of a group. Streams contain all rows.
        balance_pairs: give every pair of modalities that the objective compares the same share of each batch; null: only
            if fewer than half of the groups have some pair. Not available for streams.
        modality_drop: modality -> the fraction of the training rows, in [0, 1), that it is left out of, drawn again each
            time: so that a model does without it, or to save the time of an encoder that is costly and learns fast.
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
        "approved": "'faults.csv'",
        "targets": "{'price': 'price'}",
        "negatives": "{'text': 'wrong_title'}",
        "modality_drop": "{'graph': 0.75}",
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
        approved: str | None = None,
        buffer: int = 10_000,
        epoch: Literal["groups", "rows"] = "groups",
        balance_pairs: bool | None = None,
        modality_drop: dict[str, float] | None = None,
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
        check_modality_drop(modality_drop or {}, columns)
        if self.source is not None and balance_pairs:
            raise UsageError(
                "balance_pairs is not available with access: streamed, as the rows of each pair are not known in"
                " advance. Leave it out, or read the table with access: mapped."
            )
        if self.source is not None and approved is not None:
            raise UsageError(
                "approved is not available with access: streamed, as rows are not known in advance. Read the table with"
                " access: mapped."
            )
        if batch_size < 1 or eval_batch_size < 1:
            raise UsageError(
                f"batch_size and eval_batch_size must be at least 1, got {batch_size} and {eval_batch_size}."
            )
        if workers < 0:
            raise UsageError(f"workers must be 0 (the training process reads) or more, got {workers}.")
        self._table = (table, self.schema, options or {}, access)
        self._samples: Samples | None = None
        self._train_loader: ResumableLoader | StreamLoader | None = None
        self._position: dict[str, int] | None = None  # where a resumed training continues
        if self.source is None:
            self._samples = Samples(*self._table, approved=approved)
        self.buffer, self.balance_pairs, self.max_rejects = buffer, balance_pairs, max_rejects
        self.epoch, self.modality_drop = epoch, modality_drop or {}
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
        if self.source is None and self.schema.targets:
            self._number_classes(self.test_split if stage == "test" else self.validation_split)
        if stage != "fit":
            return
        assert self.trainer is not None
        if (
            self.trainer.ckpt_path is None and self.trainer.is_global_zero
        ):  # a new run: discard the rejects of an old one
            self._rejects_file.unlink(missing_ok=True)
        if self.source is None and self.samples.approved is not None and self.trainer.is_global_zero:
            print(self.samples.approved, file=sys.stderr)
        if self.source is None and len(self._processors) > 1 and self.trainer.limit_val_batches:
            rows = self.samples.rows(self.validation_split)
            missing, pairs = pairs_without_rows(self._present(rows), groups=self.samples.group_numbers[rows])
            check_validation_pairs(self.validation_split, missing if self.trainer.is_global_zero else [], pairs)
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

    def _number_classes(self, evaluated: str | list[str]) -> None:
        """Number the classes of the training split, and say which others the evaluated split has."""
        samples = self.samples
        names = {name: class_names(samples.target_cells(name, self.train_split)) for name in self.schema.targets}
        self._samples = samples = samples.with_class_names(names)
        assert self.trainer is not None
        for target, classes in samples.classes.items() if self.trainer.is_global_zero else ():
            if others := unknown_names(samples.target_cells(target, evaluated), classes):
                print(
                    f"Warning: the target {target!r} has {', '.join(map(repr, list(others)[:MAX_NAMES_SHOWN]))}"
                    f"{', ...' if len(others) > MAX_NAMES_SHOWN else ''} in the split {evaluated!r}, which no row to train on"
                    f" has; counted as not known: {sum(others.values()):,}.",
                    file=sys.stderr,
                )

    def target_summary(self, name: str) -> TargetSummary:
        """Summarise a target in the training split; for a stream, in its first rows.

        Raises:
            UsageError: ``targets`` does not name it, or no row has it.
        """
        if name not in self.schema.targets:
            raise UsageError(
                f"The objective predicts {name!r}, for which data.targets names no column."
                f"{suggest(name, list(self.schema.targets))}"
            )
        if self.source is not None:
            return summarise(name, self._stream(self.train_split).target_cells(name), (), complete=False)
        classes = self.samples.classes.get(name, {})
        return summarise(name, self.samples.target_cells(name, self.train_split), list(classes))

    @property
    def _module(self) -> TrainedModel:
        if self.trainer is None:
            raise UsageError("The data module needs a trainer, as its processors belong to the trainer's module.")
        return cast(TrainedModel, self.trainer.lightning_module)

    @property
    def _processors(self) -> Mapping[str, Processor]:
        return self._module.embedder.processors

    def resume_at(self, position: Mapping[str, Any]) -> bool:
        """Continue at a position that a loader of training batches saved.

        Args:
            position: the loader's ``state_dict``.

        Returns:
            Whether the place in the epoch holds; see ``resumed_position``.
        """
        assert self.trainer is not None
        order, end = self._training_order()
        self._position, holds = resumed_position(position, order, end, self.trainer.is_global_zero)
        if self._train_loader is not None:  # made before the checkpoint was read
            self._train_loader.load_state_dict(self._position)
        return holds

    def _training_order(self) -> tuple[dict[str, int], int | None]:
        """Return what the order of the training rows depends on, and the batches of an epoch if they are known."""
        if self.source is not None:
            return self._training_stream().order, None
        sampler = self._sampler(self.samples.rows(self.train_split))[0]
        return sampler.order, repeated_batches(self._overfit_batches, len(sampler)) or len(sampler)

    @property
    def _distributed_position(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"seed": self._module.seed, "rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _training_stream(self) -> StreamedBatches:
        return StreamedBatches(
            self._stream(self.train_split),
            self._processors,
            self.batch_size,
            max(self.buffer, 1),
            **self._distributed_position,
            micro_batch=self.micro_batch,
            drop=self.modality_drop,
        )

    @property
    def _overfit_batches(self) -> int | float:
        return self.trainer.overfit_batches  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]

    def train_dataloader(self) -> ResumableLoader | StreamLoader:
        trainer = self.trainer
        assert trainer is not None
        compared = self._module.compared_pairs if len(self._processors) > 1 else set()
        endless = trainer.limit_train_batches != 1.0
        if self.source is not None:
            if self._overfit_batches:
                raise UsageError("overfit_batches is not available with access: streamed; use access: mapped.")
            batches = self._training_stream()
            batches.stream.check()
            if compared:
                check_batches(self.train_split, self.batch_size, None)
                if trainer.is_global_zero:
                    first = self._present_in_stream(batches.stream)
                    warn_of_first_rows(batches.stream.source.name, self.train_split, first, compared)
            self._train_loader = StreamLoader(batches, self._rejects(None), endless, **self._worker_options())
        else:
            rows = self.samples.rows(self.train_split)
            sampler, by_rows, balanced = self._sampler(rows)
            if compared:
                groups = self.samples.group_numbers[rows]
                check_batches(self.train_split, self.batch_size, len(np.unique(groups)))
                missing, pairs = pairs_without_rows(self._present(rows), compared, groups if by_rows else None)
                if missing and (len(missing) == pairs or (trainer.is_global_zero and not balanced)):
                    check_training_pairs(self.train_split, missing, pairs, by_rows)
            if not len(sampler):
                raise MultimodalError(
                    f"The split {self.train_split!r} has {len(rows)} rows, too few for a batch with batch_size"
                    f" {self.batch_size}: further rows of a group, and rows without a pair of modalities, do not count."
                    " Lower batch_size."
                )
            check_equal_over_ranks("rows and batches to train on", (len(rows), len(sampler)))
            if balanced is not None and trainer.is_global_zero:
                Console(stderr=True).print(balanced)
            self._train_loader = ResumableLoader(
                ProcessedSamples(self.samples, self._with_frozen_features(rows), self.keep_items, self.modality_drop),
                sampler,
                self._rejects(len(self.samples)),
                self.micro_batch,
                endless,
                repeated_batches(self._overfit_batches, len(sampler)),
                **self._worker_options(),
            )
        if self._position is not None:
            self._train_loader.load_state_dict(self._position)
        return self._train_loader

    def _present(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return modality -> which of the rows have it."""
        return {modality: self.samples.present(modality)[rows] for modality in self._processors}

    def _present_in_stream(self, stream: Stream) -> dict[str, np.ndarray]:
        """Return modality -> which of the first rows have it."""
        rows = list(islice(stream.rows(), CHECKED_ROWS))
        columns = self.schema.columns
        return {
            m: np.array([any(row.cell(c) is not None for c in columns[m]) for row in rows], bool)
            for m in self._processors
        }

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if isinstance(self._train_loader, StreamLoader) and self.trainer is not None and self.trainer.training:
            self._train_loader.mark_used()
        return batch

    def _sampler(self, rows: np.ndarray) -> tuple[BatchSampler, bool, RichTable | None]:
        """Return the sampler of training rows, whether a batch may hold several rows of a group, and a table if balanced."""
        groups = self.samples.group_numbers[rows]
        rows_with_pair = rows_with_pairs(self._present(rows), self._module.trained_pairs)
        coverage_by_pair = coverage(groups, rows_with_pair)
        if self.balance_pairs is None:
            fractions = coverage_by_pair.values()
            balance = bool(fractions) and min(fractions) < BALANCE_BELOW and max(fractions) > 0
        else:
            balance = self.balance_pairs
        by_rows = self.epoch == "rows" or len(np.unique(groups)) < self.batch_size  # groups cannot fill a batch
        if by_rows:
            groups = np.arange(len(rows))
        if not balance:
            return EpochSampler(rows, groups, self.batch_size, **self._distributed_position), by_rows, None
        sampler = PairSampler(rows, groups, rows_with_pair, self.batch_size, **self._distributed_position)
        return sampler, by_rows, pair_coverage_table(coverage_by_pair, len(sampler.groups_by_pair))

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
