"""Ctrl-C and a scheduler's signals end training with a checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback

from multimodal.core.batch import Batch
from multimodal.core.errors import MultimodalError
from multimodal.training.callbacks.checkpoints import LastCheckpoint, accumulates, ends_here

REASONS = {signal.SIGINT: "as you asked", signal.SIGTERM: "by SIGTERM"}
REQUEUE_SECONDS = 60  # for scontrol to answer


class StopOnSignal(Callback):
    """Ends training after the current step with a checkpoint, at Ctrl-C, SIGTERM or SLURM's signal to queue the job again.

    SIGTERM is how schedulers and ``docker stop`` end a job. SLURM's signal is the one that Lightning's ``SLURMEnvironment``
    names (SIGUSR1), where it is found and queues jobs again. If a validation is due at this step, it comes first, after the
    checkpoint; a second signal ends the process at once. With several processes, all stop at the same step, whichever of
    them got the signal. In the last step, or in the validation after it, a signal changes nothing: the training ends.

    Args:
        last: the callback that writes the checkpoint.

    Examples:
        >>> from pathlib import Path
        >>> StopOnSignal(LastCheckpoint(Path("runs/pairs/checkpoints"))).last.file.name
        'last.ckpt'
    """

    def __init__(self, last: LastCheckpoint) -> None:
        self.last = last
        self._received: int | None = None  # the signal's number, in this process
        self._stops = False  # all processes have agreed
        self._previous: dict[int, Any] = {}  # signal -> its handler before training
        self._requeue: int | None = None  # SLURM's signal

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._received, self._stops, self._requeue = None, False, _requeue_signal(trainer)
        if trainer.received_sigterm:  # since Lightning listens to it
            self._received = signal.SIGTERM
        if threading.current_thread() is not threading.main_thread():
            return  # Python does not allow handlers there
        for number in {signal.SIGINT, signal.SIGTERM, self._requeue or signal.SIGINT}:
            self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._received = number
        self._restore()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Lightning's handler would ignore the second one

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            if handler is not None:
                signal.signal(number, handler)
        self._previous = {}

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if accumulates(trainer) or ends_here(trainer):
            return
        if self._agree_to_stop(trainer):
            self.last.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking and not ends_here(trainer):
            self._agree_to_stop(trainer)

    def _agree_to_stop(self, trainer: pl.Trainer) -> bool:
        stop = self._received is not None
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        self._stops = stop
        return stop

    # After a batch, its log and its validation, if it has one, one of these two hooks runs next: training stops there.

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._stop_when_saved(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_when_saved(trainer)

    def _stop_when_saved(self, trainer: pl.Trainer) -> None:
        if not self._stops or self.last.saved_step != trainer.global_step:
            return
        number = self._received if self._received is not None else signal.SIGTERM  # another process got it
        again = ""
        if number == self._requeue:
            again = _queue_again() if trainer.is_global_zero else ""
        reason = REASONS.get(signal.Signals(number), f"by {signal.Signals(number).name}")
        raise TrainingStopped(
            f"Training was stopped at step {trainer.global_step}, {reason}; {self.last.file} is saved.{again} Resume it with"
            " --ckpt_path last.",
            number,
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()


class TrainingStopped(MultimodalError):
    """A signal ended the training before its end, with a checkpoint to resume from.

    Args:
        message: what is saved and how to resume.
        number: the signal; the command line ends with exit code 128 + number, as shells report it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def _requeue_signal(trainer: pl.Trainer) -> int | None:
    """Return the signal at which a job of SLURM is queued again; None: it is not such a job."""
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    return int(environment.requeue_signal or signal.SIGUSR1)


def _queue_again() -> str:
    """Queue the job of SLURM again, and return the result as a sentence for the error."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=REQUEUE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f" The job {job} could not be queued again ({getattr(error, 'stderr', None) or error})."
    print(done.stdout, end="", file=sys.stderr)
    return f" The job {job} is queued again."
