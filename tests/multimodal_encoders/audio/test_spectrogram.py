"""Recordings of all sorts become spectrograms, and spectrograms features that padding does not touch."""

from __future__ import annotations

import io
import math
import pickle
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.audio.spectrogram import SpectrogramCNN, SpectrogramProcessor, mel_filters
from scipy import signal
from scipy.signal.windows import hann
from torch import Tensor

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError

RATE = 8000
RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.1, RATE // 2)


def processor(**changed: Any) -> SpectrogramProcessor:
    wanted = {"rate": RATE, "mels": 20, "window": 0.032, "hop": 0.010, "max_seconds": 2.0} | changed
    return SpectrogramProcessor(**wanted)


def encoder_of(**changed: Any) -> SpectrogramCNN:
    return SpectrogramCNN(**({"rate": RATE, "mels": 20, "channels": 4} | changed))


def tone(frequency: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def file_of(samples: np.ndarray, rate: int = RATE, form: str = "WAV", subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=form, subtype=subtype)
    return stream.getvalue()


def refusal(value: Any, **changed: Any) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        processor(**changed)(value)
    return caught.value


# the spectrogram


def test_the_filters_are_triangles_on_the_scale_of_htk() -> None:
    mels, bins, rate = 20, 129, 8000

    def mel(f: float) -> float:
        return 2595 * math.log10(1 + f / 700)

    corners = [700 * (10 ** (mel(rate / 2) * i / (mels + 1) / 2595) - 1) for i in range(mels + 2)]
    expected = np.zeros((bins, mels))
    for i in range(mels):
        frequencies = [rate / 2 * k / (bins - 1) for k in range(bins)]
        expected[:, i] = np.interp(frequencies, corners[i : i + 3], [0, 1, 0])
    np.testing.assert_allclose(mel_filters(mels, bins, rate).numpy(), expected, atol=1e-6)


def test_the_spectrogram_is_that_of_scipy_in_mel_bands_and_decibels() -> None:
    reader = processor()
    wave = NOISE - NOISE.mean()
    wave = wave / np.abs(wave).max()
    length, hop = 256, 80
    window = hann(length, sym=False)
    stft = signal.ShortTimeFFT(window, hop, RATE, mfft=length)
    frames = 1 + len(wave) // hop
    power = np.abs(stft.stft(wave, p0=0, p1=frames)) ** 2
    decibels = 10 * np.log10(np.maximum(power.T @ mel_filters(20, length // 2 + 1, RATE).double().numpy(), 1e-10))
    assert_normalised(reader(NOISE), decibels)


def assert_normalised(item: Tensor, decibels: np.ndarray) -> None:
    """Decibels above 60 below the loudest, as parts of 20."""
    expected = np.maximum(decibels - decibels.max() + 60, 0) / 20
    assert item.dtype == torch.float32
    np.testing.assert_allclose(item.numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("frequency", [300, 1000, 2500])
def test_a_tone_is_loudest_in_its_band(frequency: int) -> None:
    loudest = processor()(tone(frequency)).mean(dim=0).argmax()
    response = mel_filters(20, 4001, RATE)[frequency]
    assert loudest == response.argmax()


def test_silence_around_the_sound_is_cut_and_within_it_kept() -> None:
    reader = processor()
    quiet = 1e-4 * RNG.normal(size=1600)
    framed = reader(np.concatenate([quiet, NOISE, quiet]))
    assert abs(len(framed) - len(reader(NOISE))) <= 4
    assert len(reader(np.concatenate([NOISE, quiet, NOISE]))) == 2 * (len(NOISE) // 80) + 20 + 1


@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1, 1))
@settings(max_examples=15, deadline=None)
def test_neither_gain_nor_offset_matters(gain: float, offset: float) -> None:
    reader = processor()
    torch.testing.assert_close(reader(gain * (NOISE + offset)), reader(NOISE), atol=2e-3, rtol=0)


@pytest.mark.parametrize("samples", [1, 2, 40, 255, 4000])
def test_a_clip_of_any_length_has_frames(samples: int) -> None:
    item = processor(hop=0.010)(RNG.normal(size=4001)[:samples] if samples > 1 else np.array([1.0, -1.0]))
    assert item.shape[1] == 20
    assert len(item) >= 1
    assert item.isfinite().all()
    assert processor()((RNG.normal(size=samples + 1), 700_000)).isfinite().all()


# what a recording may be


@pytest.mark.parametrize(
    ("form", "subtype", "step"),
    [("WAV", "PCM_16", 1e-4), ("WAV", "FLOAT", 1e-6), ("WAV", "PCM_U8", 0.01), ("FLAC", "PCM_16", 1e-4)],
)
def test_a_recording_is_the_same_in_whatever_form_it_comes(
    form: str, subtype: str, step: float, tmp_path: Path
) -> None:
    content = file_of(NOISE / 2, form=form, subtype=subtype)
    path = tmp_path / "clip.raw"  # what is in a file says its format, not its name
    path.write_bytes(content)
    expected = processor()(NOISE)
    read = [processor()(value) for value in (content, path, str(path))]
    assert torch.equal(read[0], read[1])
    assert torch.equal(read[0], read[2])
    torch.testing.assert_close(read[0], expected, atol=max(300 * step, 1e-3), rtol=0)


@pytest.mark.parametrize("promised", [0xFFFFFFFF, 0x7FFFFFFF - 36])
def test_a_recording_of_unknown_length_as_from_a_pipe_is_read(promised: int) -> None:
    whole = file_of(NOISE)
    place = whole.index(b"data") + 4
    piped = whole[:4] + b"\xff" * 4 + whole[8:place] + promised.to_bytes(4, "little") + whole[place + 4 :]
    assert torch.equal(processor()(piped), processor()(whole))


def test_a_compressed_recording_is_nearly_the_same() -> None:
    read = processor()(file_of(tone(1000, 1), form="OGG", subtype="VORBIS"))
    assert (read - processor()(tone(1000, 1)))[:, 9:12].abs().mean() < 0.4


def test_samples_may_come_with_their_rate_as_arrays_or_lists() -> None:
    expected = processor()(NOISE)
    for value in ((NOISE, RATE), [NOISE.tolist(), RATE], (NOISE.astype(np.float32), np.int64(RATE))):
        torch.testing.assert_close(processor()(value), expected, atol=1e-3, rtol=0)
    whole = np.round(NOISE * 32767).astype(np.int16)
    for value in (whole, (whole.tolist(), RATE), (whole.astype(np.int32) + 32768).astype(np.uint16)):
        torch.testing.assert_close(processor()(value), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("shape", [(1, 800), (2, 800), (6, 7)])
def test_an_array_with_the_channels_first_is_rejected(shape: tuple[int, int]) -> None:
    samples = np.random.default_rng(0).normal(size=shape)
    for value in (samples, (samples, RATE), (samples.tolist(), RATE)):
        with pytest.raises(Unreadable, match=r"more channels than samples; give \(n, channels\), such as samples\.T"):
            processor()(value)


def test_channels_are_averaged() -> None:
    left, right = tone(500), tone(2000)
    expected = processor()((left + right) / 2)
    for value in (np.stack([left, right], axis=1), file_of(np.stack([left, right], axis=1) / 2, subtype="FLOAT")):
        torch.testing.assert_close(processor()(value), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("rate", [16000, 11025, 44100])
def test_the_rate_of_a_recording_does_not_matter(rate: int) -> None:
    t = np.arange(RATE) / RATE
    expected = processor()(signal.chirp(t, 200, 1, 2500))
    t = np.arange(rate) / rate
    read = processor()((signal.chirp(t, 200, 1, 2500), rate))
    assert len(read) == len(expected)
    loud = expected > 2
    assert (read - expected)[loud].abs().max() < 0.3
    assert (read - expected)[loud].abs().mean() < 0.03


def test_what_comes_after_the_longest_time_is_cut() -> None:
    long = np.concatenate([NOISE, tone(100, 3)])
    reader = processor(max_seconds=0.5)
    torch.testing.assert_close(reader(long), reader(NOISE), atol=0, rtol=0)
    torch.testing.assert_close(reader(file_of(long / 2)), reader(file_of(NOISE / 2)), atol=1e-3, rtol=0)


# what is not a recording


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "wrong type"),
        (3.5, "wrong type"),
        ((NOISE, "fast"), "wrong type"),
        ((NOISE, RATE, 3), "wrong type"),
        (b"", "no audio file"),
        (b"not a recording at all", "no audio file"),
        pytest.param(file_of(NOISE)[:20], "no audio file", id="a header cut"),
        pytest.param(file_of(NOISE, form="FLAC")[:3000], "truncated audio", id="FLAC cut"),
        pytest.param(file_of(NOISE, form="WAV")[:3000], "truncated audio", id="WAV cut"),
        pytest.param(file_of(NOISE, form="AIFF")[:3000], "truncated audio", id="AIFF cut"),
        pytest.param(file_of(NOISE, form="MP3")[:-300], "truncated audio", id="MP3 cut"),
        pytest.param(file_of(np.zeros(0)), "empty audio", id="a file of no samples"),
        pytest.param(file_of(np.zeros(4000)), "silent audio", id="a file of silence"),
        pytest.param(np.zeros(0), "empty audio", id="no samples"),
        pytest.param(np.full(4000, 0.25), "silent audio", id="constant"),
        pytest.param(np.array([0.0, np.nan, 1.0]), "NaN audio", id="NaN"),
        pytest.param(np.array([0.0, np.inf, 1.0]), "NaN audio", id="infinite"),
        pytest.param(np.array([0.0, 1e308, -1e308]), "NaN audio", id="too large"),
        pytest.param(np.zeros((2, 2, 2)), "no samples", id="three dimensions"),
        pytest.param(np.array(["a", "b"]), "no samples", id="strings"),
        pytest.param(([[1.0], [1.0, 2.0]], RATE), "no samples", id="a ragged list"),
        pytest.param((NOISE, 0), "odd sample rate", id="rate 0"),
        pytest.param((NOISE, math.nan), "odd sample rate", id="rate NaN"),
    ],
)
def test_what_is_not_a_recording_is_refused_with_its_reason(value: Any, reason: str) -> None:
    assert refusal(value).reason == reason


@given(seed=st.integers(0, 2**32), form=st.sampled_from(["WAV", "FLAC", "OGG"]))
@settings(max_examples=20, deadline=None)
def test_a_damaged_file_is_read_or_refused(seed: int, form: str) -> None:
    rng = np.random.default_rng(seed)
    content = np.frombuffer(file_of(NOISE / 2, form=form), dtype=np.uint8).copy()
    content[rng.integers(0, 200, 3)] = rng.integers(0, 256, 3)
    with suppress(Unreadable):
        assert processor()(content.tobytes()).isfinite().all()


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    missing = refusal(tmp_path / "none.wav")
    assert missing.reason == "missing file"
    assert f"the recording {tmp_path / 'none.wav'} does not exist" in str(missing)
    folder = refusal(str(tmp_path))
    assert folder.reason == "folder"
    assert f"the recording {tmp_path} is a folder; give a file" in str(folder)
    assert refusal("https://host/a.wav").reason == "address"


@pytest.mark.parametrize("library", ["soundfile", "soxr"])
def test_a_missing_library_is_reported_with_what_installs_it(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"library {library} .* pip install 'multimodal\[audio\]'"):
        registry.create("audio", "spectrogram")


# variants for training


@given(seed=st.integers(0, 2**32), strength=st.floats(0, 0.5))
@settings(max_examples=25, deadline=None)
def test_a_variant_is_determined_by_the_random_numbers(seed: int, strength: float) -> None:
    reader = processor(
        stretch=strength,
        warp=strength,
        response=9 * strength,
        noise=40 * strength,
        time_mask=strength,
        band_mask=strength,
    )
    item = reader(NOISE)
    before = item.clone()
    one, two = (reader.augment(item, np.random.default_rng(seed)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(item, before)
    assert one.shape[1] == 20
    assert len(item) * math.exp(-strength) - 1 <= len(one) <= len(item) * math.exp(strength) + 1


def test_without_strength_the_item_remains() -> None:
    item = processor()(NOISE)
    assert torch.equal(processor().augment(item, np.random.default_rng(0)), item)


def test_masks_hide_stretches_of_frames_and_of_bands_of_up_to_their_part() -> None:
    reader, rng = processor(time_mask=0.2, band_mask=0.4), np.random.default_rng(0)
    widths = []
    for _ in range(60):
        hidden = reader.augment(torch.ones(50, 20), rng) == 0
        frames, bands = hidden.all(dim=1), hidden.all(dim=0)
        assert torch.equal(hidden, frames[:, None] | bands[None, :])
        widths.append([int(frames.sum()), int(bands.sum())])
    assert np.max(widths, axis=0)[0] in range(12, 21)  # two masks of up to 10 frames
    assert np.max(widths, axis=0)[1] in range(10, 17)  # two of up to 8 bands
    assert (np.min(widths, axis=0) <= 2).all()


def test_a_response_adds_cosines_over_the_bands_to_every_frame() -> None:
    reader, rng = processor(response=6.0), np.random.default_rng(0)
    item = 1.5 + torch.rand(30, 20)
    cosines = np.cos(np.pi * np.arange(1, 4)[:, None] * np.linspace(0, 1, 20))
    factors = []
    for _ in range(60):
        gain = (reader.augment(item, rng) - item).numpy() * 20
        np.testing.assert_allclose(gain, np.broadcast_to(gain[0], gain.shape), atol=1e-3)
        found, left = np.linalg.lstsq(cosines.T, gain[0], rcond=None)[:2]
        assert left.sum() < 1e-4
        factors.append(found)
    assert (np.abs(factors) <= 6.01).all()
    assert (np.max(factors, axis=0) > 4).all()
    assert (np.min(factors, axis=0) < -4).all()


def test_noise_of_a_random_level_fills_silence_and_leaves_what_is_loud() -> None:
    reader, rng = processor(noise=30.0), np.random.default_rng(0)
    item = torch.zeros(400, 20)
    item[100:200] = 3
    levels = []
    for _ in range(60):
        variant = reader.augment(item, rng)
        assert (variant >= item).all()
        assert variant[100:200].max() < 3.02
        power = 10 ** (variant[200:] * 2) - 1  # of the softest that an item has: 0 is 60 dB below the loudest
        torch.testing.assert_close(power.mean(dim=0), power.mean().expand(20), rtol=0.3, atol=0)
        assert float(power.var() / power.mean().square()) == pytest.approx(2 / 4, rel=0.2)  # chi-squared, 4 degrees
        levels.append(10 * math.log10(power.mean() + 1))
    assert max(levels) <= 31
    assert np.mean(levels) == pytest.approx(15, abs=3)


def test_stretching_and_warping_move_what_sounds() -> None:
    item = torch.zeros(60, 40)
    item[30:33, 20:23] = 1
    reader, rng = processor(mels=40, stretch=0.3, warp=0.2), np.random.default_rng(0)
    times, bands = [], []
    for _ in range(60):
        variant = reader.augment(item, rng)
        total = variant.sum()
        times.append(float((variant.sum(dim=1) @ torch.arange(float(len(variant)))) / total) / len(variant))
        bands.append(float((variant.sum(dim=0) @ torch.arange(40.0)) / total))
        assert abs(len(variant) / 60 - 1) <= 0.36
    np.testing.assert_allclose(times, 31 / 60, atol=0.02)  # at the same part of the clip
    assert 3 < np.max(bands) - 21 < 7
    assert 3 < 21 - np.min(bands) < 7


# features


def features(encoder: SpectrogramCNN, *items: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder(**encoder.processor.collate(items))


@given(lengths=st.lists(st.integers(1, 70), min_size=2, max_size=5), training=st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_features_of_a_clip_do_not_depend_on_its_batch(lengths: list[int], training: bool) -> None:
    encoder = encoder_of().train(training)
    items = [torch.randn(length, 20) for length in lengths]
    together = features(encoder, *items)
    assert together.shape == (len(lengths), encoder.width)
    torch.testing.assert_close(together, torch.cat([features(encoder, item) for item in items]), atol=1e-5, rtol=1e-5)


def test_what_lies_behind_the_end_has_no_effect_on_features_or_gradients() -> None:
    encoder = encoder_of().double()
    inputs = encoder.processor.collate([torch.randn(9, 20), torch.randn(30, 20)])
    gradients = []
    for spectrogram in (inputs["spectrogram"][:1], inputs["spectrogram"][:1, :9]):
        encoder.zero_grad()
        encoder(spectrogram.double(), inputs["frames"][:1])[0].square().sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=1e-8)


def test_every_parameter_learns_and_clips_differ() -> None:
    encoder = encoder_of()
    items = [encoder.processor(clip) for clip in (NOISE, tone(300), tone(2000))]
    out = encoder(**encoder.processor.collate(items))
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert torch.pdist(out.detach()).min() > 0.01


def test_the_processor_travels_to_workers() -> None:
    reader = processor()
    sent = pickle.loads(pickle.dumps(reader))
    assert torch.equal(sent(NOISE), reader(NOISE))
    assert reader.reads_files


def test_linear_features_are_the_bands_mean_and_spread() -> None:
    reader = processor()
    clips = [NOISE, tone(300), tone(2000, 0.3), file_of(tone(1000))]
    transformer = reader.linear_features()
    found = transformer.fit_transform(clips)
    expected = np.stack([np.concatenate([f(reader(c).numpy(), axis=0) for f in (np.mean, np.std)]) for c in clips])
    expected = (expected - expected.mean(axis=0)) / expected.std(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(transformer.transform(clips[1:2]), found[1:2], atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mels": 4}, "mels 4 must be at least 8"),
        ({"rate": 0}, "rate 0 from 1000"),
        ({"hop": 0.0}, r"hop 0\.0 and max_seconds 10\.0 positive"),
        ({"max_seconds": -1.0}, r"max_seconds -1\.0 positive"),
        ({"channels": 0}, "channels 0 at least 1"),
        ({"time_mask": 1.5}, r"time_mask 1\.5 .* must lie in \[0, 1\]"),
        ({"warp": -0.1}, r"warp -0\.1, response 5\.0 and noise 0\.0 be at least 0"),
        ({"mels": 100}, "100 mels are too many for windows of 0.025 s at 8000 Hz"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        encoder_of(**wrong)


@pytest.mark.parametrize(
    ("sound", "is_one"),
    [
        (NOISE, True), (np.stack([NOISE, NOISE], axis=1), True), (torch.from_numpy(NOISE), True), ((NOISE, RATE), True),
        ([NOISE.tolist(), RATE], True), ((torch.from_numpy(NOISE), 8000.0), True), ([NOISE, NOISE], False), ([NOISE], False),
        (np.stack([NOISE, NOISE])[..., None], False), (np.array(["a.wav", "b.wav"]), False), (["a.wav", "b.wav"], False),
        ([(NOISE, RATE), (NOISE, RATE)], False),
    ],
)  # fmt: skip
def test_samples_and_a_pair_with_their_rate_are_one_value(sound: Any, is_one: bool) -> None:
    assert processor().is_one_value(sound) == is_one


def test_one_array_of_samples_has_one_vector() -> None:
    torch.manual_seed(0)
    embedder = Embedder({"audio": SpectrogramCNN(rate=RATE)}, dim=4)
    expected = embedder.encode(audio=[NOISE])[0]
    both = np.stack([NOISE, NOISE], axis=1)
    for sound in (NOISE, torch.from_numpy(NOISE), (NOISE, RATE), (torch.from_numpy(NOISE), RATE), both):
        np.testing.assert_allclose(embedder.encode(audio=sound), expected, atol=1e-5)
    assert embedder.encode(audio=np.stack([both, both])).shape == (2, 4)
    with pytest.raises(MultimodalError, match=r"list\(samples\) if they are several recordings"):
        embedder.encode(audio=both.T)
