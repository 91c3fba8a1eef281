"""Towers of open_clip and text encoders of Hugging Face are exported to their libraries with weights, heads and adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from multimodal_encoders.open_clip.towers import OpenClipImages, OpenClipTexts
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError
from multimodal.core.lora import LoRA
from multimodal.export.folder import export

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
OTHER = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"layers": 1}}
PREPROCESS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}
TEXTS = ["a black heart", "a rightwards arrow with a tail, and one that has none", "fox"]


def clip(**settings: Any) -> Embedder:
    torch.manual_seed(2)
    heads: Any = {"picture": "none", "title": "none"}
    encoders: dict[str, Encoder] = {
        "picture": OpenClipImages(config=CONFIG, preprocess=PREPROCESS),
        "title": OpenClipTexts(config=CONFIG),
    }
    return Embedder(encoders, 16, **({"heads": heads} | settings)).eval()


def test_open_clip_loads_its_towers_with_their_preprocessing(tmp_path: Path) -> None:
    embedder = clip(lora={"title": LoRA(r"text\.transformer", rank=2)})
    for name, parameter in embedder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    exported = export(embedder, "open_clip", tmp_path / "clip")
    assert max(exported.differences.values()) < 1e-5
    name = f"local-dir:{tmp_path / 'clip'}"
    loaded: Any = open_clip.create_model_from_pretrained(name)
    model, preprocess = loaded
    pictures = embedder.processors["picture"].examples()
    pixels = torch.stack([preprocess(Image.fromarray(p)) for p in pictures])
    tokenize: Any = open_clip.get_tokenizer(name)
    with torch.no_grad():
        image, text, _ = model.eval()(pixels, tokenize(TEXTS))
    np.testing.assert_allclose(image, embedder.encode(picture=pictures), atol=1e-4)
    np.testing.assert_allclose(text, embedder.encode(title=TEXTS), atol=1e-4)
    described = json.loads((tmp_path / "clip" / "export.json").read_text())
    assert set(described["modalities"]) == {"picture", "title"}


@pytest.mark.parametrize("bias", [None, -7.5])
def test_the_scale_and_bias_of_similarities_are_exported_to_open_clip(bias: float | None, tmp_path: Path) -> None:
    theirs = open_clip.CLIP(**CONFIG, init_logit_scale=3.25, init_logit_bias=bias)
    described = {"model_cfg": CONFIG | ({} if bias is None else {"init_logit_bias": 0.0})}
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "open_clip_config.json").write_text(json.dumps(described))
    save_file(theirs.state_dict(), tmp_path / "source" / "open_clip_model.safetensors")
    towers: dict[str, Any] = {
        "picture": OpenClipImages(weights=str(tmp_path / "source")), "title": OpenClipTexts(weights=str(tmp_path / "source"))
    }  # fmt: skip
    width = CONFIG["embed_dim"]
    export(Embedder(towers, width, heads=dict.fromkeys(towers, "none")).eval(), "open_clip", tmp_path / "clip")
    loaded: Any = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'clip'}")
    model, _ = loaded
    assert model.logit_scale.item() == pytest.approx(3.25)
    assert (model.logit_bias is None) if bias is None else (model.logit_bias.item() == pytest.approx(bias))


def test_a_mismatched_open_clip_pair_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match=r"The picture encoder \(OpenClipImages\) has a projection head"):
        export(clip(heads={"title": "none"}), "open_clip", tmp_path / "out")
    with pytest.raises(MultimodalError, match=r"picture are not such a pair"):
        export(clip(), "open_clip", tmp_path / "out", ["picture"])
    towers: dict[str, Encoder] = {"a": OpenClipImages(config=OTHER), "b": OpenClipTexts(config=CONFIG)}
    mixed = Embedder(towers, 16, {"a": "none", "b": "none"})
    with pytest.raises(MultimodalError, match=r"a, b are not such a pair"):
        export(mixed, "open_clip", tmp_path / "out")
    graph = Embedder({"graph": registry.create("graph", "gnn", width=16, layers=1)}, 16, {"graph": "none"})
    with pytest.raises(
        MultimodalError, match=r"The graph encoder \(GNN\) is not an open_clip tower; export it to onnx"
    ):
        export(graph, "open_clip", tmp_path / "out")
    with pytest.raises(MultimodalError, match=r"one Hugging Face text encoder; of graph it can hold none"):
        export(graph, "sentence-transformers", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = str(tmp_path_factory.mktemp("bert"))
    words = ["[PAD]", "[UNK]", "a", "black", "heart", "rightwards", "arrow", "with", "tail", "and", "one", "fox", ","]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    fast.save_pretrained(folder)
    sizes: dict[str, int] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)  # pyright: ignore
    return folder


@pytest.mark.parametrize(("head", "pooling"), [("linear", "mean"), ("mlp", "cls"), ("none", "last"), ("none", "max")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_sentence_transformers_loads_a_text_encoder_with_its_head(
    head: Any, pooling: str, bert: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(4)
    lora = {"title": LoRA(r"model\.encoder", rank=2)} if head == "mlp" else {}
    graph = registry.create("graph", "gnn", width=8, layers=1)
    title = registry.create("text", "huggingface", weights=bert, pooling=pooling)
    embedder = Embedder({"title": title, "graph": graph}, 8, {"title": head}, lora).eval()
    for parameter in embedder.parameters():
        nn.init.normal_(parameter, std=0.3)
    capfd.readouterr()
    exported = export(embedder, "sentence-transformers", tmp_path / "st")
    assert capfd.readouterr() == ("", "")  # the library shows no progress bars
    assert exported.files == {"title": "modules.json"}
    loaded = SentenceTransformer(str(tmp_path / "st"), device="cpu", local_files_only=True)
    made = loaded.encode(TEXTS[::-1], show_progress_bar=False)
    np.testing.assert_allclose(made, embedder.encode(title=TEXTS[::-1]), atol=1e-4)
