"""An embedder as a model of the benchmark mteb, whose tasks can then be run on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.extras import require

MODALITIES = ("text", "image", "audio")  # of the benchmark, which calls its columns so; it also has video
_log = logging.getLogger(__name__)


class MTEBModel:
    """A model of mteb, for text, images and audio: ``mteb.evaluate(MTEBModel(embedder), tasks)``.

    It satisfies mteb's ``EncoderProtocol``. The scores are cosines. Where a task's rows have several modalities, such as a
    picture and a question, a row's vector is the mean of theirs. A value that cannot be read, such as an empty text, has the
    vector 0, whose score is 0 with everything; a warning counts them. The model has no prompts, so those of tasks are ignored.

    Args:
        embedder: the model.
        name: "organisation/name", under which mteb stores results. Its revision is the embedder's fingerprint, so that
            results of another model are never taken for those of this one.
        modalities: modality of the benchmark ("text", "image", "audio") -> modality of the embedder. None: those of the same
            name.
        trained_on: names of mteb's tasks whose data the model was trained on; None: unknown.

    Raises:
        UsageError: mteb is not installed, the name has no "/", or the embedder has none of the modalities.

    Source: mteb 2, ``mteb.models.EncoderProtocol`` (Muennighoff et al. 2023; Xiao et al. 2025, MIEB).

    Examples:
        >>> from multimodal import create
        >>> embedder = Embedder({"title": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"title": ["a red cup", "a blue hat"]})
        >>> model = MTEBModel(embedder, modalities={"text": "title"})
        >>> model.encode([{"text": ["a red cup", "a hat"]}], batch_size=32).shape
        (2, 8)
    """

    def __init__(
        self,
        embedder: Embedder,
        name: str = "multimodal/embedder",
        modalities: Mapping[str, str] | None = None,
        trained_on: Iterable[str] | None = None,
    ) -> None:
        require("mteb", "A model of mteb", "mteb")
        from mteb.models import ModelMeta
        from mteb.models.model_meta import ScoringFunction

        if name.count("/") != 1 or not all(name.split("/")):
            raise UsageError(f"mteb names models 'organisation/name', got {name!r}.")
        self.embedder = embedder
        self.modalities = _checked(embedder, modalities)
        parameters = sum(p.numel() for p in embedder.parameters())
        self._meta = ModelMeta.create_empty(
            {
                "name": name,
                "revision": embedder.fingerprint,
                "embed_dim": embedder.dim,
                "n_parameters": parameters,
                "framework": ["PyTorch"],
                "modalities": list(self.modalities),
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": False,
                "training_datasets": None if trained_on is None else set(trained_on),
            }
        )

    def __repr__(self) -> str:
        return f"MTEBModel {self._meta.name} of {', '.join(self.modalities)}"

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb writes next to the results: an ``mteb.models.ModelMeta``."""
        return self._meta

    def encode(self, inputs: Iterable[Mapping[str, Any]], *, batch_size: int | None = None, **task: Any) -> np.ndarray:
        """Encode the rows of a task.

        Args:
            inputs: batches; each is "text", "image" or "audio" -> a list of values, None where a row has none.
            batch_size: the number of values that go through an encoder at once. None: see ``Embedder.encode``.
            **task: what else mteb says about the task; it is not used.

        Returns:
            ``(n, dim)`` float32: unit vectors, or 0 for rows that cannot be read.

        Raises:
            UsageError: the embedder has none of the modalities of a batch.
        """
        vectors = [self._encode_batch(batch, batch_size) for batch in inputs]
        found = np.concatenate(vectors) if vectors else np.empty((0, self.embedder.dim), dtype=np.float32)
        if unread := int((~found.any(axis=1)).sum()):
            _log.warning("%d of %d rows cannot be read; their vectors are 0.", unread, len(found))
        return found

    def _encode_batch(self, batch: Mapping[str, Any], batch_size: int | None) -> np.ndarray:
        here = [modality for modality in self.modalities if modality in batch]
        if not here:
            known = ", ".join(self.modalities)
            raise UsageError(f"The task has {', '.join(batch) or 'no columns'}, but the model reads only {known}.")
        total = np.sum([self._encode_values(m, list(batch[m]), batch_size) for m in here], axis=0)
        lengths = np.linalg.norm(total, axis=1, keepdims=True)
        return np.asarray(total / np.where(lengths > 0, lengths, 1), dtype=np.float32)

    def _encode_values(self, modality: str, values: Sequence[Any], batch_size: int | None) -> np.ndarray:
        """Return a unit vector for each value that can be read, else 0."""
        found = np.zeros((len(values), self.embedder.dim), dtype=np.float32)
        there = [row for row, value in enumerate(values) if value is not None]
        if not there:
            return found
        ours = self.modalities[modality]
        given = [_as_recording(values[row]) if modality == "audio" else values[row] for row in there]
        try:
            found[there] = self.embedder.encode(batch_size=batch_size, precision="float32", **{ours: given})
        except MultimodalError:
            for row, value in zip(there, given, strict=True):
                try:
                    found[[row]] = self.embedder.encode(batch_size=batch_size, precision="float32", **{ours: [value]})
                except MultimodalError as error:
                    _log.info("%s", error)
        return found

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines ``(n, m)`` of vectors ``(n, dim)`` or ``(dim,)`` with ``(m, dim)`` or ``(dim,)``."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines ``(n,)`` of vectors ``(n, dim)`` with ``(n, dim)``, row by row."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=1)


def _checked(embedder: Embedder, modalities: Mapping[str, str] | None) -> dict[str, str]:
    if modalities is None:
        modalities = {m: m for m in MODALITIES if m in embedder.modalities}
    for theirs, ours in modalities.items():
        if theirs not in MODALITIES:
            raise UsageError(f"The benchmark has no modality {theirs!r}.{suggest(theirs, list(MODALITIES))}")
        embedder.encoder(ours)
    if not modalities:
        raise UsageError(
            f"The model has {', '.join(embedder.modalities)}, the benchmark {', '.join(MODALITIES)}: name which are the"
            " same, like modalities={'text': 'title'}."
        )
    return dict(modalities)


def _as_recording(value: Any) -> Any:
    """Return a sound of mteb as ``(samples, rate)``, or the bytes or path of its file."""
    if isinstance(value, Mapping) and "array" not in value:  # a column that is not decoded
        return value.get("bytes") or value.get("path")
    return np.asarray(value["array"]), value["sampling_rate"]


def _unit(vectors: Any) -> Tensor:
    """Return vectors ``(n, dim)`` float32, on the CPU, of unit length; 0 is kept."""
    found = torch.as_tensor(np.asarray(vectors) if isinstance(vectors, list) else vectors).float().cpu()
    return functional.normalize(found if found.ndim > 1 else found[None], dim=1)
