"""Parameters by how they learn: the rate of their layer, with or without weight decay."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.core.layers import parameter_names_by_depth

RATE_FACTOR = "rate"  # of the learning rate, in a group


def parameter_groups(
    model: nn.Module,
    embedder: Embedder,
    trained: Collection[nn.Parameter],
    rates: Mapping[str, float],
    layer_decay: Mapping[str, float],
) -> list[dict[str, Any]]:
    r"""Groups for an optimizer: ``params``, ``weight_decay`` 0 where there is none, and the factor of the learning rate.

    The factor of a parameter of depth d in the encoder of modality m is :math:`r_m c_m^{D - d}`, with D the greatest depth:
    the last layer learns at the encoder's rate, the first most slowly (Howard and Ruder 2018; Clark et al. 2020). Heads
    and objectives have 1.

    Args:
        model: what is trained: the embedder and the objective's parameters.
        embedder: in the model.
        trained: the parameters to take.
        rates: modality -> r, by default 1.
        layer_decay: modality -> c, by default 1.

    Raises:
        UsageError: an unknown modality, a rate that is not positive, a decay outside (0, 1].
    """
    factors: dict[nn.Parameter, float] = {}
    for modality in dict.fromkeys([*rates, *layer_decay]):
        encoder = embedder.own_encoder(modality, "rates" if modality in rates else "layer_decay")
        rate, decay = rates.get(modality, 1.0), layer_decay.get(modality, 1.0)
        if not (rate > 0 and 0 < decay <= 1):
            raise UsageError(
                f"rates.{modality} {rate} must be above 0 and layer_decay.{modality} {decay} in (0, 1]."
                " To leave an encoder untrained, use freeze."
            )
        by_depth = parameter_names_by_depth(encoder)
        for depth, names in enumerate(by_depth):
            for name in names:
                factors[encoder.get_parameter(name)] = rate * decay ** (len(by_depth) - 1 - depth)
    undecayed = _undecayed_parameters(model)
    groups: dict[tuple[float, bool, bool], dict[str, Any]] = {}
    for parameter in trained:
        # one optimizer step cannot mix sharded parameters and others
        key = factors.get(parameter, 1.0), parameter not in undecayed, isinstance(parameter, DTensor)
        no_decay = {} if key[1] else {"weight_decay": 0.0}
        groups.setdefault(key, {"params": [], RATE_FACTOR: key[0], **no_decay})["params"].append(parameter)
    return list(groups.values())


def apply_rate_factors(optimizer: Optimizer) -> None:
    """Multiply the learning rate of each group by its factor, and let one kernel take its step where there is one."""
    for group in optimizer.param_groups:
        group["lr"] *= group[RATE_FACTOR]
        unset = isinstance(optimizer, Adam | AdamW | SGD) and group["fused"] is group["foreach"] is None
        if unset and all(p.device.type in ("cpu", "cuda") and not isinstance(p, DTensor) for p in group["params"]):
            group["fused"] = True


def _undecayed_parameters(model: nn.Module) -> set[nn.Parameter]:
    """Return biases, parameters of norms, and all others of at most one dimension."""
    return {
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim <= 1 or name.endswith("bias") or "Norm" in type(module).__name__
    }
