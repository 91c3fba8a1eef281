"""Train a configuration with several settings, and compare the results."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal.core.arguments import check_types
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.files import check_folder
from multimodal.core.folder_lock import write_lock
from multimodal.core.hardware import cores
from multimodal.core.progress import duration
from multimodal.core.yaml_file import read_yaml
from multimodal.data.run_data import load_run_data
from multimodal.evaluation.callback import MONITORED_METRIC
from multimodal.evaluation.compare import compare
from multimodal.evaluation.comparison import Comparison
from multimodal.experiment.lightning_cli import completed_from_arguments
from multimodal.experiment.sweep.grid import as_arguments, combinations, parse_grid, single_settings
from multimodal.experiment.sweep.jobs import Ended, Job, run_jobs
from multimodal.experiment.sweep.proposals import Proposals
from multimodal.experiment.sweep.results import Sweep
from multimodal.experiment.sweep.run_measures import check_measure, count_weights, mode_of, value_of_model
from multimodal.experiment.sweep.state import SweepRun, SweepState

FIT = (sys.executable, "-m", "multimodal", "fit")
CHOSEN_HERE = (
    "The baseline is the best of these runs on the same queries, so its lead is overstated: of ten equal runs, one would seem"
    " to lag behind in a tenth of all sweeps. Confirm the choice on the test split."
)
LOG_FOLDER = "logs"  # of what the trainings print


def sweep(
    config: str | Path,
    grid: Mapping[str, Any],
    out: str | Path | None = None,
    *,
    optuna: int | None = None,
    measure: str | None = None,
    split: str | list[str] | None = None,
    jobs: int = 1,
    devices: Sequence[int] | None = None,
    trust_modules: Sequence[str] = (),
) -> Sweep:
    """Train a configuration with each combination of settings, as ``multimodal fit`` does, and compare the results.

    Each run has a folder in the sweep's folder, and is trained by a process of its own. The same call resumes a sweep that was
    stopped or killed: a finished run is not repeated, others continue from their last checkpoint, failed ones are tried
    again. A run that fails is recorded with its error, and the others are trained.

    Args:
        config: a YAML file like ``configs/glyphs.yaml``.
        grid: key -> a list of values, as a list or a text: ``{"model.dim": [64, 256]}`` or ``{"model.dim": "64,256"}``; with
            ``optuna``, also a range: ``{"model.optimizer.init_args.lr": "0.0001..0.01"}``.
        out: the sweep's folder. None: ``sweeps/`` and the configuration's name.
        optuna: train this many runs, whose settings Optuna chooses by the results so far. None: all combinations.
        measure: by which runs are chosen, as training logs it: ``"val/text->image/mrr"``. It is read at the validation whose
            model the run saved, the best by its ``monitor``. None: the configuration's ``monitor``.
        split: split on which finished runs are compared. None: the validation split, so that the test split remains unused.
        jobs: trainings at the same time, which share the processor cores.
        devices: numbers of GPUs, on each of which one training runs at a time. None: what each training finds.
        trust_modules: modules that each training imports, such as those of encoders of your own.

    Returns:
        The runs, and the comparison of the finished ones with the best; ``sweep.json``, ``sweep.md`` and ``sweep.png`` in the
        folder have them too.

    Raises:
        MultimodalError: the configuration or the folder cannot be used, another process works on it, no run finished, or a
            signal stopped the sweep.
        UsageError: a key is unknown or has a wrong value, or the folder holds a sweep with other settings.
    """
    given = {"config": config, "out": out, "optuna": optuna, "measure": measure, "jobs": jobs, "devices": devices}
    check_types("sweep", sweep, given)
    values = parse_grid(grid)
    if optuna is None:
        list(combinations(values))  # a range is an error
    if (optuna is not None and optuna < 1) or jobs < 1:
        raise UsageError("A sweep needs at least one run, and one at a time.")
    environments = _environments(jobs, devices)
    configuration = read_yaml(Path(config))
    if not isinstance(configuration, dict):
        raise MultimodalError(f"The configuration {config} is not a mapping of settings.")
    measure = measure or configuration.get("monitor") or MONITORED_METRIC
    for settings in single_settings(values):
        check_measure(measure, completed_from_arguments(["--config", str(config), *as_arguments(settings)]))
    folder = Path("sweeps") / Path(config).stem if out is None else Path(out)
    check_folder(folder)
    state = SweepState(folder, str(config), configuration, values, optuna is not None)
    with write_lock(folder):
        resumed = state.load()
        proposals = None if optuna is None else Proposals(values, mode_of(measure), _with_values(state, measure))
        if not resumed and proposals is None:
            all_settings = list(combinations(values))
            for settings in all_settings:
                state.add(settings, len(all_settings))
        _check_not_running(state)
        state.save()
        _Training(state, measure, proposals, optuna or len(state.runs), trust_modules).run(environments)
        _with_values(state, measure)
        result = Sweep(folder, str(config), values, measure, tuple(state.runs))
        if not result.ranked:
            failed = next(run for run in state.runs if run.error)
            raise MultimodalError(f"No run of the sweep finished. {failed.name} failed: {failed.error}")
        comparison, notes = _compare(state, result, split)
        result = Sweep(folder, str(config), values, measure, tuple(state.runs), comparison, notes)
        state.save(result.results())
        result.save()
    return result


def _environments(jobs: int, devices: Sequence[int] | None) -> list[dict[str, str]]:
    """Return the environment variables of each device, or of each of the trainings that share the cores."""
    if devices is None:
        environments: list[dict[str, str]] = [{} for _ in range(jobs)]
    else:
        import torch

        if jobs != 1:
            raise UsageError("jobs and devices exclude each other: one training runs on each device.")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        ids = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
        for device in devices:
            if not 0 <= device < min(len(ids), torch.cuda.device_count()):
                raise UsageError(f"There is no GPU {device}: {torch.cuda.device_count()} GPUs were found.")
        if len(set(devices)) < len(devices) or not devices:
            raise UsageError("devices are the numbers of different GPUs, as 0,1.")
        environments = [{"CUDA_VISIBLE_DEVICES": ids[device]} for device in devices]
    if len(environments) > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, cores() // len(environments))
        environments = [environment | {"OMP_NUM_THREADS": str(threads)} for environment in environments]
    return environments


def _with_values(state: SweepState, measure: str) -> list[SweepRun]:
    """Read the measure of the finished runs from their logs."""
    for run in state.runs:
        if run.state == "finished":
            run.value = value_of_model(state.path(run), measure)
    return state.runs


def _check_not_running(state: SweepState) -> None:
    """Check that no training of a killed sweep is still running; its folder's lock says who it is."""
    for run in state.runs:
        if run.state != "finished" and state.path(run).is_dir():
            with write_lock(state.path(run)):
                pass


class _Training:
    """Trains the runs of a sweep that are not finished."""

    def __init__(
        self, state: SweepState, measure: str, proposals: Proposals | None, total: int, trusted: Sequence[str]
    ) -> None:
        self.state, self.measure, self.proposals, self.total, self.trusted = state, measure, proposals, total, trusted
        self.pending = [run for run in state.runs if run.state != "finished"]
        self.by_name = {run.name: run for run in state.runs}

    def run(self, environments: Sequence[Mapping[str, str]]) -> None:
        before = sum(run.state == "finished" for run in self.state.runs)
        if before:
            self._say(f"{before:,} of {self.total:,} runs had finished before.")
        run_jobs(self._next, environments, self._started, self._ended)

    def _next(self) -> Job | None:
        if self.pending:
            run = self.pending.pop(0)
        elif self.proposals is not None and len(self.state.runs) < self.total:
            trial, settings = self.proposals.propose()
            run = self.state.add(settings, self.total)
            self.proposals.started(trial, run)
            self.by_name[run.name] = run
        else:
            return None
        run.state, run.error = "unfinished", None
        self.state.save()
        path = self.state.path(run)
        command = [
            *FIT,
            "--config",
            self.state.config,
            *as_arguments(run.settings),
            f"--run={path}",
            "--ckpt_path=last",
            *(f"--trust_module={name}" for name in self.trusted),
        ]
        return Job(run.name, command, self.state.folder / LOG_FOLDER / f"{run.name}.log")

    def _started(self, job: Job, device: int) -> None:
        self._say(f"{job.name}: training; what it prints is in {job.log}")

    def _ended(self, ended: Ended) -> None:
        run = self.by_name[ended.job.name]
        run.seconds += ended.seconds
        run.state, run.error = ("finished", None) if ended.error is None else ("failed", ended.error)
        if run.state == "finished":
            run.value = value_of_model(self.state.path(run), self.measure)
            run.weights = count_weights(self.state.path(run))
        if self.proposals is not None:
            self.proposals.ended(run)
        self.state.save()
        done = sum(r.state != "unfinished" for r in self.state.runs)
        value = "not logged" if run.value is None else f"{run.value:.4f}"
        what = f"failed: {run.error}" if run.error else f"{self.measure} {value}, {duration(run.seconds)}"
        self._say(f"[{done}/{self.total}] {run.name}: {what}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _compare(
    state: SweepState, result: Sweep, split: str | list[str] | None
) -> tuple[Comparison | None, tuple[str, ...]]:
    """Compare the finished runs with the best, which comes first; a note says why they cannot be."""
    ranked = result.ranked
    if len(ranked) < 2:
        return None, ("There is one finished run, so nothing is compared.",)
    folders: dict[str, Path] = {run.name: state.path(run) for run in ranked}
    try:
        of_choice = load_run_data(folders[ranked[0].name]).validation_split
        return compare(folders, split=split or of_choice), (CHOSEN_HERE,) if split in (None, of_choice) else ()
    except MultimodalError as error:
        return None, (f"The runs are not compared: {error}",)
