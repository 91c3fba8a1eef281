"""Silence what libraries print while they work as intended: tips, advertisements, warnings that are meant for us."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer

from multimodal.core.errors import UsageError
from multimodal.core.garbage import loaded_frozen
from multimodal.core.library_warnings import IMPORT_WARNINGS
from multimodal.core.system_errors import writing
from multimodal.experiment.checkpoint_errors import explain_checkpoint_errors
from multimodal.experiment.run_lock import run_lock
from multimodal.training.checkpoint_io import DurableCheckpointIO

LOGGERS = ("lightning.pytorch", "lightning.fabric")  # tips and advertisements come as INFO
MESSAGES = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*in eval mode at the start of training.*",  # frozen encoders
    ".*custom batch sampler.*for prediction.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*_get_pg_default_device.*|Multiple backends are registered.*",  # torch's own calls, as a checkpoint is read
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*ModelCheckpoint.*could not find the monitored key.*",  # without validation there is no best checkpoint
    *(message for message, _ in IMPORT_WARNINGS),  # encoders import their libraries when they are built
)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within the block, known messages of libraries are not shown; afterwards everything is as it was."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in MESSAGES:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class QuietTrainer(pl.Trainer):
    """Lightning's Trainer with checkpoints that survive a crash, and without messages that are not meant for its user.

    Examples:
        >>> QuietTrainer(accelerator="cpu", logger=False, enable_checkpointing=False).max_epochs is None
        True
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:  # not one of the user's own
            self.strategy.checkpoint_io = DurableCheckpointIO()

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train, see Lightning's ``Trainer.fit``.

        Raises:
            UsageError: nothing says when the training ends (Lightning would train for a thousand epochs), or the trainer's
                settings do not fit the data.
            MultimodalError: another process trains in the run folder, it cannot be written, or the checkpoint is damaged.
        """
        limited = any(isinstance(callback, Timer) for callback in self.callbacks)  # pyright: ignore[reportAttributeAccessIssue]
        if self.max_steps == -1 and self.max_epochs is None and not limited:
            raise UsageError("Set how long to train: the trainer's max_steps, max_epochs or max_time.")
        run = Path(self.default_root_dir)
        lock = run_lock(run) if self.is_global_zero else nullcontext()
        with lock, writing(run), explain_checkpoint_errors(kwargs.get("ckpt_path")), quiet_libraries(), loaded_frozen():
            try:
                super().fit(*args, **kwargs)
            except MisconfigurationException as error:
                raise UsageError(str(error)) from error
            except ValueError as error:
                if "`val_check_interval`" not in str(error):
                    raise
                raise UsageError(str(error)) from error  # longer than an epoch

    def validate(self, *args: Any, **kwargs: Any) -> Any:
        """Run the validation split, see ``Trainer.validate``."""
        with explain_checkpoint_errors(kwargs.get("ckpt_path")), quiet_libraries():
            return super().validate(*args, **kwargs)

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Run the test split, see ``Trainer.test``."""
        with explain_checkpoint_errors(kwargs.get("ckpt_path")), quiet_libraries():
            return super().test(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Embed all samples, see ``Trainer.predict``."""
        with explain_checkpoint_errors(kwargs.get("ckpt_path")), quiet_libraries():
            return super().predict(*args, **kwargs)
