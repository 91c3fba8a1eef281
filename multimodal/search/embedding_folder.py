"""The folder that bulk embedding writes: Parquet parts and a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.core.errors import MultimodalError

if TYPE_CHECKING:
    pass

MANIFEST = "embeddings.json"
PART_ROWS = 8192
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a folder of embeddings holds.

    ``data`` says which table was read and how (``Samples.settings``), ``table`` what it held (``Samples.fingerprint``),
    ``rows_digest`` which of its rows, in which order.
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
        return [f"part-{number:05}.parquet" for number in range(-(-self.rows // self.part_rows))]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of embeddings, complete or not.

    Raises:
        MultimodalError: the folder holds no embeddings, or a damaged manifest.
    """
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        numbers = (manifest.dim, manifest.rows, manifest.part_rows)
        if not all(isinstance(number, int) and number > 0 for number in numbers) or manifest.format != FORMAT:
            raise ValueError("numbers out of range, or another format")
        if not isinstance(manifest.fingerprint, str) or not isinstance(manifest.modalities, list):
            raise TypeError("not what embed writes")
        return manifest
    except OSError as error:
        raise MultimodalError(f"{folder} holds no embeddings: {MANIFEST} is not there.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MultimodalError(f"{folder / MANIFEST} is damaged; make the embeddings anew.") from error


def read_parts(folder: Path) -> Iterator[pa.Table]:
    """The parts of a complete folder of embeddings.

    Raises:
        MultimodalError: a part is missing or damaged.
    """
    for part in read_manifest(folder).parts:
        try:
            yield pq.read_table(folder / part)
        except FileNotFoundError as error:
            raise MultimodalError(
                f"{folder} is half made: {part} is missing. Run the same `multimodal embed` again; it goes on there."
            ) from error
        except (OSError, pa.ArrowInvalid) as error:
            raise MultimodalError(f"{folder / part} is damaged; remove it and run `multimodal embed` again.") from error
