"""The LightningModule of ``fit``: one training step of an embedder under an objective."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer

from multimodal.core.batch import Batch, MicroBatches
from multimodal.core.batch_norm import has_batch_norm
from multimodal.core.distributed import split_over_ranks
from multimodal.core.embedder import Embedder, Head
from multimodal.core.embeddings import Embeddings
from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError, suggest
from multimodal.core.lora import LoRA
from multimodal.core.predictors import Predictor
from multimodal.objectives import InfoNCE, Objective
from multimodal.objectives.heads import target_objectives, trained_predictors
from multimodal.training.activation_checkpointing import recompute_activations
from multimodal.training.duration import fraction_done
from multimodal.training.freezing import VECTORS, Freeze, Freezing
from multimodal.training.fsdp import clip_gradients, is_sharded, shard, zero_through_weights
from multimodal.training.gather import average_gradients, gather_embeddings, pad_to_most_parts
from multimodal.training.gradient_cache import GradientCache
from multimodal.training.schedule import Schedule
from multimodal.training.training_module import OptimizerCallable, TrainingModule, step_seed
from multimodal.training.warm_start import load_initial_encoders, load_initial_heads


class EmbedderModule(TrainingModule):
    """Trains encoders, projection heads and the objective's own parameters together.

    Args:
        encoders: modality -> encoder.
        dim: width of the shared space.
        shared: modality -> the one in ``encoders`` whose encoder it uses as well, with its own head.
        begin_with: modality -> a run or exported model whose encoder and fitted processor it begins with.
        heads: modality -> "linear" (the default), "mlp", or "none", which uses the encoder's features unchanged.
        freeze: modality -> what is not trained of its encoder: "all", "none", or a regular expression of names of its parts;
            or "vectors", the encoder and its head, which then is that of ``begin_with`` too, so that all vectors stay the
            same bit for bit; or {step: one of these}, each from that step on. The features of an encoder that is frozen
            throughout are computed once for the training rows and kept on disk (not for streams); the rows are not augmented
            for it.
        lora: modality -> low-rank adapters, which are trained instead of the encoder's own weights.
        rates: modality -> factor of the learning rate of its encoder.
        layer_decay: modality -> factor from each layer's learning rate to that of the layer before it.
        gradient_checkpointing: compute the activations of the encoders' blocks again for the gradients, instead of
            keeping them: less memory, about a third more time.
        compile: translate the encoders by torch.compile: minutes at first, then faster steps on most GPUs.
        objective: what to minimise; by default ``InfoNCE`` over all pairs of modalities.
        optimizer: parameter groups -> optimizer. Weight decay spares biases, norms and other vectors.
        schedule: the learning rate over the steps.
        seed: of the order of the samples, augmentation and dropout.

    Examples:
        >>> from multimodal import create
        >>> model = EmbedderModule({"text": create("text", "bag"), "words": create("text", "bag")}, dim=64)
        >>> model.embedder.modalities, type(model.objective).__name__
        (['text', 'words'], 'InfoNCE')
    """

    def __init__(
        self,
        encoders: dict[str, Encoder],
        dim: int = 256,
        shared: dict[str, str] | None = None,
        begin_with: dict[str, str] | None = None,
        heads: dict[str, Head] | None = None,
        freeze: dict[str, Freeze] | None = None,
        lora: dict[str, LoRA] | None = None,
        rates: dict[str, float] | None = None,
        layer_decay: dict[str, float] | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        objective: Objective | None = None,
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        seed: int = 0,
    ) -> None:
        load_initial_encoders(encoders, begin_with or {})
        embedder = Embedder(encoders | _with_shared_encoders(encoders, shared or {}), dim, heads, lora)
        load_initial_heads(embedder, {m: f for m, f in (begin_with or {}).items() if (freeze or {}).get(m) == VECTORS})
        super().__init__(embedder, optimizer, schedule, seed)
        self._freezing = Freezing(self.embedder, freeze or {})
        self.rates, self.layer_decay = rates or {}, layer_decay or {}
        if gradient_checkpointing:
            recompute_activations(encoders.values())
        if compile:
            for modality, encoder in encoders.items():
                if gradient_checkpointing and has_batch_norm(encoder):
                    raise UsageError(
                        f"torch.compile cannot recompute the batch normalisation of the {modality} encoder: leave out"
                        " compile or gradient_checkpointing."
                    )
                encoder.compile()
        self.objective = InfoNCE() if objective is None else objective
        for modality in sorted(self.objective.named_modalities - set(embedder.modalities)):
            raise UsageError(
                f"The objective names {modality!r}, which has no encoder.{suggest(modality, embedder.modalities)}"
            )
        self._cache: GradientCache | None = None  # of the current step
        self._trained_set_changed = False  # other parameters are trained than those that DDP recorded

    def setup(self, stage: str) -> None:
        """Give the objective's heads the sizes and names of the training rows' targets."""
        summary_of = getattr(getattr(self.trainer, "datamodule", None), "target_summary", None)
        for each in target_objectives(self.objective):
            each.learn_sizes(self.embedder.dim, None if summary_of is None else summary_of(each.target), self.seed)

    def predictors(self) -> dict[str, Predictor]:
        return trained_predictors(self.objective, self.embedder.dim)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if heads := target_objectives(self.objective):
            checkpoint["target_names"] = {each.target: list(each.names) for each in heads}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get("target_names", {})
        for each in target_objectives(self.objective):
            names = saved.get(each.target, each.names)
            if list(names) != list(each.names):
                raise UsageError(
                    f"The checkpoint was trained on other classes of {each.target!r}: {len(names)} there,"
                    f" {len(each.names)} here, or in another order. Resume with the rows of the run, or name another folder."
                )

    @property
    def frozen(self) -> frozenset[str]:
        return self._freezing.always_frozen

    @property
    def trained(self) -> list[nn.Parameter]:
        return [*self._freezing.trained, *(p for p in self.objective.parameters() if p.requires_grad)]

    @property
    def compared_pairs(self) -> set[frozenset[str]] | None:
        return self.objective.compared_pairs(self.embedder.modalities)

    @property
    def trained_pairs(self) -> set[frozenset[str]] | None:
        """The pairs of modalities that the objective compares; None if it compares all, or it is not known which."""
        modalities, pairs = self.embedder.modalities, self.compared_pairs
        return None if not pairs or len(pairs) == math.comb(len(modalities), 2) else pairs

    @property
    def _ddp(self) -> DistributedDataParallel | None:
        model = self.trainer.strategy.model
        return model if isinstance(model, DistributedDataParallel) else None

    def on_train_batch_start(self, batch: Batch | MicroBatches, batch_idx: int) -> None:
        self._trained_set_changed |= self._freezing.apply(self.global_step)
        if self._ddp is not None:  # it waits for only one backward pass, of the parameters that it recorded
            self._ddp.require_backward_grad_sync = not (isinstance(batch, MicroBatches) or self._trained_set_changed)
        super().on_train_batch_start(batch, batch_idx)
        self.objective.set_progress(fraction_done(self.trainer))

    def training_step(self, batch: Batch | MicroBatches, batch_idx: int) -> Tensor:
        zero: Tensor | float = 0.0
        if isinstance(batch, MicroBatches):
            seed = step_seed(self.seed, self.global_step, self.global_rank)
            if is_sharded(self.embedder):
                batch = pad_to_most_parts(batch)
            self._cache = GradientCache(self.embedder, batch, seed, self.trainer.precision_plugin.forward_context)
            embeddings = self._cache.embeddings
        else:
            embeddings, zero = self._embed(batch)
        dtype = torch.promote_types(next(self.embedder.parameters()).dtype, torch.float32)
        all_embeddings = gather_embeddings(embeddings, self.embedder.modalities, self.embedder.dim, dtype)
        with torch.autocast(self.device.type, enabled=False), split_over_ranks():  # similarities at bf16 would tie
            loss = self.objective(all_embeddings)
        self.log_loss(loss.total, loss.parts, batch)
        return loss.total + zero

    def _embed(self, batch: Batch) -> tuple[Embeddings, Tensor | float]:
        """Embed a batch; also return 0 with a gradient for the modalities that it does not have, as other ranks wait for it."""
        embedder, vectors, zeros = self.embedder, {}, []
        for modality in embedder.modalities:
            if modality in batch.inputs:
                vectors[modality] = embedder.project(modality, embedder.features(modality, batch.inputs[modality]))
            elif (zero := zero_through_weights(embedder.encoder(modality))) is not None:
                zeros.append(zero)
            elif self._ddp is not None:
                zeros += [p.sum() * 0.0 for p in embedder.parameters_of(modality) if p.requires_grad]
        return Embeddings.of_batch(batch, vectors), sum(zeros, start=0.0)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        super().backward(loss, *args, **kwargs)
        if self._cache is not None:
            self._cache.backward()
            self._cache = None
        if is_sharded(self.embedder) or (self._ddp is not None and not self._ddp.require_backward_grad_sync):
            average_gradients(self.parameters())

    def validation_step(self, batch: Batch, batch_idx: int) -> Embeddings:
        return self.embedder.embed(batch)

    test_step = validation_step  # pyright: ignore[reportAssignmentType]
    predict_step = validation_step

    def configure_model(self) -> None:
        if self.device_mesh is not None and not is_sharded(self.embedder):
            if self.device_mesh["tensor_parallel"].size() > 1:
                raise UsageError(
                    "ModelParallelStrategy: only data parallelism is supported; set data_parallel_size to the number"
                    " of devices and tensor_parallel_size to 1."
                )
            shard(self.embedder, self.device_mesh["data_parallel"])

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if is_sharded(self.embedder) and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            clip_gradients(self.parameters(), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)


def _with_shared_encoders(encoders: dict[str, Encoder], shared: dict[str, str]) -> dict[str, Encoder]:
    for modality, other in shared.items():
        if modality in encoders or other not in encoders:
            raise UsageError(
                f"shared: for {modality} to use the encoder of {other}, encoders must have {other} and not"
                f" {modality}.{suggest(other, list(encoders))}"
            )
    return {modality: encoders[other] for modality, other in shared.items()}
