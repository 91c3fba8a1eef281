"""What watches a training run: what is trained, how fast, the best model, Ctrl-C."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich import box
from rich.console import Console
from rich.table import Table

from multimodal.core.batch import Batch
from multimodal.core.errors import MultimodalError
from multimodal.core.pretrained import RUN_MODEL
from multimodal.training.base import TrainingModule, log_interval
from multimodal.training.sharding import is_sharded, whole

Mode = Literal["max", "min"]


class Throughput(Callback):
    """Logs ``train/samples_per_second`` since the last log, validation left out."""

    def __init__(self) -> None:
        self._samples, self._seconds, self._since = 0, 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()  # an epoch that is resumed in the middle does not start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self._samples += len(batch) * trainer.world_size
        self._seconds += now - self._since
        self._since = now
        if trainer.global_step % log_interval(trainer) == 0:
            pl_module.log("train/samples_per_second", self._samples / self._seconds, prog_bar=True)
            self._samples, self._seconds = 0, 0.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()


class Summary(Callback):
    """Prints what is trained: each modality's encoder with its parameters, before the first step."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if not trainer.is_global_zero:
            return
        table = Table("modality", "encoder", "parameters", "trained", "features", box=box.SIMPLE_HEAD, pad_edge=False)
        ever = {id(parameter) for parameter in pl_module.trained}  # at some step
        for modality in pl_module.embedder.modalities:
            encoder = pl_module.embedder.encoder(modality)
            count = sum(p.numel() for p in encoder.parameters())
            trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
            thawed = sum(p.numel() for p in encoder.parameters() if id(p) in ever)
            features = f"{encoder.width} -> {pl_module.embedder.dim}"
            name = type(encoder).__name__
            if modality in pl_module.embedder.shared:
                name, count, trained, thawed = f"that of {pl_module.embedder.shared[modality]}", 0, 0, 0
            later = f", later {thawed:,}" if thawed > trained else ""
            table.add_row(modality, name, f"{count:,}", f"{trained:,}{later}", features)
        Console(stderr=True).print(table)


class SaveBestModel(Callback):
    """Writes the run's model folder whenever the monitored metric is the best so far.

    Args:
        folder: the run's folder.
        monitor: the metric's name.
        mode: whether the highest ("max") or the lowest ("min") is the best.
    """

    def __init__(self, folder: Path, monitor: str, mode: Mode = "max") -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.best: float | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None:
            return
        if self.best is not None and (float(value) >= self.best if self.mode == "min" else float(value) <= self.best):
            return
        self.best = float(value)
        assert isinstance(pl_module, TrainingModule)
        embedder = whole(pl_module.embedder) if is_sharded(pl_module.embedder) else pl_module.embedder
        if trainer.is_global_zero:
            embedder.save_pretrained(self.folder / RUN_MODEL)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


class StopOnInterrupt(Callback):
    """Ctrl-C ends training after the step at hand, with a checkpoint to resume from; a second one ends it at once."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._asked = self._saved = False
        self._previous: Any = None  # the handler before training; None: ours is not installed

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._asked = self._saved = False
        self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._asked = True
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._asked:
            trainer.save_checkpoint(self.checkpoint)
            self._saved = True

    # The end of a batch is followed, when its log is written, by one of three things: there training stops.

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._stop_when_saved(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_when_saved(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_when_saved(trainer)

    def _stop_when_saved(self, trainer: pl.Trainer) -> None:
        if self._saved:
            raise TrainingStopped(
                f"Training was stopped at step {trainer.global_step}, as you asked. Resume it with --ckpt_path last."
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()


class TrainingStopped(MultimodalError):
    """The user ended the training before its end."""
