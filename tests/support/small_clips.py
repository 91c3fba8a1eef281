"""Small models of open_clip of all kinds, saved in its own format, and unusual pictures for them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

VISION: dict[str, Any] = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8}
TEXT: dict[str, Any] = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
VIT: dict[str, Any] = {"embed_dim": 12, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
WORDS = "a black white heart star arrow with tail and one fox that has none pointing rightwards"


def configs(tokenizer: str, bert: str) -> dict[str, dict[str, Any]]:
    """Configurations by kind; ``tokenizer`` and ``bert`` are folders of a tokenizer and a text encoder of Hugging Face."""
    text = {"context_length": 16, "vocab_size": 30, "hf_tokenizer_name": tokenizer}
    siglip_text = TEXT | text | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    return {
        "vit": VIT,
        "resnet": VIT | {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}},
        "oblong": VIT | {"vision_cfg": VISION | {"image_size": [16, 40]}},
        "eos": VIT | {"custom_text": True, "text_cfg": TEXT | {"pool_type": "eos", "eos_id": 49407}},
        "siglip": VIT
        | {
            "custom_text": True,
            "init_logit_bias": -10,
            "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"},
            "text_cfg": siglip_text | {"tokenizer_kwargs": {"clean": "canonicalize"}},
        },
        "bert": VIT
        | {
            "text_cfg": {
                "hf_model_name": bert,
                "hf_tokenizer_name": tokenizer,
                "context_length": 16,
                "hf_proj_type": "mlp",
                "hf_pooler_type": "mean_pooler",
            }
        },
        "coca": VIT
        | {
            "custom_text": True,
            "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
            "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {"context_length": 24, "width": 16, "heads": 2, "layers": 1, "attn_pooler_heads": 2},
        },
    }


PREPROCESS: dict[str, dict[str, Any]] = {
    "vit": {"interpolation": "bicubic", "resize_mode": "shortest"},
    "eos": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "resize_mode": "longest", "fill_color": 90},
    "siglip": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"},
}


def save_tokenizer(folder: Path) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(
        models.WordLevel({w: n for n, w in enumerate(["[PAD]", "[UNK]", *WORDS.split()])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    )
    fast.save_pretrained(str(folder))
    return str(folder)


def save_bert(folder: Path) -> str:
    from transformers import BertConfig

    sizes: dict[str, int] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    BertConfig(vocab_size=30, max_position_embeddings=16, **sizes).save_pretrained(folder)  # pyright: ignore
    return str(folder)


def save_clip(folder: Path, config: dict[str, Any], preprocess: dict[str, Any]) -> Any:
    """Write a folder of open_clip with random weights, none of them without effect, and return the model."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    model: Any = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1).add_(0.1 * torch.randn(parameter.shape))
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
                nn.init.normal_(part.running_mean, std=0.1)
                nn.init.uniform_(part.weight, 0.5, 1.5)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return model.eval()


def file_of(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def colours(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Random patches of 4 x 4 pixels, so that resizing does not average them away."""
    rng = np.random.default_rng(height * 1000 + width)
    patches = rng.integers(0, 256, (-(-height // 4), -(-width // 4), channels), dtype=np.uint8)
    return patches.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def plain_pictures() -> list[Image.Image]:
    """Pictures of odd sizes that every program reads in the same way."""
    sizes = [(1, 7), (7, 1), (301, 40), (40, 301), (32, 32), (33, 31), (500, 500)]
    grey = Image.fromarray(colours(50, 37)[..., 0])
    jpeg = Image.open(io.BytesIO(file_of(Image.fromarray(colours(300, 400)), "JPEG")))
    return [*(Image.fromarray(colours(*size)) for size in sizes), grey, jpeg]


def odd_pictures() -> dict[str, Image.Image]:
    """Pictures that this package reads with more care than the libraries."""
    rgb = Image.fromarray(colours(60, 45))
    turned = Image.Exif()
    turned[0x0112] = 6
    paletted = rgb.quantize(16)
    deep = Image.fromarray(colours(45, 60)[..., 0].astype(np.uint16) * 257)
    return {
        "transparent": Image.fromarray(colours(60, 45, 4)),
        "grey and transparent": Image.fromarray(colours(60, 45, 4)).convert("LA"),
        "ink": rgb.convert("CMYK"),
        "palette": paletted,
        "sixteen bits": deep,
        "turned": Image.open(io.BytesIO(file_of(rgb, "JPEG", exif=turned))),
        "two colours": rgb.convert("1"),
    }
