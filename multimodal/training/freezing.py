"""Which parameters of the encoders are trained at which step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.core.layers import match_parameter_names

Freeze = str | dict[int, str]
VECTORS = "vectors"
WHOLE = ("all", VECTORS)  # what freezes the whole encoder


class Freezing:
    """Freezes parts of encoders from given steps on.

    Args:
        embedder: its encoders are frozen as at step 0.
        freeze: modality -> "all" (of the encoder), "vectors" (the head too, so that the vectors stay the same bit for bit),
            "none", or a regular expression of names of the encoder's parameters; or a mapping from the step at which each
            begins, before which nothing is frozen.

    Attributes:
        always_frozen: the modalities whose encoder is completely frozen at every step, except encoders without weights.

    Raises:
        UsageError: an unknown modality, a pattern that matches nothing, an encoder that has adapters, a negative step.

    Examples:
        >>> from multimodal import Embedder, create
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> freezing = Freezing(embedder, {"text": {0: "all", 100: "none"}})
        >>> len(freezing.trained) == len(list(embedder.parameters())), freezing.always_frozen
        (True, frozenset())
    """

    def __init__(self, embedder: Embedder, freeze: Mapping[str, Freeze]) -> None:
        self._embedder = embedder
        self._stages = {m: {0: spec} if isinstance(spec, str) else dict(spec) for m, spec in freeze.items()}
        self._frozen: dict[tuple[str, str], set[str]] = {}
        for modality, stages in self._stages.items():
            embedder.own_encoder(modality, "freeze")
            if modality in embedder.lora:
                raise UsageError(
                    f"freeze.{modality}: lora.{modality} freezes the encoder's own weights already; set one of the two."
                )
            if not stages or min(stages) < 0:
                raise UsageError(f"freeze.{modality}: give at least one step, each at least 0; got {stages}.")
            for spec in stages.values():
                self._frozen[modality, spec] = self._frozen_names(modality, spec)
        self.always_frozen = frozenset(
            sharing
            for m, stages in self._stages.items()
            if set(stages.values()) <= {*WHOLE}
            and 0 in stages
            and all(self._frozen[m, spec] for spec in stages.values())
            for sharing in embedder.modalities_sharing(m)
        )
        self._number = -1
        self.steps = sorted({0, *(step for stages in self._stages.values() for step in stages)})
        self._trained_names: set[str] = set()
        for step in reversed(self.steps):  # it ends with the state of the first step
            self.apply(step)
            self._trained_names |= {name for name, p in embedder.named_parameters() if p.requires_grad}

    @property
    def trained(self) -> list[nn.Parameter]:
        """The embedder's parameters that are trained at some step."""
        return [p for name, p in self._embedder.named_parameters() if name in self._trained_names]

    def apply(self, step: int) -> bool:
        """Freeze what is frozen at a step; return whether that changed."""
        number = sum(start <= step for start in self.steps)
        if number == self._number:
            return False
        self._number = number
        for modality, stages in self._stages.items():
            started = [start for start in stages if start <= step]
            frozen = self._frozen[modality, stages[max(started)]] if started else set()
            for name, parameter in self._embedder.encoder(modality).named_parameters():
                parameter.requires_grad_(name not in frozen)
            for parameter in self._embedder.heads[modality].parameters():
                parameter.requires_grad_(not (started and stages[max(started)] == VECTORS))
        self._embedder.train(self._embedder.training)
        return True

    def _frozen_names(self, modality: str, spec: str) -> set[str]:
        names = [name for name, _ in self._embedder.encoder(modality).named_parameters()]
        if spec in (*WHOLE, "none"):
            return set() if spec == "none" else set(names)
        return set(match_parameter_names(names, spec, f"freeze.{modality}"))
