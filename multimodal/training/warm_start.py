"""Encoders that begin with the weights and processors of another run."""

from __future__ import annotations

from collections.abc import Mapping

from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError, suggest


def load_initial_encoders(encoders: Mapping[str, Encoder], folders: Mapping[str, str]) -> None:
    """Load the weights and fitted processors of the same modality from other models.

    Args:
        encoders: modality -> encoder; changed in place.
        folders: modality -> the folder of a run or of an exported model.

    Raises:
        UsageError: a modality has no encoder, here or in the other model, or the two differ in shape.
    """
    for modality, folder in folders.items():
        if modality not in encoders:
            raise UsageError(f"begin_with: there is no encoder for {modality!r}.{suggest(modality, list(encoders))}")
        source_encoder = Embedder.from_pretrained(folder, modalities=[modality]).encoder(modality)
        try:
            encoders[modality].load_state_dict(source_encoder.state_dict())
        except RuntimeError as error:
            raise UsageError(
                f"begin_with: the {modality} encoder of {folder}, a {type(source_encoder).__name__}, does not fit"
                f" {type(encoders[modality]).__name__}; give both the same settings ({_first_line(error)})."
            ) from error
        encoders[modality].processor.load_state(source_encoder.processor.state())


def load_initial_heads(embedder: Embedder, folders: Mapping[str, str]) -> None:
    """Load the projection heads of the same modality from other models, so that the vectors are theirs bit for bit.

    Args:
        embedder: its encoders have been loaded from these models; changed in place.
        folders: modality -> the folder of a run or of an exported model.

    Raises:
        UsageError: the heads or the widths of the spaces differ.
    """
    for modality, folder in folders.items():
        source = Embedder.from_pretrained(folder, modalities=[modality])
        if (source.dim, source.head_kinds[modality]) != (embedder.dim, embedder.head_kinds[modality]):
            raise UsageError(
                f"freeze.{modality}: the vectors of {folder} are {source.dim} wide, of a {source.head_kinds[modality]!r} head;"
                f" these would be {embedder.dim} wide, of a {embedder.head_kinds[modality]!r} head. Give both the same."
            )
        embedder.heads[modality].load_state_dict(source.heads[modality].state_dict())
        if modality in source.centring:
            embedder.centring[modality] = source.centring[modality]


def _first_line(error: RuntimeError) -> str:
    return next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error))
