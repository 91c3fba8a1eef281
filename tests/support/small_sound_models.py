"""Small audio models of Hugging Face with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModel

RATE = 16_000
WAVE: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 4, 3], "conv_stride": [5, 4, 3], "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
}  # fmt: skip
LAYERED = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
WHISPER = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_source_positions": 50, "vocab_size": 60, "pad_token_id": 0,
    "num_mel_bins": 20, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
AST = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_length": 64,
    "num_mel_bins": 32,
}  # fmt: skip
CLAP: dict[str, Any] = {
    "audio_config": {
        "spec_size": 64, "num_mel_bins": 16, "patch_embeds_hidden_size": 8, "depths": [1, 1], "window_size": 4,
        "num_attention_heads": [2, 2], "hidden_size": 16, "projection_dim": 12, "patch_size": 4, "patch_stride": [4, 4],
        "num_hidden_layers": 2,
    },
    "text_config": {
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20,
    },
    "projection_dim": 12,
}  # fmt: skip
BANDS = {"feature_size": 16, "frequency_min": 50, "frequency_max": 8000}
KINDS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "wav2vec2 group": ("wav2vec2", WAVE, {"return_attention_mask": False}),
    "wav2vec2 layer": ("wav2vec2", WAVE | LAYERED, {"return_attention_mask": True}),
    "hubert group": ("hubert", WAVE, {"return_attention_mask": False, "do_normalize": False}),
    "hubert layer": ("hubert", WAVE | LAYERED, {"return_attention_mask": True}),
    "wavlm layer": ("wavlm", WAVE | LAYERED, {"return_attention_mask": True}),
    "data2vec": ("data2vec-audio", WAVE, {"return_attention_mask": True}),
    "whisper": ("whisper", WHISPER, {"chunk_length": 1, "feature_size": 20}),
    "ast": ("audio-spectrogram-transformer", AST, {"num_mel_bins": 32, "max_length": 64}),
    "clap": ("clap", CLAP, BANDS | {"max_length_s": 1, "truncation": "rand_trunc", "sampling_rate": RATE}),
}
EXTRACTORS = {
    "whisper": "WhisperFeatureExtractor",
    "audio-spectrogram-transformer": "ASTFeatureExtractor",
    "clap": "ClapFeatureExtractor",
}


def made(folder: Path, kind: str) -> str:
    """A model with random weights and its feature extractor, in a folder of the library."""
    name, sizes, settings = KINDS[kind]
    torch.manual_seed(3)
    model = AutoModel.from_config(transformers.AutoConfig.for_model(name, **sizes))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    getattr(transformers, EXTRACTORS.get(name, "Wav2Vec2FeatureExtractor"))(**settings).save_pretrained(folder)
    return str(folder)
