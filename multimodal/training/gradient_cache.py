"""Exact gradients of a batch that does not fit into memory: embed it in parts twice, for the loss and for the gradients.

1. every part but the first is embedded without a graph, and only its vectors are kept. The first is embedded last and
   keeps its graph;
2. the objective computes the gradient of each vector of the whole batch;
3. the gradients of the first part pass through its graph. Every other part is embedded again, with the same random
   numbers, and the gradients of its vectors pass through the new graph.

By the chain rule the sum is the gradient of the whole batch (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch
Size under Memory Limited Setup", section 3). Activations take the memory of one part. The price is the second forward
pass: if a backward pass costs two forward ones, a step of k parts takes (4 - 1 / k) / 3 of the time of a plain step.

Batch normalisation normalises within a part, in both passes alike; its running statistics record each part once, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from multimodal.core.batch import Batch, MicroBatches, stable_hash
from multimodal.core.batch_norm import without_statistics
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.training.fsdp import zero_through_weights
from multimodal.training.heap import HeapTrimmer


class GradientCache:
    """One step over a batch in parts.

    Args:
        embedder: in training mode.
        batch: the parts.
        seed: of the random numbers (dropout) of this step; each part has its own, the same in both passes.
        context: what forward passes run in, such as autocast.

    Attributes:
        embeddings: of the whole batch; their vectors are leaves whose gradients ``backward`` passes on.

    Examples:
        >>> from contextlib import nullcontext
        >>> from multimodal import Sample, create
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["a cup", "a red mug"]})
        >>> processors = embedder.processors
        >>> samples = [Sample(t, {"text": processors["text"](t)}, t) for t in ("a cup", "a red mug")]
        >>> parts = MicroBatches(tuple(Batch.collate([sample], processors) for sample in samples))
        >>> cache = GradientCache(embedder.train(), parts, seed=0, context=nullcontext)
        >>> cache.embeddings.vectors["text"][:, 0].sum().backward()
        >>> cache.backward()
        >>> embedder.heads["text"].weight.grad.shape
        torch.Size([8, 256])
    """

    def __init__(
        self, embedder: Embedder, batch: MicroBatches, seed: int, context: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._embedder, self._batch, self._seed, self._context = embedder, batch, seed, context
        self._frozen = {
            m for m in embedder.modalities if not any(p.requires_grad for p in embedder.encoder(m).parameters())
        }
        with torch.no_grad():  # the frozen encoders run once
            self._features = [
                {m: self._encode(number, m, part) for m in part.inputs if m in self._frozen}
                for number, part in enumerate(batch.parts)
            ]
            with without_statistics(embedder):
                heap, other_parts = HeapTrimmer(), []
                for number in range(1, len(batch.parts)):
                    other_parts.append(self._embed(number))
                    heap.trim_if_grown()
        self._first = self._embed(0) if batch.parts else ({}, [])
        vectors_of_parts = [vectors for vectors, _ in (self._first, *other_parts)]
        parts = [
            Embeddings.of_batch(part, vectors) for part, vectors in zip(batch.parts, vectors_of_parts, strict=False)
        ]
        self._sizes = [{m: len(v) for m, v in part.vectors.items()} for part in parts]
        with torch.no_grad():
            batch_embeddings = Embeddings.cat(parts)
        self.embeddings = replace(
            batch_embeddings, vectors={m: v.requires_grad_() for m, v in batch_embeddings.vectors.items()}
        )

    def backward(self) -> None:
        """Pass the gradients of ``embeddings.vectors`` on to the parameters."""
        heap = HeapTrimmer()
        starts = dict.fromkeys(self.embeddings.vectors, 0)
        gradients = {m: v.grad for m, v in self.embeddings.vectors.items()}
        for number, sizes in enumerate(self._sizes):
            vectors, zeros = self._embed(number) if number else self._first
            roots_and_gradients = [(zero, zero) for zero in zeros]
            for modality, size in sizes.items():
                gradient = gradients[modality]
                if gradient is not None and vectors[modality].requires_grad:
                    roots_and_gradients.append(
                        (vectors[modality], gradient[starts[modality] : starts[modality] + size])
                    )
                starts[modality] += size
            if roots_and_gradients:
                torch.autograd.backward(*map(list, zip(*roots_and_gradients, strict=True)))  # pyright: ignore[reportArgumentType]
            self._first = ({}, [])  # its graph is gone
            del vectors, zeros, roots_and_gradients
            heap.trim_if_grown()

    def _embed(self, number: int) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the unit vectors of a part, and zeros of the encoders without rows in it."""
        part, kept = self._batch.parts[number], self._features[number]
        features, zeros = {}, []
        for modality in self._embedder.modalities:
            if modality in part.inputs:
                features[modality] = kept[modality] if modality in kept else self._encode(number, modality, part)
            elif (zero := zero_through_weights(self._embedder.encoder(modality))) is not None:
                zeros.append(zero)
        with self._context():
            return {m: self._embedder.project(m, f) for m, f in features.items()}, zeros

    def _encode(self, number: int, modality: str, part: Batch) -> Tensor:
        torch.manual_seed(stable_hash(f"{self._seed} {number} {modality}"))
        with self._context():
            return self._embedder.features(modality, part.inputs[modality])
