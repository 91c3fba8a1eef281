"""Cache of the features that frozen encoders compute for a table's rows: computed once, stored on disk, memory-mapped.

Rows with equal texts share their features, which are computed for the first of them. The name of a cache folder is a hash
of everything that the features depend on: the encoder (its settings, processor, weights and source code), the table and how it
is read, the column, the rows whose features are computed, and the precision. The folder contains ``part-00000.npy``, ...:
float32 ``(rows of the part, width)``, NaN for unreadable rows, and after it the SHA-256 of what is before. A part that is
damaged is computed again. A part is written atomically, so that a killed process loses only its current part, and several
processes can share the folder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.core.digests import append_digest, ends_with_digest
from multimodal.core.embedder import FEATURES
from multimodal.core.encoder import Encoder, Inputs
from multimodal.core.encoder_description import encoder_fingerprint
from multimodal.core.errors import Unreadable
from multimodal.core.npy import map_npy
from multimodal.core.rejects import Rejects
from multimodal.data.loaders import ordered_loader
from multimodal.data.samples import Samples
from multimodal.data.schema import RowLookupProcessor

PART_ROWS = 4096


@dataclass(frozen=True)
class Features:
    """The cached features of one column's values in some rows.

    Args:
        folder: folder of the parts.
        rows: ``(r,)`` int64 row numbers, ascending.
        places: ``(r,)`` int64, where in the parts a row's features are; rows with equal texts have the same place.

    Examples:
        >>> np.save("part-00000.npy", np.array([[0.5, 1.0], [np.nan, np.nan]], dtype=np.float32))
        >>> features = Features(Path(), rows=np.array([3, 8, 9]), places=np.array([0, 1, 0]))
        >>> features.of_row(9)
        tensor([0.5000, 1.0000])
    """

    folder: Path
    rows: np.ndarray
    places: np.ndarray

    @property
    def parts(self) -> list[Path]:
        """The files of ``PART_ROWS`` rows each, whether they exist or not."""
        places = int(self.places.max(initial=-1)) + 1
        return [self.folder / f"part-{number:05}.npy" for number in range(-(-places // PART_ROWS))]

    @cached_property
    def _mapped(self) -> list[np.ndarray]:
        return [map_npy(part) for part in self.parts]

    def __getstate__(self) -> dict[str, Any]:  # a process that unpickles it maps the files itself
        return {"folder": self.folder, "rows": self.rows, "places": self.places}

    def of_row(self, row: int) -> Tensor:
        """Return the features of a row, ``(width,)`` float32.

        Raises:
            Unreadable: the encoder's processor could not read the value.
        """
        part, offset = divmod(int(self.places[np.searchsorted(self.rows, row)]), PART_ROWS)
        features = torch.from_numpy(np.array(self._mapped[part][offset]))
        if features.isnan().any():
            raise Unreadable(
                "unreadable for a frozen encoder",
                f"the value of row {row} could not be read when the features were computed.",
            )
        return features


class FeatureProcessor(RowLookupProcessor):
    """Replacement of a frozen encoder's processor, whose items are the cached features of rows.

    Args:
        columns: column -> its features.

    Examples:
        >>> np.save("part-00000.npy", np.array([[0.5, 1.0]], dtype=np.float32))
        >>> processor = FeatureProcessor({"title": Features(Path(), rows=np.array([3]), places=np.array([0]))})
        >>> processor.item_of_row(3, "title")
        tensor([0.5000, 1.0000])
    """

    def __init__(self, columns: dict[str, Features]) -> None:
        self.columns = columns

    def item_of_row(self, row: int, column: str) -> Tensor:
        """Return the features of a row's value in a column, ``(width,)`` float32."""
        return self.columns[column].of_row(row)

    def __call__(self, value: Any) -> Any:
        raise NotImplementedError("cached features are looked up by row, not by value")

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
    rank_and_world_size: tuple[int, int] = (0, 1),
    advance: Callable[[int], object] | None = None,
) -> FeatureProcessor:
    """Compute the features that are not cached yet, and return a processor that looks up the features.

    Args:
        encoder: a frozen encoder; it is run in evaluation mode.
        samples: the samples.
        modality: the modality of the encoder.
        rows: ``(r,)`` int64 row numbers, ascending.
        cache: the folder in which each set of features has a folder.
        context: returns the context manager of forward passes, such as autocast.
        rejects: records values that cannot be read.
        options: arguments of the ``DataLoader``.
        batch_size: values that are encoded at a time.
        rank_and_world_size: rank of this process and number of processes. The processes divide the parts among them;
            the caller must then wait until all are done.
        advance: called with the number of rows that are done: all those whose values are in a batch, or in a skipped part.
    """
    features_by_column = {}
    rank, world_size = rank_and_world_size
    training = encoder.training
    encoder.eval()
    for column in (*samples.schema.columns[modality], *samples.schema.negatives.get(modality, ())):
        column_samples = samples.single_column(modality, column)
        computed, places = _distinct_texts(column_samples, modality, rows, encoder)
        features = Features(cache / _cache_name(encoder, column_samples, computed, context), rows, places)
        features.folder.mkdir(parents=True, exist_ok=True)
        has_value = column_samples.present(modality)[computed]
        counts = np.bincount(places, minlength=len(computed))
        for part_number, part in enumerate(features.parts):
            in_part = slice(part_number * PART_ROWS, (part_number + 1) * PART_ROWS)
            part_rows, part_counts = computed[in_part], counts[in_part]
            if part_number % world_size == rank and not _is_complete(part, (len(part_rows), encoder.width)):
                loader = ordered_loader(
                    column_samples, part_rows, {modality: encoder.processor}, batch_size, rejects, options
                )
                values = _compute(encoder, loader, modality, part_rows, part_counts, context, advance)
                values[~has_value[in_part]] = 0  # never looked up; NaN would mark the part as incomplete
                _write(part, values)
            elif advance is not None:
                advance(int(part_counts.sum()))
        features_by_column[column] = features
    encoder.train(training)
    return FeatureProcessor(features_by_column)


def _distinct_texts(
    samples: Samples, modality: str, rows: np.ndarray, encoder: Encoder
) -> tuple[np.ndarray, np.ndarray]:
    """Find the distinct texts of a column; in a column with other values than texts, each row has its own.

    Returns:
        The row number of the first row with each text, ``(c,)`` int64 ascending, and for each row the index of its text
        among them, ``(r,)`` int64.
    """
    every_row = rows, np.arange(len(rows))
    if isinstance(encoder.processor, RowLookupProcessor):  # equal cells may have different items
        return every_row
    digests = bytearray()
    for position, row in enumerate(rows):
        text = next(samples.values(modality, row[None]), None)
        if not isinstance(text, str | None):
            return every_row
        named = f"#{position}" if text is None else f"={text}"
        digests += blake2b(named.encode(errors="surrogatepass"), digest_size=16).digest()
    _, first, of_row = np.unique(np.frombuffer(digests, dtype="S16"), return_index=True, return_inverse=True)
    new = np.sort(first)
    return rows[new], np.searchsorted(new, first[of_row])


@torch.no_grad()
def _compute(
    encoder: Encoder,
    loader: Any,
    modality: str,
    rows: np.ndarray,
    counts: np.ndarray,
    context: Any,
    advance: Callable[[int], object] | None,
) -> np.ndarray:
    """Encode a column's values in some rows, ``(rows, width)`` float32; NaN for missing and unreadable values.

    Each row counts as ``counts`` ``(rows,)`` in the progress.
    """
    device = next(encoder.parameters()).device
    values = np.full((len(rows), encoder.width), np.nan, dtype=np.float32)
    for batch in loader:
        places = np.searchsorted(rows, [int(key) for key in batch.keys])  # the keys of the samples are row numbers
        if modality in batch.inputs:
            inputs = {name: tensor.to(device) for name, tensor in batch.inputs[modality].items()}
            with context():
                features = encoder(**inputs)
            values[places[batch.rows[modality].numpy()]] = features.float().cpu().numpy()
        if advance is not None:
            advance(int(counts[places].sum()))
    return values


def _is_complete(part: Path, shape: tuple[int, int]) -> bool:
    """Return whether a part exists, undamaged and without unreadable rows, which may be readable by now."""
    try:
        features = map_npy(part)
        without_digest = part.stat().st_size == features.offset + features.nbytes  # of an earlier version
        if features.shape != shape or features.dtype != np.float32 or not (without_digest or ends_with_digest(part)):
            return False
    except (OSError, ValueError):
        return False
    return not np.isnan(features[:, 0]).any()


def _write(part: Path, features: np.ndarray) -> None:
    new = part.with_name(f"{part.stem}.{os.getpid()}.new")
    with new.open("wb") as file:
        np.save(file, features, allow_pickle=False)
    append_digest(new)
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
    """Return the source code of the encoder, its modules and its processor."""
    classes = {*(type(module) for module in encoder.modules()), type(encoder.processor)}
    files = {getattr(sys.modules.get(cls.__module__), "__file__", None) for cls in classes}
    for file in sorted(file for file in files if file is not None):
        yield Path(file).read_bytes()


def _file_states(samples: Samples, rows: np.ndarray) -> Iterator[tuple[int, int] | None]:
    """Return size and modification time of the local files that the cells of a single column name."""
    (modality,) = samples.modalities
    for value in samples.values(modality, rows):
        try:
            state = os.stat(os.path.join(samples.base or "", value)) if isinstance(value, str) else None
        except (OSError, ValueError):
            state = None
        yield None if state is None else (state.st_size, state.st_mtime_ns)
