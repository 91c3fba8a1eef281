"""Opening recordings: bytes, paths or arrays become a mono waveform, for the encoders of sound and for ``prepare``."""

from __future__ import annotations

import io
import math
import re
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.core.errors import Unreadable, UsageError

SILENCE_PEAK = 2.0**-17  # a peak below it is less than half a step of 16 bits, where 1 is the loudest
MAX_SAMPLE_VALUE = 1e30  # a sample; its square would overflow
# in libsndfile's log: a header that promises more bytes than there are, of which it reads those that there are
TRUNCATED_HEADER = re.compile(r"^\s*(?:data|Data Size|SSND)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_LENGTH = 0x7F000000  # programs that write to a pipe promise about as much as the field holds, 2 or 4 GB
SAMPLE_RATE_RANGE = (1_000, 1_000_000)  # in Hz; no recording has another


def read_recording(value: Any, rate: int, max_seconds: float) -> tuple[np.ndarray, float]:
    """Read a recording as ``(n,)`` float64, n at least 1, and its samples per second.

    Channels are averaged, and what comes after ``max_seconds`` is cut.

    Args:
        value: a path or the bytes of a WAV, FLAC, OGG or MP3 file, a pair (samples, rate), or the samples alone: an array
            ``(n,)`` or ``(n, channels)``, floating point or whole numbers.
        rate: samples per second of an array without a rate.
        max_seconds: the length that is kept.

    Raises:
        Unreadable: it is not one of these, damaged, or silent.
        UsageError: the library soundfile is not installed.
    """
    samples, found, shown = _read(value, rate, max_seconds)
    wave = _to_mono(samples, shown)
    low, high = SAMPLE_RATE_RANGE
    if not low <= found <= high:
        raise Unreadable("odd sample rate", f"{shown} has {found} samples a second; give {low} to {high}.")
    wave = wave[: math.ceil(max_seconds * found)]
    if not (np.abs(wave) < MAX_SAMPLE_VALUE).all():
        raise Unreadable(
            "NaN audio", f"{shown} has samples that are not numbers, or are {MAX_SAMPLE_VALUE:g} and more."
        )
    if np.abs(wave - wave.mean()).max() < SILENCE_PEAK:
        raise Unreadable("silent audio", f"{shown} is silent in its first {max_seconds:g} s.")
    return wave, found


def resample(wave: np.ndarray, rate: float, wanted: int) -> np.ndarray:
    """Resample ``(n,)`` to ``(m,)`` float32 at another rate, m at least 1, by soxr.

    Args:
        wave: the samples.
        rate: its samples per second.
        wanted: the samples per second of the result.
    """
    wave = wave.astype(np.float32)
    if rate == wanted:
        return wave
    result = import_audio_library("soxr").resample(wave, rate, wanted)
    return result if len(result) else np.zeros(1, dtype=np.float32)  # of less than half a sample


def import_audio_library(name: str) -> Any:
    """Import a library of sound, or raise a ``UsageError`` that says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"Sound needs the library {name} ({error}): pip install 'multimodal[audio]'.") from error


def _read(value: Any, rate: int, max_seconds: float) -> tuple[np.ndarray, float, str]:
    """Samples, rate, and the value in the words of an error text."""
    if isinstance(value, str | Path):
        return *_decode(value, str(value), max_seconds), str(value)
    if isinstance(value, bytes):
        shown = f"{len(value)} bytes"
        return *_decode(io.BytesIO(value), shown, max_seconds), shown
    if isinstance(value, np.ndarray):
        return value, rate, f"an array {value.shape}"
    match value:
        case [np.ndarray() | list() as samples, int() | float() | np.number() as found]:
            try:
                return np.asarray(samples), float(found), f"a pair of samples and rate {found}"
            except ValueError as error:  # lists of unequal length
                raise Unreadable("no samples", f"the samples are not an array ({error}).") from error
    raise Unreadable(
        "wrong type", f"a {type(value).__name__} is not a sound; give a path, bytes, (samples, rate) or an array."
    )


def _decode(source: str | Path | io.BytesIO, shown: str, max_seconds: float) -> tuple[np.ndarray, float]:
    soundfile = import_audio_library("soundfile")
    with ExitStack() as opened:
        try:
            file: Any = source
            if not isinstance(source, io.BytesIO):
                # by its number: of a name soundfile takes the ending for the format, and one that is missing for damage
                file = opened.enter_context(open(source, "rb")).fileno()
            sound = opened.enter_context(soundfile.SoundFile(file, closefd=False))
        except FileNotFoundError as error:
            raise Unreadable("missing file", f"the recording {shown} does not exist.") from error
        except (OSError, ValueError, soundfile.SoundFileError) as error:
            said = getattr(error, "error_string", error)  # without the address of bytes in memory
            raise Unreadable("no audio file", f"{shown} is not a recording that can be read ({said}).") from error
        frames = min(sound.frames, math.ceil(max_seconds * sound.samplerate))
        try:
            samples = sound.read(frames, dtype="float32")
        except soundfile.SoundFileError as error:
            raise Unreadable("truncated audio", f"{shown} is cut off or damaged ({error}).") from error
        if len(samples) < frames:
            raise Unreadable("truncated audio", f"{shown} ends after {len(samples)} of its {frames} samples.")
        if (
            frames == sound.frames
            and (cut := TRUNCATED_HEADER.search(sound.extra_info))
            and int(cut[1]) < UNKNOWN_LENGTH
        ):
            raise Unreadable("truncated audio", f"{shown} is cut off: it has {cut[2]} of its {cut[1]} bytes of sound.")
        return samples, sound.samplerate


def _to_mono(samples: np.ndarray, shown: str) -> np.ndarray:
    """Float64 ``(n,)``, n at least 1."""
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise Unreadable(
            "no samples", f"{shown} holds {samples.dtype} of shape {samples.shape}; give numbers (n,) or (n, channels)."
        )
    if not samples.size:
        raise Unreadable("empty audio", f"{shown} has no samples.")
    wave = samples.astype(np.float64)
    return wave if wave.ndim == 1 else wave.mean(axis=1)
