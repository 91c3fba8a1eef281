"""The common part of every kind of training: the optimizer and its schedule, seeds, checks, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from multimodal.core.batch import Batch, MicroBatches, stable_hash
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.predictors import Predictor
from multimodal.core.recording import Recorded
from multimodal.training.duration import scheduled_steps
from multimodal.training.finite import last_saved, not_finite, not_finite_error
from multimodal.training.fsdp import gradient_norm
from multimodal.training.parameter_groups import apply_rate_factors, parameter_groups
from multimodal.training.resume import resume_data
from multimodal.training.schedule import Constant, Schedule, WarmupCosine

MAX_KEYS_SHOWN = 10

OptimizerCallable = Callable[[Iterable[Any]], Optimizer]

# arguments that people try -> where they are set instead
OF_THE_OPTIMIZER = {
    name: f"It is set in the model's optimizer: optimizer=functools.partial(torch.optim.AdamW, {setting})."
    for name, setting in {"lr": "lr=1e-3", "learning_rate": "lr=1e-3", "weight_decay": "weight_decay=0.01"}.items()
}


class TrainingModule(Recorded, pl.LightningModule):
    """A Lightning module that trains an embedder.

    Random numbers of a training step (dropout) depend only on ``seed`` and the step's number, so that a run that was stopped
    and resumed equals one that was not.

    Args:
        embedder: the model that is trained and exported.
        optimizer: parameter groups -> optimizer. Weight decay spares biases, norms and other vectors.
        schedule: the learning rate over the steps.
        seed: of the order of the samples, augmentation and dropout.

    Examples:
        >>> from torch.optim import AdamW
        >>> from multimodal import create
        >>> module = TrainingModule(Embedder({"text": create("text", "bag")}, dim=8), AdamW)
        >>> module.frozen, module.trained_pairs
        (frozenset(), None)
    """

    argument_examples: ClassVar[Mapping[str, str]] = {
        "encoders": "{'text': multimodal.create('text', 'bag')}",
        "shared": "{'title': 'text'}",
        "begin_with": "{'text': 'runs/pretrained'}",
        "heads": "{'text': 'mlp'}",
        "freeze": "{'text': 'all'}",
        "lora": "{'text': multimodal.LoRA('attention')}",
        "rates": "{'text': 0.1}",
        "layer_decay": "{'text': 0.8}",
        "objective": "multimodal.InfoNCE()",
        "optimizer": "functools.partial(torch.optim.AdamW, lr=1e-3)",
        "schedule": "multimodal.training.WarmupCosine()",
    }
    set_elsewhere: ClassVar[Mapping[str, str]] = OF_THE_OPTIMIZER

    def __init__(
        self, embedder: Embedder, optimizer: OptimizerCallable, schedule: Schedule | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.make_optimizer = optimizer
        self.schedule = WarmupCosine() if schedule is None else schedule
        self.seed = seed
        self.rates: Mapping[str, float] = {}
        self.layer_decay: Mapping[str, float] = {}
        self._loss: _PendingLoss | None = None  # of the current step

    def __repr__(self) -> str:
        objective = getattr(self, "objective", None)  # a subclass has it
        return f"{type(self).__name__}{f' with {type(objective).__name__}' if objective else ''}: {self.embedder!r}"

    def _repr_html_(self) -> str:
        return self.embedder._repr_html_()

    def forward(self, batch: Batch) -> Embeddings:
        """Embed a batch."""
        return self.embedder.embed(batch)

    @property
    def frozen(self) -> frozenset[str]:
        """The modalities whose encoder is completely frozen at every step."""
        return frozenset()

    @property
    def trained_pairs(self) -> set[frozenset[str]] | None:
        """The pairs of modalities that are compared in training; None: all."""
        return None

    def predictors(self) -> dict[str, Predictor]:
        """Return copies of the heads that predict targets, to be saved with the model: target -> predictor."""
        return {}

    @property
    def compared_pairs(self) -> set[frozenset[str]] | None:
        """The pairs of modalities that the objective compares; empty: it compares none; None: it is not known."""
        return None

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained at some step."""
        return [p for p in self.parameters() if p.requires_grad]

    def on_train_batch_start(self, batch: Batch | MicroBatches, batch_idx: int) -> None:
        torch.manual_seed(step_seed(self.seed, self.global_step, self.global_rank))

    def log_loss(self, total: Tensor, parts: Mapping[str, Tensor], batch: Batch | MicroBatches) -> None:
        """Log a loss and its parts; ``on_after_backward`` checks the loss, before the step is taken.

        Args:
            total: the loss, a scalar.
            parts: name -> scalar.
            batch: what it was computed of, for the error.
        """
        self._loss = _PendingLoss(total, batch)
        self.log("train/loss", total, batch_size=len(batch))
        self.log_dict({f"train/{name}": part for name, part in parts.items()}, batch_size=len(batch))

    def on_after_backward(self) -> None:
        """Check the loss, now that a GPU has the backward pass to do.

        Raises:
            MultimodalError: the loss is not finite; the step is not taken.
        """
        if self._loss is not None:
            if not self._loss.is_finite():
                raise self._loss.error(self.trainer)
            self._loss = None

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.trainer.global_step % log_interval(self.trainer) == 0:
            self.log("train/gradient_norm", gradient_norm(self.parameters()))

    def configure_optimizers(self) -> dict[str, Any]:
        groups = parameter_groups(self, self.embedder, self.trained, self.rates, self.layer_decay)
        try:
            optimizer = self.make_optimizer(groups)
        except ValueError as error:  # torch names the setting in other words: "Invalid learning rate: -0.003"
            raise UsageError(
                f"model.optimizer: {error}. Set another value of it, as in --model.optimizer.init_args.lr 0.001."
            ) from error
        apply_rate_factors(optimizer)
        scheduler = LambdaLR(optimizer, lambda step: self._rate_factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate_factor(self, step: int) -> float:
        if isinstance(self.schedule, Constant):  # it needs no length
            return self.schedule.factor(step, step + 1)
        return self.schedule.factor(step, scheduled_steps(self.trainer))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what processors have been fitted on.

        Raises:
            MultimodalError: weights are not finite; nothing is written.
        """
        parameters = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        for weights in (
            checkpoint["state_dict"],
            checkpoint.get("current_model_state", {}),
        ):  # the latter: of an average
            if wrong := not_finite(weights, parameters):
                raise not_finite_error(self.trainer, wrong)
        checkpoint["processors"] = {m: processor.state() for m, processor in self.embedder.processors.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer is not None:  # otherwise only the weights are loaded
            resume_data(self._trainer, checkpoint)
        try:
            for modality, state in checkpoint["processors"].items():
                self.embedder.encoder(modality).processor.load_state(state)
        except Exception as error:  # a processor of another kind may raise anything
            raise self._another_model(checkpoint.get("state_dict", {}), error) from error

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights, see torch.

        Raises:
            UsageError: they are those of another model; the message names the first that differs.
        """
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        except RuntimeError as error:
            raise self._another_model(state_dict, error) from error

    def _another_model(self, saved: Mapping[str, Any], error: Exception) -> UsageError:
        """Return the error of a checkpoint that does not fit."""
        own = self.state_dict()
        shapes = {
            name: tuple(None if name not in weights else tuple(weights[name].shape) for weights in (saved, own))
            for name in {**own, **saved}
        }
        name, (there, here) = next(
            ((name, both) for name, both in shapes.items() if both[0] != both[1]), ("", (None, None))
        )
        if not name:
            difference = f"{type(error).__name__}: {error}"
        elif there is None or here is None:
            difference = f"{name} {there or here} is only in {'this model' if there is None else 'the checkpoint'}"
        else:
            difference = f"{name} has the shape {there} there and {here} here"
        return UsageError(
            f"The checkpoint is of another model: {difference}. Resume with the settings of the run, or name another folder."
        )


class _PendingLoss:
    """A loss on its way from the device, so that a GPU's backward pass is under way when it is looked at."""

    def __init__(self, loss: Tensor, batch: Batch | MicroBatches) -> None:
        self._batch = batch
        self._value = loss.detach().to("cpu", non_blocking=loss.is_cuda)
        self._arrived = torch.cuda.Event() if loss.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def is_finite(self) -> bool:
        """Return whether it is finite; a GPU is waited for."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._value.isfinite())

    def error(self, trainer: pl.Trainer) -> MultimodalError:
        """Return the error of a loss that is not finite."""
        keys = ", ".join(self._batch.keys[:MAX_KEYS_SHOWN]) + (", ..." if len(self._batch) > MAX_KEYS_SHOWN else "")
        return MultimodalError(
            f"The loss of step {trainer.global_step} is {self._value.item()}; the batch's samples are {keys}."
            f"{last_saved(trainer)} Lower the learning rate, or inspect these samples."
        )


def log_interval(trainer: pl.Trainer) -> int:
    """Return the number of steps between two logs."""
    return trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue] (set by a connector)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return a 63-bit seed for one step of one rank.

    Args:
        seed: of the training.
        step: the step's number.
        rank: the process.
    """
    return stable_hash(f"{seed} {step} {rank}")
