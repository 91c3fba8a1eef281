"""Export of a text encoder for sentence-transformers: ``SentenceTransformer("FOLDER")``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.export.towers import Tower, check_difference

LIBRARY = "sentence-transformers"


def save_sentence_transformers(embedder: Embedder, towers: Sequence[Tower], folder: Path) -> dict[str, dict[str, Any]]:
    """Write a text tower as a model folder of sentence-transformers.

    Args:
        embedder: the model, on the CPU.
        towers: the towers to choose from; exactly one must consist of modules of the library.
        folder: an existing folder to write to.

    Returns:
        The tower's modality -> its "file" and "max_difference", the largest difference of the library's vectors from the
        model's.

    Raises:
        UsageError: the library is not installed.
        MultimodalError: not exactly one tower can be written, or it returns other vectors there.
    """
    usable = [(tower, parts) for tower in towers if (parts := _parts(tower)) is not None]
    if len(usable) != 1:
        names = ", ".join(tower.modality for tower, _ in usable) or "none"
        raise MultimodalError(
            f"sentence-transformers holds one Hugging Face text encoder; of {', '.join(t.modality for t in towers)} it can"
            f" hold {names}. Choose one with --modality, or export to onnx or torch-export."
        )
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Dense, Normalize
    except ImportError as error:
        raise UsageError(
            f"The library sentence-transformers is not installed ({error}): pip install 'multimodal[export]'."
        ) from error
    ((tower, settings),) = usable
    modules = list(settings.pop("modules"))
    linears = [module for module in tower.head.modules() if isinstance(module, nn.Linear)]
    for number, linear in enumerate(linears):
        last = number == len(linears) - 1
        dense = Dense(linear.in_features, linear.out_features, activation_function=nn.Identity() if last else nn.GELU())
        dense.linear.load_state_dict(linear.state_dict())
        modules.append(dense)
    values = embedder.encoder(tower.modality).processor.examples()
    with _without_progress_bars():
        SentenceTransformer(modules=[*modules, Normalize()], device="cpu", **settings).save(
            str(folder), create_model_card=False
        )
        loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    actual = torch.from_numpy(loaded.encode(values, show_progress_bar=False))
    expected = torch.from_numpy(embedder.encode(batch_size=256, precision="float32", **{tower.modality: values}))
    return {
        tower.modality: {"file": "modules.json", "max_difference": check_difference(tower, actual, expected, LIBRARY)}
    }


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Hide the progress bars that the transformers library shows while it writes and reads."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _parts(tower: Tower) -> dict[str, Any] | None:
    assert isinstance(tower.encoder, Encoder)
    return tower.encoder.parts(LIBRARY)
