"""Pretrained encoders of sound from Hugging Face."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Corruption, Encoder, Inputs, Processor
from multimodal.core.errors import UsageError
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal.media.audio import import_audio_library, is_recording, read_recording, resample
from multimodal.media.corruptions.sound import sound_corruptions
from multimodal.media.parts.spans import span_parts
from multimodal_encoders.audio.spectrogram import SpectrogramProcessor
from multimodal_encoders.hub.huggingface import (
    ModelSource,
    config_from_json,
    config_to_json,
    drop_unused_parameters,
    import_library,
    random_model,
    with_changes,
)

Pooling = Literal["own", "mean", "max"]
DEFAULT_MAX_SECONDS = 30.0  # seconds, of models that take clips of any length
MAX_FEATURES = 8192  # of a feature extractor's windows and bands
EXTRACTOR = "preprocessor_config.json"
MODELS_WITH_MASK = (
    "wav2vec2",
    "hubert",
    "wavlm",
    "unispeech",
    "unispeech-sat",
)  # what pads a clip changes nothing of it
TOWERS = {"clap": "audio_config"}  # models of two modalities, and where their config holds that of sound


class HuggingFaceAudioProcessor(Processor):
    """Turns recordings into the input of a pretrained model by its own feature extractor: the wave, or a log-mel spectrogram.

    Raw values: a path or the bytes of a WAV, FLAC, OGG or MP3 file, a pair (samples, rate), or the samples alone, at the
    rate of the model. Channels are averaged, the rate is changed by soxr, and what comes after ``max_seconds`` is cut.

    Args:
        extractor: of transformers.
        max_seconds: longer recordings are cut.
        shortest: in samples; shorter waves are padded with silence.

    Examples:
        >>> from transformers import Wav2Vec2FeatureExtractor
        >>> processor = HuggingFaceAudioProcessor(Wav2Vec2FeatureExtractor(), max_seconds=1.0, shortest=400)
        >>> processor.collate([processor(np.sin(np.arange(800)))])["values"].shape
        torch.Size([1, 800])
    """

    reads_files = True

    def __init__(self, extractor: Any, max_seconds: float, shortest: int) -> None:
        self._extractor, self.max_seconds, self.shortest = extractor, max_seconds, shortest
        self.rate = int(extractor.sampling_rate)

    def is_one_value(self, given: Any) -> bool:
        return is_recording(given)

    def __call__(self, value: Any) -> tuple[Tensor, int]:
        """The extractor's values float32, the wave ``(n,)`` or a spectrogram of a fixed size, and how much of it is sound."""
        wave = resample(*read_recording(value, self.rate, self.max_seconds), self.rate)[: self._most()]
        if len(wave) < self.shortest:
            wave = np.pad(wave, (0, self.shortest - len(wave)))
        made = self._extractor(wave, sampling_rate=self.rate, return_attention_mask=True, return_tensors="np")
        values = np.asarray(made[self._extractor.model_input_names[0]][0], dtype=np.float32)
        heard = int(made["attention_mask"][0].sum()) if "attention_mask" in made else len(values)
        return torch.from_numpy(values), heard

    def parts(self, value: Any) -> Parts:
        """Return the spans of the sound; one is removed by silencing it."""
        wave, rate = read_recording(value, self.rate, self.max_seconds)

        def without(begin: float, end: float) -> tuple[Tensor, int]:
            silenced = wave.copy()
            silenced[round(begin * rate) : round(end * rate)] = 0
            return self((silenced, rate))

        return span_parts(len(wave) / rate, without, np.abs(wave))

    def corruptions(self) -> Mapping[str, Corruption]:
        return sound_corruptions(self.rate, self.max_seconds)

    def _most(self) -> int:
        return math.ceil(self.max_seconds * self.rate)

    def cost(self, item: tuple[Tensor, int]) -> float:
        """In seconds."""
        values, _ = item
        return len(values) / self.rate if values.ndim == 1 else self.max_seconds

    def collate(self, items: Sequence[tuple[Tensor, int]]) -> Inputs:
        """``values``: ``(n, longest)`` float32, 0 after the end, or of a fixed size; ``lengths``: ``(n,)`` int64."""
        return {
            "values": nn.utils.rnn.pad_sequence([values for values, _ in items], batch_first=True),
            "lengths": torch.tensor([length for _, length in items]),
        }

    def examples(self) -> list[Any]:
        rng = np.random.default_rng(0)
        return [rng.normal(size=round(seconds * self.rate)) for seconds in (0.5, 0.8)]

    def linear_features(self) -> Any:
        return SpectrogramProcessor(self.rate, 40, 0.025, 0.010, self.max_seconds).linear_features()


@register("audio", "huggingface", extra="huggingface-audio")
class HuggingFaceAudio(Encoder):
    """A pretrained encoder of sound of Hugging Face, with its own feature extractor.

    Of the wave: wav2vec2, HuBERT, WavLM, data2vec, UniSpeech. Of a log-mel spectrogram: the encoder of Whisper, the audio
    spectrogram transformer (AST), the audio tower of CLAP. The features of a clip do not depend on the others of its
    batch. Where padding would change them, as where the first layer has a group norm (wav2vec2-base, hubert-base) or in
    data2vec, clips of different lengths run one length after another: that is slower, and cannot be exported.

    Args:
        weights: a published name or a folder; null: random weights.
        pooling: "own" is what the model pools itself, of AST and, projected, of CLAP, and the mean of the others; "mean" and
            "max" are over the last layer's frames that hold sound.
        max_seconds: longer recordings are cut; null: at what the model takes, or at 30 s if it takes any length.
        config: entries of the model's config to change; without weights a published name or a folder to take the
            architecture and the feature extractor from.
        preprocess: the feature extractor's settings; null: the model's own.

    Examples:
        >>> sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        >>> config = {"model_type": "wav2vec2", "conv_dim": [8], "conv_kernel": [10], "conv_stride": [5], **sizes}
        >>> HuggingFaceAudio(config=config, preprocess={"feature_extractor_type": "Wav2Vec2FeatureExtractor"}).width
        16
    """

    def __init__(
        self,
        weights: str | None = None,
        pooling: Pooling = "own",
        max_seconds: float | None = None,
        config: str | dict[str, Any] | None = None,
        preprocess: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        import_library()
        for name in ("soundfile", "soxr"):
            import_audio_library(name)
        if pooling not in get_args(Pooling):
            raise UsageError(f"HuggingFaceAudio: pooling {pooling!r} is not one of {', '.join(get_args(Pooling))}.")
        if max_seconds is not None and max_seconds <= 0:
            raise UsageError(f"HuggingFaceAudio: max_seconds {max_seconds} must be positive.")
        self.pooling = pooling
        made = _audio_model(weights, config, preprocess)
        self.model, self.kind = made.model, made.kind
        own = (
            getattr(made.extractor, "chunk_length", None)
            or getattr(made.extractor, "max_length_s", None)
            or DEFAULT_MAX_SECONDS
        )
        longest = min(max_seconds or own, own if self.kind.fixed else math.inf)
        self.processor = HuggingFaceAudioProcessor(made.extractor, float(longest), _min_samples(self.model.config))
        self.settings |= {
            "weights": None,
            "config": made.config,
            "preprocess": made.preprocess,
            "max_seconds": float(longest),
        }
        self.width = self._width()

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        """What ``FeatureProcessor.collate`` makes -> ``(n, width)``."""
        return self.kind.features(self.model, values, lengths, self.pooling)

    def _width(self) -> int:
        inputs = self.processor.collate([self.processor(self.processor.examples()[0])])
        self.model.eval()
        with torch.no_grad():
            return self(**inputs).shape[-1]


@dataclass(frozen=True)
class AudioFamily:
    """How models of a kind are called: ``features(model, values, lengths, pooling)``, and whether clips have a fixed size."""

    features: Callable[..., Tensor]
    fixed: bool


def _pool_frames(frames: Tensor, counts: Tensor, pooling: str) -> Tensor:
    """``frames`` ``(n, t, width)``, of which ``counts`` ``(n,)`` hold sound -> ``(n, width)``."""
    mask = (torch.arange(frames.shape[1], device=frames.device) < counts[:, None])[..., None]
    if pooling == "max":
        return frames.masked_fill(~mask, -torch.inf).amax(dim=1)
    return (frames * mask).sum(dim=1) / counts[:, None]


def _wave_features(model: Any, values: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    mask = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
    frames = model(input_values=values, attention_mask=mask.long()).last_hidden_state
    return _pool_frames(frames, model._get_feat_extract_output_lengths(lengths), pooling)


def _wave_features_by_length(model: Any, values: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    """Only clips of one length go together: a group norm is over a clip's whole length, with what pads it."""
    if torch.compiler.is_exporting():
        raise UsageError("it encodes clips of each length separately, as padding would change their vectors")
    parts, places = [], []
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        frames = model(input_values=values[rows, :length]).last_hidden_state
        parts.append(frames.amax(dim=1) if pooling == "max" else frames.mean(dim=1))
        places.append(rows)
    return torch.cat(parts)[torch.cat(places).argsort()]


def _whisper_features(model: Any, values: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    frames = model(input_features=values).last_hidden_state  # half as many as the spectrogram's
    return _pool_frames(frames, (lengths + 1) // 2, pooling)


def _spectrogram_features(model: Any, values: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    made = model(input_values=values)
    return made.pooler_output if pooling == "own" else _pool_all_frames(made.last_hidden_state, pooling)


def _clap_features(model: Any, values: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    # clips are cut at what the model takes; the flag is for the fusion of parts of longer ones
    longer = torch.zeros(values.shape[0], 1, dtype=torch.bool, device=values.device)
    made = model(input_features=values, is_longer=longer)
    if pooling == "own":
        return made.audio_embeds
    return _pool_all_frames(made.last_hidden_state.flatten(2).transpose(1, 2), pooling)


def _pool_all_frames(frames: Tensor, pooling: str) -> Tensor:
    return frames.amax(dim=1) if pooling == "max" else frames.mean(dim=1)


KINDS = {
    "whisper": AudioFamily(_whisper_features, fixed=True),
    "audio-spectrogram-transformer": AudioFamily(_spectrogram_features, fixed=True),
    "clap_audio_model": AudioFamily(_clap_features, fixed=True),
}


@dataclass(frozen=True)
class AudioModel:
    """A model of transformers with its feature extractor.

    Args:
        model: the model.
        kind: how it is called.
        extractor: its feature extractor.
        config: the model's settings.
        preprocess: the extractor's settings.
    """

    model: nn.Module
    kind: AudioFamily
    extractor: Any
    config: dict[str, Any]
    preprocess: dict[str, Any]


def _audio_model(
    weights: str | None, config: str | dict[str, Any] | None, preprocess: dict[str, Any] | None
) -> AudioModel:
    transformers = import_library()
    changes = config if isinstance(config, dict) else None
    named = weights or (config if isinstance(config, str) else None)
    if weights is not None and isinstance(config, str):
        raise UsageError(
            f"config {config!r} names another model than weights {weights!r}; leave it out, or give the entries to change."
        )
    if named is None and (changes is None or preprocess is None):
        raise UsageError(
            "a Hugging Face audio encoder needs weights, or a config for random weights; set one to a name or a folder."
        )
    if named is None:
        found = config_from_json(changes or {})
        model = random_model(_auto_class(found), found, _encoder_of)
        return AudioModel(model, _kind(model), _extractor_of(preprocess or {}), changes or {}, preprocess or {})
    source = ModelSource.of(named, "weights" if weights else "config")
    found = source.config()
    found = with_changes(getattr(found, TOWERS.get(found.model_type, ""), found), changes or {})
    for name, of in (("layerdrop", "layerdrop"), ("apply_spec_augment", "mask_time_prob")):
        if hasattr(found, of) and name not in (changes or {}):  # both leave parameters without a gradient, now and then
            setattr(found, name, 0.0 if name == "layerdrop" else False)
    model = (
        source.model(_auto_class(found), found, _encoder_of)
        if weights
        else random_model(_auto_class(found), found, _encoder_of)
    )
    if preprocess is None:
        extractor = source.load("feature extractor", EXTRACTOR, transformers.AutoFeatureExtractor.from_pretrained)
        preprocess = json.loads(extractor.to_json_string())
    return AudioModel(model, _kind(model), _extractor_of(preprocess or {}), config_to_json(found), preprocess or {})


def _auto_class(config: Any) -> Any:
    transformers = import_library()
    return (
        transformers.ClapAudioModelWithProjection if config.model_type == "clap_audio_model" else transformers.AutoModel
    )


def _encoder_of(model: Any) -> nn.Module:
    whole = model.config.is_encoder_decoder and hasattr(model, "decoder")
    return drop_unused_parameters(model.get_encoder() if whole else model)


def _kind(model: Any) -> AudioFamily:
    config = model.config
    if config.model_type in KINDS:
        return KINDS[config.model_type]
    if not hasattr(model, "_get_feat_extract_output_lengths"):
        raise UsageError(
            f"{type(model).__name__} is not a supported audio encoder: use a waveform model like wav2vec2, HuBERT or"
            f" WavLM, or {', '.join(KINDS)}."
        )
    masked = config.model_type in MODELS_WITH_MASK and config.feat_extract_norm != "group"
    return AudioFamily(_wave_features if masked else _wave_features_by_length, fixed=False)


def _min_samples(config: Any) -> int:
    """The samples that the convolutions of a model of the wave make one frame of."""
    samples = 1
    layers = zip(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()), strict=True)
    for kernel, stride in reversed(list(layers)):
        samples = (samples - 1) * stride + kernel
    return samples


def _extractor_of(settings: dict[str, Any]) -> Any:
    transformers = import_library()
    cls = getattr(transformers, str(settings.get("feature_extractor_type")), None)
    if not (isinstance(cls, type) and issubclass(cls, transformers.SequenceFeatureExtractor)):
        raise UsageError(
            f"preprocess: feature_extractor_type {settings.get('feature_extractor_type')!r} is not an audio feature extractor;"
            f" give the contents of a {EXTRACTOR}."
        )
    sizes = [settings.get(name) for name in ("feature_size", "num_mel_bins", "n_fft", "fft_window_size")]
    if any(isinstance(size, int) and size > MAX_FEATURES for size in sizes):  # they make a table of filters of them
        raise UsageError(
            f"preprocess: its sizes must not be above {MAX_FEATURES:,}, got {max(s for s in sizes if s):,}."
        )
    return cls.from_dict(settings)
