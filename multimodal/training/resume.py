"""Continuing a training at the batch where its checkpoint was saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

COUNTS = ("ready", "started", "processed", "completed")  # of Lightning's progress


@runtime_checkable
class ResumableData(Protocol):
    """A data module whose training loader can be put at a saved position, as ``DataModule``'s."""

    def resume_at(self, position: Mapping[str, Any]) -> bool:
        """Continue at a position that the training loader saved; return whether its place in the epoch holds."""
        ...


def resume_data(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Put the data module at the position of a checkpoint, before Lightning restores its own progress.

    Lightning itself restores the position of a loader only if the training is limited by steps and nothing has asked for
    the loader before. Where the place in the epoch no longer holds, Lightning's progress is set to the end of that epoch.

    Args:
        trainer: the trainer that resumes.
        checkpoint: what it has read; it is changed if the place in the epoch does not hold.
    """
    data = getattr(trainer, "datamodule", None)
    progress = checkpoint.get("loops", {}).get("fit_loop", {})
    positions = progress.get("state_dict", {}).pop("combined_loader", [])
    if trainer.state.fn != TrainerFn.FITTING or not isinstance(data, ResumableData) or len(positions) != 1:
        if positions:
            progress["state_dict"]["combined_loader"] = positions
        return
    batches = progress["epoch_loop.batch_progress"]
    # saved after an epoch's last batch, before its validation: Lightning sees it only if it knows the length of an epoch
    ended = batches["is_last_batch"] and batches["current"]["completed"] < batches["current"]["processed"]
    if not data.resume_at(positions[0]) or ended:
        _end_epoch(progress)


def _end_epoch(progress: dict[str, Any]) -> None:
    epoch, batches = progress["epoch_progress"], progress["epoch_loop.batch_progress"]
    for counts in (epoch["total"], epoch["current"], batches["total"]):
        counts.update(dict.fromkeys(COUNTS, counts["ready"]))
    batches["current"].update(dict.fromkeys(COUNTS, 0))
    batches["is_last_batch"] = False
