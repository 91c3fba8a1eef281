"""Settings that Optuna proposes from the results so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from multimodal.core.extras import require
from multimodal.experiment.sweep.grid import Range, Values, as_text
from multimodal.experiment.sweep.state import SweepRun


class Proposals:
    """Proposes settings by a tree-structured Parzen estimator, and learns from their results.

    Args:
        grid: key -> its values, of which one is chosen, or a range.
        mode: whether the highest or the lowest result is the best.
        runs: those of earlier starts; finished ones are results, the others are running again.

    Raises:
        UsageError: Optuna is not installed.

    Source: Bergstra et al. 2011; the library is Optuna (Akiba et al. 2019).

    Examples:
        >>> _, settings = Proposals({"model.dim": [64, 256], "lr": Range(0.001, 0.1)}, "max", []).propose()
        >>> settings["model.dim"] in (64, 256), 0.001 <= settings["lr"] <= 0.1
        (True, True)
    """

    def __init__(self, grid: Mapping[str, Values], mode: Literal["max", "min"], runs: Iterable[SweepRun]) -> None:
        require("optuna", "Choosing settings by --optuna", "optuna")
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._values = {key: {as_text(v): v for v in of} for key, of in grid.items() if not isinstance(of, Range)}
        self._distributions: dict[str, Any] = {}
        for key, of_key in grid.items():
            if isinstance(of_key, Range) and of_key.is_whole:
                self._distributions[key] = IntDistribution(int(of_key.low), int(of_key.high), log=of_key.is_log)
            elif isinstance(of_key, Range):
                self._distributions[key] = FloatDistribution(of_key.low, of_key.high, log=of_key.is_log)
            else:
                self._distributions[key] = CategoricalDistribution(list(self._values[key]))
        runs = list(runs)
        # proposals of a resumed sweep are others than those that began it; of running trials the worst is assumed
        sampler = optuna.samplers.TPESampler(seed=len(runs), constant_liar=True)
        direction = "maximize" if mode == "max" else "minimize"
        self._study = optuna.create_study(direction=direction, sampler=sampler)
        self._trials: dict[str, Any] = {}
        for run in runs:
            params = {key: run.settings[key] if key not in self._values else as_text(run.settings[key]) for key in grid}
            if run.state == "finished" and run.value is not None:
                trial = optuna.trial.create_trial(params=params, distributions=self._distributions, value=run.value)
                self._study.add_trial(trial)
            elif run.state != "finished":
                self._study.enqueue_trial(params)
                self._trials[run.name] = self._study.ask(self._distributions)

    def propose(self) -> tuple[Any, dict[str, Any]]:
        """Return a trial, to be passed to ``started``, and its settings."""
        trial = self._study.ask(self._distributions)
        return trial, {
            key: self._values[key][value] if key in self._values else value for key, value in trial.params.items()
        }

    def started(self, trial: Any, run: SweepRun) -> None:
        """Record which run a trial is."""
        self._trials[run.name] = trial

    def ended(self, run: SweepRun) -> None:
        """Learn a run's result."""
        trial = self._trials.pop(run.name)
        if run.value is None:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, run.value)
