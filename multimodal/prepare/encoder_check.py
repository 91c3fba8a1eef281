"""Whether training will read a value: what it would reject has no place in what is prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from multimodal.core import registry
from multimodal.core.encoder import Processor
from multimodal.core.errors import UsageError, suggest
from multimodal.media.audio import read_recording
from multimodal.prepare.columns import Kind

ValueCheck = Callable[[Any], object]  # raises Unreadable over a value that cannot be read
CHECKED_SECONDS = 600.0  # of a sound are looked at
RAW_SAMPLE_RATE = 16000  # that of samples alone, which no file is


def encoder_checks(encoders: Mapping[str, str], modalities: Iterable[str]) -> dict[str, ValueCheck]:
    """Modality -> the processor of the encoder that is named for it, with the encoder's own defaults.

    Args:
        encoders: modality -> the encoder's name.
        modalities: those of the table.

    Raises:
        UsageError: there is no such encoder or modality, or the encoder cannot be made without settings.
    """
    found: dict[str, ValueCheck] = {}
    known = list(dict.fromkeys(modalities))
    for modality, name in encoders.items():
        if modality not in known:
            raise UsageError(f"encoders: no column is of the modality {modality!r}.{suggest(modality, known)}")
        if lacking := registry.required_settings(modality, name):
            raise UsageError(f"encoders: {name!r} for {modality} needs settings ({', '.join(lacking)}); leave it out.")
        found[modality] = _SkipUnfitted(registry.create(modality, name).processor)
    return found


class _SkipUnfitted:
    """A processor; one that has to learn from the training split first (a vocabulary) finds no fault.

    Neither does one of files in a text that was not taken for the name of one.
    """

    def __init__(self, processor: Processor) -> None:
        self._processor: Processor | None = processor

    def __call__(self, value: Any) -> None:
        if self._processor is None or (self._processor.reads_files and isinstance(value, str)):
            return
        try:
            self._processor(value)
        except UsageError:
            self._processor = None


def default_check(kind: Kind) -> ValueCheck | None:
    """What judges a column of that kind where no encoder is named; pictures are opened to be compared, at any rate."""
    return _check_audio if kind == "audio" else None


def _check_audio(data: bytes) -> None:
    with suppress(UsageError):  # without the extra ``audio`` nobody can tell
        read_recording(data, RAW_SAMPLE_RATE, CHECKED_SECONDS)
