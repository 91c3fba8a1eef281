"""Corruptions of recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from multimodal.core.encoder import Corruption
from multimodal.media.audio import read_recording

NOISE_DB = 10.0  # of the sound over the noise
QUIET_DB = -20.0
CLIPPED = 0.3  # of the largest sample: what is louder is cut off
GAP = 0.2  # of the length is silent


def add_noise(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return samples ``(n,)`` with white noise, 10 dB softer than the sound on average."""
    size = np.sqrt(np.mean(np.square(wave))) * 10 ** (-NOISE_DB / 20)
    return wave + size * rng.normal(size=wave.shape)


def lower_volume(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return samples ``(n,)`` that are 20 dB softer."""
    return wave * 10 ** (QUIET_DB / 20)


def clip(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return samples ``(n,)`` as an overdriven microphone records them: cut off at 0.3 of the loudest."""
    most = CLIPPED * float(np.abs(wave).max())
    return wave.clip(-most, most)


def silence(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return samples ``(n,)`` of which a random fifth, in one piece, is silent."""
    length = int(GAP * len(wave))
    start = int(rng.integers(len(wave) - length + 1))
    silenced = wave.copy()
    silenced[start : start + length] = 0
    return silenced if np.ptp(silenced) else wave


_CORRUPTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": add_noise,
    "low volume": lower_volume,
    "clipped": clip,
    "a silent gap": silence,
}


def sound_corruptions(rate: int, max_seconds: float) -> dict[str, Corruption]:
    """Return corruptions of sounds in all forms that ``read_recording`` reads; they return pairs (samples, rate).

    Args:
        rate: samples per second of arrays without a rate.
        max_seconds: how much of a recording is read, in seconds.

    Examples:
        >>> corruptions = sound_corruptions(8000, 10.0)
        >>> samples, rate = corruptions["low volume"](np.sin(np.arange(800)), np.random.default_rng(0))
        >>> samples.shape, rate, round(float(samples.max()), 2)
        ((800,), 8000.0, 0.1)
    """

    def of(corrupt: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Corruption:
        def corrupted(value: Any, rng: np.random.Generator) -> tuple[np.ndarray, float]:
            wave, found = read_recording(value, rate, max_seconds)
            return corrupt(wave, rng), float(found)

        return corrupted

    return {name: of(corrupt) for name, corrupt in _CORRUPTIONS.items()}
