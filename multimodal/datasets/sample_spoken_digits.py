"""A sample of spoken digits, synthesised: five voices say each of the ten words thirty times.

A row is one recording. Its columns:

- ``id``: ``"7-alto-12"``, the digit, the voice and the number of the recording;
- ``audio``: the bytes of a WAV file: one channel of 16 bits at 8,000 Hz;
- ``digit``: ``"seven"``;
- ``speaker``: ``"bass"``, ``"baritone"``, ``"tenor"``, ``"alto"`` or ``"soprano"``.

A word is a sequence of sounds. Each sound has three formants (resonances of the vocal tract), an amplitude of the voice, and
an amplitude of noise in a frequency band. The voice is a sum of harmonics, shaped by the formants, which move from sound to
sound. Voices differ in pitch and in the length of the vocal tract, which scales the formants; each recording varies in pitch,
tempo, formants and noise.

Source: the formants of the vowels are the averages of men in Peterson and Barney, "Control methods used in a study of the
vowels" (1952), table II. The formants of consonants, and all durations and amplitudes, are rough estimates.
"""

from __future__ import annotations

import io
import wave
from typing import NamedTuple

import numpy as np

from multimodal.datasets.in_memory import InMemoryTable

RATE = 8000
RECORDINGS = 30  # of each word by each voice
STEP = 40  # samples, 5 ms
BANDWIDTHS = np.array([90.0, 120.0, 180.0])  # of the formants, in Hz


class Sound(NamedTuple):
    """One sound of a word.

    Attributes:
        seconds: duration.
        formants: frequencies of the three formants, in Hz.
        voice: amplitude of the voice, from 0 to 1.
        noise: amplitude of the noise.
        band: lowest and highest frequency of the noise, in Hz.
    """

    seconds: float
    formants: tuple[float, float, float]
    voice: float
    noise: float = 0.0
    band: tuple[float, float] = (0.0, 4000.0)


IY, IH, EH = (270.0, 2290.0, 3010.0), (390.0, 1990.0, 2550.0), (530.0, 1840.0, 2480.0)
AA, AO, AH = (730.0, 1090.0, 2440.0), (570.0, 840.0, 2410.0), (640.0, 1190.0, 2390.0)
UH, UW, R = (440.0, 1020.0, 2240.0), (300.0, 870.0, 2240.0), (420.0, 1300.0, 1600.0)
F = Sound(0.10, (300.0, 1100.0, 2300.0), 0.0, 0.06)
TH = Sound(0.09, (300.0, 1400.0, 2500.0), 0.0, 0.05, (1500.0, 4000.0))
S = Sound(0.13, (300.0, 1700.0, 2500.0), 0.0, 0.25, (2800.0, 4000.0))
Z = Sound(0.10, (300.0, 1700.0, 2500.0), 0.25, 0.15, (2800.0, 4000.0))
V = Sound(0.06, (300.0, 1100.0, 2300.0), 0.3, 0.03)
N = Sound(0.10, (250.0, 1300.0, 2400.0), 0.35)
CLOSED = Sound(0.06, (300.0, 1500.0, 2500.0), 0.0)
T = Sound(0.04, (350.0, 1800.0, 2600.0), 0.0, 0.35, (2500.0, 4000.0))
K = Sound(0.04, (350.0, 1900.0, 2300.0), 0.0, 0.3, (1200.0, 2600.0))
WORDS = {
    "zero": (Z, Sound(0.09, IH, 1.0), Sound(0.08, R, 0.7), Sound(0.10, AO, 1.0), Sound(0.10, UH, 0.7)),
    "one": (Sound(0.08, UW, 0.7), Sound(0.16, AH, 1.0), N),
    "two": (T, Sound(0.06, IH, 0.7), Sound(0.20, UW, 0.9)),
    "three": (TH, Sound(0.08, R, 0.7), Sound(0.22, IY, 0.9)),
    "four": (F, Sound(0.20, AO, 1.0), Sound(0.12, R, 0.8)),
    "five": (F, Sound(0.15, AA, 1.0), Sound(0.10, IH, 0.9), V),
    "six": (S, Sound(0.10, IH, 1.0), CLOSED, K, S),
    "seven": (S, Sound(0.10, EH, 1.0), V, Sound(0.07, AH, 0.8), N),
    "eight": (Sound(0.10, EH, 1.0), Sound(0.10, IY, 0.9), CLOSED, T),
    "nine": (N, Sound(0.15, AA, 1.0), Sound(0.10, IH, 0.9), N),
}
# voice -> pitch in Hz, and the factor of its formants
VOICES = {
    "bass": (85, 0.92),
    "baritone": (110, 0.98),
    "tenor": (140, 1.04),
    "alto": (190, 1.12),
    "soprano": (230, 1.18),
}


def sample_spoken_digits() -> InMemoryTable:
    """Generate the table of 1,500 recordings."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"{digit}-{speaker}-{n}",
            "audio": encode_wav(speak(word, *voice, rng)),
            "digit": word,
            "speaker": speaker,
        }
        for digit, word in enumerate(WORDS)
        for speaker, voice in VOICES.items()
        for n in range(RECORDINGS)
    ]
    return InMemoryTable("sample:spoken_digits", rows, ("digit", "speaker"))


def encode_wav(samples: np.ndarray) -> bytes:
    """Return the bytes of a WAV file with one channel, for ``(n,)`` int16 samples at ``RATE``."""
    file = io.BytesIO()
    with wave.open(file, "wb") as header:
        header.setnchannels(1)
        header.setsampwidth(2)
        header.setframerate(RATE)
        header.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def speak(word: str, pitch: float, formant_scale: float, rng: np.random.Generator) -> np.ndarray:
    """Synthesise one recording of a word, about 0.15 to 0.85 s long.

    Args:
        word: one of ``WORDS``.
        pitch: pitch of the voice, in Hz; the pitch of the recording is within about 15 % of it, and falls.
        formant_scale: factor of the formants' frequencies.
        rng: generator of the recording's variations.

    Returns:
        ``(n,)`` int16 samples at ``RATE``.
    """
    sounds = WORDS[word]
    lengths = np.array([s.seconds for s in sounds]) * rng.uniform(0.7, 1.4) * rng.uniform(0.6, 1.4, len(sounds))
    ends = np.cumsum(lengths)
    time = np.arange(int(ends[-1] * RATE)) / RATE
    middles = ends - lengths / 2  # a sound has its own formants in its middle; they are interpolated in between
    formants = np.array([s.formants for s in sounds]) * formant_scale * rng.uniform(0.88, 1.12, (len(sounds), 3))
    tracks = np.stack([np.interp(time, middles, formants[:, i]) for i in range(3)], axis=1)
    falling = pitch * rng.uniform(0.85, 1.15) * np.linspace(1.05, rng.uniform(0.8, 0.95), len(time))
    signal = _voiced(falling, tracks) * np.interp(time, middles, [s.voice for s in sounds])
    for sound, end, length in zip(sounds, ends, lengths, strict=True):
        if sound.noise:
            during = (time >= end - length) & (time < end)
            amplitude = sound.noise * rng.uniform(0.3, 1.5)
            signal[during] += amplitude * _noise(sound.band, int(during.sum()), rng)
    signal += rng.standard_normal(len(time)) * 10 ** rng.uniform(-2.5, -0.8)  # background noise
    return np.round(signal / np.abs(signal).max() * rng.uniform(10_000, 30_000)).astype(np.int16)


def _voiced(pitch: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Return harmonics of a pitch ``(n,)``, shaped by formants ``(n, 3)``, both in Hz: ``(n,)``, with a peak of about 1."""
    harmonics = np.arange(1, int(RATE / 2 / pitch.max()) + 1)
    moments = np.arange(0, len(pitch), STEP)  # amplitudes change slowly and are interpolated between these
    frequencies = pitch[moments, None] * harmonics  # (m, h)
    peaks = 1 / (1 + ((frequencies[..., None] - formants[moments, None]) / BANDWIDTHS) ** 2)  # (m, h, 3)
    amplitudes = peaks @ np.array([1.0, 0.5, 0.25])
    position = np.minimum(np.arange(len(pitch)) / STEP, len(moments) - 1)
    before = np.minimum(position.astype(int), len(moments) - 2)
    after = (position - before)[:, None]
    amplitudes = amplitudes[before] * (1 - after) + amplitudes[before + 1] * after  # (n, h)
    phase = np.exp(2j * np.pi * np.cumsum(pitch) / RATE)
    signal = np.zeros(
        len(pitch), dtype=complex
    )  # a polynomial in phase, by Horner's rule, to avoid a sine for each harmonic
    for amplitude in amplitudes.T[::-1]:
        signal = (signal + amplitude) * phase
    voice = np.imag(signal)
    return voice / np.abs(voice).max()


def _noise(band: tuple[float, float], n: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise in a frequency band, ``(n,)``, with a standard deviation of 1."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequencies = np.fft.rfftfreq(n, 1 / RATE)
    signal = np.fft.irfft(spectrum * ((frequencies >= band[0]) & (frequencies <= band[1])), n)
    return signal / signal.std()
