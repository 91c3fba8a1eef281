"""Retrieval while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations, permutations
from statistics import fmean
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console

from multimodal.core.batch import Batch
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.data.samples import Samples
from multimodal.evaluation.geometry import effective_rank, modality_gap, modality_means
from multimodal.evaluation.render import retrieval_grid
from multimodal.evaluation.retrieval import MEASURES, retrieval
from multimodal.evaluation.sample_searches import SampleSearches

MONITORED_METRIC = "val/recall@1"
LOGGED = [name for name in MEASURES if name not in ("queries", "pool")]
MEANS = ("recall@1", "recall@5", "recall@10", "mrr")  # that are also averaged over all pairs
MOST_DRAWN = 6  # pairs of modalities, of which searches are drawn
MOST_RANKED = 2_000  # vectors, by which the effective rank is measured
LOWER_IS_BETTER = ("median_rank", "mean_rank", "gap")


class RetrievalMonitor(Callback):
    """Log the recalls of the validation or test split for every pair of modalities and print them as a table.

    For each ordered pair, all measures of ``Retrieval`` are logged, as ``val/text->image/recall@1``; the means of the recalls
    and of the MRR over all pairs, as ``val/recall@1``; and of the space, ``val/image-text/gap`` and
    ``val/text/effective_rank``. TensorBoard also shows a few searches as pictures. With several processes, each evaluates the
    full split, and the means over the processes are logged, so that all processes choose the same model.

    Args:
        monitor: the metric by which the best model is chosen.
        mode: whether a higher ("max") or a lower value ("min") is better. None: lower for ranks and the gap, else higher.

    Raises:
        UsageError: the metric is not one of the validation.

    Examples:
        >>> RetrievalMonitor().monitor
        'val/recall@1'
        >>> RetrievalMonitor("val/text->image/mean_rank").mode
        'min'
    """

    def __init__(self, monitor: str = MONITORED_METRIC, mode: Literal["max", "min"] | None = None) -> None:
        if not monitor.startswith("val/"):
            raise UsageError(
                f"The best model is chosen by a metric of the validation, like {MONITORED_METRIC}, got {monitor!r}."
            )
        self.monitor = monitor
        lower = monitor.rpartition("/")[2] in LOWER_IS_BETTER
        self.mode: Literal["max", "min"] = mode or ("min" if lower else "max")
        self._parts: list[Embeddings] = []
        self._searches: SampleSearches | None = None

    def metrics(self, pl_module: pl.LightningModule) -> set[str]:
        """Return the metrics that a validation of all pairs of modalities logs.

        Args:
            pl_module: a module with an ``embedder``.
        """
        embedder: Any = pl_module.embedder
        modalities = embedder.modalities
        return {
            *(f"val/{name}" for name in MEANS),
            *(f"val/{a}->{b}/{name}" for a, b in permutations(modalities, 2) for name in LOGGED),
            *(f"val/{a}-{b}/gap" for a, b in combinations(modalities, 2)),
            *(f"val/{m}/effective_rank" for m in modalities),
        }

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
        embeddings = Embeddings.cat(self._parts)
        results = retrieval(embeddings)
        self._parts = []
        if not results:
            return
        for pair, r in results.items():
            for name, value in r.to_json().items():
                if name in LOGGED:
                    log(f"{stage}/{pair}/{name}", value)
        for name in MEANS:
            log(f"{stage}/{name}", fmean(r.to_json()[name] for r in results.values()))
        means = modality_means(embeddings)
        for a, b in combinations(embeddings.modalities, 2):
            log(f"{stage}/{a}-{b}/gap", modality_gap(means, a, b))
        for modality, vectors in embeddings.vectors.items():
            if vectors.isfinite().all():
                log(f"{stage}/{modality}/effective_rank", effective_rank(vectors[:MOST_RANKED]))
        if trainer.is_global_zero and not trainer.sanity_checking:
            Console(stderr=True).print(retrieval_grid(results, title).table())
            self._draw(trainer, embeddings, [pair.split("->") for pair in results], stage)

    def _draw(self, trainer: pl.Trainer, embeddings: Embeddings, pairs: list[list[str]], stage: str) -> None:
        """Send pictures of a few searches to TensorBoard, where the rows are known."""
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        samples = getattr(getattr(trainer, "datamodule", None), "samples", None)
        if not boards or not isinstance(samples, Samples) or not embeddings.keys:
            return
        if self._searches is None:
            self._searches = SampleSearches(samples)
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                _ = logger.experiment.log_dir  # it makes its folder first: it warns of one with files
        for query, found in pairs[:MOST_DRAWN]:
            picture = np.asarray(self._searches.draw(embeddings.to("cpu"), query, found))
            for board in boards:
                board.experiment.add_image(f"{stage}/{query}->{found}", picture, trainer.global_step, dataformats="HWC")
