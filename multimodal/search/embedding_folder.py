"""Folder that bulk embedding writes: Parquet parts and a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.core.errors import MultimodalError
from multimodal.core.json_file import read_json
from multimodal.data.tables.open import EMBEDDINGS_MARKER as MANIFEST

PART_ROWS = 8192
MAX_PARTS = 10**6
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """Description of a folder of embeddings.

    Attributes:
        fingerprint: of the model.
        dim: width of the vectors.
        modalities: the columns of vectors.
        data: which table was read and how (``Samples.settings``).
        table: fingerprint of the table's contents (``Samples.fingerprint``).
        rows: number of rows to embed; the parts have fewer if rows cannot be read.
        rows_digest: SHA-256 of the row numbers in order.
        part_rows: rows assigned to a part.
        format: version of this format.

    Examples:
        >>> Manifest("f" * 64, 16, ["text"], {}, "t" * 64, rows=9, rows_digest="d" * 64, part_rows=8).parts
        ['part-00000.parquet', 'part-00001.parquet']
    """

    fingerprint: str
    dim: int
    modalities: list[str]
    data: dict[str, Any]
    table: str
    rows: int
    rows_digest: str
    part_rows: int
    format: int = FORMAT

    @property
    def parts(self) -> list[str]:
        """File names of the parts, in order."""
        return [f"part-{number:05}.parquet" for number in range(-(-self.rows // self.part_rows))]


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder of embeddings, complete or not.

    Raises:
        MultimodalError: the folder contains no embeddings, or a damaged manifest.
    """
    try:
        manifest = Manifest(**read_json(folder / MANIFEST))
        numbers = (manifest.dim, manifest.rows, manifest.part_rows)
        if not all(isinstance(number, int) and number > 0 for number in numbers) or manifest.format != FORMAT:
            raise ValueError("numbers out of range, or another format")
        if manifest.rows > MAX_PARTS * manifest.part_rows:
            raise ValueError("too many parts")
        if not isinstance(manifest.fingerprint, str) or not isinstance(manifest.modalities, list):
            raise TypeError("not what embed writes")
        return manifest
    except OSError as error:
        raise MultimodalError(f"{folder} holds no embeddings: {MANIFEST} is missing.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MultimodalError(f"{folder / MANIFEST} is damaged; embed the table again.") from error


def finished_rows(folder: Path) -> int:
    """Return how many of the rows to embed are in parts that are written; 0 if the folder has no embeddings yet.

    Raises:
        MultimodalError: the manifest is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return 0
    manifest = read_manifest(folder)
    sizes = (min(manifest.part_rows, manifest.rows - start) for start in range(0, manifest.rows, manifest.part_rows))
    return sum(size for part, size in zip(manifest.parts, sizes, strict=True) if (folder / part).exists())


def read_parts(folder: Path) -> Iterator[pa.Table]:
    """Read the parts of a complete folder of embeddings, one at a time.

    Raises:
        MultimodalError: a part is missing or damaged.
    """
    for part in read_manifest(folder).parts:
        try:
            yield pq.read_table(folder / part)
        except FileNotFoundError as error:
            raise MultimodalError(
                f"{folder} is incomplete: {part} is missing. Run the same `multimodal embed` again; it continues there."
            ) from error
        except (OSError, pa.ArrowInvalid) as error:
            raise MultimodalError(f"{folder / part} is damaged; remove it and run `multimodal embed` again.") from error
