"""The pictures of an index's rows, read from the table that was embedded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.samples import Samples
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.media.image import picture_file

MODALITY = "image"  # the modality whose values are shown


class Pictures:
    """The files of pictures by key.

    Args:
        samples: the table, with a modality "image".

    Raises:
        UsageError: the table has no such modality.

    Example:
        >>> samples = Samples.of([{"picture": b"...", "sku": "a"}], {"image": "picture"}, key="sku")
        >>> Pictures(samples).of("a")
        b'...'
    """

    def __init__(self, samples: Samples) -> None:
        if MODALITY not in samples.modalities:
            raise UsageError(f"The table has no modality {MODALITY!r} to show, only {', '.join(samples.modalities)}.")
        self._samples = samples
        self._rows: dict[str, int] = {}

    @classmethod
    def of_index(cls, settings: Mapping[str, Any] | None, samples: Samples | None) -> Pictures:
        """The pictures of the table that an index is of.

        Args:
            settings: how the table was opened (``Samples.settings``).
            samples: the table, if it is open.

        Raises:
            UsageError: neither is known.
        """
        if samples is None:
            if settings is None:
                raise UsageError("This index does not know its table: give its Samples.")
            samples = Samples.of(**settings)
        return cls(samples)

    def of(self, key: str) -> bytes | None:
        """The picture of a row as a file's bytes; None where there is none that can be read."""
        if not self._rows:
            self._rows = {self._samples.key_of(row): row for row in reversed(range(len(self._samples)))}
        row = self._rows.get(key)
        try:
            value = None if row is None else self._samples[row].values.get(MODALITY)
            if isinstance(value, str):
                value = resolve_file_cell(value, self._samples.base)
            if isinstance(value, Path):
                value = value.read_bytes()
            return value if value is None or isinstance(value, bytes) else picture_file(value)
        except (MultimodalError, OSError):
            return None
