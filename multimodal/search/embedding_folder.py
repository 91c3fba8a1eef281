"""Folder that bulk embedding writes: Parquet parts, a manifest, and a list of the digests of finished parts.

A part has the columns ``key``, ``group``, ``metadata`` (JSON) and ``digest`` (of what the encoders got), and one column of
vectors for each modality, null where the row has no such value.

The list of digests is in the format of the program ``sha256sum``. It gets a line when a part is finished, so that an
interrupted run knows which parts are whole; a part without a line, as in folders of earlier versions, is judged by its
contents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.core.digests import DIGEST, check_document, digest_of_file, read_sums
from multimodal.core.errors import MultimodalError
from multimodal.core.files import no_such_folder
from multimodal.core.json_file import read_json
from multimodal.core.manifests import EMBEDDINGS as MANIFEST
from multimodal.search.stored_vectors import DTYPES, vectors_of
from multimodal.search.unit_vectors import not_unit

PART_ROWS = 8192
MAX_PARTS = 10**6
WHOLE = ".whole"  # in the folder: a new state that is whole, while it replaces the old one
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
        dtype: of the numbers of the vectors, see ``multimodal.search.stored_vectors``.
        precision: with which the encoders computed.
        metadata: the columns described in ``metadata``; None: those that the table names.
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
    dtype: str = "float32"
    precision: str = "float32"
    metadata: list[str] | None = None
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
        document = read_json(folder / MANIFEST)
        check_document(document, folder / MANIFEST, "Embed the table again.")
        manifest = Manifest(**{name: value for name, value in document.items() if name != DIGEST})
        numbers = (manifest.dim, manifest.rows, manifest.part_rows)
        if not all(isinstance(number, int) and number > 0 for number in numbers) or manifest.format != FORMAT:
            raise ValueError("numbers out of range, or another format")
        if manifest.rows > MAX_PARTS * manifest.part_rows:
            raise ValueError("too many parts")
        if not isinstance(manifest.fingerprint, str) or not isinstance(manifest.modalities, list):
            raise TypeError("not what embed writes")
        if manifest.dtype not in DTYPES or not isinstance(manifest.metadata, list | None):
            raise ValueError("not what embed writes")
        return manifest
    except OSError as error:
        stopped = " An update was stopped; run the same `multimodal embed` again." if (folder / WHOLE).exists() else ""
        raise no_such_folder(folder, f" holds no embeddings: {MANIFEST} is missing.{stopped}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MultimodalError(f"{folder / MANIFEST} is damaged; embed the table again.") from error


def finished_parts(folder: Path, manifest: Manifest, digests: Mapping[str, str]) -> Iterator[int]:
    """Yield the numbers of the parts that are there and whole; every byte of them is read.

    Args:
        folder: the folder of embeddings.
        manifest: its manifest.
        digests: the recorded digests.
    """
    return (number for number in range(len(manifest.parts)) if is_finished(folder, number, manifest, digests))


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
        vectors = [vectors_of(table, modality, manifest.dim) for modality in manifest.modalities]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return False
    return (
        len(table) <= manifest.rows_of(number)
        and not any(column.null_count for column in described)
        and not any(len(not_unit(found)) for found in vectors)
    )


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
