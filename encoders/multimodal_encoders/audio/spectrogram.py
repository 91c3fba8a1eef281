"""Encoders of sound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from multimodal.core.encoder import Corruption, Encoder, Inputs, Processor
from multimodal.core.errors import UsageError
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal.media.audio import SAMPLE_RATE_RANGE, import_audio_library, is_recording, read_recording, resample
from multimodal.media.corruptions.sound import sound_corruptions
from multimodal.media.parts.spans import span_parts

DYNAMIC_RANGE_DB = 60.0  # in dB; what is softer than the loudest moment by more is as soft as that
DB_PER_UNIT = 20.0  # in dB; what a difference of 1 in an item stands for
TRIM_DB = 30.0  # in dB; before and after it, moments softer than the loudest by more are cut
NOISE_DEGREES_OF_FREEDOM = 4  # degrees of freedom of a band's power: real and imaginary part of some two bins


def mel_filters(mels: int, bins: int, rate: int) -> Tensor:
    r"""Triangular filters, equally spaced on the mel scale from 0 to half the rate, each with peak 1.

    The scale is HTK's (O'Shaughnessy 1987): :math:`m(f) = 2595 \log_{10}(1 + f / 700)`, f in Hz. With the mels + 2
    corners :math:`c_i` equally spaced in m, filter i is the triangle over f from :math:`c_i` over :math:`c_{i+1}` to
    :math:`c_{i+2}`.

    Args:
        mels: the number of filters.
        bins: the number of frequencies.
        rate: samples per second.

    Returns:
        ``(bins, mels)`` float32, for the frequencies ``rate / 2 * k / (bins - 1)``.
    """
    top = 2595 * math.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, mels + 2, dtype=torch.float64, device="cpu") / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, bins, dtype=torch.float64, device="cpu")[:, None]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0).float()


class SpectrogramProcessor(Processor):
    """Turns recordings into log-mel spectrograms that do not depend on the recording's gain.

    Raw values: a path or the bytes of a WAV, FLAC, OGG or MP3 file, a pair (samples, rate), or the samples alone, at
    the rate of the encoder. Samples are an array ``(n,)`` or ``(n, channels)``, floating point or whole numbers.

    Channels are averaged, the rate is changed by soxr, and what comes after ``max_seconds`` is cut. The spectrogram has
    the power of Hann windows in mel bands (``mel_filters``), in dB from the clip's loudest moment L: silence before and
    after the sound (below L - 30) is cut, what is softer than L - 60 is silence, and L - 60 to L becomes 0 to 3. The clip
    itself is the measure, as a new speaker's or microphone's level is in no statistics of the training.

    Args:
        rate: samples a second; bands reach up to half of it.
        mels: number of bands.
        window: length of a window, in seconds.
        hop: from one window to the next, in seconds.
        max_seconds: longer recordings are cut.
        stretch: for training, the largest random change of tempo, as the logarithm of the factor.
        warp: for training, the largest random change of scale and shift of the bands, as a fraction of all: as another
            voice has (vocal tract length perturbation, Jaitly and Hinton 2013, on the mel scale).
        response: for training, another microphone's: each of three cosines over the bands (of a half, one and one and a
            half periods) is added with a random factor of up to this many dB.
        noise: for training, noise of a random level is added, of up to this many dB above L - 60, under the same response.
        time_mask: for training, the largest fraction of the frames that each of two masks silences (SpecAugment, Park et
            al. 2019).
        band_mask: for training, the same of the bands.

    Examples:
        >>> processor = SpectrogramProcessor(rate=8000, mels=20, window=0.025, hop=0.01, max_seconds=1.0)
        >>> quiet, loud = (processor(factor * np.sin(np.arange(4000))) for factor in (0.01, 1.0))
        >>> quiet.shape[1], torch.allclose(quiet.float(), loud.float(), atol=0.1)
        (20, True)
    """

    reads_files = True

    def __init__(
        self,
        rate: int,
        mels: int,
        window: float,
        hop: float,
        max_seconds: float,
        stretch: float = 0.0,
        warp: float = 0.0,
        response: float = 0.0,
        noise: float = 0.0,
        time_mask: float = 0.0,
        band_mask: float = 0.0,
    ) -> None:
        self.rate, self.mels, self.max_seconds = rate, mels, max_seconds
        self.stretch, self.warp, self.response, self.noise = stretch, warp, response, noise
        self.time_mask, self.band_mask = time_mask, band_mask
        self.hop = max(round(hop * rate), 1)
        self.window = torch.hann_window(max(round(window * rate), 2))
        self.fft_size = 2 ** math.ceil(math.log2(len(self.window)))
        self.filters = mel_filters(mels, self.fft_size // 2 + 1, rate)
        if not self.filters.any(dim=0).all():
            raise UsageError(
                f"SpectrogramCNN: {mels} mels are too many for windows of {window} s at {rate} Hz, some bands would be"
                " empty; take fewer mels or a longer window."
            )

    def is_one_value(self, given: Any) -> bool:
        return is_recording(given)

    def __call__(self, value: Any) -> Tensor:
        """``(frames, mels)`` float32."""
        return self._read(value)[0]

    def _read(self, value: Any) -> tuple[Tensor, int]:
        """Return the item, and how many silent frames before it were cut."""
        wave, rate = read_recording(value, self.rate, self.max_seconds)
        wave = wave - wave.mean()
        return self._log_mel(torch.from_numpy(resample(wave / np.abs(wave).max(), rate, self.rate)))

    def _log_mel(self, wave: Tensor) -> tuple[Tensor, int]:
        spectrum = torch.stft(
            wave,
            self.fft_size,
            self.hop,
            len(self.window),
            self.window,
            pad_mode="constant",
            return_complex=True,
        )
        decibels = 10 * (spectrum.abs().square().T @ self.filters).clamp(min=1e-10).log10()
        decibels -= decibels.max()
        sounding = (decibels.amax(dim=1) >= -TRIM_DB).nonzero()
        first = int(sounding[0])
        decibels = decibels[first : int(sounding[-1]) + 1]
        return (decibels.clamp(min=-DYNAMIC_RANGE_DB) + DYNAMIC_RANGE_DB) / DB_PER_UNIT, first

    def parts(self, value: Any) -> Parts:
        """Return the spans of the sound without the silence around it; one is removed by silencing its frames."""
        item, first = self._read(value)
        per_second = self.rate / self.hop

        def without(begin: float, end: float) -> Tensor:
            silenced = item.clone()
            silenced[round(begin * per_second) : round(end * per_second)] = 0
            return silenced

        return span_parts(len(item) / per_second, without, item.amax(dim=1).numpy(), first / per_second)

    def corruptions(self) -> Mapping[str, Corruption]:
        return sound_corruptions(self.rate, self.max_seconds)

    def augment(self, item: Tensor, rng: np.random.Generator) -> Tensor:
        frames = max(round(len(item) * math.exp(rng.uniform(-self.stretch, self.stretch))), 1)
        log_scale, shift = rng.uniform(-self.warp, self.warp, 2)
        if (frames, log_scale, shift) != (len(item), 0, 0):
            # output -> input places in [-1, 1]; bands first, as affine_grid has x before y
            places = torch.tensor([[[math.exp(log_scale), 0, shift], [0, 1, 0]]], dtype=item.dtype)
            grid = functional.affine_grid(places, [1, 1, frames, self.mels], align_corners=False)
            item = functional.grid_sample(item[None, None], grid, padding_mode="border", align_corners=False)[0, 0]
        if self.noise:
            item = self._with_noise(item, rng)
        angles = torch.pi * torch.arange(1, 4)[:, None] * torch.linspace(0, 1, self.mels)
        factors = torch.from_numpy(rng.uniform(-self.response, self.response, (3, 1))).to(item.dtype)
        item = (item + (factors * angles.cos()).sum(dim=0) / DB_PER_UNIT).clamp(min=0)
        for _ in range(2):
            item[_mask(frames, self.time_mask, rng)] = 0
            item[:, _mask(self.mels, self.band_mask, rng)] = 0
        return item

    def _with_noise(self, item: Tensor, rng: np.random.Generator) -> Tensor:
        """Powers add; that of noise varies from window to window as those of a Gaussian process do (chi-squared)."""
        level = 10 ** (rng.uniform(0, self.noise) / 10) - 1  # of the softest that an item represents
        power = torch.from_numpy(
            level * rng.chisquare(NOISE_DEGREES_OF_FREEDOM, item.shape) / NOISE_DEGREES_OF_FREEDOM
        ).to(item.dtype)
        return (10 ** (item * (DB_PER_UNIT / 10)) + power).log10() * (10 / DB_PER_UNIT)

    def cost(self, item: Tensor) -> float:
        """In seconds."""
        return max(len(item), 1) * self.hop / self.rate

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        """``spectrogram``: ``(n, longest, mels)`` float32, 0 after the end; ``frames``: ``(n,)`` int64."""
        return {
            "spectrogram": nn.utils.rnn.pad_sequence(list(items), batch_first=True),
            "frames": torch.tensor([len(item) for item in items]),
        }

    def examples(self) -> list[Any]:
        rng = np.random.default_rng(0)
        return [rng.normal(size=round(seconds * self.rate)) for seconds in (0.5, 0.8)]

    def linear_features(self) -> Any:
        """Mean and standard deviation of each band over time, ``(n, 2 * mels)``."""
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, StandardScaler

        return make_pipeline(FunctionTransformer(self._statistics), StandardScaler())

    def _statistics(self, values: Sequence[Any]) -> np.ndarray:
        items = [self(value) for value in values]
        return torch.stack([torch.cat([item.mean(dim=0), item.std(dim=0, correction=0)]) for item in items]).numpy()


def _mask(size: int, part: float, rng: np.random.Generator) -> slice:
    """A random place for a mask of a random width in [0, part * size]."""
    width = rng.integers(int(part * size) + 1)
    start = rng.integers(size - width + 1)
    return slice(start, start + width)


class _ChannelNorm(nn.LayerNorm):
    """Normalises the channels of each position alone: neither other clips nor padding take part."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """A residual block of two 3x3 convolutions (He et al. 2016); what lies behind a clip's end is 0 before each."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.first = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([_ChannelNorm(out), _ChannelNorm(out)])
        self.skip = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` ``(n, channels, frames, bands)``, ``mask`` ``(n, 1, frames, 1)`` -> the same, of a stride-th size."""
        after = mask[:, :, :: self.stride]
        inner = functional.gelu(self.norms[0](self.first(x))) * after
        x = functional.gelu(self.skip(x) + self.norms[1](self.second(inner)))
        return x * after, after


@register("audio", "spectrogram", extra="audio")
class SpectrogramCNN(Encoder):
    """A residual network over log-mel spectrograms, for recordings of any length.

    Features are the mean and the largest value over a clip's frames; neither padding nor the other clips of a batch
    change them.

    Args:
        rate: samples per second that recordings are resampled to; frequencies above half of it are lost.
        mels: number of frequency bands.
        window: length of the spectrogram's windows, in seconds.
        hop: from one window to the next, in seconds.
        max_seconds: longer recordings are cut.
        channels: of the first of four stages; each further one has twice as many, at half the frames and bands.
        drop: dropout of the features.
        stretch: in training, random change of tempo, up to this natural logarithm of the factor.
        warp: in training, random scale and shift of the bands up to this part of them, as between voices.
        response: in training, a random response of the microphone, of three components of up to this many dB.
        noise: in training, noise is added, of up to this many dB above what is 60 dB softer than the loudest.
        time_mask: in training, two stretches of up to this fraction of the frames are silenced.
        band_mask: in training, two ranges of up to this fraction of the bands are silenced.

    Examples:
        >>> encoder = SpectrogramCNN(rate=8000, channels=4)
        >>> tone = np.sin(np.arange(8000))
        >>> encoder(**encoder.processor.collate([encoder.processor(tone)])).shape
        torch.Size([1, 64])
    """

    def __init__(
        self,
        rate: int = 16000,
        mels: int = 64,
        window: float = 0.025,
        hop: float = 0.010,
        max_seconds: float = 10.0,
        channels: int = 32,
        drop: float = 0.0,
        stretch: float = 0.2,
        warp: float = 0.1,
        response: float = 5.0,
        noise: float = 0.0,
        time_mask: float = 0.1,
        band_mask: float = 0.1,
    ) -> None:
        super().__init__()
        for name in ("soundfile", "soxr"):
            import_audio_library(name)
        low, high = SAMPLE_RATE_RANGE
        if mels < 8 or channels < 1 or not low <= rate <= high or min(window, hop, max_seconds) <= 0:
            raise UsageError(
                f"SpectrogramCNN: mels {mels} must be at least 8, channels {channels} at least 1, rate {rate} from"
                f" {low} to {high}; window {window}, hop {hop} and max_seconds {max_seconds} positive."
            )
        if not (
            min(time_mask, band_mask) >= 0
            and max(time_mask, band_mask) <= 1
            and min(stretch, warp, response, noise) >= 0
        ):
            raise UsageError(
                f"SpectrogramCNN: time_mask {time_mask} and band_mask {band_mask} must lie in [0, 1], stretch {stretch},"
                f" warp {warp}, response {response} and noise {noise} be at least 0."
            )
        self.processor = SpectrogramProcessor(
            rate, mels, window, hop, max_seconds, stretch, warp, response, noise, time_mask, band_mask
        )
        widths = [channels * 2**stage for stage in range(4)]
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            _Block(before, after, stride=2) for before, after in zip([channels, *widths], widths, strict=False)
        )
        self.width = 2 * widths[-1]
        self.drop = nn.Dropout(drop)
        self.to(memory_format=torch.channels_last)

    def forward(self, spectrogram: Tensor, frames: Tensor) -> Tensor:
        """``spectrogram`` ``(n, longest, mels)``, 0 after the end of each, ``frames`` ``(n,)`` int64 -> ``(n, width)``."""
        x = spectrogram[:, None].to(self.stem.weight.dtype, memory_format=torch.channels_last)
        mask = torch.arange(x.shape[2], device=x.device)[None, None, :, None] < frames[:, None, None, None]
        mask = mask.to(x.dtype)
        x = self.stem(x) * mask
        for block in self.blocks:
            x, mask = block(x, mask)
        x = x.mean(dim=3)  # (n, channels, frames)
        mask = mask[..., 0]
        mean = x.sum(dim=2) / mask.sum(dim=2)
        largest = x.masked_fill(mask == 0, -torch.inf).amax(dim=2)
        return self.drop(torch.cat([mean, largest], dim=1))
