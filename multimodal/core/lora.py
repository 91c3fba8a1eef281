"""Low-rank adaptation of an encoder by the peft library: its weights are frozen, small products next to them are trained."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError
from multimodal.core.layers import match_parameter_names


@dataclass(frozen=True)
class LoRA:
    r"""Settings of low-rank adaptation: which modules of an encoder, at which rank and scale.

    A weight W of shape ``(out, in)`` becomes :math:`W + \frac{\alpha}{r} B A` with A ``(r, in)`` random and B ``(out, r)``
    zero at first, so that training begins with the unchanged encoder.

    Args:
        targets: a regular expression of the names of the encoder's modules; the linear, convolution (not grouped),
            embedding and attention modules that it matches, or that are inside a match, are adapted.
        rank: r, at least 1.
        alpha: scale of the product.
        dropout: dropout of the product's input, in [0, 1).

    Raises:
        UsageError: the rank or the dropout is out of range.

    Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
    """

    targets: str
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise UsageError(f"lora: rank {self.rank} must be at least 1 and dropout {self.dropout} in [0, 1).")


def add_lora(encoder: Encoder, lora: LoRA, modality: str) -> None:
    """Adapt an encoder in place and freeze its weights.

    Args:
        encoder: the encoder.
        lora: the settings.
        modality: the encoder's modality, for errors.

    Raises:
        UsageError: the pattern matches nothing that can be adapted, or peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora.layer import MultiheadAttention as PeftAttention
    except ImportError as error:
        raise UsageError(f"LoRA needs the library peft ({error}): pip install 'multimodal[lora]'.") from error
    setting = f"lora.{modality}.targets"
    modules = dict(encoder.named_modules())
    matched = match_parameter_names([name for name in modules if name], lora.targets, setting)
    adapted = [name for name in matched if _is_adaptable(modules[name]) and not _is_inside_attention(name, modules)]
    if not adapted:
        raise UsageError(f"{setting}: {lora.targets!r} matches no linear, convolution, embedding or attention module.")
    config = LoraConfig(
        target_modules="|".join(map(re.escape, adapted)),  # peft matches a list against the ends of names
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] (peft declares int)
        lora_dropout=lora.dropout,
    )
    try:
        inject_adapter_in_model(config, encoder)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UsageError(
            f"{setting}: peft cannot adapt all modules that {lora.targets!r} matches ({error})."
        ) from error
    for layer in encoder.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0  # evaluation's fused path would ignore the adapters
        if isinstance(layer, PeftAttention):
            layer.register_forward_pre_hook(_save_attention_weights)
            layer.register_forward_hook(_restore_attention_weights, always_call=True)


def _attention_weights(attention: Any) -> Iterator[tuple[dict[str, Any], str]]:
    base = attention.get_base_layer()
    yield base._parameters, "in_proj_weight"
    yield base.out_proj.get_base_layer()._parameters, "weight"


def _save_attention_weights(attention: nn.Module, _: Any) -> None:
    """Save the weights before a forward pass: peft adds the product to them and subtracts it again, up to rounding."""
    weights = [] if attention.merged else [parameters[name] for parameters, name in _attention_weights(attention)]
    attention.__dict__["_saved_weights"] = weights


def _restore_attention_weights(attention: nn.Module, *_: Any) -> None:
    for (parameters, name), saved in zip(
        _attention_weights(attention), attention.__dict__.pop("_saved_weights", ()), strict=False
    ):
        parameters[name] = saved


def _is_adaptable(module: nn.Module) -> bool:
    grouped = getattr(module, "groups", 1) > 1  # peft cannot merge their adapters into their weights
    return isinstance(module, _ADAPTABLE) and not grouped


_ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.MultiheadAttention)


def _is_inside_attention(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a module is part of an attention module, which is adapted as one."""
    return isinstance(modules[name.rpartition(".")[0]], nn.MultiheadAttention)


def merge_adapters(encoder: Encoder) -> Encoder:
    """Return a copy of an encoder without adapters: their products are added to its weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    merged = copy.deepcopy(encoder)
    adapters: dict[str, Any] = {}
    for name, module in merged.named_modules():
        if isinstance(module, BaseTunerLayer) and not any(name.startswith(f"{outer}.") for outer in adapters):
            adapters[name] = module
    for name, module in adapters.items():
        parent, _, last = name.rpartition(".")
        unload = getattr(module, "unload_and_optionally_merge_module", None)  # only attention has it
        if unload is None:
            module.merge()
            base = module.get_base_layer()
        else:
            base = unload(merge=True, safe_merge=False, adapter_names=None)
        setattr(merged.get_submodule(parent), last, base)
    return merged
