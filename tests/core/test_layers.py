"""The depth of the parameters in encoders of all kinds, and matching names."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from multimodal.core import registry
from multimodal.core.errors import UsageError
from multimodal.core.layers import match_parameter_names, parameter_names_by_depth, stacked_blocks


def names_at_depths(encoder: nn.Module, parts: int) -> list[set[str]]:
    """The distinct first ``parts`` parts of the names at each depth."""
    return [{".".join(name.split(".")[:parts]) for name in names} for names in parameter_names_by_depth(encoder)]


def test_the_stem_and_each_block_of_a_residual_network_is_a_depth() -> None:
    encoder = registry.create("image", "cnn", arch="resnet18")
    blocks_of = [{f"net.layer{stage}.{block}"} for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert names_at_depths(encoder, 3) == [{"net.conv1.weight", "net.bn1.weight", "net.bn1.bias"}, *blocks_of]
    assert len(stacked_blocks(encoder)) == 8


def test_the_embeddings_and_each_block_of_a_transformer_is_a_depth_and_the_last_norm_is_in_the_last() -> None:
    encoder = registry.create("text", "transformer", vocab_size=10, width=8, layers=3, heads=2)
    assert names_at_depths(encoder, 3) == [
        {"positions", "tokens.weight"},
        {"layers.layers.0"},
        {"layers.layers.1"},
        {"layers.layers.2", "layers.norm.weight", "layers.norm.bias"},
    ]


def test_the_projection_of_open_clip_is_in_the_last_depth() -> None:
    from open_clip.transformer import TextTransformer, VisionTransformer

    vision = VisionTransformer(16, 8, 8, 2, 2, 2.0, output_dim=6)
    assert names_at_depths(vision, 3) == [
        {"class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias"},
        {"transformer.resblocks.0"},
        {"transformer.resblocks.1", "ln_post.weight", "ln_post.bias", "proj"},
    ]
    text = TextTransformer(context_length=4, vocab_size=10, width=8, heads=2, layers=2, output_dim=6)
    assert [sorted(names) for names in names_at_depths(text, 3)] == [
        ["positional_embedding", "token_embedding.weight"],
        ["transformer.resblocks.0"],
        ["ln_final.bias", "ln_final.weight", "text_projection", "transformer.resblocks.1"],
    ]


def test_the_pooler_of_a_hugging_face_encoder_is_the_last_depth() -> None:
    from transformers import BertConfig, BertModel

    model = BertModel(
        BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    )
    assert [sorted(names) for names in names_at_depths(model, 3)][1:] == [
        ["encoder.layer.0"],
        ["encoder.layer.1"],
        ["pooler.dense.bias", "pooler.dense.weight"],
    ]


def test_embeddings_after_the_blocks_are_in_the_first_depth() -> None:
    from transformers import MPNetConfig, MPNetModel

    sizes: Any = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    model = MPNetModel(MPNetConfig(vocab_size=10, **sizes), add_pooling_layer=False)
    depths = parameter_names_by_depth(model)
    assert "encoder.relative_attention_bias.weight" in depths[0]
    assert [names[0].split(".attention")[0] for names in depths[1:]] == ["encoder.layer.0", "encoder.layer.1"]


def test_stages_of_one_block_are_depths() -> None:
    import timm

    encoder = timm.create_model("resnet10t", num_classes=0)
    assert len(stacked_blocks(encoder)) == 4
    assert names_at_depths(encoder, 2)[1:] == [{"layer1.0"}, {"layer2.0"}, {"layer3.0"}, {"layer4.0"}]


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny", "efficientnet_b0"])
def test_every_parameter_is_in_one_depth_in_the_order_of_the_network(name: str) -> None:
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
    ("pattern", "matches"),
    [
        ("net.conv1", NAMES[:1]),
        ("net.(conv1|layer[12])", [NAMES[0], *NAMES[2:]]),
        (".*bias", NAMES[2:]),
        ("net", NAMES),
    ],
)
def test_a_pattern_matches_full_names_and_all_names_below_them(pattern: str, matches: list[str]) -> None:
    assert match_parameter_names(NAMES, pattern, "freeze.a") == matches


def test_an_invalid_pattern_or_one_without_a_match_is_rejected() -> None:
    with pytest.raises(
        UsageError, match=r"freeze.a: 'layer1' matches no module .* begin with net.conv1, net.conv10, net"
    ):
        match_parameter_names(NAMES, "layer1", "freeze.a")
    with pytest.raises(UsageError, match=r"To match it inside net\.conv1\S*, write '\.\*\(conv1\)'"):
        match_parameter_names(NAMES, "conv1", "freeze.a")
    with pytest.raises(UsageError, match=r"lora.a: '\(' is not a regular expression"):
        match_parameter_names(NAMES, "(", "lora.a")


@pytest.mark.parametrize("layers", [-1, 1001, 10**30])
@pytest.mark.parametrize(
    ("modality", "encoder", "setting"),
    [
        ("text", "transformer", "layers"),
        ("graph", "gnn", "layers"),
        ("graph", "gps", "layers"),
        ("graph", "molecule", "layers"),
        ("tabular", "mlp", "layers"),
        ("image", "small_cnn", "depth"),
    ],
)
def test_layers_that_no_memory_holds_are_refused_before_they_are_made(
    modality: str, encoder: str, setting: str, layers: int
) -> None:
    with pytest.raises(UsageError, match=rf"{setting}.*(from 0 to 1,000|at least 1), got"):
        registry.create(modality, encoder, **{setting: layers})
