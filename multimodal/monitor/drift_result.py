"""What a drift test found, as Python, text and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multimodal.monitor.two_samples import SetComparison


@dataclass(frozen=True)
class ModalityDrift:
    """The comparison of one modality, of all rows or of a slice.

    Attributes:
        units: all units of both sets. None: all of them are in both, so that only ``shared`` says something.
        shared: whether the units that are in both sets moved. None: fewer than 20 are.
        outside: "95" -> the fraction of current rows farther from the reference than 95 % of its own rows are from the others,
            and "99". Without drift, it is 5 % and 1 %.
        p_value: of both comparisons together.
        least_fitting: the current rows farthest from the reference: ``key``, and ``distance``, as a multiple of the distance
            within which 95 % of the reference rows are.
        most_moved: the rows with keys in both sets that moved most: ``key`` and ``cosine`` of both vectors.

    Examples:
        >>> units = SetComparison((80, 80), {"classifier": 0.7}, {"classifier": 0.01}, 0.01)
        >>> found = ModalityDrift(units, None, {"95": 0.2, "99": 0.1}, 0.01, [], [])
        >>> found.score, len(found.comparisons)
        (0.7, 1)
    """

    units: SetComparison | None
    shared: SetComparison | None
    outside: dict[str, float]
    p_value: float
    least_fitting: list[dict[str, Any]]
    most_moved: list[dict[str, Any]]

    @property
    def comparisons(self) -> list[SetComparison]:
        """The comparisons that were made, one or two."""
        return [found for found in (self.units, self.shared) if found is not None]

    @property
    def score(self) -> float:
        """How well a linear classifier distinguishes the sets: 0.5 not at all, 1 each row."""
        return max(found.values["classifier"] for found in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "p_value": self.p_value,
            "score": self.score,
            "units": _comparison_json(self.units),
            "shared": _comparison_json(self.shared),
            "outside": self.outside,
            "least_fitting": self.least_fitting,
            "most_moved": self.most_moved,
        }


@dataclass(frozen=True)
class Drift:
    """What ``drift`` found.

    Attributes:
        p_value: the one number to alert on.
        alpha: the level.
        modalities: modality -> its comparison.
        slices: column -> value -> modality -> its comparison.
        reference: name of the reference.
        current: name of the current set.
        left_out: modalities and slices that were not compared, and why.

    Examples:
        >>> units = SetComparison((80, 80), {"classifier": 0.7}, {"classifier": 0.01}, 0.01)
        >>> text = ModalityDrift(units, None, {"95": 0.2, "99": 0.1}, 0.01, [], [])
        >>> Drift(0.01, 0.05, {"text": text}, {}, "march", "may", {})
        Drift: p = 0.01 (level 0.05), score 0.700
          text: 80 and 80 units, p = 0.01, AUC 0.700; 20.0% outside (5% expected)
    """

    p_value: float
    alpha: float
    modalities: dict[str, ModalityDrift]
    slices: dict[str, dict[str, dict[str, ModalityDrift]]]
    reference: str
    current: str
    left_out: dict[str, str]

    @property
    def drifted(self) -> bool:
        """Whether the p-value is below the level."""
        return self.p_value < self.alpha

    @property
    def score(self) -> float:
        """How large the drift is: the largest score of a modality. 0.5: none, 1: a linear classifier finds each current row."""
        return max(found.score for found in self.modalities.values())

    def __repr__(self) -> str:
        verdict = "Drift" if self.drifted else "No drift was found"
        lines = [f"{verdict}: p = {self.p_value:.3g} (level {self.alpha:g}), score {self.score:.3f}"]
        for modality, found in self.modalities.items():
            lines.append(f"  {modality}: {_described(found)}")
        for column, values in self.slices.items():
            for value, of_value in values.items():
                lines += [
                    f"  {column}={value}, {modality}: {_described(found)}" for modality, found in of_value.items()
                ]
        lines += [f"  {name}: not compared, {why}" for name, why in self.left_out.items()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "drifted": self.drifted,
            "p_value": self.p_value,
            "alpha": self.alpha,
            "score": self.score,
            "reference": self.reference,
            "current": self.current,
            "modalities": {modality: found.to_json() for modality, found in self.modalities.items()},
            "slices": {
                column: {value: {m: found.to_json() for m, found in of.items()} for value, of in values.items()}
                for column, values in self.slices.items()
            },
            "left_out": self.left_out,
        }


def _described(found: ModalityDrift) -> str:
    parts = []
    for name, of in (("", found.units), ("in both sets ", found.shared)):
        if of is not None:
            rows = f"{of.rows[0]:,}" if name else f"{of.rows[0]:,} and {of.rows[1]:,} units"
            parts.append(f"{name}{rows}, p = {of.p_value:.3g}, AUC {of.values['classifier']:.3f}")
    return f"{'; '.join(parts)}; {found.outside['95']:.1%} outside (5% expected)"


def _comparison_json(found: SetComparison | None) -> Mapping[str, Any] | None:
    if found is None:
        return None
    return {
        "reference": found.rows[0],
        "current": found.rows[1],
        "p_value": found.p_value,
        "measures": {name: {"value": found.values[name], "p_value": p} for name, p in found.p_values.items()},
    }
