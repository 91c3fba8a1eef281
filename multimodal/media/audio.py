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
from multimodal.core.files import not_a_file

SILENCE_PEAK = 2.0**-17  # half a step of 16 bits, where full scale is 1
MAX_SAMPLE_VALUE = 1e30  # the square of a larger one overflows float32
# in libsndfile's log: the header declares more bytes than the file has; the library reads those that exist
TRUNCATED_HEADER = re.compile(r"^\s*(?:data|Data Size|SSND)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_LENGTH = 0x7F000000  # programs that write to a pipe declare about the largest possible length, 2 or 4 GB
SAMPLE_RATE_RANGE = (1_000, 1_000_000)  # in Hz; other rates are taken for errors


def read_recording(value: Any, rate: int, max_seconds: float) -> tuple[np.ndarray, float]:
    """Read a recording as mono samples ``(n,)`` float64, n at least 1, and their rate in Hz.

    Channels are averaged, and samples after ``max_seconds`` are cut off.

    Args:
        value: a path or the bytes of a WAV, FLAC, OGG or MP3 file, a pair (samples, rate), or the samples alone: an array
            or tensor ``(n,)`` or ``(n, channels)``, floating point or whole numbers.
        rate: samples per second of an array without a rate.
        max_seconds: the length to keep, in seconds.

    Raises:
        Unreadable: the value is not one of these, is damaged, or is silent.
        UsageError: the library soundfile is not installed.
    """
    samples, sample_rate, description = _read(value, rate, max_seconds)
    wave = _to_mono(samples, description)
    low, high = SAMPLE_RATE_RANGE
    if not low <= sample_rate <= high:
        raise Unreadable("odd sample rate", f"{description} has {sample_rate} samples a second; give {low} to {high}.")
    wave = wave[: math.ceil(max_seconds * sample_rate)]
    if not (np.abs(wave) < MAX_SAMPLE_VALUE).all():
        raise Unreadable(
            "NaN audio", f"{description} has samples that are not numbers, or are {MAX_SAMPLE_VALUE:g} and more."
        )
    if np.abs(wave - wave.mean()).max() < SILENCE_PEAK:
        raise Unreadable("silent audio", f"{description} is silent in its first {max_seconds:g} s.")
    return wave, sample_rate


def is_recording(given: Any) -> bool:
    """Whether samples or a pair (samples, rate) are one recording: an array or tensor of 1 or 2 dimensions is one.

    Examples:
        >>> is_recording(np.zeros(100)), is_recording((np.zeros(100), 16_000)), is_recording([np.zeros(100)] * 2)
        (True, True, False)
    """
    match given:
        case (samples, int() | float() | np.number()):
            return hasattr(samples, "ndim") or isinstance(samples, list)
    return getattr(given, "ndim", 0) in (1, 2) and getattr(getattr(given, "dtype", None), "kind", "f") in "fiu"


def resample(wave: np.ndarray, rate: float, target_rate: int) -> np.ndarray:
    """Resample ``(n,)`` to ``(m,)`` float32 at another rate, m at least 1, by soxr.

    Args:
        wave: the samples.
        rate: their rate in Hz.
        target_rate: the rate of the result in Hz.

    Raises:
        UsageError: the rates differ and the library soxr is not installed.
    """
    wave = wave.astype(np.float32)
    if rate == target_rate:
        return wave
    result = import_audio_library("soxr").resample(wave, rate, target_rate)
    return result if len(result) else np.zeros(1, dtype=np.float32)  # the result would be shorter than half a sample


def import_audio_library(name: str) -> Any:
    """Import a library for sound, or raise a ``UsageError`` that says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"Audio needs the library {name} ({error}): pip install 'multimodal[audio]'.") from error


def _read(value: Any, rate: int, max_seconds: float) -> tuple[np.ndarray, float, str]:
    """Return samples, their rate, and a description of the value for error messages."""
    if isinstance(value, str | Path):
        return *_decode(value, str(value), max_seconds), str(value)
    if isinstance(value, bytes):
        description = f"{len(value)} bytes"
        return *_decode(io.BytesIO(value), description, max_seconds), description
    value = _as_array(value)
    if isinstance(value, np.ndarray):
        return _not_transposed(value), rate, f"an array {value.shape}"
    match value:
        case [samples, int() | float() | np.number() as sample_rate] if hasattr(samples, "ndim") or isinstance(
            samples, list
        ):
            try:
                samples = np.asarray(_as_array(samples))
            except ValueError as error:  # lists of unequal length
                raise Unreadable("no samples", f"the samples are not an array ({error}).") from error
            return _not_transposed(samples), float(sample_rate), f"a pair of samples and rate {sample_rate}"
    raise Unreadable(
        "wrong type", f"a {type(value).__name__} is not a sound; give a path, bytes, (samples, rate) or an array."
    )


def _as_array(value: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    return value.detach().cpu().double().numpy() if hasattr(value, "detach") else value


def _not_transposed(samples: np.ndarray) -> np.ndarray:
    """Return an array unchanged, unless its first axis looks like channels: their average would be over time."""
    if samples.ndim == 2 and 0 < samples.shape[0] < samples.shape[1]:
        raise Unreadable(
            "channels first",
            f"samples of shape {samples.shape} have more channels than samples; give (n, channels), such as samples.T, or"
            " list(samples) if they are several recordings.",
        )
    return samples


def _decode(source: str | Path | io.BytesIO, description: str, max_seconds: float) -> tuple[np.ndarray, float]:
    soundfile = import_audio_library("soundfile")
    with ExitStack() as opened:
        try:
            file: Any = source
            if not isinstance(source, io.BytesIO):
                # by its descriptor: given a name, soundfile trusts the suffix, and reports missing files as damaged
                file = opened.enter_context(open(source, "rb")).fileno()
            sound = opened.enter_context(soundfile.SoundFile(file, closefd=False))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise not_a_file(description, "the recording") from error
        except (OSError, ValueError, soundfile.SoundFileError) as error:
            reason = getattr(error, "error_string", error)  # without the memory address that str(error) contains
            raise Unreadable(
                "no audio file", f"{description} is not a recording that can be read ({reason})."
            ) from error
        frames = min(sound.frames, math.ceil(max_seconds * sound.samplerate))
        try:
            samples = sound.read(frames, dtype="float32")
        except soundfile.SoundFileError as error:
            raise Unreadable("truncated audio", f"{description} is cut off or damaged ({error}).") from error
        if len(samples) < frames:
            raise Unreadable("truncated audio", f"{description} ends after {len(samples)} of its {frames} samples.")
        if (
            frames == sound.frames
            and (truncated := TRUNCATED_HEADER.search(sound.extra_info))
            and int(truncated[1]) < UNKNOWN_LENGTH
        ):
            raise Unreadable(
                "truncated audio",
                f"{description} is cut off: it has {truncated[2]} of its {truncated[1]} bytes of sound.",
            )
        return samples, sound.samplerate


def _to_mono(samples: np.ndarray, description: str) -> np.ndarray:
    """Average the channels of ``(n,)`` or ``(n, channels)`` to ``(n,)`` float64, n at least 1."""
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise Unreadable(
            "no samples",
            f"{description} holds {samples.dtype} of shape {samples.shape}; give numbers (n,) or (n, channels).",
        )
    if not samples.size:
        raise Unreadable("empty audio", f"{description} has no samples.")
    wave = samples.astype(np.float64)
    return wave if wave.ndim == 1 else wave.mean(axis=1)
