"""Pre-training of a text encoder on texts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.optim import AdamW

from multimodal.core.batch import Batch, MicroBatches
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError
from multimodal.objectives.text_pretraining import MaskedTokens, TextLoss, TextObjective, TokenEncoder
from multimodal.training.schedule import Schedule
from multimodal.training.training_module import OptimizerCallable, TrainingModule
from multimodal.training.warm_start import load_initial_encoders


class TextSource(Protocol):
    """A data module that hands out raw values of its training split, as ``DataModule`` does."""

    def training_values(self, modality: str) -> Iterator[Any]:
        """The raw values of a modality, without the missing ones."""
        ...


class TextPretrainingModule(TrainingModule):
    """Trains the token embeddings of a text encoder, or all of it, on texts alone.

    The run's model is the encoder without a head; another training begins with it by ``model.begin_with``.

    Args:
        encoders: one modality -> its text encoder.
        objective: what to minimise; by default ``MaskedTokens``.
        begin_with: the modality -> a run or exported model whose encoder and tokenizer it begins with.
        optimizer: parameter groups -> optimizer. Weight decay spares biases, norms and other vectors.
        schedule: the learning rate over the steps.
        seed: of the order of the samples, of what is masked or drawn, and of dropout.

    Examples:
        >>> from multimodal import create
        >>> encoder = create("text", "transformer", vocab_size=100, width=16, layers=1, heads=2)
        >>> type(TextPretrainingModule({"text": encoder}).objective).__name__
        'MaskedTokens'
    """

    argument_examples: ClassVar[Mapping[str, str]] = {
        **TrainingModule.argument_examples,
        "encoders": "{'text': multimodal.create('text', 'transformer')}",
        "objective": "multimodal.objectives.MaskedTokens()",
    }

    def __init__(
        self,
        encoders: dict[str, Encoder],
        objective: TextObjective | None = None,
        begin_with: dict[str, str] | None = None,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        seed: int = 0,
    ) -> None:
        if len(encoders) != 1:
            raise UsageError(f"pretrain trains one text encoder, got {sorted(encoders) or 'none'}.")
        ((modality, encoder),) = encoders.items()
        if not isinstance(encoder, TokenEncoder):
            raise UsageError(
                f"{type(encoder).__name__} cannot be trained on texts alone: it needs a table `tokens` and a method"
                " `hidden`, like those of the text encoder `transformer`."
            )
        load_initial_encoders(encoders, begin_with or {})
        super().__init__(Embedder(encoders, encoder.width, {modality: "none"}), optimizer, schedule, seed)
        self.modality = modality
        self.objective = MaskedTokens() if objective is None else objective
        self.objective.attach(encoder)
        if self.objective.trains_only_table:
            for parameter in self.encoder.parameters():
                parameter.requires_grad_(parameter is encoder.tokens.weight)

    @property
    def encoder(self) -> Any:
        """The text encoder."""
        return self.embedder.encoder(self.modality)

    def on_fit_start(self) -> None:
        if not self.objective.counts.any():  # a resumed run has them already
            data: TextSource = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
            processor = self.encoder.processor
            for value in data.training_values(self.modality):
                try:
                    tokens = processor.collate([processor(value)])["tokens"]
                except Exception:  # reading the row reports it
                    continue
                self.objective.counts += tokens.flatten().bincount(minlength=len(self.objective.counts)).to(self.device)

    def loss(self, batch: Batch) -> TextLoss:
        """Compute the loss of the texts of a batch."""
        if self.modality in batch.inputs:
            return self.objective(self.encoder, batch.inputs[self.modality]["tokens"])
        zero = sum((p.sum() * 0.0 for p in self.trained), start=torch.zeros((), device=self.device))
        return TextLoss(zero, 0, {})

    def training_step(self, batch: Batch | MicroBatches, batch_idx: int) -> Tensor:
        if isinstance(batch, MicroBatches):
            raise UsageError(
                "pretrain does not support micro_batch; set accumulate_grad_batches, which has the same effect."
            )
        loss = self.loss(batch)
        self.log_loss(loss.total, loss.parts, batch)
        return loss.total

    def validation_step(self, batch: Batch, batch_idx: int) -> TextLoss:
        with torch.random.fork_rng():  # the same words are masked at each validation
            torch.manual_seed(batch_idx)
            return self.loss(batch)
