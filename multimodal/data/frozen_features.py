"""What frozen encoders make of a table's rows: computed once, kept on disk, mapped.

A folder of features is named by what they depend on: the encoder (its settings, processor and weights), the table and how
it is read, the column, the rows, the precision. It holds ``part-00000.npy``, ...: float32 ``(rows of the part, width)``,
NaN where a row lacks the value or cannot be read. A part is there whole or not at all, so that a process that was killed
loses the part it was at, and processes that share the folder do not disturb one another.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.core.embedder import FEATURES
from multimodal.core.encoder import Encoder, Inputs
from multimodal.core.encoder_description import encoder_fingerprint
from multimodal.core.errors import Unreadable
from multimodal.core.rejects import Rejects
from multimodal.data.loaders import ordered_loader
from multimodal.data.samples import Samples
from multimodal.data.schema import RowLookupProcessor

PART_ROWS = 4096


@dataclass(frozen=True)
class Features:
    """The features of one column's values in some rows.

    Args:
        folder: the parts.
        rows: ``(r,)`` int64, ascending.
    """

    folder: Path
    rows: np.ndarray

    @property
    def parts(self) -> list[Path]:
        return [self.folder / f"part-{number:05}.npy" for number in range(-(-len(self.rows) // PART_ROWS))]

    @cached_property
    def _mapped(self) -> list[np.ndarray]:
        return [np.load(part, mmap_mode="r", allow_pickle=False) for part in self.parts]

    def __getstate__(self) -> dict[str, Any]:  # another process maps the files itself
        return {"folder": self.folder, "rows": self.rows}

    def of(self, row: int) -> Tensor:
        """``(width,)`` float32.

        Raises:
            Unreadable: the encoder's processor could not read the value.
        """
        part, place = divmod(int(np.searchsorted(self.rows, row)), PART_ROWS)
        features = torch.from_numpy(np.array(self._mapped[part][place]))
        if features.isnan().any():
            raise Unreadable("unreadable for a frozen encoder", f"row {row} was rejected when its features were made.")
        return features


class FeatureProcessor(RowLookupProcessor):
    """Takes the place of a frozen encoder's processor: an item is the row's features."""

    def __init__(self, columns: dict[str, Features]) -> None:
        self.columns = columns

    def of_row(self, row: int, column: str) -> Tensor:
        return self.columns[column].of(row)

    def __call__(self, value: Any) -> Any:
        raise NotImplementedError("features are those of rows")

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        return {FEATURES: torch.stack(list(items))}


def load_or_compute_features(
    encoder: Encoder,
    samples: Samples,
    modality: str,
    rows: np.ndarray,
    cache: Path,
    context: Callable[[], AbstractContextManager[Any]],
    rejects: Rejects,
    options: dict[str, Any],
    batch_size: int = 256,
    share: tuple[int, int] = (0, 1),
    advance: Callable[[int], object] | None = None,
) -> FeatureProcessor:
    """The processor of kept features, after what is missing of them was made.

    Args:
        encoder: frozen; it is run in evaluation mode.
        samples, modality, rows: whose values; ``rows`` ascending.
        cache: the folder of all folders of features.
        context: what forward passes run in, such as autocast.
        rejects: where values that cannot be read are noted.
        options: of the loader.
        batch_size: values embedded at a time.
        share: this process's number and that of all, which divide the parts among them and have to wait for one another.
        advance: called with the number of rows that are done.
    """
    found = {}
    training = encoder.training
    encoder.eval()
    for column in (*samples.schema.columns[modality], *samples.schema.negatives.get(modality, ())):
        view = samples.of_column(modality, column)
        features = Features(cache / _cache_name(encoder, view, rows, context), rows)
        features.folder.mkdir(parents=True, exist_ok=True)
        there = view.present(modality)[rows]
        for number, part in enumerate(features.parts):
            of_part = rows[number * PART_ROWS : (number + 1) * PART_ROWS]
            if number % share[1] == share[0] and not _is_complete(part):
                loader = ordered_loader(view, of_part, {modality: encoder.processor}, batch_size, rejects, options)
                made = _compute(encoder, loader, modality, of_part, context)
                made[~there[number * PART_ROWS : (number + 1) * PART_ROWS]] = 0  # nobody asks for them
                _write(part, made)
            if advance is not None:
                advance(len(of_part))
        found[column] = features
    encoder.train(training)
    return FeatureProcessor(found)


@torch.no_grad()
def _compute(encoder: Encoder, loader: Any, modality: str, rows: np.ndarray, context: Any) -> np.ndarray:
    device = next(encoder.parameters()).device
    made = np.full((len(rows), encoder.width), np.nan, dtype=np.float32)
    for batch in loader:
        if modality in batch.inputs:
            inputs = {name: tensor.to(device) for name, tensor in batch.inputs[modality].items()}
            with context():
                features = encoder(**inputs)
            at = [int(batch.keys[row]) for row in batch.rows[modality].tolist()]  # the keys are the row numbers
            made[np.searchsorted(rows, at)] = features.float().cpu().numpy()
    return made


def _is_complete(part: Path) -> bool:
    """Whether a part is there and has all its rows; those that could not be read may be there by now."""
    return part.exists() and not np.isnan(np.load(part, mmap_mode="r", allow_pickle=False)[:, 0]).any()


def _write(part: Path, features: np.ndarray) -> None:
    new = part.with_name(f"{part.stem}.{os.getpid()}.new")
    with new.open("wb") as file:
        np.save(file, features, allow_pickle=False)
    os.replace(new, part)


def _cache_name(encoder: Encoder, samples: Samples, rows: np.ndarray, context: Any) -> str:
    with context():
        device = next(encoder.parameters()).device.type
        precision = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else "float32"
    digest = sha256(encoder_fingerprint(encoder).encode())
    for code in _source_files(encoder):
        digest.update(code)
    digest.update(json.dumps([samples.settings, samples.fingerprint, precision], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
    if encoder.processor.reads_files:
        for state in _file_states(samples, rows):
            digest.update(str(state).encode())
    return digest.hexdigest()[:32]


def _source_files(encoder: Encoder) -> Iterator[bytes]:
    """The files that say what the encoder, its parts and its processor do."""
    kinds = {*(type(module) for module in encoder.modules()), type(encoder.processor)}
    files = {getattr(sys.modules.get(kind.__module__), "__file__", None) for kind in kinds}
    for file in sorted(file for file in files if file is not None):
        yield Path(file).read_bytes()


def _file_states(samples: Samples, rows: np.ndarray) -> Iterator[tuple[int, int] | None]:
    """Size and time of change of the local files that the cells of a single column name."""
    (modality,) = samples.modalities
    for value in samples.values(modality, rows):
        try:
            found = os.stat(os.path.join(samples.base or "", value)) if isinstance(value, str) else None
        except (OSError, ValueError):
            found = None
        yield None if found is None else (found.st_size, found.st_mtime_ns)
