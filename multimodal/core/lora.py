"""Low-rank adaptation of an encoder by the peft library: the encoder's own weights stay, small products next to them learn."""

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
    r"""What to adapt, and by how much (Hu et al. 2022, section 4.1).

    A weight W of shape ``(out, in)`` becomes :math:`W + \frac{\alpha}{r} B A` with A ``(r, in)`` random and B ``(out, r)``
    zero at first, so that training begins at the encoder as it is.

    Args:
        targets: a regular expression of the names of the encoder's parts; the linear, convolution (but grouped ones),
            embedding and attention modules in what it matches are adapted.
        rank: r.
        alpha: scale of the product.
        dropout: of its input.
    """

    targets: str
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise UsageError(f"lora: rank {self.rank} must be at least 1 and dropout {self.dropout} in [0, 1).")


def add_lora(encoder: Encoder, lora: LoRA, modality: str) -> None:
    """Adapt an encoder in place; its own weights are frozen.

    Args:
        encoder: the encoder.
        lora: the settings.
        modality: the encoder's, for errors.

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
        target_modules="|".join(map(re.escape, adapted)),  # a list would be of endings
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] (typed as whole)
        lora_dropout=lora.dropout,
    )
    try:
        inject_adapter_in_model(config, encoder)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UsageError(f"{setting}: peft cannot adapt all of what {lora.targets!r} matches ({error}).") from error
    for layer in encoder.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.activation_relu_or_gelu = 0  # else evaluation takes a fused path that reads the plain weights
        if isinstance(layer, PeftAttention):
            layer.register_forward_pre_hook(_save_attention_weights)
            layer.register_forward_hook(_restore_attention_weights, always_call=True)


def _attention_weights(attention: Any) -> Iterator[tuple[dict[str, Any], str]]:
    base = attention.get_base_layer()
    yield base._parameters, "in_proj_weight"
    yield base.out_proj.get_base_layer()._parameters, "weight"


def _save_attention_weights(attention: nn.Module, _: Any) -> None:
    """The library puts the product into an attention's weights for each forward, and takes it out again but for rounding."""
    own = [] if attention.merged else [parameters[name] for parameters, name in _attention_weights(attention)]
    attention.__dict__["_kept"] = own


def _restore_attention_weights(attention: nn.Module, *_: Any) -> None:
    for (parameters, name), kept in zip(
        _attention_weights(attention), attention.__dict__.pop("_kept", ()), strict=False
    ):
        parameters[name] = kept


def _is_adaptable(module: nn.Module) -> bool:
    grouped = getattr(module, "groups", 1) > 1  # peft cannot make their adapters part of their weights
    return isinstance(module, _ADAPTABLE) and not grouped


_ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.MultiheadAttention)


def _is_inside_attention(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether it is part of an attention module, which is adapted as a whole."""
    return isinstance(modules[name.rpartition(".")[0]], nn.MultiheadAttention)


def merge_adapters(encoder: Encoder) -> Encoder:
    """A copy whose adapters are part of its weights, as if there had never been any."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(encoder)
    adapters: dict[str, Any] = {}
    for name, module in plain.named_modules():
        if isinstance(module, BaseTunerLayer) and not any(name.startswith(f"{outer}.") for outer in adapters):
            adapters[name] = module
    for name, module in adapters.items():
        parent, _, last = name.rpartition(".")
        unload = getattr(module, "unload_and_optionally_merge_module", None)  # of attention, which does more
        if unload is None:
            module.merge()
            base = module.get_base_layer()
        else:
            base = unload(merge=True, safe_merge=False, adapter_names=None)
        setattr(plain.get_submodule(parent), last, base)
    return plain
