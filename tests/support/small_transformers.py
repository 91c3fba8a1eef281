"""Small models of Hugging Face with random weights, written to folders in the library's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

CORPUS = [
    "a black heart suit",
    "rightwards arrow with tail",
    "the quick brown fox jumps over a lazy dog 🙂 漢字, 12",
] * 3
TEXTS = [
    "fox",
    "a rightwards arrow with tail",
    "🙂 naïve 漢字 [SEP] <s> x",
    " \t one heart \n",
    "the quick brown fox jumps over the lazy dog " * 5,
    "BLACK Heart!",
]
SIZES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 24},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    "bart": {
        "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24,
        "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "max_position_embeddings": 24,
    },
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24},
}  # fmt: skip
ORDINARY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
}
DECODERS = {"head_dim": 8, "num_key_value_heads": 2}


def tokenizer(folder: Path, kind: str = "bert", **settings: Any) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the corpus, write it to a folder and return it.

    Args:
        folder: the folder.
        kind: "bert" puts [CLS] and [SEP] around a text, "gpt2" nothing, "xlnet" both after it, with token types. All but
            "gpt2" convert to lower case.
        **settings: further arguments of ``PreTrainedTokenizerFast``.
    """
    trained = Tokenizer(models.BPE(unk_token="[UNK]"))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind != "gpt2":
        trained.normalizer = normalizers.Lowercase()
        template = "[CLS]:0 $A:0 [SEP]:0" if kind == "bert" else "$A:0 [SEP]:0 [CLS]:2"
        trained.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    named: dict[str, Any] = {
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "eos_token": "[SEP]",
    }
    if kind == "xlnet":
        named["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    fast = PreTrainedTokenizerFast(tokenizer_object=trained, **(named | {"model_max_length": 20} | settings))
    fast.save_pretrained(folder)
    return fast


def model(folder: Path, kind: str, **settings: Any) -> nn.Module:
    """Write a model with random weights, none of them zero, to a folder and return it."""
    torch.manual_seed(7)
    sizes = SIZES.get(kind, ORDINARY | (DECODERS if kind in ("qwen3", "mistral") else {}))
    config = AutoConfig.for_model(kind, **({"vocab_size": 300, "pad_token_id": 0} | sizes | settings))
    network = AutoModel.from_config(config).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.15)
    network.save_pretrained(folder)
    return network
