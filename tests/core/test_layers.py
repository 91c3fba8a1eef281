"""The depth of the parameters in encoders of all kinds, and parts by their names."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from multimodal.core import registry
from multimodal.core.errors import UsageError
from multimodal.core.layers import match_parameter_names, parameter_names_by_depth, stacked_blocks


def tops(encoder: nn.Module, parts: int) -> list[set[str]]:
    """The first parts of the names at each depth."""
    return [{".".join(name.split(".")[:parts]) for name in names} for names in parameter_names_by_depth(encoder)]


def test_a_residual_network_has_a_depth_for_the_stem_and_each_block() -> None:
    encoder = registry.create("image", "cnn", arch="resnet18")
    blocks_of = [{f"net.layer{stage}.{block}"} for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert tops(encoder, 3) == [{"net.conv1.weight", "net.bn1.weight", "net.bn1.bias"}, *blocks_of]
    assert len(stacked_blocks(encoder)) == 8


def test_a_transformer_has_a_depth_for_the_embeddings_and_each_block_and_its_last_norm_is_the_last_block_s() -> None:
    encoder = registry.create("text", "transformer", vocab_size=10, width=8, layers=3, heads=2)
    assert tops(encoder, 3) == [
        {"positions", "tokens.weight"},
        {"layers.layers.0"},
        {"layers.layers.1"},
        {"layers.layers.2", "layers.norm.weight", "layers.norm.bias"},
    ]


def test_the_towers_of_open_clip_have_their_projection_last() -> None:
    from open_clip.transformer import TextTransformer, VisionTransformer

    vision = VisionTransformer(16, 8, 8, 2, 2, 2.0, output_dim=6)
    assert tops(vision, 3) == [
        {"class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias"},
        {"transformer.resblocks.0"},
        {"transformer.resblocks.1", "ln_post.weight", "ln_post.bias", "proj"},
    ]
    text = TextTransformer(context_length=4, vocab_size=10, width=8, heads=2, layers=2, output_dim=6)
    assert [sorted(top) for top in tops(text, 3)] == [
        ["positional_embedding", "token_embedding.weight"],
        ["transformer.resblocks.0"],
        ["ln_final.bias", "ln_final.weight", "text_projection", "transformer.resblocks.1"],
    ]


def test_an_encoder_of_hugging_face_has_its_pooler_after_its_layers() -> None:
    from transformers import BertConfig, BertModel

    model = BertModel(
        BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    )
    assert [sorted(top) for top in tops(model, 3)][1:] == [
        ["encoder.layer.0"],
        ["encoder.layer.1"],
        ["pooler.dense.bias", "pooler.dense.weight"],
    ]


def test_embeddings_behind_the_blocks_are_next_to_the_input_all_the_same() -> None:
    from transformers import MPNetConfig, MPNetModel

    sizes: Any = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    model = MPNetModel(MPNetConfig(vocab_size=10, **sizes), add_pooling_layer=False)
    found = parameter_names_by_depth(model)
    assert "encoder.relative_attention_bias.weight" in found[0]
    assert [names[0].split(".attention")[0] for names in found[1:]] == ["encoder.layer.0", "encoder.layer.1"]


def test_stages_of_one_block_are_layers() -> None:
    import timm

    encoder = timm.create_model("resnet10t", num_classes=0)
    assert len(stacked_blocks(encoder)) == 4
    assert tops(encoder, 2)[1:] == [{"layer1.0"}, {"layer2.0"}, {"layer3.0"}, {"layer4.0"}]


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny", "efficientnet_b0"])
def test_every_parameter_has_one_depth_in_the_order_of_the_network(name: str) -> None:
    from torchvision import models

    encoder = models.get_model(name, weights=None)
    by_depth = parameter_names_by_depth(encoder)
    flat = [parameter for names in by_depth for parameter in names]
    assert flat == [parameter for parameter, _ in encoder.named_parameters()]
    assert len(by_depth) > 10


def test_an_encoder_without_a_stack_is_one_layer_and_one_block() -> None:
    encoder = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert parameter_names_by_depth(encoder) == [["0.weight", "0.bias", "2.weight", "2.bias"]]
    assert stacked_blocks(encoder) == [encoder]


NAMES = ["net.conv1.weight", "net.conv10.weight", "net.layer1.0.bias", "net.layer2.bias"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("net.conv1", NAMES[:1]),
        ("net.(conv1|layer[12])", [NAMES[0], *NAMES[2:]]),
        (".*bias", NAMES[2:]),
        ("net", NAMES),
    ],
)
def test_a_pattern_matches_whole_parts_and_what_is_below_them(pattern: str, found: list[str]) -> None:
    assert match_parameter_names(NAMES, pattern, "freeze.a") == found


def test_a_pattern_that_is_none_or_matches_nothing_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"freeze.a: 'layer1' matches no part .* begin with net.conv1, net.conv10, net"
    ):
        match_parameter_names(NAMES, "layer1", "freeze.a")
    with pytest.raises(UsageError, match=r"To match it inside net\.conv1\S*, write '\.\*\(conv1\)'"):
        match_parameter_names(NAMES, "conv1", "freeze.a")
    with pytest.raises(UsageError, match=r"lora.a: '\(' is not a regular expression"):
        match_parameter_names(NAMES, "(", "lora.a")
