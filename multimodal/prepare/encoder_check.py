"""Checks whether training can read a value, so that values that it would reject are not prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from multimodal.core import registry
from multimodal.core.encoder import Processor
from multimodal.core.errors import UsageError, suggest
from multimodal.media.audio import read_recording
from multimodal.prepare.columns import Kind

ValueCheck = Callable[[Any], object]  # raises Unreadable for a value that cannot be read
CHECKED_SECONDS = 600.0  # seconds of a recording that are checked
RAW_SAMPLE_RATE = 16000  # Hz; for raw samples only, files have their own rate


def encoder_checks(encoders: Mapping[str, str], modalities: Iterable[str]) -> dict[str, ValueCheck]:
    """Make a check of each modality for which an encoder is named, from the processor of the encoder's default settings.

    Args:
        encoders: modality -> name of the encoder.
        modalities: modalities of the table.

    Returns:
        modality -> its check.

    Raises:
        UsageError: the encoder or the modality is unknown, or the encoder has settings without defaults.
    """
    checks: dict[str, ValueCheck] = {}
    known = list(dict.fromkeys(modalities))
    for modality, name in encoders.items():
        if modality not in known:
            raise UsageError(f"encoders: no column has the modality {modality!r}.{suggest(modality, known)}")
        if missing := registry.required_settings(modality, name):
            raise UsageError(f"encoders: {name!r} for {modality} needs settings ({', '.join(missing)}); leave it out.")
        checks[modality] = _SkipUnfitted(registry.create(modality, name).processor)
    return checks


class _SkipUnfitted:
    """Check by a processor, which accepts everything if the processor must first be fitted (to learn a vocabulary).

    If the processor reads files, texts are accepted too, because here they are not names of files.
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
    """Return the check for a column of that kind without a named encoder, or None.

    Pictures need none: they are decoded anyway to compare them.
    """
    return _check_audio if kind == "audio" else None


def _check_audio(data: bytes) -> None:
    with suppress(UsageError):  # without the extra ``audio`` the check is impossible
        read_recording(data, RAW_SAMPLE_RATE, CHECKED_SECONDS)
