"""Retrieval while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import permutations
from statistics import fmean
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from multimodal.core.batch import Batch
from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.render import retrieval_table
from multimodal.evaluation.retrieval import MEASURES, retrieval

MONITORED_METRIC = "val/recall@1"
LOGGED = [name for name in MEASURES if name not in ("queries", "pool")]


class RetrievalMonitor(Callback):
    """Log the recalls of the validation or test split for every pair of modalities and print them as a table.

    The mean of recall@1 over all ordered pairs is logged as ``val/recall@1``, by which the best model is chosen. With
    several processes, each evaluates the full split, and the means over the processes are logged, so that all processes
    choose the same model.

    Examples:
        >>> RetrievalMonitor().monitor
        'val/recall@1'
    """

    monitor = MONITORED_METRIC
    mode: Literal["max", "min"] = "max"

    def __init__(self) -> None:
        self._parts: list[Embeddings] = []

    def metrics(self, pl_module: pl.LightningModule) -> set[str]:
        """Return the metrics that a validation of all pairs of modalities logs.

        Args:
            pl_module: a module with an ``embedder``.
        """
        embedder: Any = pl_module.embedder
        pairs = permutations(embedder.modalities, 2)
        return {self.monitor} | {f"val/{a}->{b}/{name}" for a, b in pairs for name in LOGGED}

    def _start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._parts = []

    def _collect(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._parts.append(outputs)

    on_validation_epoch_start = on_test_epoch_start = _start
    on_validation_batch_end = on_test_batch_end = _collect  # pyright: ignore[reportAssignmentType]

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(
            trainer, partial(pl_module.log, sync_dist=True), "val", f"Validation at step {trainer.global_step}"
        )

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, partial(pl_module.log, sync_dist=True), "test", "Test")

    def _report(self, trainer: pl.Trainer, log: Callable[[str, float], None], stage: str, title: str) -> None:
        results = retrieval(Embeddings.cat(self._parts))
        self._parts = []
        if not results:
            return
        for pair, r in results.items():
            for name, value in r.to_json().items():
                if name in LOGGED:
                    log(f"{stage}/{pair}/{name}", value)
        log(f"{stage}/recall@1", fmean(r.recall_at_1 for r in results.values()))
        if trainer.is_global_zero and not trainer.sanity_checking:
            Console(stderr=True).print(retrieval_table(results, title))
