"""Learnable scalars, one for all pairs of modalities or one for each: temperatures and biases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from multimodal.core.errors import UsageError
from multimodal.objectives.pairs import Pair, Pairs, match_pair_name, parse_names


class PairParameter(nn.Module):
    """A learned scalar, one for all pairs or one for each name of pairs.

    Args:
        initial: its initial value, or one for each name (``*`` as in ``Pairs``).
        pairs: each of these pairs must match a name.
        owner: the name of the objective, for errors.
        setting: the name of the setting, for errors.

    Examples:
        >>> bias = PairParameter({"text-image": -10.0, "*-*": -5.0}, Pairs(None, "Sigmoid"), "Sigmoid", "bias")
        >>> bias.of(("image", "text")).item(), bias.of(("image", "graph")).item()
        (-10.0, -5.0)
    """

    def __init__(self, initial: float | Mapping[str, float], pairs: Pairs, owner: str, setting: str) -> None:
        super().__init__()
        self._positions: dict[tuple[str, str], int] = {}
        if not isinstance(initial, Mapping):
            self.value = nn.Parameter(torch.tensor(float(initial)))
            return
        self._positions = {name: position for position, name in enumerate(parse_names(initial, owner))}
        self.value = nn.Parameter(torch.tensor([float(value) for value in initial.values()]))
        for pair in pairs.weights:
            if match_pair_name(pair, self._positions) is None:
                raise UsageError(
                    f"{owner}: {setting} has no value for the pair {'-'.join(pair)!r}; add one under that name or under '*-*'."
                )

    def of(self, pair: tuple[str, str]) -> Tensor:
        """Return the scalar of a pair."""
        name = match_pair_name(pair, self._positions)
        return self.value if name is None else self.value[self._positions[name]]

    def named(self) -> dict[str, Tensor]:
        """Return each value, detached, by the name of its pairs, or by "" if all pairs share one."""
        value = self.value.detach()
        return {"-".join(name): value[position] for name, position in self._positions.items()} or {"": value}


class Temperature(nn.Module):
    r"""A learned temperature, one for all pairs or one for each name of pairs.

    The parameter is the logarithm t of the logit scale :math:`e^t`, the inverse of the temperature, as in CLIP;
    before each use t is projected onto :math:`[0, \log(\text{max\_scale})]`, so that the scale can neither explode nor
    vanish. One for all pairs is the default: it keeps cosines of different pairs comparable, as a search over several
    modalities at once requires; ImageBind has one for each pair.

    Args:
        initial: in [1 / max_scale, 1].
        max_scale: upper bound of the logit scale (CLIP uses 100), at least 1.
        pairs: each of these pairs must match a name.
        owner: the name of the objective, for errors.

    Examples:
        >>> temperature = Temperature(0.1, 100.0, Pairs(None, "InfoNCE"), "InfoNCE")
        >>> round(temperature.parts()["temperature"].item(), 4)
        0.1
    """

    def __init__(self, initial: float | Mapping[str, float], max_scale: float, pairs: Pairs, owner: str) -> None:
        super().__init__()
        if not 1 <= max_scale < math.inf:
            raise UsageError(f"{owner}: max_scale {max_scale} must be at least 1, and finite.")
        for temperature in initial.values() if isinstance(initial, Mapping) else [initial]:
            if not 1 / max_scale <= temperature <= 1:
                raise UsageError(
                    f"{owner}: temperature {temperature} lies outside [1 / max_scale, 1] = [{1 / max_scale}, 1]."
                )
        logs = {n: -math.log(t) for n, t in initial.items()} if isinstance(initial, Mapping) else -math.log(initial)
        self.log_scale = PairParameter(logs, pairs, owner, "temperature")
        self.max_log_scale = math.log(max_scale)

    def project(self) -> None:
        """Project the logarithm onto its interval, which an optimizer step may leave."""
        with torch.no_grad():
            self.log_scale.value.clamp_(0.0, self.max_log_scale)

    def scaled(self, pair: Pair) -> Pair:
        """Multiply the vectors of a pair's first modality by the logit scale, so that products with the second are logits."""
        scale = self.log_scale.of(pair.names).exp().to(pair.a.vectors.dtype)
        negatives = pair.negatives_of_b and pair.negatives_of_b._replace(vectors=scale * pair.negatives_of_b.vectors)
        return replace(pair, a=pair.a._replace(vectors=scale * pair.a.vectors), negatives_of_b=negatives)

    def parts(self) -> dict[str, Tensor]:
        """Return the temperatures, for the log."""
        return {f"temperature/{name}".rstrip("/"): (-t).exp() for name, t in self.log_scale.named().items()}
