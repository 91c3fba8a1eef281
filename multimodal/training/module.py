"""The LightningModule: one training step of an embedder under an objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from multimodal.core.batch import Batch, stable_number
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError, suggest
from multimodal.objectives import InfoNCE, Objective
from multimodal.training.schedule import Schedule, WarmupCosine

OptimizerCallable = Callable[[Iterable[Any]], Optimizer]


class EmbedderModule(pl.LightningModule):
    """Trains encoders, projection heads and the objective's own parameters together.

    Random numbers of a training step (dropout) depend on ``seed`` and the step's number alone, so that a run that was
    stopped and resumed equals one that was not.

    Args:
        encoders: modality -> encoder.
        dim: width of the shared space.
        objective: what to minimise; by default ``InfoNCE`` over all pairs of modalities.
        optimizer: parameter groups -> optimizer. Weight decay spares biases, norms and other vectors.
        schedule: the learning rate over the steps.
        seed: of the order of the samples, augmentation and dropout.
    """

    def __init__(
        self,
        encoders: dict[str, Encoder],
        dim: int = 256,
        objective: Objective | None = None,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.embedder = Embedder(encoders, dim)
        self.objective = InfoNCE() if objective is None else objective
        for modality in sorted(self.objective.named_modalities - set(encoders)):
            raise UsageError(
                f"The objective names {modality!r}, which has no encoder.{suggest(modality, list(encoders))}"
            )
        self.schedule = WarmupCosine() if schedule is None else schedule
        self.make_optimizer = optimizer
        self.seed = seed

    def forward(self, batch: Batch) -> Embeddings:
        return self.embedder.embed(batch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(step_seed(self.seed, self.global_step, self.global_rank))
        self.objective.set_progress(self.global_step / self.trainer.estimated_stepping_batches)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        embeddings = self.embedder.embed(batch)
        with torch.autocast(self.device.type, enabled=False):  # similarities at bf16 would tie
            loss = self.objective(embeddings)
        self.log("train/loss", loss.total, prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train/{name}": part for name, part in loss.parts.items()}, batch_size=len(batch))
        return loss.total

    def validation_step(self, batch: Batch, batch_idx: int) -> Embeddings:
        return self.embedder.embed(batch)

    test_step = validation_step  # pyright: ignore[reportAssignmentType]
    predict_step = validation_step

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.trainer.global_step % log_interval(self.trainer) == 0:
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            self.log("train/gradient_norm", nn.utils.get_total_norm(gradients))

    def configure_optimizers(self) -> dict[str, Any]:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = self.make_optimizer(
            [
                {"params": [p for p in trained if p.ndim > 1]},
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ]
        )
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, lambda step: self.schedule.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["processors"] = {m: processor.state() for m, processor in self.embedder.processors.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for modality, state in checkpoint["processors"].items():
            self.embedder.encoder(modality).processor.load_state(state)


def log_interval(trainer: pl.Trainer) -> int:
    """Every how many steps the trainer writes its log."""
    return trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] (set by a connector)


def step_seed(seed: int, step: int, rank: int) -> int:
    """A 63-bit seed for one step of one rank."""
    return stable_number(f"{seed} {step} {rank}")
