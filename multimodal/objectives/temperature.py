"""The learnable temperature, one for all pairs of modalities or one for each."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from multimodal.core.errors import UsageError
from multimodal.objectives.pairs import Pair, Pairs, match_pair_name, parse_names
from multimodal.objectives.tiles import Block


class PairParameter(nn.Module):
    """A learned scalar, one for all pairs or one for each name of pairs.

    Args:
        initial: its first value; or for each name (``*`` as in ``Pairs``) a value of its own.
        pairs: every one of these must find its value.
        owner, what: the names of the objective and of the setting, for errors.
    """

    def __init__(self, initial: float | Mapping[str, float], pairs: Pairs, owner: str, what: str) -> None:
        super().__init__()
        self._places: dict[tuple[str, str], int] = {}
        if not isinstance(initial, Mapping):
            self.value = nn.Parameter(torch.tensor(float(initial)))
            return
        self._places = {name: place for place, name in enumerate(parse_names(initial, owner))}
        self.value = nn.Parameter(torch.tensor([float(value) for value in initial.values()]))
        for pair in pairs.weights:
            if match_pair_name(pair, self._places) is None:
                raise UsageError(
                    f"{owner}: {what} has no value for the pair {'-'.join(pair)!r}; give it one, or '*-*'."
                )

    def of(self, pair: tuple[str, str]) -> Tensor:
        """The scalar for a pair."""
        name = match_pair_name(pair, self._places)
        return self.value if name is None else self.value[self._places[name]]

    def named(self) -> dict[str, Tensor]:
        """Each value, detached, under the name of its pairs; under "" if it is one for all."""
        value = self.value.detach()
        return {"-".join(name): value[place] for name, place in self._places.items()} or {"": value}


class Temperature(nn.Module):
    r"""A learned temperature, one for all pairs or one for each name of pairs.

    What is learned is the logarithm t of the logit scale :math:`e^t`, the inverse of the temperature, as in CLIP;
    before each use t is projected onto :math:`[0, \log(\text{max\_scale})]`, so that the scale can neither explode nor
    vanish. One for all pairs is the default: then cosines of different pairs stay comparable, as a search over several
    modalities at once needs; ImageBind has one for each pair.

    Args:
        initial: in [1 / max_scale, 1].
        max_scale: the bound of the logit scale; CLIP's is 100.
        pairs, owner: as in ``PairParameter``.
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
        """The projection after the optimizer's last step."""
        with torch.no_grad():
            self.log_scale.value.clamp_(0.0, self.max_log_scale)

    def scaled(self, pair: Pair) -> Block:
        """The first vectors of a pair times the logit scale, so that products with the second are logits."""
        scale = self.log_scale.of(pair.names).exp().to(pair.a.vectors.dtype)
        return Block(scale * pair.a.vectors, pair.a.groups)

    def parts(self) -> dict[str, Tensor]:
        """The temperatures, for the log."""
        return {f"temperature/{name}".rstrip("/"): (-t).exp() for name, t in self.log_scale.named().items()}
