"""The LightningDataModule: a table's splits as loaders of ``Batch``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader

from multimodal.core.batch import Batch
from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.loading import EpochSampler, ProcessedSamples, ResumableLoader, ordered_loader
from multimodal.data.samples import Samples


class DataModule(pl.LightningDataModule):
    """Batches for the modalities of the trainer's module.

    The processors are the module's; those that learn from data (a tokenizer) are fitted on the training split when
    training begins, and come from the checkpoint when it resumes.

    Args:
        table: the table's name.
        columns: modality -> the column that holds it.
        key: the column that names a row; null: the row number.
        group: the column whose equal values make rows positives of each other; null: none are.
        split: the column that names each row's split; null: there is one split, "all".
        train: the split to train on.
        validation: the split to validate on while training.
        test: the split that ``test`` and ``evaluate`` take if they are given no other.
        batch_size: rows in a training batch, over all devices.
        eval_batch_size: rows in a batch of the other splits; it changes the speed, never a result.
        workers: processes that read and process samples; 0: the training process does it.
    """

    def __init__(
        self,
        table: str,
        columns: dict[str, str],
        key: str | None = None,
        group: str | None = None,
        split: str | None = None,
        train: str = "train",
        validation: str = "validation",
        test: str = "test",
        batch_size: int = 256,
        eval_batch_size: int = 256,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.samples = Samples(table, columns, key, group, split)
        self.train_split, self.validation_split, self.test_split = train, validation, test
        self.batch_size, self.eval_batch_size, self.workers = batch_size, eval_batch_size, workers

    def setup(self, stage: str) -> None:
        """Check that splits and modalities are there, and fit the processors on the training split."""
        modalities = list(self._processors)
        for modality in modalities:
            if modality not in self.samples.columns:
                raise UsageError(
                    f"The model has an encoder for {modality!r}, but data.columns names none;"
                    f" have {self.samples.modalities}."
                )
        if stage != "fit":
            return
        rows = self.samples.rows(self.train_split)
        for modality, processor in self._processors.items():
            if not processor.state():
                processor.fit(self.samples.values(modality, rows))

    @property
    def _module(self) -> Any:  # an EmbedderModule, which this layer does not know
        if self.trainer is None:
            raise UsageError("The data module needs a trainer: its processors are those of the trainer's module.")
        return self.trainer.lightning_module

    @property
    def _processors(self) -> Mapping[str, Processor]:
        return self._module.embedder.processors

    def train_dataloader(self) -> ResumableLoader:
        assert self.trainer is not None
        rows = self.samples.rows(self.train_split)
        groups = np.array([self.samples.group_of(row) for row in rows.tolist()])
        sampler = EpochSampler(
            rows,
            groups,
            self.batch_size,
            seed=self._module.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        if not len(sampler):
            raise MultimodalError(
                f"The split {self.train_split!r} has {len(np.unique(groups))} groups, fewer than batch_size"
                f" {self.batch_size}; an epoch takes one row of each. Lower data.batch_size."
            )
        return ResumableLoader(ProcessedSamples(self.samples, self._processors), sampler, **self._worker_options())

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.split_loader(self.validation_split)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.split_loader(self.test_split)

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self.split_loader("all")

    def split_loader(self, split: str) -> DataLoader[Batch]:
        """A split in the order of its rows, without augmentation."""
        return ordered_loader(
            self.samples, self.samples.rows(split), self._processors, self.eval_batch_size, self._worker_options()
        )

    def _worker_options(self) -> dict[str, Any]:
        assert self.trainer is not None
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        return {"num_workers": self.workers, "persistent_workers": self.workers > 0, "pin_memory": on_gpu}
