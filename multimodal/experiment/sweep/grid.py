"""The keys of a sweep, their values, and the combinations of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml

from multimodal.core.errors import UsageError, shown

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
SET_BY_SWEEP = ("run", "config", "ckpt_path", "trainer.default_root_dir")
DECADE = 10.0  # a range of positive numbers that spans one is drawn by its logarithm
MAX_NAME = 100  # characters of a run's name


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, written ``low..high``; whole numbers if both are.

    Examples:
        >>> Range(16, 256).is_log, Range(0.1, 0.5).is_log
        (True, False)
    """

    low: float
    high: float

    @property
    def is_whole(self) -> bool:
        """Whether the numbers are whole: both ends are."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def is_log(self) -> bool:
        """Whether numbers are drawn by their logarithm: the range spans a decade."""
        return self.low > 0 and self.high / self.low >= DECADE

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


Values = list[Any] | Range


def parse_grid(grid: Mapping[str, Any]) -> dict[str, Values]:
    """Return the values of each key.

    Args:
        grid: key of a configuration -> a list of values, or a text: ``"64,256"``, or a range ``"0.001..0.1"``.

    Raises:
        UsageError: there is no key, a key has no value or one twice, or a sweep sets it itself.

    Examples:
        >>> parse_grid({"model.dim": "64,256", "model.optimizer.init_args.lr": "0.001..0.1"})
        {'model.dim': [64, 256], 'model.optimizer.init_args.lr': Range(low=0.001, high=0.1)}
    """
    if not grid:
        raise UsageError("A sweep needs a key with its values, as --grid model.dim=64,256.")
    return {key: _values(key, given) for key, given in grid.items()}


def _values(key: str, given: Any) -> Values:
    if key in SET_BY_SWEEP:
        raise UsageError(f"{key} is set by the sweep, for each run; --out names the sweep's folder.")
    if not re.fullmatch(r"\w[\w.-]*", key):
        raise UsageError(f"{shown(key)!r} is not the key of a setting; write it as model.dim=64,256.")
    if isinstance(given, str) and (found := re.fullmatch(rf"({NUMBER})\.\.({NUMBER})", given.strip())):
        low, high = (int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text) for text in found.groups())
        if low >= high:
            raise UsageError(f"{key}: the range {given} ends before it begins; write it as low..high.")
        return Range(low, high)
    if isinstance(given, str):
        try:
            given = yaml.safe_load(f"[{given}]")
        except yaml.YAMLError as error:
            raise UsageError(f"{key}: {shown(given)!r} is not a list of values; write it as 64,256.") from error
    if not isinstance(given, Sequence) or not given:
        raise UsageError(f"{key} has no values; write it as {key}=64,256.")
    texts = [as_text(value) for value in given]
    if repeated := [text for n, text in enumerate(texts) if text in texts[:n]]:
        raise UsageError(f"{key} has the value {repeated[0]} twice.")
    return list(given)


def combinations(grid: Mapping[str, Values]) -> Iterator[dict[str, Any]]:
    """Yield every combination of values, the last key's changing fastest.

    Raises:
        UsageError: a key has a range, of which there are no combinations.

    Examples:
        >>> list(combinations({"model.dim": [64, 256], "seed_everything": [0]}))
        [{'model.dim': 64, 'seed_everything': 0}, {'model.dim': 256, 'seed_everything': 0}]
    """
    values = []
    for key, of_key in grid.items():
        if isinstance(of_key, Range):
            raise UsageError(f"{key} has the range {of_key}, from which only --optuna N can choose; list its values.")
        values.append(of_key)
    for chosen in product(*values):
        yield dict(zip(grid, chosen, strict=True))


def single_settings(grid: Mapping[str, Values]) -> Iterator[dict[str, Any]]:
    """Yield settings in which each value of each key occurs; the other keys have their first value."""
    ends = {key: [of_key.low, of_key.high] if isinstance(of_key, Range) else of_key for key, of_key in grid.items()}
    first = {key: values[0] for key, values in ends.items()}
    yield first
    for key, values in ends.items():
        for value in values[1:]:
            yield first | {key: value}


def as_text(value: Any) -> str:
    """Return a value as a configuration's option takes it.

    Examples:
        >>> as_text("cnn"), as_text(None), as_text([1, 2]), as_text(True)
        ('cnn', 'null', '[1, 2]', 'true')
    """
    return value if isinstance(value, str) else json.dumps(value)


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as options of ``multimodal fit``.

    Examples:
        >>> as_arguments({"model.dim": 64})
        ['--model.dim=64']
    """
    return [f"--{key}={as_text(value)}" for key, value in settings.items()]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each key that no other key has.

    Examples:
        >>> short_names(["model.dim", "encoders.text.init_args.width", "encoders.image.init_args.width"]).values()
        dict_values(['dim', 'text.width', 'image.width'])
    """
    parts = {key: [part for part in key.split(".") if part not in ("init_args", "class_path")] or [key] for key in keys}
    names = {}
    for key, own in parts.items():
        ends = (".".join(own[-n:]) for n in range(1, len(own) + 1))
        others = [".".join(["", *other]) for another, other in parts.items() if another != key]
        names[key] = next((end for end in ends if not any(o.endswith(f".{end}") for o in others)), key)
    return names


def run_name(number: int, width: int, settings: Mapping[str, Any], grid: Mapping[str, Values]) -> str:
    """Return the name of a run, which is that of its folder.

    Args:
        number: of the run, from 1.
        width: digits of the number.
        settings: of the run; keys with a single value are left out.
        grid: the keys of the sweep.

    Examples:
        >>> run_name(3, 2, {"model.dim": 64, "seed_everything": 0}, {"model.dim": [32, 64], "seed_everything": [0]})
        '03_dim=64'
    """
    varied = [key for key, values in grid.items() if isinstance(values, Range) or len(values) > 1]
    short = short_names(varied)
    texts = [f"{short[key]}={_short_text(settings[key])}" for key in varied]
    return re.sub(r"[^\w.=+-]", "-", "_".join([f"{number:0{width}d}", *texts]))[:MAX_NAME]


def _short_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else as_text(value)
