"""The checkpoints of a run: the best validation's and the last one, never with weights that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from multimodal.core.run_folder import BEST, LAST
from multimodal.training.callbacks.best_model import SaveBestModel
from multimodal.training.finite import not_finite_error, weights_not_finite


class _Checkpoint(ModelCheckpoint):
    """A checkpoint at one path; when it is written is decided here, so that every one resumes alike.

    Lightning itself saves at the end of an epoch or of a validation, depending on the trainer's settings.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file.parent, file.stem, enable_version_counter=False)
        self.file = file

    @property
    def state_key(self) -> str:
        return super().state_key.replace(type(self).__qualname__, f"ModelCheckpoint-{self.file.stem}", 1)

    def state_dict(self) -> dict[str, Any]:
        return {}  # paths would be wrong where the run's folder has been moved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        pass

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass

    def save(self, trainer: pl.Trainer) -> bool:
        """Write the checkpoint, unless that was done at this step; all processes call it. Return whether it was written."""
        if self._should_skip_saving_checkpoint(trainer):
            return False
        self.best_model_path = str(self.file)
        self._save_checkpoint(trainer, str(self.file))
        return True


class BestCheckpoint(_Checkpoint):
    """Writes ``best.ckpt`` when the best model was written.

    Args:
        folder: the folder of checkpoints.
        best: the callback that writes the best model.

    Examples:
        >>> BestCheckpoint(Path("runs/pairs/checkpoints"), SaveBestModel(Path("runs/pairs"), "val/recall@1")).file.name
        'best.ckpt'
    """

    def __init__(self, folder: Path, best: SaveBestModel) -> None:
        super().__init__(folder / BEST)
        self.best = best

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.best.saved_step == trainer.global_step and not trainer.sanity_checking:
            self.save(trainer)


class LastCheckpoint(_Checkpoint):
    """Writes ``last.ckpt`` after each validation and at the end of training; without validation, after each epoch.

    Before a validation, and so before anything is saved, it checks that the weights are finite. The last step is always
    validated, if validation is possible, whatever ends the training there: steps, epochs, time, or a callback.

    Args:
        folder: the folder of checkpoints.

    Examples:
        >>> LastCheckpoint(Path("runs/pairs/checkpoints")).file.name
        'last.ckpt'
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / LAST)
        self.saved_step: int | None = None
        self._saved_file: Path | str | None = None  # the one that was resumed from, until another one is written
        self._replaced: int | None = None  # the trainer's check_val_every_n_epoch, while it is another one

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.ckpt_path is not None:
            self.saved_step, self._saved_file = trainer.global_step, trainer.ckpt_path

    def save(self, trainer: pl.Trainer) -> bool:
        if written := super().save(trainer):
            self.saved_step, self._saved_file = trainer.global_step, self.file
        return written

    @property
    def last_saved(self) -> str:
        """A sentence for an error: which checkpoint there is to resume from."""
        if self.saved_step is None:
            return "No checkpoint had been written before."
        return f"The last checkpoint, {self._saved_file}, is of step {self.saved_step}."

    # This callback's hook is called after those of all others, which may end the training.
    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if not ends_here(trainer):
            return
        trainer.should_stop = True  # it stops anyway; Lightning validates where it is asked to stop
        if not is_validated(trainer):
            self.save(trainer)
        every = trainer.check_val_every_n_epoch
        if every is not None and (trainer.current_epoch + 1) % every:
            self._replaced, trainer.check_val_every_n_epoch = every, None  # validate in any epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not is_validated(trainer):
            self.save(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        wrong = weights_not_finite(pl_module)
        if trainer.strategy.reduce_boolean_decision(bool(wrong), all=False):
            raise not_finite_error(trainer, wrong)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not accumulates(trainer) or ends_here(trainer):  # gradients of part of a step are not saved
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._replaced is not None:
            trainer.check_val_every_n_epoch, self._replaced = self._replaced, None


def is_validated(trainer: pl.Trainer) -> bool:
    """Return whether the training has validations."""
    return bool(trainer.enable_validation and trainer.limit_val_batches)


def ends_here(trainer: pl.Trainer) -> bool:
    """Return whether training ends after the current batch."""
    if trainer.should_stop and trainer.fit_loop._can_stop_early:  # min_steps and min_epochs may forbid it
        return True
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    epochs = trainer.max_epochs
    return trainer.is_last_batch and epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs


def accumulates(trainer: pl.Trainer) -> bool:
    """Return whether the current batch is one of several whose gradients make a step, and not the last of them."""
    return trainer.fit_loop._should_accumulate()
