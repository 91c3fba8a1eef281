"""Pictures of an index's rows, read from the table that was embedded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.samples import Samples
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.open import IN_MEMORY
from multimodal.media.image import picture_file

MODALITY = "image"  # the modality whose values are shown


class Pictures:
    """Image files of a table's rows, by key.

    Args:
        samples: the table, with a modality "image".

    Raises:
        UsageError: the table has no such modality.

    Examples:
        >>> samples = Samples.of([{"picture": b"...", "sku": "a"}], {"image": "picture"}, key="sku")
        >>> Pictures(samples).of("a")
        b'...'
    """

    def __init__(self, samples: Samples) -> None:
        if MODALITY not in samples.modalities:
            raise UsageError(f"The table has no modality {MODALITY!r} to show, only {', '.join(samples.modalities)}.")
        self._samples = samples

    @classmethod
    def of_index(cls, settings: Mapping[str, Any] | None, samples: Samples | None) -> Pictures:
        """Return the pictures of the table from which an index was made.

        Args:
            settings: settings with which the table was opened (``Samples.settings``).
            samples: the table, if it is open.

        Raises:
            UsageError: neither is known, or the table has no modality "image".
        """
        if samples is None:
            if settings is None or settings["table"] == IN_MEMORY:
                raise UsageError(
                    "This index does not know its table: give the Samples or the DataModule that were embedded."
                )
            samples = Samples.of(**settings)
        return cls(samples)

    def of(self, key: str) -> bytes | None:
        """Return the image file of a row as bytes, or None if there is none that can be read."""
        row = self._samples.rows_by_key.get(key)
        try:
            value = None if row is None else self._samples[row].values.get(MODALITY)
            if isinstance(value, str):
                value = resolve_file_cell(value, self._samples.base)
            if isinstance(value, Path):
                value = value.read_bytes()
            return value if value is None or isinstance(value, bytes) else picture_file(value)
        except (MultimodalError, OSError):
            return None
