"""What a sweep has done, in its folder: ``sweep.json``, from which it resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from multimodal.core.errors import MultimodalError, UsageError, shown
from multimodal.core.json_file import read_json
from multimodal.core.run_folder import RUN_MODEL
from multimodal.experiment.sweep.grid import Range, Values, run_name

FILE = "sweep.json"
State = Literal["unfinished", "finished", "failed"]


@dataclass
class SweepRun:
    """One run of a sweep.

    Attributes:
        name: of its folder in the sweep's folder.
        settings: key -> value.
        state: "unfinished" also if it has not begun.
        error: what a failed run printed last.
        seconds: of its training, over all starts.
        value: the measure by which runs are chosen, at the validation of the saved model. None: there is none.
        weights: number of numbers in the saved model.
    """

    name: str
    settings: dict[str, Any]
    state: State = "unfinished"
    error: str | None = None
    seconds: float = 0.0
    value: float | None = None
    weights: int | None = None


@dataclass
class SweepState:
    """The runs of a sweep, and what they were made from.

    Attributes:
        folder: the sweep's folder.
        config: path of the configuration.
        configuration: its contents.
        grid: key -> its values.
        proposed: whether Optuna proposes the settings, rather than all combinations being run.
        runs: in the order in which they begin.

    Examples:
        >>> state = SweepState(Path("sweeps/pairs"), "pairs.yaml", {}, {"model.dim": [64, 256]}, proposed=False)
        >>> state.path(state.add({"model.dim": 64}, total=2)).as_posix()
        'sweeps/pairs/1_dim=64'
    """

    folder: Path
    config: str
    configuration: Any
    grid: Mapping[str, Values]
    proposed: bool
    runs: list[SweepRun] = field(default_factory=list)

    def add(self, settings: dict[str, Any], total: int) -> SweepRun:
        """Add a run, named by its number among ``total`` and by its settings."""
        run = SweepRun(run_name(len(self.runs) + 1, len(str(total)), settings, self.grid), settings)
        self.runs.append(run)
        return run

    def path(self, run: SweepRun) -> Path:
        """The run's folder."""
        return self.folder / run.name

    def load(self) -> bool:
        """Read the runs of an earlier start, and return whether there was one.

        A run whose model has gone since is run again.

        Raises:
            MultimodalError: the folder holds something else, or ``sweep.json`` is damaged.
            UsageError: the sweep was started with another configuration or grid.
        """
        path = self.folder / FILE
        if not path.is_file():
            others = (
                [p.name for p in self.folder.iterdir() if not p.name.startswith(".")] if self.folder.is_dir() else []
            )
            if others:
                raise MultimodalError(
                    f"{self.folder} is not empty and holds no {FILE}; name another folder with --out."
                )
            return False
        try:
            saved = read_json(path)
            runs = [SweepRun(**{key: run[key] for key in SweepRun.__dataclass_fields__}) for run in saved["runs"]]
            settings = {key: saved[key] for key in ("configuration", "grid", "proposed")}
            if not all(Path(run.name).name == run.name and run.name not in ("", "..") for run in runs):
                raise ValueError("a run's name is not that of a folder in it")
        except (ValueError, KeyError, TypeError) as error:
            raise MultimodalError(f"{path} is damaged ({shown(error)}); name another folder with --out.") from error
        self._check_same(settings)
        for run in runs:
            if run.state == "finished" and not (self.path(run) / RUN_MODEL).is_dir():
                run.state = "unfinished"
        self.runs = runs
        return True

    def _check_same(self, saved: Mapping[str, Any]) -> None:
        ours = self._settings()
        what = {
            "grid": "with the grid {}, not {}",
            "configuration": "before the configuration {config} was changed",
            "proposed": "with --optuna" if saved["proposed"] else "without --optuna",
        }
        for key in ("grid", "proposed", "configuration"):
            if ours[key] != saved[key]:
                how = what[key].format(shown(json.dumps(saved[key])), shown(json.dumps(ours[key])), config=self.config)
                raise UsageError(
                    f"The sweep in {self.folder} was started {how}. Resume it as it was started, or name another folder with"
                    " --out."
                )

    def _settings(self) -> dict[str, Any]:
        grid = {key: str(values) if isinstance(values, Range) else values for key, values in self.grid.items()}
        return json.loads(
            json.dumps({"configuration": self.configuration, "grid": grid, "proposed": self.proposed}, default=str)
        )

    def save(self, results: Mapping[str, Any] | None = None) -> None:
        """Write ``sweep.json``; the previous one is kept until the new one is complete on disk.

        Args:
            results: more to write, at the end.
        """
        document = {"config": self.config} | self._settings() | {"runs": [asdict(run) for run in self.runs]}
        new = self.folder / f".{FILE}.new"
        with new.open("w", encoding="utf-8") as file:
            json.dump(document | dict(results or {}), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.folder / FILE)
