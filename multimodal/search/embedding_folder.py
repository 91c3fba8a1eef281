"""Folder that bulk embedding writes: Parquet parts, a manifest, and a list of the digests of finished parts.

The list is in the format of the program ``sha256sum``. It gets a line when a part is finished, so that an interrupted run
knows which parts are whole; a part without a line, as in folders of earlier versions, is judged by its contents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.core.digests import DIGEST, check_document, digest_of_file, read_sums
from multimodal.core.errors import MultimodalError
from multimodal.data.tables.open import EMBEDDINGS_MARKER as MANIFEST
from multimodal.search.unit_vectors import not_unit

PART_ROWS = 8192
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
        return [part_name(number) for number in range(-(-self.rows // self.part_rows))]

    def rows_of(self, number: int) -> int:
        """Return the number of rows assigned to the part of this number."""
        return min(self.part_rows, self.rows - number * self.part_rows)


def part_name(number: int) -> str:
    """Return the file name of a part."""
    return f"part-{number:05}.parquet"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder of embeddings, complete or not.

    Raises:
        MultimodalError: the folder contains no embeddings, or a damaged manifest.
    """
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        check_document(document, folder / MANIFEST, "Embed the table again.")
        manifest = Manifest(**{name: value for name, value in document.items() if name != DIGEST})
        numbers = (manifest.dim, manifest.rows, manifest.part_rows)
        if not all(isinstance(number, int) and number > 0 for number in numbers) or manifest.format != FORMAT:
            raise ValueError("numbers out of range, or another format")
        if not isinstance(manifest.fingerprint, str) or not isinstance(manifest.modalities, list):
            raise TypeError("not what embed writes")
        return manifest
    except OSError as error:
        raise MultimodalError(f"{folder} holds no embeddings: {MANIFEST} is missing.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MultimodalError(f"{folder / MANIFEST} is damaged; embed the table again.") from error


def finished_rows(folder: Path) -> int:
    """Return how many of the rows to embed are in whole parts; 0 if the folder has no embeddings yet.

    Raises:
        MultimodalError: the manifest is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return 0
    manifest = read_manifest(folder)
    digests = read_sums(folder)
    numbers = range(len(manifest.parts))
    return sum(manifest.rows_of(n) for n in numbers if is_finished(folder, n, manifest, digests))


def is_finished(folder: Path, number: int, manifest: Manifest, digests: Mapping[str, str]) -> bool:
    """Return whether a part is there and whole: of its recorded digest, or if it has none, of valid contents.

    Args:
        folder: the folder of embeddings.
        number: the part's number.
        manifest: the folder's manifest.
        digests: the recorded digests.
    """
    part = part_name(number)
    if not (folder / part).is_file():
        return False
    if part in digests:
        return digest_of_file(folder / part) == digests[part]
    try:
        table = pq.read_table(folder / part)
        table.validate(full=True)
        described = [table[name] for name in ("key", "group", "metadata")]
        vectors = [_vectors(table[modality], manifest.dim) for modality in manifest.modalities]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return False
    return (
        len(table) <= manifest.rows_of(number)
        and not any(column.null_count for column in described)
        and not any(len(not_unit(found)) for found in vectors)
    )


def _vectors(column: pa.ChunkedArray, dim: int) -> np.ndarray:
    """Return the vectors of a column that are not null, ``(n, dim)``."""
    if not column.type.equals(pa.list_(pa.float32(), dim)):
        raise TypeError(f"{column.type} is not a type of vectors")
    return column.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)


def read_parts(folder: Path) -> Iterator[pa.Table]:
    """Read the parts of a complete folder of embeddings, one at a time.

    Raises:
        MultimodalError: a part is missing or damaged.
    """
    digests = read_sums(folder)
    for part in read_manifest(folder).parts:
        try:
            if part in digests and digest_of_file(folder / part) != digests[part]:
                raise OSError("its digest differs")
            table = pq.read_table(folder / part)
            table.validate(full=True)
            yield table
        except FileNotFoundError as error:
            raise MultimodalError(
                f"{folder} is incomplete: {part} is missing. Run the same `multimodal embed` again; it continues there."
            ) from error
        except (OSError, pa.ArrowException) as error:
            raise MultimodalError(
                f"{folder / part} is damaged; run the same `multimodal embed` again: it writes this part again."
            ) from error
