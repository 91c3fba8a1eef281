"""Audio encoders of Hugging Face make what the library's own extractor and model make, clip by clip."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
import transformers
from huggingface_hub import constants
from multimodal_encoders.audio.huggingface import HuggingFaceAudio
from small_sound_models import KINDS, RATE, made
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModel

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.core.layers import parameter_names_by_depth
from multimodal.export.folder import export

RNG = np.random.default_rng(0)
CLIPS = [RNG.normal(0, 0.1, n) * np.linspace(0.2, 1, n) for n in (5000, 9001, 400, 5000, 12_345)]


pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:Support for mismatched key_padding_mask",  # WavLM's own
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def features(encoder: HuggingFaceAudio, clips: list[Any] = CLIPS) -> Tensor:
    encoder.eval()
    with torch.no_grad():
        return encoder(**encoder.processor.collate([encoder.processor(clip) for clip in clips]))


def reference(folder: str, clip: np.ndarray) -> Tensor:
    """What the library makes of a clip alone."""
    extractor: Any = AutoFeatureExtractor.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder).eval()
    inputs = extractor(clip.astype(np.float32), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        if model.config.model_type == "whisper":
            heard = -(-len(clip) // 320)  # two windows, each 160 samples after the one before, make a frame
            return model.get_encoder()(inputs["input_features"]).last_hidden_state[0, :heard].mean(dim=0)
        if model.config.model_type == "clap":
            projected = model.audio_projection(model.audio_model(inputs["input_features"]).pooler_output)[0]
            same = model.get_audio_features(inputs["input_features"]).pooler_output[0]  # of unit length
            torch.testing.assert_close(nn.functional.normalize(projected, dim=0), same)
            return projected
        found = model(**{name: t for name, t in inputs.items() if name == "input_values"})
        return found.pooler_output[0] if "pooler_output" in found else found.last_hidden_state[0].mean(dim=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_features_are_those_of_the_library_for_every_clip_of_a_batch(kind: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "source", kind)
    encoder = HuggingFaceAudio(folder)
    expected = torch.stack([reference(folder, clip) for clip in CLIPS])
    found = features(encoder)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat([features(encoder, [clip]) for clip in CLIPS]), found, atol=1e-5, rtol=1e-5)
    assert encoder.width == expected.shape[1]
    encoder.train()(**encoder.processor.collate([encoder.processor(clip) for clip in CLIPS])).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    sent = pickle.loads(pickle.dumps(encoder.processor))  # as to a data worker
    assert torch.equal(sent(CLIPS[0])[0], encoder.processor(CLIPS[0])[0])
    embedder = Embedder({"audio": encoder}, 8)
    vectors = embedder.encode(audio=CLIPS)
    embedder.save_pretrained(tmp_path / "saved")
    shutil.rmtree(folder)
    loaded = Embedder.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.encode(audio=CLIPS), vectors)
    assert loaded.fingerprint == embedder.fingerprint


@pytest.mark.parametrize("kind", ["wav2vec2 group", "wavlm layer", "whisper", "ast", "clap"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_frames_are_pooled_without_what_pads_them(kind: str, pooling: Any, tmp_path: Path) -> None:
    encoder = HuggingFaceAudio(made(tmp_path, kind), pooling)
    alone = torch.cat([features(encoder, [clip]) for clip in CLIPS])
    torch.testing.assert_close(features(encoder), alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone, features(HuggingFaceAudio(str(tmp_path), "mean" if pooling == "max" else "max")))


def test_recordings_of_other_rates_and_channels_are_read_as_the_other_encoder_reads_them(tmp_path: Path) -> None:
    folder = made(tmp_path, "wav2vec2 layer")
    encoder = HuggingFaceAudio(folder)
    stereo = RNG.normal(0, 0.1, (6000, 2))
    stream = io.BytesIO()
    soundfile.write(stream, stereo, 8000, format="WAV", subtype="FLOAT")
    wave = soxr.resample(stereo.astype(np.float32).astype(np.float64).mean(axis=1).astype(np.float32), 8000, RATE)
    expected = reference(folder, wave)
    path = tmp_path / "clip.wav"
    path.write_bytes(stream.getvalue())
    for value in (stream.getvalue(), str(path), (stereo.astype(np.float32), 8000)):
        torch.testing.assert_close(features(encoder, [value])[0], expected, atol=1e-5, rtol=1e-5)


def test_long_clips_are_cut_and_very_short_ones_filled_up(tmp_path: Path) -> None:
    folder = made(tmp_path / "wave", "wav2vec2 group")
    encoder = HuggingFaceAudio(folder, max_seconds=0.25)
    torch.testing.assert_close(features(encoder, [CLIPS[4]]), features(encoder, [CLIPS[4][:4000]]))
    assert HuggingFaceAudio(folder).settings["max_seconds"] == 30
    assert features(encoder, [np.array([0.5, -0.5])]).isfinite().all()
    whisper = HuggingFaceAudio(made(tmp_path / "whisper", "whisper"), max_seconds=9)
    assert whisper.settings["max_seconds"] == 1  # as the model takes no more
    assert features(whisper, [RNG.normal(size=3 * RATE)]).isfinite().all()


def test_a_fused_clap_takes_every_clip_for_a_short_one(tmp_path: Path) -> None:
    name, sizes, settings = KINDS["clap"]
    fused = sizes | {"audio_config": sizes["audio_config"] | {"enable_fusion": True}}
    AutoModel.from_config(transformers.AutoConfig.for_model(name, **fused)).save_pretrained(tmp_path)
    transformers.ClapFeatureExtractor(**(settings | {"truncation": "fusion"})).save_pretrained(tmp_path)
    encoder = HuggingFaceAudio(str(tmp_path))
    assert torch.equal(features(encoder), features(encoder))
    assert features(encoder).shape == (5, 12)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("/no/such.wav", "missing file"),
        (b"x", "no audio file"),
        (np.zeros(900), "silent audio"),
        ("x" * 3, "missing file"),
    ],
)
def test_what_is_not_a_sound_is_refused(value: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable) as refusal:
        HuggingFaceAudio(made(tmp_path, "wav2vec2 group")).processor(value)
    assert refusal.value.reason == reason


def test_the_layers_are_found_and_long_clips_cost_more(tmp_path: Path) -> None:
    encoder = HuggingFaceAudio(made(tmp_path, "wav2vec2 group"))
    depths = [{".".join(name.split(".")[:4]) for name in names} for names in parameter_names_by_depth(encoder)]
    assert {"model.encoder.layers.0"} in depths
    assert {"model.encoder.layers.1"} <= depths[-1] | depths[-2]
    assert encoder.processor.cost(encoder.processor(CLIPS[1])) == 9001 / RATE
    assert "torchaudio" not in sys.modules


def test_what_pads_no_clip_is_exported_and_the_others_are_reported(tmp_path: Path) -> None:
    masked = Embedder({"audio": HuggingFaceAudio(made(tmp_path / "masked", "wav2vec2 layer"))}, 8).eval()
    assert export(masked, "torch-export", tmp_path / "out").differences["audio"] < 1e-5
    grouped = Embedder({"audio": HuggingFaceAudio(made(tmp_path / "grouped", "wav2vec2 group"))}, 8).eval()
    with pytest.raises(MultimodalError, match=r"cannot be exported .*it encodes clips of each length separately"):
        export(grouped, "torch-export", tmp_path / "out2")


def test_entries_of_the_tower_s_config_can_be_changed(tmp_path: Path) -> None:
    encoder = HuggingFaceAudio(made(tmp_path / "clap", "clap"), config={"hidden_dropout_prob": 0.3})
    assert encoder.settings["config"]["hidden_dropout_prob"] == 0.3
    wave = HuggingFaceAudio(
        made(tmp_path / "wave", "wav2vec2 layer"), config={"layerdrop": 0.2, "apply_spec_augment": True}
    )
    assert wave.settings["config"]["layerdrop"] == 0.2
    assert any("masked_spec_embed" in name for name, _ in wave.named_parameters())


def test_the_extractor_s_settings_may_be_given(tmp_path: Path) -> None:
    folder = made(tmp_path, "wav2vec2 group")
    own = HuggingFaceAudio(folder).settings["preprocess"]
    assert own["do_normalize"] is True
    plain = HuggingFaceAudio(folder, preprocess=own | {"do_normalize": False})
    np.testing.assert_allclose(plain.processor(CLIPS[0])[0].numpy(), CLIPS[0].astype(np.float32), atol=1e-7)
    assert json.loads(json.dumps(plain.settings))["preprocess"]["do_normalize"] is False
    with pytest.raises(UsageError, match="feature_extractor_type 'Pipeline' is not an audio feature extractor"):
        HuggingFaceAudio(folder, preprocess={"feature_extractor_type": "Pipeline"})


def test_wrong_settings_and_sources_are_reported(tmp_path: Path) -> None:
    def wrong(**settings: Any) -> str:
        with pytest.raises(MultimodalError) as caught:
            registry.create("audio", "huggingface", **settings)
        return str(caught.value)

    folder = made(tmp_path / "wave", "wav2vec2 group")
    assert "pooling 'sum' is not one of own, mean, max" in wrong(weights=folder, pooling="sum")
    assert "max_seconds -1 must be positive" in wrong(weights=folder, max_seconds=-1)
    assert "needs weights, or a config for random weights" in wrong(config={"model_type": "wav2vec2"})
    assert "names another model than weights" in wrong(weights=folder, config=folder)
    assert "The files of someone/sounds (no folder of that name is here)" in wrong(weights="someone/sounds")
    (tmp_path / "wave" / "preprocessor_config.json").unlink()
    assert "the feature extractor in the folder" in wrong(weights=folder)
    config = transformers.AutoConfig.for_model("vit", hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    AutoModel.from_config(config).save_pretrained(made(tmp_path / "vit", "ast"))
    assert "ViTModel is not a supported audio encoder" in wrong(weights=str(tmp_path / "vit"))
